//! Invalidation (for truth) and expiry: in effect before they return, and after any restart.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::Stored;
use crate::clock::Timestamp;
use crate::tile::TileKey;

use super::index::Shard;
use super::ledger::{Line, Verdict};
use super::record::Kind;
use super::state::State;
use super::stats::DiskOperation;

/// How long a purge waits for the index to be whole. Recovery takes seconds at the worst.
const RECOVERY: Duration = Duration::from_mins(1);

impl State {
    pub(super) fn invalidate(&self, key: &TileKey) -> bool {
        let (line, place, found) = {
            let mut shard = self.index.shard(key);
            let before = self.next_sequence();
            let line = Line::dead(*key, before);
            let recovering = self.tell_recovery(|recovering| recovering.verdicts.add(line));
            let queued = shard.pending.remove(key).is_some();
            let entry = shard.entries.pop(key);
            let known = entry.is_some_and(|entry| !entry.is_bad());
            if entry.is_none() && !queued && !recovering {
                return false;
            }
            let place = entry.and_then(|e| Some((e.place.slot(), shard.segment(e.place)?.id)));
            (line, place, known || queued)
        };
        self.counters.invalidations.add(u64::from(found));
        self.write_down(&[line], place.into_iter().collect());
        found
    }

    /// As [`State::invalidate`] for each, written down in one go.
    pub(super) fn invalidate_each(&self, keys: &[TileKey]) -> u64 {
        let (mut lines, mut segments) = (Vec::new(), Vec::new());
        let mut count = 0;
        for key in keys {
            let mut shard = self.index.shard(key);
            let before = self.next_sequence();
            let line = Line::dead(*key, before);
            let recovering = self.tell_recovery(|recovering| recovering.verdicts.add(line));
            let there = shard.entries.contains(key) || shard.pending.contains_key(key);
            if !there && !recovering {
                continue;
            }
            let (known, place) = bury(&mut shard, key);
            count += u64::from(known);
            segments.extend(place);
            lines.push(line);
        }
        self.counters.invalidations.add(count);
        self.write_down(&lines, segments);
        count
    }

    pub(super) fn invalidate_matching(&self, predicate: impl Fn(&TileKey) -> bool) -> u64 {
        self.queue.wait_recovered(RECOVERY);
        let mut count = 0;
        for nth in 0..super::index::SHARDS {
            let mut lines = Vec::new();
            let mut segments = Vec::new();
            {
                let mut shard = self.index.shard_at(nth);
                let before = self.next_sequence();
                let keys = shard.matching(&predicate);
                for key in keys {
                    let (known, place) = bury(&mut shard, &key);
                    count += u64::from(known);
                    segments.extend(place);
                    lines.push(Line::dead(key, before));
                }
            }
            self.write_down(&lines, segments);
        }
        self.counters.invalidations.add(count);
        count
    }

    pub(super) fn expire_matching(
        &self,
        predicate: impl Fn(&TileKey) -> bool,
        validated_at: Timestamp,
    ) -> u64 {
        self.queue.wait_recovered(RECOVERY);
        let mut count = 0;
        for nth in 0..super::index::SHARDS {
            let mut lines = Vec::new();
            let mut segments = Vec::new();
            {
                let mut shard = self.index.shard_at(nth);
                let before = self.next_sequence();
                for key in shard.matching(&predicate) {
                    count += 1;
                    if let Some(at) = expire(&mut shard, &key, validated_at) {
                        let verdict = Verdict::Stale(at);
                        lines.push(Line {
                            key,
                            before,
                            verdict,
                        });
                    } else {
                        segments.extend(bury(&mut shard, &key).1);
                        lines.push(Line::dead(key, before));
                    }
                }
            }
            self.write_down(&lines, segments);
        }
        self.counters.expirations.add(count);
        count
    }

    pub(super) fn touch(&self, key: TileKey, validated_at: Timestamp) {
        {
            let mut shard = self.index.shard(&key);
            self.tell_recovery(|recovering| {
                recovering.touched.insert(key);
            });
            let shard = &mut *shard;
            let pending = shard
                .pending
                .get_mut(&key)
                .map(|p| p.validated_at = validated_at);
            let entry = shard.entries.peek_mut(&key).filter(|entry| !entry.is_bad());
            let entry = entry.map(|entry| entry.set_validated_at(validated_at));
            if pending.or(entry).is_none() {
                return;
            }
        }
        if let Err(reason) = self.queue.touch(key) {
            self.counters.skipped(reason);
        }
    }

    /// Writes lines into the ledger. Should that fail, the segments that hold what must not come
    /// back are deleted, which needs no room.
    fn write_down(&self, lines: &[Line], mut segments: Vec<(u16, u64)>) {
        if lines.is_empty() {
            return;
        }
        if let Err(error) = self.write_or_owe(lines) {
            self.counters.io_error(DiskOperation::Write, &error);
            segments.sort_unstable();
            segments.dedup();
            self.queue.drop_segments(segments);
            self.queue.wait_idle(RECOVERY);
        } else {
            self.queue.sync();
        }
    }

    /// A newer response was not taken: what is here is not it, so the origin is asked again.
    pub(super) fn outdated(&self, key: &TileKey) {
        let mut shard = self.index.shard(key);
        if let Some(entry) = shard.entries.peek_mut(key) {
            entry.set_validated_at(Timestamp::default());
        }
        if let Some(pending) = shard.pending.get_mut(key) {
            pending.validated_at = Timestamp::default();
        }
    }

    /// Whether what is written of a key is that there is no such tile.
    pub(super) fn is_absent(&self, key: &TileKey) -> bool {
        let shard = self.index.shard(key);
        let entry = shard.entries.peek(key).filter(|entry| !entry.is_bad());
        entry.is_some_and(|entry| entry.kind() == Kind::Absence) && !shard.pending.contains_key(key)
    }

    pub(super) fn admit(&self, key: TileKey, stored: Arc<Stored>) -> u64 {
        let mut shard = self.index.shard(&key);
        let sequence = self.next_sequence();
        let validated_at = stored.validated_at();
        let pending = super::index::Pending {
            stored,
            validated_at,
            sequence,
        };
        shard.pending.insert(key, pending);
        sequence
    }
}

/// Takes a key out of the index: whether there was something under it, and the segment with its record.
fn bury(shard: &mut Shard, key: &TileKey) -> (bool, Option<(u16, u64)>) {
    let queued = shard.pending.remove(key).is_some();
    let entry = shard.entries.pop(key);
    let known = entry.is_some_and(|entry| !entry.is_bad());
    let segment = entry.and_then(|entry| {
        let segment = shard.segment(entry.place)?;
        Some((entry.place.slot(), segment.id))
    });
    (queued || known, segment)
}

/// Sets a tile's time back, and says to when; `None` for an absence.
fn expire(shard: &mut Shard, key: &TileKey, validated_at: Timestamp) -> Option<Timestamp> {
    let mut said = None;
    if let Some(entry) = shard.entries.peek_mut(key) {
        entry.set_validated_at(entry.validated_at().min(validated_at));
        said = (entry.kind() != Kind::Absence).then(|| entry.validated_at());
    }
    // What is queued is what counts, whatever it replaces.
    if let Some(pending) = shard.pending.get_mut(key) {
        pending.validated_at = pending.validated_at.min(validated_at);
        let tile = matches!(*pending.stored, Stored::Tile(_));
        said = tile.then_some(pending.validated_at);
    }
    said
}
