//! How a capacity is divided, and who has how much of it.
//!
//! Invariant: a byte is reserved before it is written, and given back after it is gone from the
//! file system, so what is on disk never exceeds the capacity, not even while a segment is moved.

use std::sync::atomic::{AtomicU64, Ordering};

use super::record::MAX_RECORD_LEN;

/// The least that the tier works with: 16 of the smallest segments.
pub(super) const MIN_CAPACITY: u64 = 4 << 20;
/// File systems give out whole blocks.
const BLOCK: u64 = 4096;
/// The folder itself, and the lock file.
const FOLDER: u64 = 4 * BLOCK;

/// Sizes that follow from the capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) capacity: u64,
    /// How long a segment file can be, header and summary included.
    pub(super) segment: u64,
    /// How many bodies' bytes may wait to be written.
    pub(super) queue_bytes: u64,
    /// How many keys are indexed at most: memory is bounded even if all records are tiny.
    pub(super) max_entries: u64,
}

impl Layout {
    /// About 128 segments: two are always being filled and one is kept free to move things into,
    /// so fewer would waste room, and each costs an open file.
    pub(super) fn of(capacity: u64) -> Result<Self, u64> {
        if capacity < MIN_CAPACITY {
            return Err(capacity);
        }
        let segment = (capacity / 128).clamp(256 << 10, 1 << 30) / BLOCK * BLOCK;
        Ok(Self {
            capacity,
            segment,
            queue_bytes: (capacity / 8).clamp(1 << 20, 64 << 20),
            max_entries: capacity / 512,
        })
    }

    /// The longest body that a segment, and a place in the index, has room for.
    pub(super) fn max_body(&self) -> u64 {
        (self.segment - 1024).min(MAX_RECORD_LEN as u64 - 1024)
    }
}

/// What a file of this length may take on disk: whole blocks, and one more for its extents.
pub(super) fn footprint(len: u64) -> u64 {
    len.next_multiple_of(BLOCK) + BLOCK
}

/// The account of reserved bytes.
#[derive(Debug)]
pub(super) struct Room {
    used: AtomicU64,
    /// The capacity, or less after the disk turned out to have less.
    limit: AtomicU64,
    capacity: u64,
}

impl Room {
    pub(super) fn new(capacity: u64) -> Self {
        Self {
            used: AtomicU64::new(FOLDER),
            limit: AtomicU64::new(capacity),
            capacity,
        }
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    pub(super) fn free(&self) -> u64 {
        self.limit
            .load(Ordering::Acquire)
            .saturating_sub(self.used())
    }

    /// Takes bytes if there are as many.
    pub(super) fn reserve(&self, bytes: u64) -> bool {
        let limit = self.limit.load(Ordering::Acquire);
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(bytes).filter(|&sum| sum <= limit)
            })
            .is_ok()
    }

    /// Enters bytes that are on disk already, as found at a restart.
    pub(super) fn enter(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(super) fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// The disk is fuller than we are allowed to make it: do with what we have.
    pub(super) fn squeeze(&self) {
        self.limit
            .store(self.used().min(self.capacity), Ordering::Release);
    }

    /// Writing works again: take back a little.
    pub(super) fn relax(&self, bytes: u64) {
        let limit = self.limit.load(Ordering::Acquire);
        if limit < self.capacity {
            self.limit
                .store((limit + bytes).min(self.capacity), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capacity_is_some_hundred_segments_of_whole_blocks() {
        assert_eq!(Layout::of(MIN_CAPACITY - 1), Err(MIN_CAPACITY - 1));
        for capacity in [MIN_CAPACITY, 100_000_000, 1 << 30, 50 << 30, 1 << 40] {
            let layout = Layout::of(capacity).unwrap();
            assert!(layout.segment.is_multiple_of(BLOCK));
            assert!(
                (16..=1100).contains(&(capacity / layout.segment)),
                "{capacity}"
            );
        }
    }

    #[test]
    fn no_more_is_reserved_than_there_is() {
        let room = Room::new(FOLDER + 100);
        assert!(room.reserve(60) && !room.reserve(41) && room.reserve(40));
        room.release(50);
        assert_eq!(room.free(), 50);
        room.squeeze();
        assert!(!room.reserve(1));
        room.relax(20);
        assert!(!room.reserve(21) && room.reserve(20));
        room.relax(1000);
        assert_eq!(room.free(), 30);
    }
}
