//! Jobs give way: a request of a background class (`[[quotas]] background = true`) is answered when those of
//! people who are there have been.
//!
//! Invariant: as many of a job's tiles are looked up and written at once as there are cores, however many
//! connections it has, and between two of them whoever else is ready comes first.
//! Left out on purpose: misses, which wait in a line of their own (`origin::limits`).

use tokio::sync::{Semaphore, SemaphorePermit};

/// The places of jobs.
#[derive(Debug)]
pub struct Background {
    places: Semaphore,
}

impl Background {
    /// So many at once as there are cores.
    pub fn new(cores: usize) -> Self {
        Self {
            places: Semaphore::new(cores.max(1)),
        }
    }

    /// Waits for a place, and then for all that can run now.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed.
        let place = self.places.acquire().await.ok();
        // Comes back after everything that is ready, and after what the kernel has become ready meanwhile.
        tokio::task::yield_now().await;
        place
    }
}
