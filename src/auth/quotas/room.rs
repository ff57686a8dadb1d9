//! How much memory all tables of tiles take together.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes taken, and how many there are. Who asks first whether there is room and takes it then may find
/// that another was faster: the limit is passed by a table, not by more than there are threads.
#[derive(Debug)]
pub(super) struct Room {
    taken: AtomicUsize,
    limit: usize,
}

impl Room {
    pub(super) const fn new(limit: usize) -> Self {
        Self {
            taken: AtomicUsize::new(0),
            limit,
        }
    }

    /// Whether so many more fit.
    pub(super) fn has(&self, bytes: usize) -> bool {
        self.taken().saturating_add(bytes) <= self.limit
    }

    pub(super) fn take(&self, bytes: usize) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Whether nothing more fits.
    pub(super) fn is_full(&self) -> bool {
        self.taken() >= self.limit
    }
}
