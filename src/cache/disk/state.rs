//! What look-ups, invalidations and the writer share.

use std::collections::HashSet;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::tile::TileKey;

use super::folder::Folder;
use super::index::{Index, lock};
use super::io::DiskIo;
use super::layout::{Layout, Room, footprint};
use super::ledger::{LINE_LEN, Ledger, Line, Verdicts};
use super::queue::Queue;
use super::stats::{Counters, DiskStats};

/// The ledger's room grows by this at a time.
pub(super) const LEDGER_STEP: u64 = 64 << 10;
/// How many operations a session can number before it runs into the next one's numbers.
const SESSION_BITS: u32 = 36;

/// The tier, but for its handle.
#[derive(Debug)]
pub(super) struct State {
    pub(super) folder: Folder,
    pub(super) io: DiskIo,
    pub(super) layout: Layout,
    pub(super) room: Room,
    pub(super) index: Index,
    pub(super) queue: Queue,
    pub(super) counters: Counters,
    /// After so many hits, heat is halved.
    pub(super) cool_every: AtomicU64,
    age: AtomicU8,
    /// The page cache cannot be asked here.
    pub(super) no_cached_reads: AtomicBool,
    pub(super) segments: AtomicU64,
    /// What the ledger says, while recovery has to know. `None`: the index knows all.
    pub(super) recovering: Mutex<Option<Recovering>>,
    sequence: AtomicU64,
    book: Mutex<Book>,
}

/// What recovery has to heed.
#[derive(Debug, Default)]
pub(super) struct Recovering {
    pub(super) verdicts: Verdicts,
    /// Keys that were validated since: what the disk says of that is older.
    pub(super) touched: HashSet<TileKey>,
}

#[derive(Debug)]
struct Book {
    ledger: Ledger,
    reserved: u64,
    /// Lines that could not be written yet. Nothing else is written before they are.
    owed: Vec<Line>,
}

/// The first number of a session, after all that this one was given to before.
pub(super) fn session_start(highest: u64) -> u64 {
    ((highest >> SESSION_BITS) + 1) << SESSION_BITS
}

impl State {
    pub(super) fn new(
        folder: Folder,
        io: DiskIo,
        layout: Layout,
        ledger: Ledger,
        verdicts: Verdicts,
        sequence: u64,
    ) -> Self {
        let room = Room::new(layout.capacity);
        let reserved = footprint(ledger.len() + LEDGER_STEP);
        room.enter(reserved);
        Self {
            folder,
            io,
            layout,
            room,
            index: Index::new(),
            queue: Queue::new(&layout),
            counters: Counters::default(),
            cool_every: AtomicU64::new(1024),
            age: AtomicU8::new(0),
            no_cached_reads: AtomicBool::new(false),
            segments: AtomicU64::new(0),
            recovering: Mutex::new(Some(Recovering {
                verdicts,
                touched: HashSet::new(),
            })),
            sequence: AtomicU64::new(sequence),
            book: Mutex::new(Book {
                ledger,
                reserved,
                owed: Vec::new(),
            }),
        }
    }

    /// The number of what happens now. Taken under the key's shard lock, numbers are in the order
    /// in which things happen to the key.
    pub(super) fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::AcqRel)
    }

    /// Writes lines into the ledger: they hold when this returns. If it fails they are owed, and
    /// written before any record is.
    pub(super) fn write_or_owe(&self, lines: &[Line]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut book = lock(&self.book);
        self.pay(&mut book)
            .and_then(|()| self.append(&mut book, lines))
            .inspect_err(|_| book.owed.extend_from_slice(lines))
    }

    /// Whether lines are owed.
    pub(super) fn owes(&self) -> bool {
        !lock(&self.book).owed.is_empty()
    }

    /// Writes the lines that are owed.
    pub(super) fn pay_lines(&self) -> io::Result<()> {
        self.pay(&mut lock(&self.book))
    }

    fn pay(&self, book: &mut Book) -> io::Result<()> {
        let owed = std::mem::take(&mut book.owed);
        if owed.is_empty() {
            return Ok(());
        }
        self.append(book, &owed).inspect_err(|_| book.owed = owed)
    }

    fn append(&self, book: &mut Book, lines: &[Line]) -> io::Result<()> {
        let len = book.ledger.len() + (lines.len() * LINE_LEN) as u64;
        let needed = footprint(len);
        if needed > book.reserved {
            let more = needed - book.reserved;
            // A step at a time, or what is needed and no more.
            let more = [more + LEDGER_STEP, more]
                .into_iter()
                .find(|&more| self.room.reserve(more))
                .ok_or(io::ErrorKind::StorageFull)?;
            book.reserved += more;
        }
        let written = book.ledger.append(lines)?;
        self.counters.written_bytes.add(written);
        Ok(())
    }

    pub(super) fn ledger_len(&self) -> u64 {
        lock(&self.book).ledger.len()
    }

    /// Syncs the ledger without holding up who writes to it.
    pub(super) fn sync_ledger(&self) -> io::Result<()> {
        let handle = lock(&self.book).ledger.sync_handle()?;
        handle.sync_data()
    }

    /// The lines so far, and how long the ledger was then.
    pub(super) fn ledger_so_far(&self) -> io::Result<(u64, Verdicts)> {
        let book = lock(&self.book);
        let mut verdicts = Verdicts::default();
        for line in book.ledger.lines_from(LINE_LEN as u64)? {
            verdicts.add(line);
        }
        Ok((book.ledger.len(), verdicts))
    }

    /// Replaces the ledger's lines up to `until` by these; later ones stay.
    pub(super) fn replace_ledger(&self, until: u64, mut lines: Vec<Line>) -> io::Result<()> {
        let mut book = lock(&self.book);
        lines.extend(book.ledger.lines_from(until)?);
        let wanted = footprint((lines.len() as u64 + 1) * LINE_LEN as u64 + LEDGER_STEP);
        if !self.room.reserve(wanted) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let (draft, path) = (self.folder.ledger_draft(), self.folder.ledger());
        match Ledger::create(&self.io, &draft, &path, &lines) {
            Ok(ledger) => {
                self.counters.written_bytes.add(ledger.len());
                self.counters.ledger_compactions.one();
                book.ledger = ledger;
                self.room.release(book.reserved);
                book.reserved = wanted;
                Ok(())
            }
            Err(error) => {
                std::fs::remove_file(draft).ok();
                self.room.release(wanted);
                Err(error)
            }
        }
    }

    /// While recovery goes on, tells it what it has to heed, and says that it does go on.
    /// Called under the key's shard lock, as recovery asks under it.
    pub(super) fn tell_recovery(&self, tell: impl FnOnce(&mut Recovering)) -> bool {
        lock(&self.recovering).as_mut().map(tell).is_some()
    }

    /// Counts the times that heat was halved.
    pub(super) fn age(&self) -> u8 {
        self.age.load(Ordering::Relaxed)
    }

    /// Halves every segment's heat, and with it what an entry's hits count.
    pub(super) fn cool(&self) {
        self.age.fetch_add(1, Ordering::Relaxed);
        let table = self.index.table();
        for segment in table.iter().flatten() {
            segment.cool();
        }
    }

    pub(super) fn stats(&self) -> DiskStats {
        DiskStats {
            entries: self.index.len(),
            used_bytes: self.room.used(),
            capacity: self.layout.capacity,
            segments: self.segments.load(Ordering::Relaxed),
            queued_bytes: self.queue.bytes(),
            recovered: self.queue.is_recovered(),
            ..self.counters.read()
        }
    }
}
