//! A segment that is being filled: what is written of it, and what waits to be.
//!
//! Invariant: what a record stands for becomes true (`reveal`) after its bytes are written, or never
//! (`abandon`).

use std::sync::Arc;

use super::index::{Entry, Place, SHARDS, Shard};
use super::ledger::Line;
use super::record::{HEADER_LEN, Head, Kind, UNIT};
use super::segment::{self, Segment, SummaryEntry};
use super::state::State;
use super::stats::SkipReason;

/// Bodies up to this length are stored again rather than referred to: a reference is not much
/// shorter, and costs a second read.
pub(super) const MIN_SHARED: usize = 512;
/// Records with bodies longer than that are longer than this.
pub(super) const MIN_SHARED_RECORD: usize = MIN_SHARED + HEADER_LEN;
/// Which of the segments that are being filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    New,
    Moved,
}

/// A segment that is being filled.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) segment: Arc<Segment>,
    /// Bytes in the file.
    pub(super) written: u64,
    pub(super) buffer: Vec<u8>,
    pub(super) entries: Vec<SummaryEntry>,
    pub(super) staged: Vec<Staged>,
}

/// What becomes true once the buffer is written.
#[derive(Debug)]
pub(super) enum Staged {
    /// A put, by its sequence number; and the content that others can refer to from now on.
    Put { sequence: u64, payload: usize },
    /// A record that moved from there.
    Moved { from: Place },
    /// A revalidation.
    Touched,
}

impl Open {
    /// Nothing of it is written yet, not even the header.
    pub(super) fn new(segment: Arc<Segment>) -> Self {
        Self {
            written: 0,
            buffer: segment::header(segment.id).to_vec(),
            entries: Vec::new(),
            staged: Vec::new(),
            segment,
        }
    }

    /// Whether a record of this length, its line in the summary included, makes it longer than that.
    pub(super) fn is_full(&self, len: usize, most: u64) -> bool {
        segment::sealed_len(self.end() + len as u64, self.entries.len() + 1) > most
    }

    /// Adds a record to the buffer.
    pub(super) fn append(&mut self, head: &Head, body: &[u8], staged: Staged) {
        let (at, before) = (self.end(), self.buffer.len());
        head.encode(body, self.segment.id, &mut self.buffer);
        let len = self.buffer.len() - before;
        self.entries.push(SummaryEntry::of(head, at, len));
        self.staged.push(staged);
    }

    fn end(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// The entries that the buffer holds, with what they stand for.
    fn buffered(&self) -> impl Iterator<Item = (&SummaryEntry, &Staged)> {
        let first = self.entries.len() - self.staged.len();
        self.entries[first..].iter().zip(&self.staged)
    }

    fn place(&self, entry: &SummaryEntry) -> Place {
        Place::new(self.segment.slot, entry.offset, entry.len)
    }

    /// Lines for the records that the buffer's puts replace.
    pub(super) fn buries(&self, state: &State) -> Vec<Line> {
        let mut lines = Vec::new();
        for (entry, staged) in self.buffered() {
            if let Staged::Put { sequence, .. } = *staged
                && state.index.shard(&entry.key).entries.contains(&entry.key)
            {
                lines.push(Line::dead(entry.key, sequence));
            }
        }
        lines
    }

    /// Forgets what is in the buffer. What it was to replace is dead already.
    pub(super) fn abandon(&mut self, state: &State) {
        for (entry, staged) in self.buffered() {
            if let Staged::Put { sequence, .. } = *staged {
                let mut shard = state.index.shard(&entry.key);
                if shard
                    .pending
                    .get(&entry.key)
                    .is_some_and(|p| p.sequence == sequence)
                {
                    shard.pending.remove(&entry.key);
                    shard.entries.pop(&entry.key);
                    drop(shard);
                    state.counters.skipped(SkipReason::WriteFailed);
                }
            }
        }
        self.entries
            .truncate(self.entries.len() - self.staged.len());
        self.staged.clear();
        self.buffer.clear();
        if self.written == 0 {
            self.buffer
                .extend_from_slice(&segment::header(self.segment.id));
        }
    }

    /// The buffer is written: look-ups find what it holds. Lines for what went for it.
    pub(super) fn reveal(&mut self, state: &State) -> Vec<Line> {
        let mut lines = Vec::new();
        let age = state.age();
        let per_shard = state.layout.max_entries / SHARDS as u64;
        for (entry, staged) in self.buffered() {
            let place = self.place(entry);
            let mut shard = state.index.shard(&entry.key);
            match *staged {
                Staged::Put { sequence, payload } => {
                    state.counters.writes.one();
                    state.counters.written_payload_bytes.add(payload as u64);
                    lines.extend(reveal_put(&mut shard, entry, place, sequence));
                    if shard.entries.len() as u64 > per_shard
                        && let Some((key, _)) = shard.entries.pop_lru()
                    {
                        state.counters.evictions.one();
                        lines.push(Line::dead(key, state.next_sequence()));
                    }
                }
                Staged::Moved { from } => {
                    state.counters.reinserted.one();
                    let bytes = u64::from(entry.len) * UNIT as u64;
                    state.counters.reinserted_bytes.add(bytes);
                    if entry.kind != Kind::Content
                        && let Some(now) = shard.entries.peek_mut(&entry.key)
                        && now.place == from
                    {
                        self.segment.warm(now.hits(age));
                        *now = now.moved_to(place);
                    }
                }
                Staged::Touched => {}
            }
            drop(shard);
            if matches!(entry.kind, Kind::Tile | Kind::Content) && place.len() > MIN_SHARED_RECORD {
                let mut shard = state.index.content(entry.content);
                match *staged {
                    Staged::Moved { .. } => shard.moved(entry.content, place),
                    _ => shard.insert(entry.content, place),
                }
            }
        }
        self.written = self.end();
        self.buffer.clear();
        self.staged.clear();
        lines
    }
}

fn reveal_put(
    shard: &mut Shard,
    entry: &SummaryEntry,
    place: Place,
    sequence: u64,
) -> Option<Line> {
    match shard.pending.get(&entry.key) {
        Some(pending) if pending.sequence == sequence => {
            let now = Entry::new(place, entry.kind, pending.validated_at);
            shard.pending.remove(&entry.key);
            shard.entries.put(entry.key, now);
            None
        }
        // Replaced while it was written: dead from the start.
        Some(pending) => {
            let line = Line::dead(entry.key, pending.sequence);
            shard.entries.pop(&entry.key);
            Some(line)
        }
        // Invalidated while it was written: whoever did that has written the line.
        None => None,
    }
}
