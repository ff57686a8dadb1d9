//! Making room: the segment that is worth least goes, and what in it is still hot moves.
//!
//! A segment is worth the hits of its entries, halved as hits go on elsewhere; an entry is worth its
//! own hits since it was written or moved. That is frequency with ageing rather than recency alone:
//! on every trace that was tried it hits more than LRU does and moves less (`benches/disk.rs`).
//! Content that references share is worth what they are.
//!
//! Invariant: the index stops pointing into a segment before its bytes go, and its bytes go before
//! their room is given away.

use std::io;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::tile::TileKey;

use super::index::Place;
use super::lane::{Lane, MIN_SHARED_RECORD, Staged};
use super::ledger::{Line, Verdict};
use super::record::{self, Head, Kind};
use super::segment::{self, Segment, SummaryEntry};
use super::stats::DiskOperation;
use super::writer::{Known, Writer};

/// Content that is shared moves before anything else does.
const SHARED: u32 = 16;

/// A record that could move, and what it is worth.
struct Candidate {
    entry: SummaryEntry,
    place: Place,
    worth: u32,
    /// Its key's own record, not only a body for others.
    live: bool,
}

impl Writer {
    /// Retires segments until that many bytes are free, or none is left to retire.
    pub(super) fn make_room(&mut self, bytes: u64) {
        while self.state.room.free() < bytes {
            let Some(slot) = self.least_worth() else {
                return;
            };
            self.retire(slot);
        }
    }

    fn least_worth(&self) -> Option<usize> {
        let mut sealed: Vec<(usize, &Arc<Segment>)> = self
            .known
            .iter()
            .enumerate()
            .filter_map(|(slot, known)| Some((slot, known.as_ref()?)))
            .filter(|(_, known)| known.sealed)
            .map(|(slot, known)| (slot, &known.segment))
            .collect();
        sealed.sort_unstable_by_key(|(_, segment)| segment.id);
        // The youngest have had no time to prove themselves.
        let judged = sealed.len() - sealed.len() / 16;
        sealed[..judged]
            .iter()
            .min_by_key(|(_, segment)| segment.heat())
            .map(|&(slot, _)| slot)
    }

    fn retire(&mut self, slot: usize) {
        let Some(known) = &self.known[slot] else {
            return;
        };
        let segment = Arc::clone(&known.segment);
        let contents = segment::contents(&segment.file, segment.id);
        if let Err(error) = &contents {
            self.state.counters.io_error(DiskOperation::Read, error);
        }
        let whole = contents.as_ref().is_ok_and(|contents| contents.sealed);
        let entries = contents
            .map(|contents| contents.entries)
            .unwrap_or_default();
        // First of all it is dead for any later restart: a crash in the midst of this must not leave
        // records behind of which nobody knows that they are there twice.
        let line = Line::keyless(Verdict::Retired, segment.id);
        let moved = self.state.write_or_owe(&[line]);
        if let Err(error) = moved.and_then(|()| self.move_hot(&segment, &entries)) {
            // Then it is lost like the rest. Space has to come from somewhere.
            self.state.counters.io_error(DiskOperation::Write, &error);
        }
        if whole {
            for entry in &entries {
                self.forget(&segment, entry);
            }
        } else {
            self.forget_all(segment.slot);
        }
        self.state.counters.segments_retired.one();
        self.delete(slot);
    }

    /// Deletes segments with all that is in them, if they are still those.
    pub(super) fn drop_segments(&mut self, segments: &[(u16, u64)]) {
        for &(slot, id) in segments {
            let slot = usize::from(slot);
            if let Some(Some(known)) = self.known.get(slot)
                && known.segment.id == id
            {
                let name = known.segment.slot;
                self.stop_filling(name);
                self.forget_all(name);
                self.delete(slot);
            }
        }
    }

    fn move_hot(&mut self, segment: &Segment, entries: &[SummaryEntry]) -> io::Result<()> {
        let mut candidates: Vec<Candidate> = entries
            .iter()
            .filter_map(|entry| self.candidate(segment, entry))
            .collect();
        candidates.sort_unstable_by_key(|c| std::cmp::Reverse((c.worth, c.place.offset())));
        let mut left = self.allowance;
        candidates.retain(|candidate| {
            let len = candidate.place.len() as u64;
            let moves = len <= left;
            if moves {
                left -= len;
            }
            moves
        });
        self.allowance = left;
        candidates.sort_unstable_by_key(|candidate| candidate.place.offset());
        let mut touched = Vec::new();
        for candidate in candidates {
            touched.extend(self.move_one(segment, &candidate)?);
        }
        // Before the only other copy goes.
        self.flush(Lane::Moved)?;
        // Touches named the old places.
        for key in touched {
            if let Some(head) = self.touch_of(&key) {
                self.append(Lane::Moved, &head, &[], Staged::Touched)?;
            }
        }
        self.flush(Lane::Moved)
    }

    fn candidate(&self, segment: &Segment, entry: &SummaryEntry) -> Option<Candidate> {
        if entry.kind == Kind::Touch {
            return None;
        }
        let place = Place::new(segment.slot, entry.offset, entry.len);
        let index = &self.state.index;
        let own = index
            .shard(&entry.key)
            .entries
            .peek(&entry.key)
            .filter(|now| now.place == place && !now.is_bad() && entry.kind != Kind::Content)
            .map(|now| now.worth());
        let shared = match entry.kind {
            Kind::Tile | Kind::Content if place.len() > MIN_SHARED_RECORD => {
                index.content(entry.content).worth(entry.content, place)
            }
            _ => None,
        };
        let worth = match (own.unwrap_or(0), shared.unwrap_or(0)) {
            (hits, 0) => hits,
            (_, shared) => shared.saturating_add(SHARED),
        };
        (worth > 0).then_some(Candidate {
            entry: *entry,
            place,
            worth,
            live: own.is_some(),
        })
    }

    /// Moves a record. Gives back the key if its record does not say when it was last validated.
    fn move_one(
        &mut self,
        segment: &Segment,
        candidate: &Candidate,
    ) -> io::Result<Option<TileKey>> {
        let mut bytes = vec![0; candidate.place.len()];
        let read = segment
            .file
            .read_exact_at(&mut bytes, candidate.place.offset());
        if let Err(error) = read {
            self.state.counters.io_error(DiskOperation::Read, &error);
            return Ok(None);
        }
        let (head, body) = match record::decode(&bytes, segment.id) {
            Ok(found) => found,
            Err(reason) => {
                self.state.counters.corrupt(reason);
                return Ok(None);
            }
        };
        if head.key != candidate.entry.key {
            return Ok(None);
        }
        // The sequence number stays: what was said of the record before it moved is still so.
        let key = head.key;
        let recorded = head.validated_at;
        let head = if candidate.live {
            head
        } else {
            let mut bare = Head::bare(Kind::Content, head.sequence, key, recorded);
            bare.content = head.content;
            bare
        };
        let staged = Staged::Moved {
            from: candidate.place,
        };
        let body = &bytes[body];
        self.append(Lane::Moved, &head, body, staged)?;
        let shard = self.state.index.shard(&key);
        let entry = shard.entries.peek(&key).filter(|_| candidate.live);
        let touched = entry.is_some_and(|entry| {
            entry.validated_at() != recorded && entry.validated_at() != Timestamp::default()
        });
        Ok(touched.then_some(key))
    }

    /// Nothing finds this record any more.
    fn forget(&self, segment: &Segment, entry: &SummaryEntry) {
        let place = Place::new(segment.slot, entry.offset, entry.len);
        let index = &self.state.index;
        if matches!(entry.kind, Kind::Tile | Kind::Reference | Kind::Absence) {
            let mut shard = index.shard(&entry.key);
            if shard
                .entries
                .peek(&entry.key)
                .is_some_and(|now| now.place == place)
            {
                shard.entries.pop(&entry.key);
                drop(shard);
                self.state.counters.evictions.one();
            }
        }
        if matches!(entry.kind, Kind::Tile | Kind::Content) {
            index.content(entry.content).forget(entry.content, place);
        }
    }

    /// Nothing finds anything in this slot any more: for when its entries cannot be told.
    fn forget_all(&self, slot: u16) {
        for mut shard in self.state.index.shards() {
            let before = shard.entries.len();
            shard.entries.retain(|_, entry| entry.place.slot() != slot);
            let gone = before - shard.entries.len();
            self.state.counters.evictions.add(gone as u64);
        }
        for mut shard in self.state.index.contents() {
            shard.forget_slot(slot);
        }
    }

    /// Gives a segment's room back. Nothing points into it any more.
    pub(super) fn delete(&mut self, slot: usize) {
        let Some(Known {
            segment, reserved, ..
        }) = self.known[slot].take()
        else {
            return;
        };
        self.publish();
        segment.retire();
        // A reader may still hold the file open, and a deleted file takes room until it is closed.
        let emptied = segment.file.set_len(0);
        let deleted = std::fs::remove_file(&segment.path);
        match (emptied, deleted) {
            (Ok(()), _) | (_, Ok(())) => self.state.room.release(reserved),
            (Err(error), Err(_)) => self.state.counters.io_error(DiskOperation::Delete, &error),
        }
    }
}
