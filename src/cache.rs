//! The caches: one look-up algorithm over memory, disk and origin.
//!
//! Invariant: never a wrong tile. What a tier cannot vouch for is a miss, and no trouble in a tier
//! fails a request. Left out on purpose: HTTP and sessions; nothing here knows who asks.

mod disk;
mod fill;
mod flight;
mod freshness;
mod memory;
mod speculation;
mod stored;
mod tile_cache;

#[cfg(any(test, fuzzing))]
pub use disk::fuzz_record;
pub use disk::{
    Corruption, DiskFaults, DiskIo, DiskMeta, DiskOpenError, DiskOperation, DiskSettings,
    DiskStats, DiskTier, PendingRead, PutOutcome, SkipReason, TryGet,
};
pub use freshness::{Assessment, Confirmed, Freshness, FreshnessPolicy};
pub(crate) use memory::FOUND_AT_MOST;
pub use memory::{Held, HeldTile, MemoryTier};
pub use speculation::{Guesses, Speculation};
pub use stored::{ContentHash, ETAG_LEN, Stored, StoredAbsence, StoredTile};
pub use tile_cache::{
    CacheStatus, Explained, Purge, Purged, Revalidation, Served, TileCache, TileCacheParts, Wanted,
};
