//! The disk tier: what was fetched once survives memory pressure and restarts.
//!
//! Tiles are a few kilobytes and there are millions of them, so they are not files. They are records
//! appended to about 128 segment files (`disk/segment.rs`), found by an index in memory and checked
//! whenever they are read. When room is needed the segment that is worth least is retired, and what
//! in it is still hot moves. Identical bodies are kept once.
//!
//! Invariants:
//! * A tile that does not match its key, its checksum and its segment is a miss and a counter, never
//!   an answer.
//! * The disk's trouble is never the caller's: writes are skipped and counted, reads become misses.
//! * The folder never takes more than its capacity: bytes are reserved before they are written.
//! * What was invalidated does not come back, whatever crashes (`disk/ledger.rs`).
//! * [`DiskTier::try_get`] never waits for the disk.
//!
//! Nothing that is cached is ever synced. A write that is lost in a power failure is a lost entry:
//! it fails its checksum, or is not there. The one thing whose loss would be a lie is an
//! invalidation; it is in the page cache before [`DiskTier::invalidate`] returns, which outlives
//! this process, and is synced right behind, which outlives the machine a moment later.
//!
//! Left out on purpose: freshness (the algorithm over the tiers decides it) and admission (whoever
//! puts has decided that already).

mod buffer;
mod folder;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod index;
mod invalidate;
mod io;
mod lane;
mod layout;
mod ledger;
mod queue;
mod read;
mod record;
mod recovery;
mod retire;
mod segment;
mod state;
mod stats;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cache::Stored;
use crate::clock::Timestamp;
use crate::tile::TileKey;

use folder::{Folder, Listed};
use layout::{Layout, footprint};
use ledger::{Found, Ledger, Line, Verdict};
use state::State;
use writer::Writer;

pub use folder::DiskOpenError;
#[cfg(any(test, fuzzing))]
pub use fuzz::fuzz_record;
pub use io::{DiskFaults, DiskIo};
pub use read::{DiskMeta, PendingRead, TryGet};
pub use stats::{Corruption, DiskOperation, DiskStats, SkipReason};

/// What the disk tier has to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSettings {
    /// The folder; made if it is not there. One server's alone.
    pub path: PathBuf,
    /// How many bytes it may take on disk, all files included.
    pub capacity: u64,
}

/// What became of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// It is served from now on, and written soon.
    Queued,
    /// It is not, and that is counted.
    Skipped(SkipReason),
}

/// The disk tier. Cloning gives another handle on the same one; the folder is free again when the
/// last is dropped, which waits for the write that is under way: [`DiskTier::close`] before that.
#[derive(Debug, Clone)]
pub struct DiskTier {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    state: Arc<State>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // What is queued is given up: who wants it written calls `close` before.
        self.state.queue.close(Instant::now());
        if let Some(writer) = index::lock(&self.writer).take() {
            writer.join().ok();
        }
    }
}

impl DiskTier {
    /// Takes the folder. What is in it comes back behind, on a thread of its own; look-ups find
    /// what is back already, and puts wait in memory.
    pub fn open(settings: DiskSettings) -> Result<Self, DiskOpenError> {
        Self::open_with(settings, DiskIo::System)
    }

    /// The same over a disk that a test can break.
    pub fn open_with(settings: DiskSettings, io: DiskIo) -> Result<Self, DiskOpenError> {
        let DiskSettings { path, capacity } = settings;
        let layout = Layout::of(capacity);
        let (folder, layout) = Folder::take(&path, layout)?;
        let unusable = |source| DiskOpenError::Unusable {
            path: path.clone(),
            source,
        };
        let mut listed = folder.segments().map_err(unusable)?;
        let (ledger, verdicts) = open_ledger(&folder, &io, &listed).map_err(unusable)?;
        let newest = listed.iter().map(|listed| listed.id).max().unwrap_or(0);
        let start = state::session_start(newest.max(verdicts.newest));
        let lost = matches!(ledger, Lost::Yes(_));
        let (Lost::Yes(ledger) | Lost::No(ledger)) = ledger;
        let state = State::new(folder, io, layout, ledger, verdicts, start);
        if lost {
            state.counters.ledger_losses.one();
        }
        fit(&state, &mut listed);
        let state = Arc::new(state);
        let mut writer = Writer::new(Arc::clone(&state));
        let thread = std::thread::Builder::new()
            .name("tilekeep-disk".to_owned())
            .spawn(move || {
                writer.recover(&listed);
                writer.run();
            })
            .map_err(unusable)?;
        Ok(Self {
            handle: Arc::new(Handle {
                state,
                writer: Mutex::new(Some(thread)),
            }),
        })
    }

    fn state(&self) -> &Arc<State> {
        &self.handle.state
    }

    /// Looks a key up without ever waiting for the disk: what the page cache holds is a hit.
    pub fn try_get(&self, key: &TileKey) -> TryGet {
        self.state().try_get(key)
    }

    /// Looks a key up; should the disk have to be waited for, tokio's blocking pool does it.
    pub async fn get(&self, key: &TileKey) -> Option<Stored> {
        match self.try_get(key) {
            TryGet::Hit(stored) => Some(stored),
            TryGet::Miss => None,
            TryGet::WouldBlock(pending) => tokio::task::spawn_blocking(move || pending.read())
                .await
                .ok()
                .flatten(),
        }
    }

    /// Takes a response to be written. Never waits and never fails; under pressure it is skipped.
    /// Until it is written it is served from memory.
    pub fn put(&self, key: TileKey, stored: impl Into<Arc<Stored>>) -> PutOutcome {
        let stored = stored.into();
        let state = self.state();
        let outcome = match &*stored {
            Stored::Tile(tile) if tile.body.len() as u64 > state.layout.max_body() => {
                Err(SkipReason::TooLarge)
            }
            Stored::Tile(tile) => {
                let cost = tile.body.len() as u64 + 256;
                state.queue.put(key, cost, || state.admit(key, stored))
            }
            Stored::Absence(absence) if state.is_absent(&key) => {
                // Found missing again: nothing new to write.
                state.touch(key, absence.validated_at);
                Ok(())
            }
            Stored::Absence(_) => state.queue.put(key, 256, || state.admit(key, stored)),
        };
        match outcome {
            Ok(()) => PutOutcome::Queued,
            Err(reason) => {
                state.counters.skipped(reason);
                state.outdated(&key);
                PutOutcome::Skipped(reason)
            }
        }
    }

    /// The origin said that what is stored is still right. No body is written.
    pub fn touch(&self, key: TileKey, validated_at: Timestamp) {
        self.state().touch(key, validated_at);
    }

    /// Removes a key, and says whether it was there. In effect before it returns, and after a crash
    /// that follows. Writes 40 bytes.
    pub fn invalidate(&self, key: &TileKey) -> bool {
        self.state().invalidate(key)
    }

    /// Removes these keys, and says how many were there. As [`DiskTier::invalidate`], in one write: it looks at no
    /// other key and does not wait for recovery. Not for an async thread all the same.
    pub fn invalidate_each(&self, keys: &[TileKey]) -> u64 {
        self.state().invalidate_each(keys)
    }

    /// Removes every key that this is true of, and says how many. In effect before it returns, and
    /// after a crash that follows. Looks at all keys, and waits for recovery: not for an async
    /// thread. Look-ups go on beside it; a key that is put while it runs may be missed.
    pub fn invalidate_matching(&self, predicate: impl Fn(&TileKey) -> bool) -> u64 {
        self.state().invalidate_matching(predicate)
    }

    /// Takes every tile that this is true of for confirmed no later than `validated_at`; bodies stay,
    /// so that a 304 from the origin is enough. Absences are removed. Otherwise as
    /// [`DiskTier::invalidate_matching`].
    pub fn expire_matching(
        &self,
        predicate: impl Fn(&TileKey) -> bool,
        validated_at: Timestamp,
    ) -> u64 {
        self.state().expire_matching(predicate, validated_at)
    }

    /// What is known of a key without reading it, and without making it any hotter.
    pub fn lookup_meta(&self, key: &TileKey) -> Option<DiskMeta> {
        self.state().meta(key)
    }

    /// The tier in numbers.
    pub fn stats(&self) -> DiskStats {
        self.state().stats()
    }

    /// Writes what is queued, for no longer than this, and seals the files so that the next start
    /// need not read them whole. Says whether all was written. Look-ups still work afterwards;
    /// puts are skipped.
    pub async fn close(&self, within: Duration) -> bool {
        let queue = &self.state().queue;
        // Sealing takes a moment too.
        queue.close(Instant::now() + within.mul_f32(0.9));
        let finished = queue.finished();
        matches!(tokio::time::timeout(within, finished).await, Ok(Ok(true)))
    }

    /// Waits until the whole index is back after a restart. Not for an async thread.
    pub fn wait_recovered(&self, at_most: Duration) -> bool {
        self.state().queue.wait_recovered(at_most)
    }

    /// Waits until all that was put is written. Not for an async thread.
    pub fn wait_written(&self, at_most: Duration) -> bool {
        self.state().queue.wait_idle(at_most)
    }
}

enum Lost {
    Yes(Ledger),
    No(Ledger),
}

fn open_ledger(
    folder: &Folder,
    io: &DiskIo,
    listed: &[Listed],
) -> std::io::Result<(Lost, ledger::Verdicts)> {
    let (draft, path) = (folder.ledger_draft(), folder.ledger());
    let mut verdicts = match Ledger::open(io, &path) {
        Ok(Found::Whole(ledger, verdicts)) => return Ok((Lost::No(ledger), verdicts)),
        Ok(Found::Old(verdicts)) => {
            let ledger = Ledger::create(io, &draft, &path, &verdicts.all_lines())?;
            return Ok((Lost::No(ledger), verdicts));
        }
        Ok(Found::Lost(verdicts)) => verdicts,
        Err(error) => {
            tracing::warn!(%error, "the disk cache's ledger cannot be read");
            ledger::Verdicts::default()
        }
    };
    let Some(newest) = listed.iter().map(|listed| listed.id).max() else {
        let ledger = Ledger::create(io, &draft, &path, &[])?;
        return Ok((Lost::No(ledger), verdicts));
    };
    tracing::warn!(
        ledger = %path.display(),
        "the disk cache's ledger of invalidations is missing, damaged or of a later version: \
         the origin is asked about every tile again before it is served"
    );
    let before = state::session_start(newest.max(verdicts.newest));
    verdicts.add(Line::keyless(Verdict::AllStale, before));
    let ledger = Ledger::create(io, &draft, &path, &verdicts.all_lines())?;
    Ok((Lost::Yes(ledger), verdicts))
}

/// Enters the files into the account, and deletes the oldest if the capacity has become too small
/// for them.
fn fit(state: &State, listed: &mut Vec<Listed>) {
    for listed in listed.iter() {
        state.room.enter(footprint(listed.len));
    }
    while state.room.free() < state.layout.segment {
        let Some(oldest) = listed.pop() else {
            return;
        };
        match std::fs::remove_file(state.folder.segment(oldest.id)) {
            Ok(()) => {
                state.room.release(footprint(oldest.len));
                state.counters.segments_retired.one();
            }
            Err(error) => state.counters.io_error(DiskOperation::Delete, &error),
        }
    }
}
