//! Close-by ranges that are wanted at the same moment are asked for as one.
//!
//! A map asks for neighbours at once, and an archive has neighbours next to each other. Whoever asks first
//! waits for [`WINDOW`] and parts what has come by then into groups; the first of each group asks for all
//! of it and hands out. Nobody depends on another one's patience: when the one who asks hangs up, the
//! others begin anew. So there are never more requests under way than there are callers.

use std::mem;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::version::Version;
use super::{Asked, RangeReply, RangeRequest, RangeSource, lock};
use crate::origin::{OriginError, OriginErrorKind};

/// How long the first one waits for others: a tenth of what S3 takes for its first byte.
pub(super) const WINDOW: Duration = Duration::from_millis(2);
/// Up to so many bytes between two ranges are read for nothing: less than a millisecond's worth.
pub(super) const MAX_GAP: u64 = 64 << 10;
/// No merged range is longer.
pub(super) const MAX_MERGED: u64 = 1 << 20;

/// Why a range did not come.
#[derive(Debug, Clone)]
pub(super) enum Trouble {
    /// The archive is another one now.
    Changed,
    /// It failed.
    Failed(OriginError),
}

impl From<OriginError> for Trouble {
    fn from(error: OriginError) -> Self {
        Self::Failed(error)
    }
}

/// Those who wait for the end of a window.
#[derive(Default)]
pub(super) struct Merge(Mutex<Vec<Want>>);

/// One range that is wanted; an empty one wants to know whether the archive is the same still.
#[derive(Debug)]
struct Want {
    range: Range<u64>,
    turn: oneshot::Sender<Turn>,
}

/// What comes of waiting.
#[derive(Debug)]
enum Turn {
    /// Ask for this one's range and these together.
    Lead(Vec<Want>),
    /// Somebody else asked.
    Done(Result<Bytes, Trouble>),
}

/// The window, held by the one who opened it. If that one hangs up, those in it begin anew.
struct Window<'a>(Option<&'a Merge>);

impl Window<'_> {
    fn close(mut self) -> Vec<Want> {
        let merge = self.0.take();
        merge.map_or_else(Vec::new, |merge| mem::take(&mut *lock(&merge.0)))
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        if let Some(merge) = self.0 {
            lock(&merge.0).clear();
        }
    }
}

impl Merge {
    /// Whether it opens a window.
    fn join(&self, want: Want) -> Option<Window<'_>> {
        let mut queue = lock(&self.0);
        queue.push(want);
        // Lazily: a window that is dropped here would lock the queue again.
        (queue.len() == 1).then(|| Window(Some(self)))
    }
}

impl<S: RangeSource> Asked<'_, S> {
    /// Reads a range of this version, with its neighbours where some are wanted too.
    pub(super) async fn read(
        &self,
        version: &Version,
        range: Range<u64>,
    ) -> Result<Bytes, Trouble> {
        loop {
            let (turn, mine) = oneshot::channel();
            let want = Want {
                range: range.clone(),
                turn,
            };
            if let Some(window) = version.merge.join(want) {
                sleep(WINDOW).await;
                groups(window.close()).into_iter().for_each(hand_over);
            }
            match mine.await {
                Ok(Turn::Done(result)) => return result,
                Ok(Turn::Lead(others)) => return self.lead(version, range, others).await,
                // Who asked for it hung up.
                Err(_) => {}
            }
        }
    }

    /// Asks whether the archive is this version still.
    pub(super) async fn confirm(&self, version: &Version) -> Result<(), Trouble> {
        self.read(version, 0..0).await.map(|_| ())
    }

    async fn lead(
        &self,
        version: &Version,
        mine: Range<u64>,
        others: Vec<Want>,
    ) -> Result<Bytes, Trouble> {
        let all = others.iter().map(|want| &want.range);
        let all = all.chain([&mine]).filter(|range| !range.is_empty());
        let (start, end) = all.fold((u64::MAX, 0), |(start, end), range| {
            (range.start.min(start), range.end.max(end))
        });
        let whole = start..end;
        let result = self.ask(version, whole.clone()).await;
        self.counters
            .joined
            .fetch_add(others.len() as u64, Ordering::Relaxed);
        for other in others {
            // The deadline was mine alone: the others have their own.
            if let Err(Trouble::Failed(error)) = &result
                && error.kind == OriginErrorKind::Deadline
            {
                continue;
            }
            let part = result
                .clone()
                .map(|bytes| cut(&bytes, &whole, &other.range));
            // It may have hung up.
            let _ = other.turn.send(Turn::Done(part));
        }
        result.map(|bytes| cut(&bytes, &whole, &mine))
    }

    /// One request: a range of this version, or (`u64::MAX..0`) whether it is this version still.
    async fn ask(&self, version: &Version, whole: Range<u64>) -> Result<Bytes, Trouble> {
        self.counters.reads.fetch_add(1, Ordering::Relaxed);
        let held = || Some(version.validator.clone());
        let confirms = whole.is_empty();
        let request = RangeRequest {
            tileset: Arc::clone(&self.request.tileset),
            key: version.key.clone(),
            // With `If-None-Match` no byte of it is sent.
            range: if confirms { 0..1 } else { whole.clone() },
            only: if confirms { None } else { held() },
            unless: if confirms { held() } else { None },
            deadline: self.until.saturating_duration_since(Instant::now()),
        };
        match self.source.read(request).await? {
            // Gone: reading the header anew says what there is to say.
            RangeReply::Changed | RangeReply::NotFound => Err(Trouble::Changed),
            RangeReply::Part(part) if part.validator != version.validator => Err(Trouble::Changed),
            RangeReply::Part(_) | RangeReply::NotModified if confirms => Ok(Bytes::new()),
            RangeReply::Part(part) if part.body.len() as u64 == whole.end - whole.start => {
                Ok(part.body)
            }
            RangeReply::Part(_) | RangeReply::NotModified => Err(version.broken(
                &self.request.tileset,
                OriginErrorKind::Truncated,
                format_args!("bytes {}-{} are not all there", whole.start, whole.end - 1),
            )),
        }
    }
}

/// A copy: a cache that holds a tile must not hold its neighbours' bytes too.
fn cut(bytes: &Bytes, whole: &Range<u64>, range: &Range<u64>) -> Bytes {
    if range == whole {
        return bytes.clone();
    }
    if range.is_empty() {
        return Bytes::new();
    }
    let at = |offset: u64| usize::try_from(offset - whole.start).unwrap_or(usize::MAX);
    Bytes::copy_from_slice(
        bytes
            .get(at(range.start)..at(range.end))
            .unwrap_or_default(),
    )
}

/// Parts what is wanted into ranges worth asking for as one. Those that only want to know whether the
/// archive is the same go with the first: any answer tells them.
fn groups(mut wants: Vec<Want>) -> Vec<Vec<Want>> {
    wants.sort_by_key(|want| (want.range.is_empty(), want.range.start));
    let mut groups: Vec<(Range<u64>, Vec<Want>)> = Vec::new();
    for want in wants {
        if want.range.is_empty() {
            match groups.first_mut() {
                Some((_, first)) => first.push(want),
                None => groups.push((0..0, vec![want])),
            }
            continue;
        }
        let range = want.range.clone();
        match groups.last_mut() {
            Some((whole, group))
                if range.start <= whole.end.saturating_add(MAX_GAP)
                    && range.end.max(whole.end) - whole.start <= MAX_MERGED =>
            {
                whole.end = whole.end.max(range.end);
                group.push(want);
            }
            _ => groups.push((range, vec![want])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

/// Makes the first that still listens ask for all.
fn hand_over(mut group: Vec<Want>) {
    while !group.is_empty() {
        let first = group.remove(0);
        match first.turn.send(Turn::Lead(group)) {
            Err(Turn::Lead(rest)) => group = rest,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wants(ranges: &[Range<u64>]) -> Vec<Want> {
        let want = |range: &Range<u64>| Want {
            range: range.clone(),
            turn: oneshot::channel().0,
        };
        ranges.iter().map(want).collect()
    }

    #[test]
    fn what_lies_far_apart_or_would_be_too_long_is_asked_for_apart() {
        let far = MAX_GAP + 1;
        let sizes = |ranges: &[Range<u64>]| -> Vec<usize> {
            groups(wants(ranges)).iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(&[10..20, 0..10, 20 + MAX_GAP..30 + MAX_GAP]), [3]);
        assert_eq!(sizes(&[0..10, 10 + far..20 + far]), [1, 1]);
        assert_eq!(sizes(&[0..MAX_MERGED, MAX_MERGED..MAX_MERGED + 1]), [1, 1]);
        assert_eq!(sizes(&[0..0, 0..0]), [2]);
        assert_eq!(sizes(&[0..0, 5..6, 0..0]), [3]);
    }

    proptest! {
        #[test]
        fn every_want_is_in_one_group_within_the_bounds(
            ranges in proptest::collection::vec((0u64..4_000_000, 0u64..300_000), 1..40)
        ) {
            let ranges: Vec<_> = ranges.iter().map(|(start, length)| *start..start + length).collect();
            let groups = groups(wants(&ranges));
            prop_assert_eq!(groups.iter().map(Vec::len).sum::<usize>(), ranges.len());
            for group in groups {
                let all = group.iter().map(|want| &want.range).filter(|r| !r.is_empty());
                let start = all.clone().map(|r| r.start).min().unwrap_or(0);
                let end = all.map(|r| r.end).max().unwrap_or(0);
                prop_assert!(end - start <= MAX_MERGED);
            }
        }
    }
}
