//! Slots, and those who wait for one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// So many at once, so many more that may wait.
#[derive(Debug)]
pub(super) struct Line {
    slots: Semaphore,
    at_once: usize,
    queue: usize,
    waiting: AtomicUsize,
}

/// Why there is no slot.
#[derive(Debug, Clone, Copy)]
pub(super) enum Refused {
    /// So many wait already.
    Full { ahead: usize, expected: Duration },
    /// Its turn would come after its deadline.
    TooLate { expected: Duration },
    /// Its turn did not come before its deadline.
    NotInTime { expected: Duration },
}

impl Line {
    pub(super) fn new(at_once: usize, queue: usize) -> Self {
        let at_once = at_once.min(Semaphore::MAX_PERMITS);
        Self {
            slots: Semaphore::new(at_once),
            at_once,
            queue,
            waiting: AtomicUsize::new(0),
        }
    }

    /// A slot that is free now.
    pub(super) fn at_once(&self) -> Option<SemaphorePermit<'_>> {
        self.slots.try_acquire().ok()
    }

    /// A slot, now or when its turn comes, if that can be before the deadline. `service`: how long one is
    /// held lately.
    pub(super) async fn place(
        &self,
        deadline: Duration,
        service: Duration,
    ) -> Result<SemaphorePermit<'_>, Refused> {
        if let Some(slot) = self.at_once() {
            return Ok(slot);
        }
        let place = Waiting::join(&self.waiting);
        let expected = self.admit(place.ahead, deadline, service)?;
        // The semaphore is never closed: what fails is the wait.
        match timeout(deadline, self.slots.acquire()).await {
            Ok(Ok(slot)) => Ok(slot),
            _ => Err(Refused::NotInTime { expected }),
        }
    }

    /// Whether who came now would get no place, without taking one. `begun`: how many are on their way here, have
    /// a slot or wait for one. When it is this machine that cannot keep up, they are on their way, and who looked
    /// at the line alone would let in ever more.
    pub(super) fn refuses(
        &self,
        begun: usize,
        deadline: Duration,
        service: Duration,
    ) -> Option<Refused> {
        let here = match self.slots.available_permits() {
            0 => Some(self.waiting()),
            _ => None,
        };
        let ahead = here.max(begun.checked_sub(self.at_once))?;
        self.admit(ahead, deadline, service).err()
    }

    /// Whether one with this many ahead may wait, and how long it will.
    fn admit(
        &self,
        ahead: usize,
        deadline: Duration,
        service: Duration,
    ) -> Result<Duration, Refused> {
        let expected = self.expected_wait(ahead, service);
        if ahead >= self.queue {
            return Err(Refused::Full { ahead, expected });
        }
        if expected >= deadline {
            return Err(Refused::TooLate { expected });
        }
        Ok(expected)
    }

    /// How many slots there are.
    pub(super) fn at_most(&self) -> usize {
        self.at_once
    }

    /// How many slots are free.
    pub(super) fn free(&self) -> usize {
        self.slots.available_permits()
    }

    /// How many hold a slot.
    pub(super) fn in_use(&self) -> usize {
        self.at_once - self.slots.available_permits()
    }

    /// How many wait for one.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// How long a request waits behind this many.
    fn expected_wait(&self, ahead: usize, service: Duration) -> Duration {
        let rounds = ahead / self.at_once.max(1);
        // Half a service time until the first slot frees, on average.
        let until_free = service / 2;
        until_free.saturating_add(service.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX)))
    }
}

/// A place in the queue, given up when dropped.
struct Waiting<'a> {
    waiting: &'a AtomicUsize,
    ahead: usize,
}

impl<'a> Waiting<'a> {
    fn join(waiting: &'a AtomicUsize) -> Self {
        let ahead = waiting.fetch_add(1, Ordering::AcqRel);
        Self { waiting, ahead }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}
