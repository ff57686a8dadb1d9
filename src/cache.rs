//! The caches.

mod stored;

pub use stored::{ContentHash, Stored, StoredAbsence, StoredTile};
