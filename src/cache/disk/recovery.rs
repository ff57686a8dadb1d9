//! After a restart: the index comes back from the segments' summaries, newest segment first.
//!
//! Runs on the writer's thread before it writes anything, while look-ups are answered from what is
//! back already. Invariant: what the ledger calls dead stays dead; of two records of one key the
//! one with the higher number wins, whatever the order in which they are found.

use std::collections::HashMap;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::tile::TileKey;

use super::folder::Listed;
use super::index::{Entry, Place, SHARDS, lock};
use super::lane::MIN_SHARED_RECORD;
use super::layout::footprint;
use super::ledger::Line;
use super::record::{self, Kind};
use super::segment::{self, Contents, Segment, SummaryEntry, Unusable};
use super::stats::DiskOperation;
use super::writer::Writer;

/// The newest touch of each record, by segment and offset: its number, key and time.
type Touches = HashMap<(u64, u32), (u64, TileKey, Timestamp)>;

impl Writer {
    /// Brings the index back.
    pub(super) fn recover(&mut self, listed: &[Listed]) {
        let mut touches = Touches::new();
        for &file in listed {
            if self.state.queue.is_closing() {
                return;
            }
            if let Err(why) = self.recover_segment(file, &mut touches) {
                self.discard(file, &why);
            }
        }
        self.apply(touches);
        *lock(&self.state.recovering) = None;
        self.publish();
        self.state.queue.set_recovered();
    }

    fn recover_segment(&mut self, listed: Listed, touches: &mut Touches) -> Result<(), Unusable> {
        let path = self.state.folder.segment(listed.id);
        let recovering = lock(&self.state.recovering);
        if recovering
            .as_ref()
            .is_some_and(|r| r.verdicts.is_retired(listed.id))
        {
            return Err(Unusable::Retired);
        }
        drop(recovering);
        let file = self.state.io.open(&path).map_err(Unusable::Unreadable)?;
        segment::check_header(&file, listed.id)?;
        let contents = segment::contents(&file, listed.id).map_err(Unusable::Unreadable)?;
        let mut len = listed.len;
        if !contents.sealed {
            self.state.counters.segments_scanned.one();
            if contents.entries.is_empty() {
                return Err(Unusable::Empty);
            }
            match segment::seal(&file, listed.id, &contents) {
                Ok(sealed) => len = sealed,
                Err(error) => self.state.counters.io_error(DiskOperation::Write, &error),
            }
        }
        let (before, reserved) = (footprint(listed.len), footprint(len));
        self.state.room.enter(reserved);
        self.state.room.release(before);
        let slot = self.free_slot();
        let segment = Arc::new(Segment::new(listed.id, slot, file, path));
        self.enter(segment, reserved, true);
        self.load(slot, &contents, listed.id, touches);
        Ok(())
    }

    /// Deletes a file that is no segment of ours, and says so.
    fn discard(&self, listed: Listed, why: &Unusable) {
        let path = self.state.folder.segment(listed.id);
        // A crash leaves such, and that is nothing to speak of.
        if !matches!(why, Unusable::Empty | Unusable::Retired) {
            self.state.counters.segments_discarded.one();
            tracing::warn!(
                file = %path.display(),
                reason = %why,
                "a file of the disk cache cannot be used and is deleted; its tiles are fetched again"
            );
        }
        match std::fs::remove_file(&path) {
            Ok(()) => self.state.room.release(footprint(listed.len)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.state.room.release(footprint(listed.len));
            }
            Err(error) => self.state.counters.io_error(DiskOperation::Delete, &error),
        }
    }

    fn load(&self, slot: u16, contents: &Contents, id: u64, touches: &mut Touches) {
        let mut lines = Vec::new();
        // The newest last: so backwards, and what comes first stays.
        for entry in contents.entries.iter().rev() {
            match entry.kind {
                Kind::Touch => {
                    let touch = (entry.sequence, entry.key, entry.validated_at);
                    let known = touches
                        .entry((entry.content, entry.offset))
                        .or_insert(touch);
                    if known.0 < touch.0 {
                        *known = touch;
                    }
                    continue;
                }
                Kind::Reference => self.state.index.content(entry.content).share(entry.content),
                Kind::Tile | Kind::Content => {
                    let place = Place::new(slot, entry.offset, entry.len);
                    if place.len() > MIN_SHARED_RECORD {
                        let mut shard = self.state.index.content(entry.content);
                        shard.insert_if_new(entry.content, place);
                    }
                }
                Kind::Absence => {}
            }
            if entry.kind != Kind::Content {
                lines.extend(self.load_entry(slot, entry, id));
            }
        }
        if let Err(error) = self.state.write_or_owe(&lines) {
            self.state.counters.io_error(DiskOperation::Write, &error);
        }
    }

    /// Enters a record, unless it is dead. Gives back a line for the one that has to die for good.
    fn load_entry(&self, slot: u16, found: &SummaryEntry, id: u64) -> Option<Line> {
        let place = Place::new(slot, found.offset, found.len);
        let mut shard = self.state.index.shard(&found.key);
        let mut validated_at = found.validated_at;
        if let Some(recovering) = &*lock(&self.state.recovering) {
            if found.sequence < recovering.verdicts.dead_before(&found.key) {
                return None;
            }
            let (before, at) = recovering.verdicts.stale_before(&found.key);
            if found.sequence < before {
                validated_at = at;
            }
        }
        let dead = |before| Line::dead(found.key, before);
        let entry = Entry::new(place, found.kind, validated_at);
        let Some(known) = shard.entries.peek(&found.key).copied() else {
            if (shard.entries.len() * SHARDS) as u64 >= self.state.layout.max_entries {
                return Some(dead(found.sequence + 1));
            }
            shard.entries.put(found.key, entry);
            // Older than all that is here already.
            shard.entries.demote(&found.key);
            return None;
        };
        // Rare: a crash after writing a record that was replaced while it was written.
        let rival = shard.segment(known.place).cloned();
        drop(shard);
        let rival = rival.and_then(|segment| sequence_at(&segment, known.place, &found.key));
        tracing::debug!(
            segment = id,
            ?rival,
            found = found.sequence,
            "two records of one key"
        );
        match rival {
            Some(rival) if rival > found.sequence => Some(dead(rival)),
            Some(rival) if rival == found.sequence => None,
            _ => {
                let mut shard = self.state.index.shard(&found.key);
                let now = shard.entries.peek_mut(&found.key);
                now.filter(|now| now.place == known.place).map(|now| {
                    *now = entry;
                    dead(found.sequence)
                })
            }
        }
    }

    fn apply(&self, touches: Touches) {
        for ((id, offset), (sequence, key, at)) in touches {
            let mut shard = self.state.index.shard(&key);
            let Some(entry) = shard.entries.peek(&key).copied() else {
                continue;
            };
            let same = entry.place.offset_units() == offset
                && shard
                    .segment(entry.place)
                    .is_some_and(|segment| segment.id == id);
            let newest = lock(&self.state.recovering)
                .as_ref()
                .is_some_and(|recovering| {
                    sequence > recovering.verdicts.stale_before(&key).0
                        && !recovering.touched.contains(&key)
                });
            if same
                && newest
                && let Some(entry) = shard.entries.peek_mut(&key)
            {
                entry.set_validated_at(at);
            }
        }
    }
}

/// The number of the record that is really there.
fn sequence_at(segment: &Segment, place: Place, key: &TileKey) -> Option<u64> {
    let mut bytes = vec![0; place.len()];
    segment
        .file
        .read_exact_at(&mut bytes, place.offset())
        .ok()?;
    let (head, _) = record::decode(&bytes, segment.id).ok()?;
    (head.key == *key).then_some(head.sequence)
}
