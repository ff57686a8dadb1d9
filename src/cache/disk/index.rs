//! The index: where each key's record is, in about a hundred bytes a key.
//!
//! Invariant: a key has at most one entry, the newest record's; no lock here is held over I/O or
//! over more than a shard's share of the keys. Left out on purpose: what the records say. Whoever
//! reads one compares it with what was asked for.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::cache::{ContentHash, Stored};
use crate::clock::Timestamp;
use crate::tile::TileKey;

use super::record::{Kind, UNIT};
use super::segment::Segment;

/// How many parts the index has, so that a purge or a growing table holds up few look-ups.
pub(super) const SHARDS: usize = 64;
/// Hits that an entry remembers.
const MAX_HITS: u64 = 0xf;
const MAX_MILLIS: u64 = (1 << 48) - 1;

/// Where a record is: segment slot (16 bits), offset (27) and length (21), both in units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u64);

impl Place {
    pub(super) fn new(slot: u16, offset_units: u32, len_units: u32) -> Self {
        Self(u64::from(slot) << 48 | u64::from(offset_units) << 21 | u64::from(len_units))
    }

    #[allow(clippy::cast_possible_truncation, reason = "the highest 16 bits")]
    pub(super) fn slot(self) -> u16 {
        (self.0 >> 48) as u16
    }

    #[allow(clippy::cast_possible_truncation, reason = "27 bits in the middle")]
    pub(super) fn offset_units(self) -> u32 {
        (self.0 >> 21 & ((1 << 27) - 1)) as u32
    }

    pub(super) fn offset(self) -> u64 {
        u64::from(self.offset_units()) * UNIT as u64
    }

    pub(super) fn len(self) -> usize {
        (self.0 & ((1 << 21) - 1)) as usize * UNIT
    }
}

/// What the index knows of a key: 16 bytes.
///
/// Beside the place, from the highest bit: `validated_at` (48 bits, as it is now, whatever the
/// record says), a spare bit, whether the record turned out to be bad (1), kind (2), the age in
/// which it was last hit (8), hits (4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) place: Place,
    info: u64,
}

const MILLIS_SHIFT: u32 = 16;
const BAD: u64 = 1 << 14;
const KIND_SHIFT: u32 = 12;
const AGE_SHIFT: u32 = 4;
const HITS_AND_AGE: u64 = 0xfff;
const AGE: u64 = HITS_AND_AGE ^ MAX_HITS;

impl Entry {
    pub(super) fn new(place: Place, kind: Kind, validated_at: Timestamp) -> Self {
        let kind = match kind {
            Kind::Reference => 1,
            Kind::Absence => 2,
            _ => 0,
        };
        Self {
            place,
            info: validated_at.millis().min(MAX_MILLIS) << MILLIS_SHIFT | kind << KIND_SHIFT,
        }
    }

    pub(super) fn validated_at(self) -> Timestamp {
        Timestamp::from_millis(self.info >> MILLIS_SHIFT)
    }

    pub(super) fn set_validated_at(&mut self, at: Timestamp) {
        let rest = self.info & ((1 << MILLIS_SHIFT) - 1);
        self.info = rest | at.millis().min(MAX_MILLIS) << MILLIS_SHIFT;
    }

    pub(super) fn kind(self) -> Kind {
        match self.info >> KIND_SHIFT & 0b11 {
            1 => Kind::Reference,
            2 => Kind::Absence,
            _ => Kind::Tile,
        }
    }

    /// A bad record's entry stays until its segment goes, so that a later put knows that there is
    /// something on disk to bury; look-ups do not see it.
    pub(super) fn is_bad(self) -> bool {
        self.info & BAD != 0
    }

    pub(super) fn set_bad(&mut self) {
        self.info |= BAD;
    }

    /// The hits so far, halved with every age that went by since the last.
    #[allow(clippy::cast_possible_truncation, reason = "at most 15")]
    pub(super) fn hits(self, age: u8) -> u32 {
        let (hits, last) = (self.info & MAX_HITS, self.info >> AGE_SHIFT & 0xff);
        let past = u64::from(age).wrapping_sub(last) & 0xff;
        (hits >> past.min(63)) as u32
    }

    /// Counts a hit.
    pub(super) fn hit(&mut self, age: u8) -> Hit {
        let hits = u64::from(self.hits(age));
        let counts = hits < MAX_HITS;
        let hits = hits + u64::from(counts);
        let before = self.info;
        self.info = before & !HITS_AND_AGE | u64::from(age) << AGE_SHIFT | hits;
        Hit {
            counts,
            first_of_age: before & MAX_HITS == 0 || (before ^ self.info) & AGE != 0,
        }
    }

    /// What it is worth to keep: the hits when it was last hit, however long ago that was. What is
    /// not hit again after that is worth half after each move.
    pub(super) fn worth(self) -> u32 {
        (self.info & MAX_HITS) as u32
    }

    pub(super) fn moved_to(self, place: Place) -> Self {
        let hits = (self.info & MAX_HITS) / 2;
        Self {
            place,
            info: self.info & !MAX_HITS | hits,
        }
    }
}

/// What a hit means to others than the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hit {
    /// Whether there was room to count it: the rest of a tile's fame does not count for its segment either, or a
    /// single famous one would keep a segment of forgotten ones.
    pub(super) counts: bool,
    /// Whether it is the entry's first in this age: then it is as recent as any. To move it to the front at every
    /// hit would take five more places in memory each time, for an order that ages tell well enough.
    pub(super) first_of_age: bool,
}

/// A response that waits to be written, and is served from here until it is.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) stored: Arc<Stored>,
    /// Now, whatever `stored` says.
    pub(super) validated_at: Timestamp,
    pub(super) sequence: u64,
}

/// The segments by slot. Each shard has a handle on it, so that a look-up takes one lock.
pub(super) type Table = Arc<Vec<Option<Arc<Segment>>>>;

/// The keys whose hash starts alike.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) entries: LruCache<TileKey, Entry>,
    pub(super) pending: HashMap<TileKey, Pending>,
    table: Table,
}

/// Where identical content is found again.
#[derive(Debug, Default)]
pub(super) struct ContentShard {
    /// By a part of the hash. Who reads the record compares all of it.
    places: HashMap<Tag, [u8; 8], BuildHasherDefault<Tagged>>,
    /// How much those that are shared are worth: references made and read, halved at each move.
    shared: HashMap<Tag, u32, BuildHasherDefault<Tagged>>,
    table: Table,
}

/// 40 bits of a content hash, beside the 6 that chose the shard: 13 bytes with the place, where 16
/// would cost the index another 7 bytes a tile. Two contents that share them are told apart when
/// one is read, once in 70 million puts, and that is a miss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tag([u8; 5]);

impl Tag {
    fn of(prefix: u64) -> Self {
        Self(super::record::array_at(&prefix.to_le_bytes(), 0))
    }
}

impl Hash for Tag {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut bytes = [0; 8];
        bytes[..5].copy_from_slice(&self.0);
        state.write_u64(u64::from_le_bytes(bytes));
    }
}

/// Parts of a good hash are one already. The table takes buckets from the lowest bits and tells
/// neighbours apart by the highest.
#[derive(Default)]
struct Tagged(u64);

impl Hasher for Tagged {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0 << 8 | u64::from(byte);
        }
    }

    fn write_u64(&mut self, tag: u64) {
        self.0 = tag | tag << 40;
    }
}

/// The first half of a content hash.
pub(super) fn prefix(content: ContentHash) -> u64 {
    super::record::u64_at(&content.to_bytes(), 0)
}

impl Shard {
    pub(super) fn segment(&self, place: Place) -> Option<&Arc<Segment>> {
        self.table.get(usize::from(place.slot()))?.as_ref()
    }

    /// The keys that this is true of, each once.
    pub(super) fn matching(&self, predicate: impl Fn(&TileKey) -> bool) -> Vec<TileKey> {
        let entries = self.entries.iter().map(|(key, _)| key);
        let queued = self.pending.keys();
        let queued = queued.filter(|key| !self.entries.contains(*key));
        let keys = entries.chain(queued);
        keys.filter(|key| predicate(key)).copied().collect()
    }
}

impl ContentShard {
    fn place(&self, prefix: u64) -> Option<Place> {
        let place = self.places.get(&Tag::of(prefix))?;
        Some(Place(u64::from_le_bytes(*place)))
    }

    /// Where this content is.
    pub(super) fn find(&self, prefix: u64) -> Option<(Place, Arc<Segment>)> {
        let place = self.place(prefix)?;
        let segment = self.table.get(usize::from(place.slot()))?.as_ref()?;
        Some((place, Arc::clone(segment)))
    }

    /// A reference to it was made or read.
    pub(super) fn share(&mut self, prefix: u64) {
        let worth = self.shared.entry(Tag::of(prefix)).or_default();
        *worth = worth.saturating_add(1);
    }

    pub(super) fn insert(&mut self, prefix: u64, place: Place) {
        self.places.insert(Tag::of(prefix), place.0.to_le_bytes());
    }

    pub(super) fn insert_if_new(&mut self, prefix: u64, place: Place) {
        let known = self.places.entry(Tag::of(prefix));
        known.or_insert(place.0.to_le_bytes());
    }

    /// Whether the content is there, and what it is worth to references.
    pub(super) fn worth(&self, prefix: u64, place: Place) -> Option<u32> {
        let worth = self.shared.get(&Tag::of(prefix)).copied().unwrap_or(0);
        (self.place(prefix) == Some(place)).then_some(worth)
    }

    /// It moved: what it was worth counts half from here on.
    pub(super) fn moved(&mut self, prefix: u64, to: Place) {
        self.insert(prefix, to);
        if let Some(worth) = self.shared.get_mut(&Tag::of(prefix)) {
            *worth /= 2;
            if *worth == 0 {
                self.shared.remove(&Tag::of(prefix));
            }
        }
    }

    /// It is not there any more, if it was there.
    pub(super) fn forget(&mut self, prefix: u64, place: Place) {
        if self.place(prefix) == Some(place) {
            self.places.remove(&Tag::of(prefix));
            self.shared.remove(&Tag::of(prefix));
        }
    }

    /// Nothing is in this slot any more.
    pub(super) fn forget_slot(&mut self, slot: u16) {
        let (places, shared) = (&mut self.places, &mut self.shared);
        places.retain(|tag, place| {
            let stays = Place(u64::from_le_bytes(*place)).slot() != slot;
            if !stays {
                shared.remove(tag);
            }
            stays
        });
    }
}

/// All shards.
#[derive(Debug)]
pub(super) struct Index {
    shards: Box<[Mutex<Shard>]>,
    contents: Box<[Mutex<ContentShard>]>,
    table: Mutex<Table>,
}

impl Index {
    pub(super) fn new() -> Self {
        let shard = || Shard {
            entries: LruCache::unbounded(),
            pending: HashMap::new(),
            table: Table::default(),
        };
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(),
            contents: (0..SHARDS).map(|_| Mutex::default()).collect(),
            table: Mutex::default(),
        }
    }

    pub(super) fn shard(&self, key: &TileKey) -> MutexGuard<'_, Shard> {
        // The tables within use other bits of other hashes.
        lock(&self.shards[usize::try_from(key.spread() >> 58).unwrap_or(0)])
    }

    pub(super) fn shard_at(&self, nth: usize) -> MutexGuard<'_, Shard> {
        lock(&self.shards[nth])
    }

    pub(super) fn content(&self, prefix: u64) -> MutexGuard<'_, ContentShard> {
        // The tables within take the 40 bits below.
        lock(&self.contents[usize::try_from(prefix >> 40 & 63).unwrap_or(0)])
    }

    /// One shard after another.
    pub(super) fn shards(&self) -> impl Iterator<Item = MutexGuard<'_, Shard>> {
        self.shards.iter().map(lock)
    }

    pub(super) fn contents(&self) -> impl Iterator<Item = MutexGuard<'_, ContentShard>> {
        self.contents.iter().map(lock)
    }

    pub(super) fn table(&self) -> Table {
        Arc::clone(&lock(&self.table))
    }

    /// From now on look-ups find these segments.
    pub(super) fn set_table(&self, table: &Table) {
        *lock(&self.table) = Arc::clone(table);
        for mut shard in self.shards() {
            shard.table = Arc::clone(table);
        }
        for mut shard in self.contents() {
            shard.table = Arc::clone(table);
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.shards().map(|shard| shard.entries.len() as u64).sum()
    }
}

/// A panic elsewhere is no reason to stop serving: every critical section here leaves the maps
/// consistent at each step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_takes_sixteen_bytes_and_keeps_what_it_is_told() {
        assert_eq!(size_of::<Entry>(), 16);
        let place = Place::new(u16::MAX, (1 << 27) - 1, (1 << 21) - 1);
        assert_eq!(place.slot(), u16::MAX);
        assert_eq!(place.offset(), ((1 << 27) - 1) * 8);
        assert_eq!(place.len(), ((1 << 21) - 1) * 8);
        for kind in [Kind::Tile, Kind::Reference, Kind::Absence] {
            let mut entry = Entry::new(place, kind, Timestamp::from_millis(77));
            assert_eq!((0..40).filter(|_| entry.hit(250).counts).count(), 15);
            entry.set_validated_at(Timestamp::from_millis(1_790_000_000_123));
            assert_eq!((entry.kind(), entry.is_bad()), (kind, false));
            assert_eq!(entry.validated_at().millis(), 1_790_000_000_123);
            let moved = entry.moved_to(Place::new(1, 2, 3));
            assert_eq!(
                (moved.kind(), moved.hits(250), moved.hits(251)),
                (kind, 7, 3)
            );
            assert_eq!((moved.hits(4), moved.hits(100)), (0, 0));
            assert!(entry.hit(251).counts && entry.hits(251) == 8 && entry.worth() == 8);
            assert_eq!(moved.validated_at(), entry.validated_at());
            entry.set_bad();
            assert!(entry.is_bad() && entry.kind() == kind);
        }
    }
}
