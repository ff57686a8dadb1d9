//! What waits for the writer thread.
//!
//! Invariant: bounded in bytes and in count; nobody but the writer waits here, except who asks to.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::tile::TileKey;

use super::index::lock;
use super::layout::Layout;
use super::stats::SkipReason;

const MAX_OPS: usize = 16 * 1024;
const BATCH_OPS: usize = 1024;
const BATCH_BYTES: u64 = 1 << 20;
/// How long the writer lets a batch gather: else misses at the pace of people wake it for every tile, and each of them
/// pays for two switches of threads and a write. Who looks for a tile meanwhile finds it in the queue.
const GATHER: Duration = Duration::from_millis(5);

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// Write what is pending under the key, if it is still this one.
    Put {
        key: TileKey,
        sequence: u64,
        cost: u64,
    },
    /// Write down that the key's record was validated again.
    Touch(TileKey),
    /// Delete these segments, by slot and id: they hold what must not come back.
    Drop(Vec<(u16, u64)>),
}

/// What the writer is at.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Recovering,
    Working,
    Finished,
}

#[derive(Debug, Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is set and asked by itself"
)]
struct Inner {
    ops: VecDeque<Op>,
    bytes: u64,
    /// Set while the writer works on what it took.
    busy: bool,
    /// Whether the writer waits for more to come.
    gathering: bool,
    /// Invalidations wait to be synced.
    sync: bool,
    backing_off: bool,
    phase: Phase,
    /// Work on until then, and no longer.
    closing: Option<Instant>,
    waiting: Vec<oneshot::Sender<bool>>,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    work: Condvar,
    progress: Condvar,
    max_bytes: u64,
}

/// What the writer is to do next.
#[derive(Debug)]
pub(super) enum Next {
    /// These, in this order; and sync the ledger if told so.
    Work(Vec<Op>, bool),
    /// Stop. Nothing is queued any more; these were left undone.
    Finish(Vec<Op>),
}

impl Queue {
    pub(super) fn new(layout: &Layout) -> Self {
        Self {
            inner: Mutex::default(),
            work: Condvar::new(),
            progress: Condvar::new(),
            max_bytes: layout.queue_bytes,
        }
    }

    /// Queues a put; `admit` makes it pending, and is called only if there is room.
    pub(super) fn put(
        &self,
        key: TileKey,
        cost: u64,
        admit: impl FnOnce() -> u64,
    ) -> Result<(), SkipReason> {
        let mut inner = lock(&self.inner);
        if inner.closing.is_some() {
            return Err(SkipReason::Closed);
        }
        if inner.backing_off {
            return Err(SkipReason::BackingOff);
        }
        // An empty queue takes whatever a segment takes.
        if inner.ops.len() >= MAX_OPS || inner.bytes > 0 && inner.bytes + cost > self.max_bytes {
            return Err(SkipReason::QueueFull);
        }
        inner.bytes += cost;
        let sequence = admit();
        inner.ops.push_back(Op::Put {
            key,
            sequence,
            cost,
        });
        self.wake(inner);
        Ok(())
    }

    /// Queues a touch, if there is room.
    pub(super) fn touch(&self, key: TileKey) -> Result<(), SkipReason> {
        let mut inner = lock(&self.inner);
        if inner.closing.is_some() {
            return Err(SkipReason::Closed);
        }
        if inner.backing_off {
            return Err(SkipReason::BackingOff);
        }
        if inner.ops.len() >= MAX_OPS {
            return Err(SkipReason::QueueFull);
        }
        inner.ops.push_back(Op::Touch(key));
        self.wake(inner);
        Ok(())
    }

    /// Has segments deleted before anything else.
    pub(super) fn drop_segments(&self, segments: Vec<(u16, u64)>) {
        let mut inner = lock(&self.inner);
        inner.ops.push_front(Op::Drop(segments));
        self.wake(inner);
    }

    /// Has the ledger synced soon.
    pub(super) fn sync(&self) {
        let mut inner = lock(&self.inner);
        inner.sync = true;
        self.wake(inner);
    }

    fn wake(&self, inner: MutexGuard<'_, Inner>) {
        let wake = !inner.busy && (!inner.gathering || self.is_urgent(&inner));
        drop(inner);
        if wake {
            self.work.notify_one();
        }
    }

    /// Whether what is queued should not wait for more.
    fn is_urgent(&self, inner: &Inner) -> bool {
        inner.sync
            || inner.closing.is_some()
            || inner.ops.len() >= BATCH_OPS
            || inner.bytes >= BATCH_BYTES.min(self.max_bytes / 2)
            || matches!(inner.ops.front(), Some(Op::Drop(_)))
    }

    /// Lets more come to what is queued.
    fn gather<'a>(&'a self, mut inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        inner.gathering = true;
        let waited = self
            .work
            .wait_timeout_while(inner, GATHER, |inner| !self.is_urgent(inner));
        inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        inner.gathering = false;
        inner
    }

    /// For the writer: waits for work, at most until `until`.
    pub(super) fn next(&self, until: Option<Instant>) -> Next {
        let mut inner = lock(&self.inner);
        inner.busy = false;
        self.progress.notify_all();
        loop {
            if let Some(deadline) = inner.closing
                && (inner.ops.is_empty() || deadline <= Instant::now())
            {
                inner.busy = true;
                inner.bytes = 0;
                return Next::Finish(inner.ops.drain(..).collect());
            }
            if !inner.ops.is_empty() || inner.sync {
                break;
            }
            inner = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => break,
                Some(left) => {
                    let waited = self.work.wait_timeout(inner, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self
                    .work
                    .wait(inner)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
        if !inner.ops.is_empty() {
            inner = self.gather(inner);
        }
        inner.busy = true;
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_OPS && bytes < BATCH_BYTES {
            let Some(op) = inner.ops.pop_front() else {
                break;
            };
            if let Op::Put { cost, .. } = op {
                bytes += cost;
            }
            batch.push(op);
        }
        inner.bytes -= bytes;
        Next::Work(batch, std::mem::take(&mut inner.sync))
    }

    /// Nothing is queued for a while. What was is given back.
    pub(super) fn back_off(&self) -> Vec<Op> {
        let mut inner = lock(&self.inner);
        inner.backing_off = true;
        inner.bytes = 0;
        let (kept, dropped) = inner
            .ops
            .drain(..)
            .partition(|op| matches!(op, Op::Drop(_)));
        inner.ops = kept;
        dropped.into()
    }

    /// Writing is tried again.
    pub(super) fn resume(&self) {
        lock(&self.inner).backing_off = false;
    }

    pub(super) fn set_recovered(&self) {
        lock(&self.inner).phase = Phase::Working;
        self.progress.notify_all();
    }

    pub(super) fn is_recovered(&self) -> bool {
        lock(&self.inner).phase != Phase::Recovering
    }

    /// The writer stops at the latest then, unless somebody said so before.
    pub(super) fn close(&self, deadline: Instant) {
        let mut inner = lock(&self.inner);
        let deadline = inner.closing.map_or(deadline, |known| known.min(deadline));
        inner.closing = Some(deadline);
        drop(inner);
        self.work.notify_one();
    }

    pub(super) fn is_closing(&self) -> bool {
        lock(&self.inner).closing.is_some()
    }

    /// Tells whether all was written, once the writer has stopped.
    pub(super) fn finished(&self) -> oneshot::Receiver<bool> {
        let (sender, receiver) = oneshot::channel();
        let mut inner = lock(&self.inner);
        if inner.phase == Phase::Finished {
            sender.send(true).ok();
        } else {
            inner.waiting.push(sender);
        }
        receiver
    }

    /// The writer has stopped.
    pub(super) fn finish(&self, all_written: bool) {
        let mut inner = lock(&self.inner);
        inner.phase = Phase::Finished;
        inner.busy = false;
        for waiting in inner.waiting.drain(..) {
            waiting.send(all_written).ok();
        }
        drop(inner);
        self.progress.notify_all();
    }

    /// Waits until the index is whole, or the writer has stopped.
    pub(super) fn wait_recovered(&self, at_most: Duration) -> bool {
        self.wait(at_most, |inner| inner.phase != Phase::Recovering)
    }

    /// Waits until all that was queued is done.
    pub(super) fn wait_idle(&self, at_most: Duration) -> bool {
        self.wait(at_most, |inner| {
            let idle = inner.ops.is_empty() && !inner.busy && !inner.sync;
            inner.phase == Phase::Finished || inner.phase == Phase::Working && idle
        })
    }

    fn wait(&self, at_most: Duration, done: impl Fn(&Inner) -> bool) -> bool {
        let inner = lock(&self.inner);
        let (inner, _) = self
            .progress
            .wait_timeout_while(inner, at_most, |inner| !done(inner))
            .unwrap_or_else(PoisonError::into_inner);
        done(&inner)
    }

    pub(super) fn bytes(&self) -> u64 {
        lock(&self.inner).bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::MIN_CAPACITY;
    use super::*;

    fn queue() -> Queue {
        Queue::new(&Layout::of(MIN_CAPACITY).unwrap())
    }

    fn key(n: u8) -> TileKey {
        TileKey::from_bytes([n; 16])
    }

    #[test]
    fn a_full_queue_takes_nothing_more_and_an_empty_one_anything() {
        let queue = queue();
        queue.put(key(1), queue.max_bytes * 2, || 1).unwrap();
        assert_eq!(queue.put(key(2), 1, || 2), Err(SkipReason::QueueFull));
        assert!(matches!(queue.next(None), Next::Work(ops, false) if ops.len() == 1));
        queue.put(key(2), 1, || 2).unwrap();
        assert_eq!(queue.bytes(), 1);
    }

    #[test]
    fn closing_leaves_what_is_past_the_deadline() {
        let queue = queue();
        queue.put(key(1), 1, || 1).unwrap();
        queue.close(Instant::now() + Duration::from_mins(1));
        assert_eq!(queue.put(key(2), 1, || 2), Err(SkipReason::Closed));
        assert!(matches!(queue.next(None), Next::Work(ops, _) if ops.len() == 1));
        assert!(matches!(queue.next(None), Next::Finish(left) if left.is_empty()));
        let queue = self::queue();
        queue.put(key(1), 1, || 1).unwrap();
        queue.close(Instant::now());
        assert!(matches!(queue.next(None), Next::Finish(left) if left.len() == 1));
    }
}
