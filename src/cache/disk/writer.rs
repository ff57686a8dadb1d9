//! The writer thread: the only one that makes, fills, seals and deletes segments.
//!
//! Records are gathered in a buffer and written about a megabyte at a time. What is written becomes
//! visible in the index only afterwards; until then look-ups are answered from the queue's memory.
//!
//! Two segments are filled at a time, one with what is new and one with what has proven itself and
//! moves (`retire`): what is hot gathers in segments of its own, which then rarely have to move.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::cache::{ContentHash, Stored};
use crate::tile::TileKey;

use super::index::prefix;
use super::lane::{Lane, MIN_SHARED, Open, Staged};
use super::layout::footprint;
use super::queue::{Next, Op};
use super::record::{Head, Kind};
use super::segment::{self, Segment, SummaryEntry};
use super::state::{LEDGER_STEP, State};
use super::stats::{DiskOperation, SkipReason};

/// How much is gathered before it is written.
const BUFFER: usize = 1 << 20;
/// Hot bytes that may move for every byte that comes in, in percent: bounds write amplification.
const MOVES_PERCENT: u64 = 24;
const FIRST_BACK_OFF: Duration = Duration::from_millis(250);
const LONGEST_BACK_OFF: Duration = Duration::from_mins(1);

/// A segment's life in the writer's books, by slot.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) segment: Arc<Segment>,
    pub(super) reserved: u64,
    pub(super) sealed: bool,
}

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) state: Arc<State>,
    open: [Option<Open>; 2],
    pub(super) known: Vec<Option<Known>>,
    /// Contents in buffers, which the index does not know yet.
    fresh: HashSet<u64>,
    /// How many bytes may move.
    pub(super) allowance: u64,
    back_off: Duration,
    resume_at: Option<Instant>,
    compact_at: u64,
}

impl Writer {
    pub(super) fn new(state: Arc<State>) -> Self {
        let compact_at = (2 * state.ledger_len()).max(64 << 10);
        Self {
            state,
            open: [None, None],
            known: Vec::new(),
            fresh: HashSet::new(),
            allowance: 0,
            back_off: FIRST_BACK_OFF,
            resume_at: None,
            compact_at,
        }
    }

    /// Works until the queue is closed.
    pub(super) fn run(mut self) {
        loop {
            match self.state.queue.next(self.resume_at) {
                Next::Work(ops, sync) => self.work(ops, sync),
                Next::Finish(left) => {
                    let all = left.is_empty() && self.resume_at.is_none();
                    for op in &left {
                        if let Op::Drop(segments) = op {
                            self.drop_segments(segments);
                        }
                    }
                    self.give_up(left, SkipReason::Closed);
                    self.seal_all();
                    self.state.queue.finish(all);
                    return;
                }
            }
        }
    }

    fn work(&mut self, ops: Vec<Op>, sync: bool) {
        if self.resume_at.is_some_and(|at| at <= Instant::now()) {
            self.resume_at = None;
            self.state.queue.resume();
        }
        // Before anything that can fail, and without writing.
        for op in &ops {
            if let Op::Drop(segments) = op {
                self.drop_segments(segments);
            }
        }
        if self.state.owes() {
            self.make_room(2 * LEDGER_STEP);
        }
        let result = self
            .state
            .pay_lines()
            .and_then(|()| ops.iter().try_for_each(|op| self.one(op)))
            .and_then(|()| self.flush_all())
            .and_then(|()| self.compact_ledger());
        match result {
            Ok(()) if !ops.is_empty() => self.back_off = FIRST_BACK_OFF,
            Ok(()) => {}
            Err(error) => self.fail(&error, ops),
        }
        if sync && let Err(error) = self.state.sync_ledger() {
            self.state.counters.io_error(DiskOperation::Write, &error);
        }
    }

    fn one(&mut self, op: &Op) -> io::Result<()> {
        match op {
            Op::Put { key, sequence, .. } => self.put(key, *sequence),
            Op::Touch(key) => self.touch(key),
            Op::Drop(_) => Ok(()),
        }
    }

    fn put(&mut self, key: &TileKey, sequence: u64) -> io::Result<()> {
        let Some(pending) = self.state.index.shard(key).pending.get(key).cloned() else {
            return Ok(()); // invalidated while it waited
        };
        if pending.sequence != sequence {
            return Ok(()); // replaced while it waited
        }
        let staged = |payload| Staged::Put { sequence, payload };
        let tile = match &*pending.stored {
            Stored::Absence(_) => {
                let head = Head::bare(Kind::Absence, sequence, *key, pending.validated_at);
                return self.append(Lane::New, &head, &[], staged(0));
            }
            Stored::Tile(tile) => tile,
        };
        let mut head = Head {
            kind: Kind::Tile,
            sequence,
            key: *key,
            validated_at: pending.validated_at,
            encoding: tile.encoding,
            validator: tile.validator.clone(),
            last_modified: tile.last_modified,
            content: tile.content,
        };
        let shared = tile.body.len() > MIN_SHARED && self.share(tile.content);
        if !shared {
            return self.append(Lane::New, &head, &tile.body, staged(tile.body.len()));
        }
        self.state.counters.dedup_hits.one();
        self.state.counters.dedup_bytes.add(tile.body.len() as u64);
        head.kind = Kind::Reference;
        self.append(Lane::New, &head, &[], staged(0))
    }

    /// Whether this content is on disk already, or on its way there.
    fn share(&mut self, content: ContentHash) -> bool {
        let prefix = prefix(content);
        let mut shard = self.state.index.content(prefix);
        let known = self.fresh.contains(&prefix) || shard.find(prefix).is_some();
        if known {
            shard.share(prefix);
        }
        known
    }

    fn touch(&mut self, key: &TileKey) -> io::Result<()> {
        if self.state.index.shard(key).pending.contains_key(key) {
            // What it touches may be in the buffer.
            self.flush(Lane::New)?;
        }
        let Some(head) = self.touch_of(key) else {
            return Ok(());
        };
        self.state.counters.touches.one();
        self.append(Lane::New, &head, &[], Staged::Touched)
    }

    /// The record that says when this key's record was last validated.
    pub(super) fn touch_of(&self, key: &TileKey) -> Option<Head> {
        let shard = self.state.index.shard(key);
        let entry = *shard.entries.peek(key).filter(|entry| !entry.is_bad())?;
        let segment = shard.segment(entry.place)?;
        let sequence = self.state.next_sequence();
        let mut head = Head::bare(Kind::Touch, sequence, *key, entry.validated_at());
        head.content = touched(segment.id, entry.place.offset_units());
        Some(head)
    }

    /// Adds a record to a lane's buffer, opening, writing and sealing as need be.
    pub(super) fn append(
        &mut self,
        lane: Lane,
        head: &Head,
        body: &[u8],
        staged: Staged,
    ) -> io::Result<()> {
        let len = head.record_len(body.len());
        let most = self.state.layout.segment;
        let full = |open: &Open| open.is_full(len, most);
        if self.open[lane as usize].as_ref().is_some_and(full) {
            self.flush(lane)?;
            self.seal(lane);
        }
        if self.open[lane as usize].is_none() {
            self.open_segment(lane)?;
        }
        let Some(open) = &mut self.open[lane as usize] else {
            return Ok(());
        };
        open.append(head, body, staged);
        let full = open.buffer.len() >= BUFFER;
        if head.kind == Kind::Tile && body.len() > MIN_SHARED {
            self.fresh.insert(prefix(head.content));
        }
        if full { self.flush(lane) } else { Ok(()) }
    }

    fn open_segment(&mut self, lane: Lane) -> io::Result<()> {
        let size = self.state.layout.segment;
        // Moving needs a segment while there is none to be had: the spare one is for that.
        if lane == Lane::New {
            self.make_room(2 * footprint(size));
        }
        if !self.state.room.reserve(footprint(size)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let id = self.state.next_sequence();
        let path = self.state.folder.segment(id);
        let file = match self.state.io.create(&path) {
            Ok(file) => file,
            Err(error) => {
                self.state.room.release(footprint(size));
                return Err(error);
            }
        };
        let slot = self.free_slot();
        let segment = Arc::new(Segment::new(id, slot, file, path));
        self.enter(Arc::clone(&segment), footprint(size), false);
        self.open[lane as usize] = Some(Open::new(segment));
        Ok(())
    }

    pub(super) fn free_slot(&mut self) -> u16 {
        let free = self.known.iter().position(Option::is_none);
        let slot = free.unwrap_or_else(|| {
            self.known.push(None);
            self.known.len() - 1
        });
        u16::try_from(slot).unwrap_or(u16::MAX)
    }

    /// Enters a segment into the books, and lets look-ups find it.
    pub(super) fn enter(&mut self, segment: Arc<Segment>, reserved: u64, sealed: bool) {
        let slot = usize::from(segment.slot);
        self.known[slot] = Some(Known {
            segment,
            reserved,
            sealed,
        });
        self.publish();
    }

    pub(super) fn publish(&self) {
        let segments = self.known.iter().flatten().count() as u64;
        self.state.segments.store(segments, Ordering::Relaxed);
        let table = self.known.iter();
        let table = table.map(|known| Some(Arc::clone(&known.as_ref()?.segment)));
        self.state.index.set_table(&Arc::new(table.collect()));
        let keys = self.state.index.len();
        self.state
            .cool_every
            .store(keys.max(1024), Ordering::Relaxed);
    }

    pub(super) fn flush_all(&mut self) -> io::Result<()> {
        self.flush(Lane::New)?;
        self.flush(Lane::Moved)
    }

    /// Writes a lane's buffer and makes what it holds visible.
    pub(super) fn flush(&mut self, lane: Lane) -> io::Result<()> {
        let Some(open) = &mut self.open[lane as usize] else {
            return Ok(());
        };
        if open.staged.is_empty() {
            return Ok(());
        }
        // What a put replaces dies before the put lives: a crash between the two loses an entry.
        let lines = open.buries(&self.state);
        let written = self
            .state
            .write_or_owe(&lines)
            .and_then(|()| open.segment.file.write_all_at(&open.buffer, open.written));
        if let Err(error) = written {
            open.abandon(&self.state);
            self.fresh.clear();
            return Err(error);
        }
        let bytes = open.buffer.len() as u64;
        self.state.counters.written_bytes.add(bytes);
        if lane == Lane::New {
            let most = self.state.layout.segment / 2;
            self.allowance = (self.allowance + bytes * MOVES_PERCENT / 100).min(most);
            self.fresh.clear();
        }
        let lines = open.reveal(&self.state);
        self.state.write_or_owe(&lines)
    }

    /// Ends a lane's segment with its summary. If that fails, the segment is without one.
    fn seal(&mut self, lane: Lane) {
        let Some(open) = self.open[lane as usize].take() else {
            return;
        };
        if open.written == 0 {
            self.delete(usize::from(open.segment.slot));
            return;
        }
        let contents = segment::Contents {
            entries: open.entries,
            records_end: open.written,
            sealed: false,
        };
        let reserved = match segment::seal(&open.segment.file, open.segment.id, &contents) {
            Ok(len) => {
                let summary = len - open.written;
                self.state.counters.written_bytes.add(summary);
                self.state.room.relax(self.state.layout.segment);
                footprint(len)
            }
            Err(error) => {
                self.state.counters.io_error(DiskOperation::Write, &error);
                footprint(self.state.layout.segment)
            }
        };
        if let Some(Some(known)) = self.known.get_mut(usize::from(open.segment.slot)) {
            self.state
                .room
                .release(known.reserved.saturating_sub(reserved));
            known.reserved = known.reserved.min(reserved);
            known.sealed = true;
        }
    }

    /// Stops filling the segment in this slot, if it is being filled.
    pub(super) fn stop_filling(&mut self, slot: u16) {
        for lane in &mut self.open {
            if let Some(open) = lane.take_if(|open| open.segment.slot == slot).as_mut() {
                open.abandon(&self.state);
            }
        }
    }

    fn seal_all(&mut self) {
        self.flush_all().ok();
        self.seal(Lane::New);
        self.seal(Lane::Moved);
    }

    /// Writing failed: nobody's request does. What was to be written is forgotten, and nothing is
    /// tried for a while.
    fn fail(&mut self, error: &io::Error, ops: Vec<Op>) {
        self.state.counters.io_error(DiskOperation::Write, error);
        if matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) {
            // Others need the room: do with what we have, less what is retired to go on.
            self.state.room.squeeze();
        }
        for open in self.open.iter_mut().flatten() {
            open.abandon(&self.state);
        }
        self.fresh.clear();
        // A segment that could not be written is not tried again.
        self.seal(Lane::New);
        self.seal(Lane::Moved);
        self.give_up(ops, SkipReason::WriteFailed);
        let queued = self.state.queue.back_off();
        self.give_up(queued, SkipReason::BackingOff);
        self.resume_at = Some(Instant::now() + self.back_off);
        self.back_off = (self.back_off * 2).min(LONGEST_BACK_OFF);
    }

    /// Forgets puts that will not be written.
    fn give_up(&self, ops: Vec<Op>, reason: SkipReason) {
        for op in ops {
            let Op::Put { key, sequence, .. } = op else {
                continue;
            };
            let mut shard = self.state.index.shard(&key);
            if shard
                .pending
                .get(&key)
                .is_some_and(|p| p.sequence == sequence)
            {
                shard.pending.remove(&key);
                drop(shard);
                self.state.counters.skipped(reason);
            }
        }
    }

    /// Rewrites the ledger without what no segment needs any more, if it has grown.
    fn compact_ledger(&mut self) -> io::Result<()> {
        if self.state.ledger_len() < self.compact_at {
            return Ok(());
        }
        let (until, mut verdicts) = self.state.ledger_so_far()?;
        verdicts.retain_retired(|id| self.state.folder.segment(id).exists());
        let keys: HashSet<&TileKey> = verdicts.keys().collect();
        let mut oldest = std::collections::HashMap::new();
        let mut note = |entry: &SummaryEntry| {
            if keys.contains(&entry.key) {
                let known = oldest.entry(entry.key).or_insert(entry.sequence);
                *known = entry.sequence.min(*known);
            }
        };
        for known in self.known.iter().flatten().filter(|known| known.sealed) {
            let contents = segment::contents(&known.segment.file, known.segment.id)?;
            contents.entries.iter().for_each(&mut note);
        }
        for open in self.open.iter().flatten() {
            open.entries.iter().for_each(&mut note);
        }
        let lines = verdicts.lines(&oldest);
        self.state.replace_ledger(until, lines)?;
        self.compact_at = (2 * self.state.ledger_len()).max(64 << 10);
        Ok(())
    }
}

/// How a touch names the record that it touches.
fn touched(segment_id: u64, offset_units: u32) -> ContentHash {
    let both = u128::from(segment_id) | u128::from(offset_units) << 64;
    ContentHash::from_bytes(both.to_le_bytes())
}
