//! Where entries are found: a table beside moka's.
//!
//! moka decides what stays. To do so it notes every look-up and works through its notes every sixty-four, which
//! costs more than all else that a hit does. So entries are found here, and moka is told of some look-ups
//! ([`Entry::is_to_be_told`]).
//! Invariant: what is found here has not been dropped by moka: an entry knows when it was, before its place here
//! is given back. What is not found here may be there all the same; who finds it there puts it back.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast::RandomState;

use super::MemoryKey;
use super::entry::Entry;

/// So many that two cores seldom want the same one. A power of two.
const SHARDS: usize = 256;

/// A shard sits on a cache line of its own: a lock taken next door must not slow this one down.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(RwLock<HashMap<MemoryKey, Arc<Entry>, RandomState>>);

/// The table.
#[derive(Debug)]
pub(super) struct Index {
    shards: Box<[Shard]>,
    hashing: RandomState,
}

impl Index {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            hashing: RandomState::default(),
        }
    }

    /// The entry of a key, as long as moka keeps it.
    pub(super) fn get(&self, key: MemoryKey) -> Option<Arc<Entry>> {
        let shard = self.shard(key).0.read();
        let shard = shard.unwrap_or_else(PoisonError::into_inner);
        shard.get(&key).filter(|entry| !entry.is_gone()).cloned()
    }

    /// Notes an entry that was put into moka, unless it has been dropped there already.
    pub(super) fn put(&self, key: MemoryKey, entry: &Arc<Entry>) {
        let shard = self.shard(key).0.write();
        let mut shard = shard.unwrap_or_else(PoisonError::into_inner);
        // Asked under the lock: who drops it marks it first, and takes the lock then.
        if !entry.is_gone() {
            shard.insert(key, Arc::clone(entry));
        }
    }

    /// Forgets an entry that moka has dropped; another one under its key stays.
    pub(super) fn remove(&self, key: MemoryKey, entry: &Arc<Entry>) {
        let shard = self.shard(key).0.write();
        let mut shard = shard.unwrap_or_else(PoisonError::into_inner);
        if shard.get(&key).is_some_and(|here| Arc::ptr_eq(here, entry)) {
            shard.remove(&key);
            if shard.capacity() > 64 && shard.len() < shard.capacity() / 4 {
                shard.shrink_to_fit();
            }
        }
    }

    /// How many are noted.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let len = |shard: &Shard| shard.0.read().unwrap().len();
        self.shards.iter().map(len).sum()
    }

    fn shard(&self, key: MemoryKey) -> &Shard {
        // Of another hash than the one inside, or each shard would fill a part of its places alone.
        let hash = self.hashing.hash_one(key);
        &self.shards[(hash >> 48) as usize % SHARDS]
    }
}
