//! The caches.

pub mod disk;
mod stored;

pub use stored::{ContentHash, Stored, StoredAbsence, StoredTile};
