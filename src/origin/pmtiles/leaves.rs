//! The leaf directories of one version that were read lately, within a bound of memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::OnceCell;

use super::lock;
use crate::tile::pmtiles::Directory;

/// What the leaves of one archive may take. A leaf of four thousand entries takes about 100 KB.
pub(super) const MAX_BYTES: usize = 32 << 20;

/// By offset.
#[derive(Default)]
pub(super) struct Leaves(Mutex<Held>);

#[derive(Default)]
struct Held {
    by_offset: HashMap<u64, Leaf>,
    bytes: usize,
    clock: u64,
}

struct Leaf {
    /// Filled by the first who asks, while the others wait.
    cell: Arc<OnceCell<Arc<Directory>>>,
    /// 0 until it is there.
    bytes: usize,
    used: u64,
}

impl Leaves {
    /// The leaf at this offset; `read` where it is not held. One read for all who ask at once.
    pub(super) async fn get<E, F>(
        &self,
        offset: u64,
        read: impl FnOnce() -> F,
    ) -> Result<Arc<Directory>, E>
    where
        F: Future<Output = Result<Directory, E>>,
    {
        let cell = {
            let mut held = lock(&self.0);
            held.clock += 1;
            let used = held.clock;
            let leaf = held.by_offset.entry(offset).or_insert_with(|| Leaf {
                cell: Arc::default(),
                bytes: 0,
                used,
            });
            leaf.used = used;
            Arc::clone(&leaf.cell)
        };
        let pending = Pending {
            leaves: self,
            offset,
        };
        let leaf = cell
            .get_or_try_init(async || Ok(Arc::new(read().await?)))
            .await;
        drop(pending);
        leaf.cloned()
    }

    /// Accounts for a leaf that is there now, and makes room; forgets one that nobody got.
    fn settle(&self, offset: u64) {
        let mut held = lock(&self.0);
        let Some(leaf) = held.by_offset.get_mut(&offset) else {
            return;
        };
        match leaf.cell.get() {
            // This one's hand and the table's: nobody else waits for it.
            None if Arc::strong_count(&leaf.cell) <= 2 => {
                held.by_offset.remove(&offset);
            }
            Some(directory) if leaf.bytes == 0 => {
                leaf.bytes = directory.weight();
                held.bytes += leaf.bytes;
                held.make_room(offset);
            }
            None | Some(_) => {}
        }
    }
}

impl Held {
    /// Lets go of what was not used for longest. One scan of some hundred entries.
    fn make_room(&mut self, keep: u64) {
        while self.bytes > MAX_BYTES {
            let there = self
                .by_offset
                .iter()
                .filter(|(offset, leaf)| leaf.bytes > 0 && **offset != keep);
            let Some((&oldest, _)) = there.min_by_key(|(_, leaf)| leaf.used) else {
                return;
            };
            if let Some(leaf) = self.by_offset.remove(&oldest) {
                self.bytes -= leaf.bytes;
            }
        }
    }
}

/// Settles also when the caller hangs up.
struct Pending<'a> {
    leaves: &'a Leaves,
    offset: u64,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.leaves.settle(self.offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of this many entries, each a tile of its own.
    fn directory(entries: usize) -> Directory {
        let count = entries;
        let mut bytes = Vec::new();
        let mut number = |mut n: usize| {
            while n >= 0x80 {
                bytes.push(u8::try_from(n & 0x7f).unwrap() | 0x80);
                n >>= 7;
            }
            bytes.push(u8::try_from(n).unwrap());
        };
        number(count);
        for _ in 0..count * 4 {
            number(1);
        }
        Directory::read(&bytes, false).unwrap()
    }

    #[tokio::test]
    async fn leaves_are_held_within_their_bound_and_read_once() {
        let leaves = Leaves::default();
        let weight = directory(40_000).weight();
        let fit = u64::try_from(MAX_BYTES / weight).unwrap();
        let mut reads = 0;
        for round in 0..2 {
            for offset in 0..fit {
                let got: Result<_, ()> = leaves
                    .get(offset, || {
                        reads += 1;
                        async { Ok(directory(40_000)) }
                    })
                    .await;
                assert_eq!(got.unwrap().entries().len(), 40_000, "round {round}");
            }
        }
        assert_eq!(reads, fit);
        for offset in fit..fit + 3 {
            let got: Result<_, ()> = leaves.get(offset, || async { Ok(directory(40_000)) }).await;
            assert!(got.is_ok());
        }
        let held = lock(&leaves.0);
        assert!(held.bytes <= MAX_BYTES && held.by_offset.len() as u64 == fit);
        assert!(!held.by_offset.contains_key(&0) && held.by_offset.contains_key(&fit));
    }

    #[tokio::test]
    async fn a_leaf_that_could_not_be_read_is_asked_for_again() {
        let leaves = Leaves::default();
        let failed: Result<_, &str> = leaves.get(7, || async { Err("on purpose") }).await;
        assert!(failed.is_err());
        assert!(lock(&leaves.0).by_offset.is_empty());
        let got: Result<_, &str> = leaves.get(7, || async { Ok(directory(1)) }).await;
        assert!(got.is_ok());
    }
}
