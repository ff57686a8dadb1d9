//! Memory to read records into, used again by its thread.
//!
//! A record is read, checked, sent and forgotten, thousands of times a second: memory of its own would be zeroed each
//! time, and lie in no cache yet. Invariant: a buffer is one record's at a time, and filled before it is looked at.
//! Bounded: a thread keeps [`KEPT`] of at most [`LARGEST`] bytes; one that ends elsewhere stays there.

use std::cell::RefCell;
use std::ops::Range;

use bytes::Bytes;

/// Buffers that a thread keeps: answers are sent one after the other, mostly.
const KEPT: usize = 8;
/// Nearly all tiles are smaller. A larger one has memory of its own.
const LARGEST: usize = 64 << 10;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Memory for one record.
#[derive(Debug)]
pub(super) struct Buffer {
    /// As long as the longest record that was in it.
    memory: Vec<u8>,
    length: usize,
}

impl Buffer {
    /// Of this length, holding whatever it held.
    pub(super) fn of(length: usize) -> Self {
        let spare = SPARE.try_with(|spare| spare.borrow_mut().pop());
        let mut memory = spare.ok().flatten().unwrap_or_default();
        if memory.len() < length {
            memory.resize(length, 0);
        }
        Self { memory, length }
    }

    /// To be filled.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.length]
    }

    /// A part of it to be sent, for as long as that takes.
    pub(super) fn into_part(self, part: Range<usize>) -> Bytes {
        Bytes::from_owner(self).slice(part)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        if memory.len() > LARGEST {
            return;
        }
        // A thread that ends keeps nothing.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < KEPT {
                spare.push(memory);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spare() -> usize {
        SPARE.with_borrow(Vec::len)
    }

    #[test]
    fn a_part_that_is_still_sent_keeps_its_bytes() {
        let mut first = Buffer::of(100);
        first.bytes_mut().fill(1);
        let part = first.into_part(10..20);
        let mut second = Buffer::of(100);
        second.bytes_mut().fill(2);
        assert_eq!(part, [1; 10].as_slice());
        drop(second);
        assert_eq!(spare(), 1);
        let again = part.clone();
        drop(part);
        assert_eq!((again.len(), spare()), (10, 1));
        drop(again);
        assert_eq!(spare(), 2);
    }

    #[test]
    fn memory_is_used_again_for_longer_and_shorter_records() {
        for length in [5, 3000, 0, 8, LARGEST] {
            let mut buffer = Buffer::of(length);
            assert_eq!(buffer.bytes_mut().len(), length);
            assert_eq!(buffer.as_ref().len(), length);
            drop(buffer);
            assert_eq!(spare(), 1);
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let many: Vec<_> = (0..3 * KEPT).map(|_| Buffer::of(10)).collect();
        drop(many);
        assert_eq!(spare(), KEPT);
        let large = Buffer::of(LARGEST + 1);
        drop(large);
        assert_eq!(spare(), KEPT - 1);
    }
}
