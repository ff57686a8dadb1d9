//! The memory tier: moka, bounded by bytes.
//!
//! Identical tiles (open sea) are kept once: a body that is met for the second time becomes an
//! entry of its own, and the tiles that have it refer to it by its hash. So the bound is exact, a
//! body is dropped like any other entry, and a tile whose body has gone is simply a miss. A body
//! met once stays inside its tile's entry, so that the common hit is one look-up.
//!
//! moka decides what stays; entries are found by a table of our own (`memory/index.rs`), which is several times
//! as fast. moka's clock is not ours: it bounds size, freshness is in what is stored.

mod entry;
mod index;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use moka::notification::RemovalCause;
use moka::ops::compute::{CompResult, Op};
use moka::sync::Cache;

use self::entry::{Entry, Kind};
use self::index::Index;
use super::stored::{ContentHash, Stored};
use crate::clock::Timestamp;
use crate::tile::TileKey;

pub(crate) use self::entry::FOUND_AT_MOST;
pub use self::entry::Held;

/// What an entry takes besides its body: 96 bytes for the [`Entry`], some 270 for moka with a key of 16
/// bytes and a value of 8, and the rest for what the allocator keeps about its pages. Measured, as is
/// [`allocated`]: 8 KiB tiles take 410 bytes each beside their bodies (`benches/memory.rs`).
const ENTRY_OVERHEAD: u64 = 400;

/// A body shorter than this costs less in place than as an entry of its own.
const SHARE_FROM: usize = 256;

/// What an entry is found by: a tile's key, or a body's hash, which has the top bit set. No tile's
/// key has: places are numbers below 2^62.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct MemoryKey(u128);

impl MemoryKey {
    const BODY: u128 = 1 << 127;

    fn tile(key: TileKey) -> Self {
        Self(u128::from_le_bytes(key.to_bytes()))
    }

    /// One bit of the hash is lost: whoever finds the body compares all of it.
    fn body(content: ContentHash) -> Self {
        Self(u128::from_le_bytes(content.to_bytes()) | Self::BODY)
    }

    fn to_tile(self) -> Option<TileKey> {
        (self.0 & Self::BODY == 0).then(|| TileKey::from_bytes(self.0.to_le_bytes()))
    }
}

/// What [`MemoryTier::fold`] is shown of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldTile {
    /// Which tile.
    pub key: TileKey,
    /// Whether it is the knowledge that there is no such tile.
    pub is_absence: bool,
    /// How often it was found since it came; 16 stands for 16 and more.
    pub found: u8,
}

/// Tiles in memory, at most a capacity of bytes.
#[derive(Debug)]
pub struct MemoryTier {
    cache: Cache<MemoryKey, Arc<Entry>, foldhash::fast::RandomState>,
    index: Arc<Index>,
    seen: SeenBodies,
    evictions: Arc<AtomicU64>,
}

impl MemoryTier {
    /// A tier of at most `capacity` bytes, its own overhead included.
    pub fn new(capacity: u64) -> Self {
        let evictions = Arc::new(AtomicU64::new(0));
        let evicted = evictions.clone();
        let index = Arc::new(Index::new());
        let noted = Arc::clone(&index);
        let cache = Cache::builder()
            .max_capacity(capacity)
            .eviction_listener(move |key, entry: Arc<Entry>, cause| {
                entry.leave();
                noted.remove(*key, &entry);
                if cause == RemovalCause::Size {
                    evicted.fetch_add(1, Ordering::Relaxed);
                }
            })
            .weigher(|_: &MemoryKey, entry: &Arc<Entry>| weight(entry))
            .build_with_hasher(foldhash::fast::RandomState::default());
        Self {
            cache,
            index,
            seen: SeenBodies::for_capacity(capacity),
            evictions,
        }
    }

    /// Looks a key up: one step for most tiles, two where the body is shared.
    pub fn lookup(&self, key: TileKey) -> Option<Held> {
        let entry = self.find(MemoryKey::tile(key))?;
        if entry.kind() == Kind::Reference {
            let shared = self.shared_body(entry.content())?;
            return Some(Held::with_shared(entry, shared));
        }
        Some(Held::whole(entry))
    }

    fn find(&self, key: MemoryKey) -> Option<Arc<Entry>> {
        if let Some(entry) = self.index.get(key) {
            if entry.is_to_be_told() {
                drop(self.cache.get(&key));
            }
            return Some(entry);
        }
        let entry = self.cache.get(&key)?;
        self.index.put(key, &entry);
        Some(entry)
    }

    fn insert(&self, key: MemoryKey, entry: &Arc<Entry>) {
        self.cache.insert(key, Arc::clone(entry));
        self.index.put(key, entry);
    }

    /// Whether a key is there, which says nothing of how often it is wanted.
    pub fn contains(&self, key: TileKey) -> bool {
        self.cache.contains_key(&MemoryKey::tile(key))
    }

    fn shared_body(&self, content: ContentHash) -> Option<Arc<Entry>> {
        let found = self.find(MemoryKey::body(content))?;
        (found.content() == content).then_some(found)
    }

    /// Stores a response and gives it back as it is held. Its body is copied, into memory of its own
    /// size: what it came in may be larger, and need not stay for its sake.
    pub fn put(&self, key: TileKey, stored: Stored) -> Held {
        let held = self.hold(key, stored);
        self.insert(MemoryKey::tile(key), held.entry());
        held
    }

    /// An entry for a response, its body shared where another tile has the same.
    fn hold(&self, key: TileKey, stored: Stored) -> Held {
        if let Stored::Tile(tile) = &stored
            && let Some(shared) = self.share(key, tile.content, &tile.body)
        {
            return Held::with_shared(Entry::reference(stored), shared);
        }
        Held::whole(Entry::whole(stored))
    }

    /// Takes the tile under this key for confirmed at `now`, if it has this content: nothing is copied.
    pub fn confirm(&self, key: TileKey, content: ContentHash, now: Timestamp) -> Option<Held> {
        let held = self.lookup(key)?;
        if held.is_absence() || held.content() != content {
            return None;
        }
        held.confirm(now);
        Some(held)
    }

    /// Stores a response that the disk had, unless a newer one is there, and gives it back.
    pub fn promote(&self, key: TileKey, stored: Stored) -> Held {
        let held = self.hold(key, stored);
        let key = MemoryKey::tile(key);
        let compared = self.cache.entry(key).and_compute_with(|current| {
            let newer =
                current.is_some_and(|there| there.value().validated_at() > held.validated_at());
            if newer {
                Op::Nop
            } else {
                Op::Put(held.entry().clone())
            }
        });
        if !matches!(compared, CompResult::Unchanged(_)) {
            self.index.put(key, held.entry());
        }
        held
    }

    /// The one copy of a body that several tiles have, or `None` while only one is known to have it.
    fn share(&self, key: TileKey, content: ContentHash, body: &[u8]) -> Option<Arc<Entry>> {
        if body.len() < SHARE_FROM {
            return None;
        }
        if let Some(one) = self.shared_body(content) {
            return Some(one);
        }
        self.seen.elsewhere(content, key).then(|| {
            let one = Entry::of_body(content, body);
            self.insert(MemoryKey::body(content), &one);
            one
        })
    }

    /// Drops one tile.
    pub fn invalidate(&self, key: TileKey) -> bool {
        self.cache.remove(&MemoryKey::tile(key)).is_some()
    }

    /// Drops every tile that matches. For purges: it takes a time in proportion to the entries.
    pub fn remove_matching(&self, matches: &dyn Fn(&TileKey) -> bool) -> u64 {
        self.matching(matches, |key, _| self.cache.invalidate(&key))
    }

    /// Takes every tile that matches for confirmed no later than `validated_at`; absences are dropped.
    pub fn expire_matching(
        &self,
        matches: &dyn Fn(&TileKey) -> bool,
        validated_at: Timestamp,
    ) -> u64 {
        self.matching(matches, |key, entry| {
            if entry.kind() == Kind::Absence {
                return self.cache.invalidate(&key);
            }
            entry.expire(validated_at);
        })
    }

    fn matching(
        &self,
        matches: &dyn Fn(&TileKey) -> bool,
        change: impl Fn(MemoryKey, &Arc<Entry>),
    ) -> u64 {
        let mut changed = 0;
        for (key, entry) in &self.cache {
            if key.to_tile().is_some_and(|tile| matches(&tile)) {
                change(*key, &entry);
                changed += 1;
            }
        }
        changed
    }

    /// Looks at every tile, in no order and as no use of it. It takes a time in proportion to the entries, and
    /// holds up nobody: not for an async thread.
    pub fn fold<T>(&self, start: T, look: impl FnMut(T, HeldTile) -> T) -> T {
        let held = self.cache.iter().filter_map(|(key, entry)| {
            key.to_tile().map(|key| HeldTile {
                key,
                is_absence: entry.kind() == Kind::Absence,
                found: entry.found(),
            })
        });
        held.fold(start, look)
    }

    /// How many entries there are, shared bodies included. Approximate while work is pending.
    pub fn entries(&self) -> u64 {
        self.cache.entry_count()
    }

    /// How many bytes they weigh. Approximate while work is pending.
    pub fn weighted_bytes(&self) -> u64 {
        self.cache.weighted_size()
    }

    /// How many entries went for space.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// Settles pending work, so that counts are exact.
    pub fn settle(&self) {
        self.cache.run_pending_tasks();
    }
}

/// What an entry takes of the process's memory.
fn weight(entry: &Entry) -> u32 {
    let taken = ENTRY_OVERHEAD + allocated(entry.body_len()) + allocated(entry.validator_bytes());
    u32::try_from(taken).unwrap_or(u32::MAX)
}

/// What an allocation of `len` bytes takes of mimalloc's pages: blocks come in four sizes to each power
/// of two, and a page holds a whole number of them.
fn allocated(len: usize) -> u64 {
    const PAGES: [(usize, usize); 3] = [
        (10 << 10, 64 << 10),
        (84 << 10, 512 << 10),
        (512 << 10, 4 << 20),
    ];
    let step = match len.saturating_sub(1).checked_ilog2() {
        Some(log) if log >= 6 => 1 << (log - 2),
        _ => 16,
    };
    let block = len.next_multiple_of(step);
    let page = PAGES.iter().find(|(largest, _)| block <= *largest);
    let taken = match page {
        Some((_, page)) if block > 0 => page / (page / block),
        _ => block,
    };
    taken as u64
}

/// Which bodies were stored lately: a fixed table of hashes, the newest in its place. Forgetting
/// one costs a second copy; taking one for another costs an entry that nobody shares. Neither is a
/// wrong tile.
#[derive(Debug)]
struct SeenBodies {
    slots: Box<[AtomicU32]>,
}

impl SeenBodies {
    /// A slot for each 16 KiB of capacity, at most 4 MiB of slots. What is worth sharing is met often.
    fn for_capacity(capacity: u64) -> Self {
        let slots = (capacity / (16 << 10)).clamp(1 << 10, 1 << 20);
        Self {
            slots: (0..slots).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Notes a tile's body; whether it had been noted as another tile's. A tile that comes back, from disk or
    /// from a purge, is no reason to share its body with itself.
    fn elsewhere(&self, content: ContentHash, key: TileKey) -> bool {
        const KEY_BITS: u32 = 12;
        let hash = u128::from_le_bytes(content.to_bytes());
        let part = |number: u128| u32::try_from(number & 0xffff_ffff).unwrap_or(0);
        let place = part(hash) as usize % self.slots.len();
        let body = part(hash >> 32) >> KEY_BITS;
        let mark = body << KEY_BITS | part(u128::from(key.spread())) >> (32 - KEY_BITS);
        let before = self.slots[place].swap(mark, Ordering::Relaxed);
        before >> KEY_BITS == body && before != mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{StoredAbsence, StoredTile};
    use crate::origin::{ContentEncoding, OriginTile};
    use crate::tile::{KeySpace, Scale, TileCoord};

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn key(n: u32) -> TileKey {
        TileKey::new(
            KeySpace::new("t", None),
            TileCoord::new(20, n, 0).unwrap(),
            Scale::One,
        )
    }

    fn tile(body: Vec<u8>) -> Stored {
        let tile = OriginTile {
            body: body.into(),
            encoding: ContentEncoding::Identity,
            validator: None,
            last_modified: None,
        };
        Stored::Tile(StoredTile::from_origin(tile, NOW))
    }

    fn body(n: u32) -> Vec<u8> {
        n.to_le_bytes().repeat(2048)
    }

    #[test]
    fn a_tile_that_comes_back_does_not_share_its_body_with_itself() {
        let tier = MemoryTier::new(1 << 20);
        for _ in 0..3 {
            tier.put(key(1), tile(body(7)));
            tier.promote(key(1), tile(body(7)));
            tier.invalidate(key(1));
        }
        tier.put(key(1), tile(body(7)));
        tier.settle();
        assert_eq!(tier.entries(), 1, "no entry for its body beside it");
    }

    #[test]
    fn a_confirmation_moves_and_copies_nothing() {
        let tier = MemoryTier::new(1 << 20);
        let held = tier.put(key(1), tile(body(7)));
        let later = NOW + std::time::Duration::from_mins(1);
        let confirmed = tier.confirm(key(1), held.content(), later).unwrap();
        assert_eq!(confirmed.body().as_ptr(), held.body().as_ptr());
        assert_eq!(tier.lookup(key(1)).unwrap().validated_at(), later);
        let other = ContentHash::of(b"another");
        assert!(tier.confirm(key(1), other, later).is_none());
        assert!(tier.confirm(key(2), held.content(), later).is_none());
    }

    #[test]
    fn what_was_put_is_found_whole() {
        let tier = MemoryTier::new(1 << 20);
        for n in [1, 1, 2] {
            tier.put(key(n), tile(body(7)));
        }
        for n in [1, 2] {
            let held = tier.lookup(key(n)).unwrap();
            assert_eq!(held.body(), &body(7));
            assert_eq!(held.to_stored(), tile(body(7)));
        }
        assert!(tier.lookup(key(3)).is_none());
    }

    #[test]
    fn the_bound_holds() {
        let tier = MemoryTier::new(1 << 20);
        for n in 0..1000 {
            tier.put(key(n), tile(body(n)));
        }
        tier.settle();
        assert!(
            tier.weighted_bytes() <= 1 << 20,
            "{}",
            tier.weighted_bytes()
        );
        assert!(tier.entries() > 100, "{}", tier.entries());
    }

    #[test]
    fn what_is_counted_is_what_the_allocator_gives() {
        for (len, taken) in [
            (0, 0),
            (1, 16),
            (34, 48),
            (8192, 65_536 / 8),
            (8193, 65_536 / 6),
            (12_000, 524_288 / 42),
            (600_000, 655_360),
        ] {
            assert_eq!(allocated(len), taken, "{len}");
        }
    }

    #[test]
    fn identical_tiles_are_kept_once() {
        let tier = MemoryTier::new(64 << 20);
        let tiles = 2000;
        for n in 0..tiles {
            tier.put(key(n), tile(if n % 20 < 7 { body(0) } else { body(n) }));
        }
        tier.settle();
        let payload = u64::from(tiles) * 8192;
        let share = tier.weighted_bytes() * 100 / payload;
        assert!(share <= 70, "{share} % of the payload");
        let sea = tier.lookup(key(5)).unwrap();
        let other_sea = tier.lookup(key(26)).unwrap();
        assert_eq!(
            sea.body().as_ptr(),
            other_sea.body().as_ptr(),
            "one copy serves both"
        );
    }

    #[test]
    fn a_tile_whose_shared_body_has_gone_is_a_miss() {
        let tier = MemoryTier::new(1 << 20);
        tier.put(key(1), tile(body(1)));
        let held = tier.put(key(2), tile(body(1)));
        tier.cache.invalidate(&MemoryKey::body(held.content()));
        assert!(tier.lookup(key(2)).is_none());
        assert!(
            tier.lookup(key(1)).is_some(),
            "the first has its body inside"
        );
    }

    #[test]
    fn what_is_found_is_what_moka_keeps() {
        let tier = MemoryTier::new(100 << 10);
        for n in 0..2_000_u32 {
            match n % 7 {
                0 => drop(tier.invalidate(key(n / 2))),
                1 => drop(tier.promote(key(n / 3), tile(body(n)))),
                2 => drop(tier.lookup(key(n / 5))),
                _ => drop(tier.put(key(n % 50), tile(body(n % 9)))),
            }
        }
        tier.settle();
        assert_eq!(tier.index.len() as u64, tier.entries());
        for (key, entry) in &tier.cache {
            let found = tier.index.get(*key).unwrap();
            assert!(Arc::ptr_eq(&found, &entry));
        }
    }

    #[test]
    fn what_moka_has_dropped_is_not_found() {
        let tier = MemoryTier::new(1 << 20);
        let held = tier.put(key(1), tile(body(1)));
        let other = tier.put(key(1), tile(body(2)));
        assert!(held.entry().is_gone());
        // As one does who was slow in noting what another has replaced meanwhile.
        tier.index.put(MemoryKey::tile(key(1)), held.entry());
        assert_eq!(tier.lookup(key(1)).unwrap().content(), other.content());
        assert!(tier.invalidate(key(1)));
        assert!(tier.lookup(key(1)).is_none());
    }

    #[test]
    fn a_purge_visits_every_tile() {
        let tier = MemoryTier::new(64 << 20);
        for n in 0..100 {
            tier.put(key(n), tile(body(n % 3)));
        }
        let absent = Stored::Absence(StoredAbsence { validated_at: NOW });
        tier.put(key(200), absent);
        tier.settle();
        let west = |key: &TileKey| key.coord().is_some_and(|coord| coord.x() < 50);
        let dropped = tier.remove_matching(&west);
        assert_eq!(dropped, 50);
        assert!(tier.lookup(key(10)).is_none());
        assert_eq!(tier.lookup(key(60)).unwrap().body(), &body(0));
        assert!(tier.lookup(key(200)).is_some());
    }
}
