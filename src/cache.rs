//! The caches.

mod disk;
mod stored;

pub use disk::{
    Corruption, DiskFaults, DiskIo, DiskMeta, DiskOpenError, DiskOperation, DiskSettings,
    DiskStats, DiskTier, PendingRead, PutOutcome, SkipReason, TryGet,
};
pub use stored::{ContentHash, Stored, StoredAbsence, StoredTile};
