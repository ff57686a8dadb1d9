//! `[cache]` and `[origin]`: how much is kept, for how long it is believed, how hard S3 is asked.

use std::path::PathBuf;
use std::time::Duration;

use super::section::{Item, Section};
use crate::metrics::{GuessKind, Label as _};

/// The two tiers and the times of freshness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheConfig {
    /// Capacity of the memory tier in bytes; 0: off.
    pub memory: u64,
    /// Capacity of the disk tier in bytes; 0: off.
    pub disk: u64,
    /// The disk tier's folder; always there when `disk` is more than 0.
    pub disk_path: Option<PathBuf>,
    /// How long a stored tile is fresh.
    pub fresh: Duration,
    /// How long after that it is served while it is revalidated behind.
    pub stale_while_revalidate: Duration,
    /// How long after `fresh` it is served if the origin fails.
    pub stale_if_error: Duration,
    /// How long 'no such tile' is believed.
    pub missing: Duration,
}

/// Smallest tiers that are worth having: less would evict a tile before its neighbour is there.
const MIN_MEMORY: u64 = 1 << 20;
const MIN_DISK: u64 = 64 << 20;

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            memory: 512 << 20,
            disk: 0,
            disk_path: None,
            fresh: Duration::from_hours(1),
            stale_while_revalidate: Duration::from_hours(24),
            stale_if_error: Duration::from_hours(7 * 24),
            missing: Duration::from_mins(5),
        }
    }
}

impl CacheConfig {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        let cache = Self {
            memory: section
                .read("memory", |item| tier(item, MIN_MEMORY))
                .unwrap_or(default.memory),
            disk: section
                .read("disk", |item| tier(item, MIN_DISK))
                .unwrap_or(default.disk),
            disk_path: section.read("disk_path", Item::path),
            fresh: section.lifetime("fresh", default.fresh),
            stale_while_revalidate: section
                .lifetime("stale_while_revalidate", default.stale_while_revalidate),
            stale_if_error: section.lifetime("stale_if_error", default.stale_if_error),
            missing: section.lifetime("missing", default.missing),
        };
        if cache.disk > 0 && !section.has("disk_path") {
            section.refuse(
                "disk_path",
                "is missing, but `disk` is not 0",
                "name a folder, like disk_path = \"/var/cache/tilekeep\"",
            );
        }
        if cache.fresh < Duration::from_secs(1) {
            section.refuse(
                "fresh",
                "is less than a second: every view would ask the origin",
                "use \"1s\" or more",
            );
        }
        cache
    }
}

fn tier(item: &Item<'_>, least: u64) -> Option<u64> {
    let bytes = item.size()?;
    if bytes == 0 || bytes >= least {
        return Some(bytes);
    }
    let least = bytesize::ByteSize(least).display().iec();
    item.refuse(
        "is too little to be of use",
        format!("use {least} or more, or \"0\" to switch the tier off"),
    )
}

/// How the origin is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginConfig {
    /// For one tile, retries included.
    pub deadline: Duration,
    /// How many requests may be under way at once.
    pub concurrency: usize,
    /// How many of these may be guesses at what will be wanted next; 0: none.
    pub speculative: usize,
    /// What is guessed.
    pub guess: Vec<GuessKind>,
}

impl Default for OriginConfig {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10),
            concurrency: 64,
            speculative: 0,
            guess: vec![GuessKind::Ring],
        }
    }
}

impl OriginConfig {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        let deadlines = Duration::from_millis(100)..=Duration::from_mins(5);
        let kinds = [GuessKind::Ring, GuessKind::Children].map(|kind| (kind.label(), kind));
        // Asked for in any case: a key that is never asked for is none that a mistyped one could have been.
        let guess = section.list("guess", |item| item.choice(&kinds));
        let origin = Self {
            deadline: section
                .read("deadline", |item| item.duration(deadlines))
                .unwrap_or(default.deadline),
            concurrency: section
                .read("concurrency", |item| {
                    usize::try_from(item.integer(1..=10_000)?).ok()
                })
                .unwrap_or(default.concurrency),
            speculative: section
                .read("speculative", |item| {
                    usize::try_from(item.integer(0..=10_000)?).ok()
                })
                .unwrap_or(default.speculative),
            guess: if section.has("guess") {
                guess
            } else {
                default.guess
            },
        };
        if origin.speculative > origin.concurrency / 2 {
            section.refuse(
                "speculative",
                "is more than half of `concurrency`: guesses would take the place of what people wait for",
                "use a quarter of it, or 0 to fetch nothing that is not asked for",
            );
        }
        if section.has("guess") && section.count("guess") == 0 {
            section.refuse(
                "guess",
                "names nothing that could be guessed",
                "name ring, children or both; speculative = 0 fetches nothing that is not asked for",
            );
        }
        origin
    }
}
