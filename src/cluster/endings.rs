//! Ended sessions, between nodes: comparing all of them, and following those that come.
//!
//! Invariant: from the moment the comparison is done, whatever Redis has is ended here, and whatever was ended
//! here is in Redis or in the writer's queue. The stream's end is looked up before the set is read, so that
//! nothing falls between the two; the set is read with `ZSCAN`, which may repeat a member but leaves out none.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Pipeline, Value, cmd};
use tokio::sync::watch;
use tokio::time::Instant;

use super::connection::{Connection, Trouble};
use super::stream::{self, pairs};
use super::{Ending, Node, Shared, blocking};
use crate::clock::Timestamp;
use crate::metrics::{ClusterEvent, Message};

/// The sorted set.
pub(super) const ENDED: &str = "ended";
/// The stream.
pub(super) const ENDINGS: &str = "endings";

/// A later end than this is taken for this: what is written to Redis must not stay here for ever.
const LONGEST: Duration = Duration::from_hours(10 * 365 * 24);
/// Entries of the stream in one answer.
const PAGE: usize = 100;
/// Members of the set in one answer, about.
const SCAN: usize = 1_000;
/// Endings that are taken in one go: one wait for the disk.
const BATCH: usize = 8_192;
/// Most members that are looked at: more than any node keeps.
const SCAN_MOST: usize = 1_500_000;
/// Endings in one message.
const MESSAGE: usize = 500;
/// Messages that the stream keeps; who is further behind compares.
const STREAM_LENGTH: usize = 10_000;
/// Everything is compared so often, whether or not anything seems to be missing.
const COMPARE_EVERY: Duration = Duration::from_hours(1);

/// What a pair from Redis says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Ended(Ending),
    /// Every token of it has expired.
    Past,
    /// Nothing that a node writes.
    Malformed,
}

/// Compares, and then follows. Ends with what ended it.
pub(super) async fn follow(
    shared: &Shared,
    line: Connection,
    node: &Arc<dyn Node>,
    known: &watch::Sender<bool>,
) -> Trouble {
    match (Following {
        shared,
        line,
        node,
        full: false,
    })
    .on(known)
    .await
    {
        Ok(never) => match never {},
        Err(trouble) => trouble,
    }
}

struct Following<'a> {
    shared: &'a Shared,
    line: Connection,
    node: &'a Arc<dyn Node>,
    /// It has been said that there is no room.
    full: bool,
}

impl Following<'_> {
    async fn on(&mut self, known: &watch::Sender<bool>) -> Result<Infallible, Trouble> {
        let key = self.shared.key(ENDINGS);
        loop {
            let newest = stream::end(&mut self.line, &key, true).await?;
            let mut after = newest.unwrap_or_default();
            self.compare().await?;
            known.send_replace(true);
            let compared = Instant::now();
            while compared.elapsed() < COMPARE_EVERY {
                let entries = stream::news(&mut self.line, &key, after, PAGE).await?;
                let Some(last) = entries.last() else {
                    continue;
                };
                after = last.id;
                let fields = entries.into_iter().flat_map(|entry| entry.fields);
                let endings = self.read(fields);
                self.take(endings).await?;
            }
        }
    }

    /// Takes all that Redis has, and gives what it has not.
    async fn compare(&mut self) -> Result<(), Trouble> {
        let key = self.shared.key(ENDED);
        let mut theirs = HashMap::new();
        let mut batch = Vec::new();
        let (mut cursor, mut looked_at) = (0_u64, 0);
        loop {
            let mut question = cmd("ZSCAN");
            question.arg(&key).arg(cursor).arg("COUNT").arg(SCAN);
            let (next, flat): (u64, Vec<Value>) = self.line.ask(&question).await?;
            looked_at += flat.len() / 2;
            let endings = self.read(pairs(flat));
            theirs.extend(
                endings
                    .iter()
                    .map(|ending| (ending.id, seconds(ending.until))),
            );
            batch.extend(endings);
            cursor = next;
            let done = cursor == 0 || looked_at > SCAN_MOST;
            if done || batch.len() >= BATCH {
                self.take(std::mem::take(&mut batch)).await?;
            }
            if done {
                break;
            }
        }
        if cursor != 0 {
            self.refuse(1);
        }
        let (node, now) = (self.node.clone(), self.shared.clock.now());
        let ours = blocking(move || node.endings(now)).await;
        let mut ours = ours.ok_or(Trouble::Stopping)?;
        let longest = now + LONGEST;
        ours.retain(|ending| {
            let until = seconds(ending.until.min(longest));
            theirs.get(&ending.id).is_none_or(|known| *known < until)
        });
        for some in ours.chunks(MESSAGE) {
            self.line.tell(&message(self.shared, some, now)).await?;
            self.shared.sent(Message::Ending, count(some.len()));
        }
        Ok(())
    }

    /// What of these is about a session that could still be used.
    fn read(&self, pairs: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Vec<Ending> {
        let now = self.shared.clock.now();
        let mut endings = Vec::new();
        let mut malformed = 0;
        for (id, until) in pairs {
            match read(&id, &until, now) {
                Said::Ended(ending) => endings.push(ending),
                Said::Past => {}
                Said::Malformed => malformed += 1,
            }
        }
        self.shared.event(ClusterEvent::Ignored, malformed);
        endings
    }

    async fn take(&mut self, endings: Vec<Ending>) -> Result<(), Trouble> {
        if endings.is_empty() {
            return Ok(());
        }
        let (node, now) = (self.node.clone(), self.shared.clock.now());
        let ended = blocking(move || node.end(&endings, now)).await;
        let ended = ended.ok_or(Trouble::Stopping)?;
        self.shared.received(Message::Ending, ended.new);
        self.refuse(ended.refused);
        Ok(())
    }

    fn refuse(&mut self, count: u64) {
        if count == 0 {
            return;
        }
        self.shared.event(ClusterEvent::NoRoom, count);
        if !std::mem::replace(&mut self.full, true) {
            tracing::warn!(
                "[cluster] Redis names more ended sessions than a node keeps: some are not refused here; look at \
                 who else writes to it"
            );
        }
    }
}

/// Both in one go: the set for those who come later, the stream for those who are there.
pub(super) fn message(shared: &Shared, endings: &[Ending], now: Timestamp) -> Pipeline {
    let (mut set, mut add) = (cmd("ZADD"), Cmd::new());
    set.arg(shared.key(ENDED)).arg("GT");
    add.arg("XADD").arg(shared.key(ENDINGS));
    add.arg("MAXLEN").arg("~").arg(STREAM_LENGTH).arg("*");
    for ending in endings {
        let id = format!("{:032x}", ending.id);
        let until = seconds(ending.until.min(now + LONGEST));
        set.arg(until).arg(&id);
        add.arg(&id).arg(until);
    }
    let mut pipeline = redis::pipe();
    pipeline.add_command(set).ignore();
    pipeline.add_command(add).ignore();
    pipeline
}

fn read(id: &[u8], until: &[u8], now: Timestamp) -> Said {
    let hexadecimal = id.len() == 32 && id.iter().all(u8::is_ascii_hexdigit);
    let id = str::from_utf8(id).ok().filter(|_| hexadecimal);
    let id = id.and_then(|id| u128::from_str_radix(id, 16).ok());
    let digits = !until.is_empty() && until.iter().all(u8::is_ascii_digit);
    let until = str::from_utf8(until).ok().filter(|_| digits);
    let until = until.and_then(|until| until.parse().ok());
    let (Some(id), Some(until)) = (id, until) else {
        return Said::Malformed;
    };
    let until = Timestamp::from_secs(until).min(now + LONGEST);
    if until <= now {
        return Said::Past;
    }
    Said::Ended(Ending { id, until })
}

/// Rounded up: an ending never lasts shorter elsewhere.
fn seconds(until: Timestamp) -> u64 {
    until.millis().div_ceil(1000)
}

pub(super) fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    #[test]
    fn a_pair_is_an_ending_or_nothing() {
        let id = b"00000000000000000000000000000abc";
        let ended = |until| {
            Said::Ended(Ending {
                id: 0xabc,
                until: Timestamp::from_secs(until),
            })
        };
        assert_eq!(read(id, b"2000", NOW), ended(2_000));
        assert_eq!(read(id, b"1000", NOW), Said::Past);
        assert_eq!(read(id, b"0", NOW), Said::Past);
        for until in [
            "",
            "inf",
            "1e9",
            "-5",
            "+5",
            "2000.5",
            "99999999999999999999",
            "\u{661}",
        ] {
            assert_eq!(read(id, until.as_bytes(), NOW), Said::Malformed, "{until}");
        }
        for id in [
            "",
            "abc",
            "+0000000000000000000000000000abc",
            "0000000000000000000000000000abc\u{e4}",
        ] {
            assert_eq!(read(id.as_bytes(), b"2000", NOW), Said::Malformed, "{id}");
        }
        assert_eq!(read(&[0xff; 32], b"2000", NOW), Said::Malformed);
    }

    #[test]
    fn nothing_from_redis_stays_for_ever() {
        let id = b"00000000000000000000000000000001";
        let Said::Ended(far) = read(id, b"18446744073709551615", NOW) else {
            panic!("it is an ending");
        };
        assert_eq!(far.until, NOW + LONGEST);
    }

    #[test]
    fn an_end_is_rounded_up() {
        assert_eq!(seconds(Timestamp::from_millis(2_000_001)), 2_001);
        assert_eq!(seconds(Timestamp::from_millis(2_000_000)), 2_000);
    }
}
