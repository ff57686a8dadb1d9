//! What has been done so far, and what is said about it in the end.

use std::collections::BTreeMap;

use serde::Serialize;

use super::outcome::{Done, Reason};

/// Failed tiles that a report lists; all are in the resume file.
const LISTED: usize = 20;

/// A tile that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedTile {
    /// Of which tileset.
    pub tileset: String,
    /// Where: z/x/y.
    pub tile: String,
    /// Why, in a word.
    pub reason: &'static str,
    /// Why, in a sentence.
    pub detail: String,
}

/// The counts of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Tiles that the server fetched from its origin.
    pub fetched: u64,
    /// Tiles that it had already.
    pub stored: u64,
    /// Of these, those that were stale, and are revalidated behind.
    pub stale: u64,
    /// Of these, those that go stale within `--stale-within`: a session of no background class does not hurry them.
    pub expiring: u64,
    /// Tiles that it had, and asked its origin about.
    pub revalidated: u64,
    /// Tiles that it does not have and was not made to fetch.
    pub not_stored: u64,
    /// Tiles that there are not.
    pub absent: u64,
    /// Tiles that were in the archive before.
    pub in_archive: u64,
    /// Tiles that failed.
    pub failed: u64,
    /// Bytes of bodies, as they came over the network.
    pub bytes: u64,
    /// Requests beyond one for a tile.
    pub retries: u64,
    /// Times that the server asked for a pause.
    pub throttled: u64,
}

impl Tally {
    /// Tiles that ended, well or not.
    pub fn ended(&self) -> u64 {
        self.fetched
            + self.stored
            + self.revalidated
            + self.not_stored
            + self.absent
            + self.in_archive
            + self.failed
    }

    pub(super) fn note(&mut self, done: Done, stale_within: Option<i64>) {
        match done {
            Done::Fetched => self.fetched += 1,
            Done::Stored { ttl } => {
                self.stored += 1;
                match (ttl, stale_within) {
                    (Some(ttl), _) if ttl < 0 => self.stale += 1,
                    (Some(ttl), Some(within)) if ttl < within => self.expiring += 1,
                    _ => {}
                }
            }
            Done::Revalidated => self.revalidated += 1,
            Done::Absent => self.absent += 1,
            Done::NotStored => self.not_stored += 1,
            Done::InArchive => self.in_archive += 1,
        }
    }
}

/// Failures of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct Failures {
    pub reasons: BTreeMap<Reason, u64>,
    pub first: Vec<FailedTile>,
}

impl Failures {
    pub(super) fn note(&mut self, tile: FailedTile, reason: Reason) {
        *self.reasons.entry(reason).or_default() += 1;
        if self.first.len() < LISTED {
            self.first.push(tile);
        }
    }
}

/// What is said in the end.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether every tile of the plan has ended well, in this run or before.
    pub complete: bool,
    /// Why it ended before the plan did.
    pub stopped: Option<String>,
    /// Tiles of the plan.
    pub tiles: u64,
    /// Tiles that an earlier run had done.
    pub resumed: u64,
    /// What this one did.
    #[serde(flatten)]
    pub tally: Tally,
    /// Failures by reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// The first failures.
    pub failures: Vec<FailedTile>,
    /// How long it took.
    pub seconds: f64,
    /// The archive, where one was written.
    pub archive: Option<ArchiveReport>,
}

/// An archive that was written.
#[derive(Debug, Clone, Serialize)]
pub struct ArchiveReport {
    /// Where.
    pub file: String,
    /// Tiles in it.
    pub tiles: u64,
    /// Different contents: each is stored once.
    pub distinct: u64,
    /// Its size.
    pub bytes: u64,
    /// Whether tiles are missing that should be in it.
    pub complete: bool,
}
