//! The memory tier: moka, bounded by bytes.
//!
//! Identical tiles (open sea) are kept once: a body that is met for the second time becomes an
//! entry of its own, and the tiles that have it refer to it by its hash. So the bound is exact, a
//! body is dropped like any other entry, and a tile whose body has gone is simply a miss. A body
//! met once stays inside its tile's entry, so that the common hit is one look-up.
//!
//! moka's clock is not ours: it bounds size, freshness is in what is stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use moka::notification::RemovalCause;
use moka::ops::compute::Op;
use moka::sync::Cache;

use super::stored::{ContentHash, Stored, StoredTile};
use crate::clock::Timestamp;
use crate::origin::OriginErrorKind;
use crate::tile::TileKey;

/// What an entry takes besides its body: moka's bookkeeping, the key twice, and [`Entry`] itself,
/// measured (`benches/memory.rs`).
const ENTRY_OVERHEAD: u32 = 680;

/// A body shorter than this costs less in place than as an entry of its own.
const SHARE_FROM: usize = 256;

/// The first second that an HTTP date cannot say.
const YEAR_10000: u64 = 253_402_300_800;

/// A stored response in memory, with its answer's parts prepared.
#[derive(Debug)]
pub struct Entry {
    /// What is stored. A shared body is not in here: it comes beside, in [`Held::body`].
    stored: Stored,
    shared: bool,
    /// What every answer repeats, worked out once: the `ETag` of the bytes.
    etag: Bytes,
    /// And `Last-Modified`, where the origin gave one.
    last_modified: Option<Bytes>,
    /// When a revalidation last failed, in milliseconds since the epoch, and in the lowest three
    /// bits how; 0 is never.
    last_failure: AtomicU64,
}

impl Entry {
    fn new(stored: Stored, shared: bool) -> Arc<Self> {
        let (etag, last_modified) = match &stored {
            Stored::Tile(tile) => (
                Bytes::copy_from_slice(&tile.content.etag()),
                tile.last_modified
                    .filter(|secs| *secs < YEAR_10000)
                    .map(|secs| {
                        httpdate::fmt_http_date(Timestamp::from_secs(secs).to_system_time()).into()
                    }),
            ),
            Stored::Absence(_) => (Bytes::new(), None),
        };
        let last_failure = AtomicU64::new(0);
        Arc::new(Self {
            stored,
            shared,
            etag,
            last_modified,
            last_failure,
        })
    }
}

/// A stored response, whole: what a look-up gives.
#[derive(Debug, Clone)]
pub struct Held {
    entry: Arc<Entry>,
    body: Bytes,
}

impl Held {
    /// Holds a response that is in no tier, or not yet.
    pub fn new(stored: Stored) -> Self {
        let body = body_of(&stored);
        Self {
            entry: Entry::new(stored, false),
            body,
        }
    }

    /// What is stored; for the body ask [`Held::body`].
    pub fn stored(&self) -> &Stored {
        &self.entry.stored
    }

    /// The tile's bytes; empty for an absence.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The tile's strong `ETag`, quotes included; empty for an absence.
    pub fn etag(&self) -> &Bytes {
        &self.entry.etag
    }

    /// The tile's `Last-Modified` as an HTTP date.
    pub fn last_modified(&self) -> Option<&Bytes> {
        self.entry.last_modified.as_ref()
    }

    /// The same response, confirmed by the origin at `validated_at`.
    pub fn confirmed(&self, validated_at: Timestamp) -> Stored {
        let mut stored = self.to_stored();
        match &mut stored {
            Stored::Tile(tile) => tile.validated_at = validated_at,
            Stored::Absence(absence) => absence.validated_at = validated_at,
        }
        stored
    }

    /// A stored response with its body in place.
    pub fn to_stored(&self) -> Stored {
        let mut stored = self.entry.stored.clone();
        if let Stored::Tile(tile) = &mut stored {
            tile.body = self.body.clone();
        }
        stored
    }

    /// Remembers that a revalidation failed.
    pub fn note_failure(&self, now: Timestamp, kind: OriginErrorKind) {
        let place = OriginErrorKind::ALL
            .iter()
            .position(|k| *k == kind)
            .unwrap_or(0);
        self.entry
            .last_failure
            .store(now.millis() << 3 | place as u64, Ordering::Relaxed);
    }

    /// When and how a revalidation last failed.
    pub fn failure(&self) -> Option<(Timestamp, OriginErrorKind)> {
        let packed = self.entry.last_failure.load(Ordering::Relaxed);
        let kind = OriginErrorKind::ALL.get(usize::try_from(packed & 7).ok()?)?;
        (packed > 0).then(|| (Timestamp::from_millis(packed >> 3), *kind))
    }
}

fn body_of(stored: &Stored) -> Bytes {
    match stored {
        Stored::Tile(tile) => tile.body.clone(),
        Stored::Absence(_) => Bytes::new(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum MemoryKey {
    Tile(TileKey),
    Body(ContentHash),
}

#[derive(Debug, Clone)]
enum MemoryValue {
    Entry(Arc<Entry>),
    Body(Bytes),
}

/// Tiles in memory, at most a capacity of bytes.
#[derive(Debug)]
pub struct MemoryTier {
    cache: Cache<MemoryKey, MemoryValue, foldhash::fast::RandomState>,
    seen: SeenBodies,
    evictions: Arc<AtomicU64>,
}

impl MemoryTier {
    /// A tier of at most `capacity` bytes, its own overhead included.
    pub fn new(capacity: u64) -> Self {
        let evictions = Arc::new(AtomicU64::new(0));
        let evicted = evictions.clone();
        let cache = Cache::builder()
            .max_capacity(capacity)
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    evicted.fetch_add(1, Ordering::Relaxed);
                }
            })
            .weigher(|_: &MemoryKey, value: &MemoryValue| weight(value))
            .build_with_hasher(foldhash::fast::RandomState::default());
        Self {
            cache,
            seen: SeenBodies::for_capacity(capacity),
            evictions,
        }
    }

    /// Looks a key up: one step for most tiles, two where the body is shared.
    pub fn lookup(&self, key: TileKey) -> Option<Held> {
        let Some(MemoryValue::Entry(entry)) = self.cache.get(&MemoryKey::Tile(key)) else {
            return None;
        };
        let body = match &entry.stored {
            Stored::Tile(tile) if entry.shared => {
                match self.cache.get(&MemoryKey::Body(tile.content)) {
                    Some(MemoryValue::Body(body)) => body,
                    _ => return None,
                }
            }
            stored => body_of(stored),
        };
        Some(Held { entry, body })
    }

    /// Stores a response and gives it back as it is held.
    pub fn put(&self, key: TileKey, stored: Stored) -> Held {
        let held = self.hold(stored);
        let value = MemoryValue::Entry(held.entry.clone());
        self.cache.insert(MemoryKey::Tile(key), value);
        held
    }

    /// An entry for a response, its body shared where another tile has the same.
    fn hold(&self, mut stored: Stored) -> Held {
        let mut body = body_of(&stored);
        let mut shared = false;
        if let Stored::Tile(tile) = &mut stored
            && let Some(one) = self.share(tile.content, &body)
        {
            body = one;
            tile.body = Bytes::new();
            shared = true;
        }
        Held {
            entry: Entry::new(stored, shared),
            body,
        }
    }

    /// Stores a response that the disk had, unless a newer one is there, and gives it back.
    pub fn promote(&self, key: TileKey, stored: Stored) -> Held {
        let held = self.hold(stored);
        self.cache
            .entry(MemoryKey::Tile(key))
            .and_compute_with(|current| {
                let newer = current.is_some_and(|current| match current.value() {
                    MemoryValue::Entry(there) => {
                        there.stored.validated_at() > held.stored().validated_at()
                    }
                    MemoryValue::Body(_) => false,
                });
                if newer {
                    Op::Nop
                } else {
                    Op::Put(MemoryValue::Entry(held.entry.clone()))
                }
            });
        held
    }

    /// The one copy of a body that several tiles have, or `None` while only one is known to have it.
    fn share(&self, content: ContentHash, body: &Bytes) -> Option<Bytes> {
        if body.len() < SHARE_FROM {
            return None;
        }
        let key = MemoryKey::Body(content);
        match self.cache.get(&key) {
            Some(MemoryValue::Body(one)) => Some(one),
            _ if self.seen.again(content) => {
                self.cache.insert(key, MemoryValue::Body(body.clone()));
                Some(body.clone())
            }
            _ => None,
        }
    }

    /// Drops one tile.
    pub fn invalidate(&self, key: TileKey) -> bool {
        self.cache.remove(&MemoryKey::Tile(key)).is_some()
    }

    /// Drops every tile that matches. For purges: it takes a time in proportion to the entries.
    pub fn remove_matching(&self, matches: &dyn Fn(&TileKey) -> bool) -> u64 {
        self.matching(matches, |key, _| {
            self.cache.invalidate(&MemoryKey::Tile(key));
        })
    }

    /// Gives every tile that matches another time of confirmation, absences are dropped.
    pub fn expire_matching(
        &self,
        matches: &dyn Fn(&TileKey) -> bool,
        validated_at: Timestamp,
    ) -> u64 {
        self.matching(matches, |key, entry| match &entry.stored {
            Stored::Absence(_) => self.cache.invalidate(&MemoryKey::Tile(key)),
            Stored::Tile(tile) => {
                let stored = Stored::Tile(StoredTile {
                    validated_at: tile.validated_at.min(validated_at),
                    ..tile.clone()
                });
                let stale = MemoryValue::Entry(Entry::new(stored, entry.shared));
                // Only in place of what was looked at: a newer one is not stale.
                self.cache
                    .entry(MemoryKey::Tile(key))
                    .and_compute_with(|current| {
                        let same = current.is_some_and(|current| match current.value() {
                            MemoryValue::Entry(there) => Arc::ptr_eq(there, entry),
                            MemoryValue::Body(_) => false,
                        });
                        if same { Op::Put(stale) } else { Op::Nop }
                    });
            }
        })
    }

    fn matching(
        &self,
        matches: &dyn Fn(&TileKey) -> bool,
        change: impl Fn(TileKey, &Arc<Entry>),
    ) -> u64 {
        let mut changed = 0;
        for (key, value) in &self.cache {
            if let (MemoryKey::Tile(key), MemoryValue::Entry(entry)) = (*key, &value)
                && matches(&key)
            {
                change(key, entry);
                changed += 1;
            }
        }
        changed
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

fn weight(value: &MemoryValue) -> u32 {
    let body = match value {
        MemoryValue::Entry(entry) => match &entry.stored {
            Stored::Tile(tile) => tile.body.len(),
            Stored::Absence(_) => 0,
        },
        MemoryValue::Body(body) => body.len(),
    };
    u32::try_from(body)
        .unwrap_or(u32::MAX)
        .saturating_add(ENTRY_OVERHEAD)
}

/// Which bodies were stored lately: a fixed table of hashes, the newest in its place. Forgetting
/// one costs a second copy, never a wrong tile.
#[derive(Debug)]
struct SeenBodies {
    slots: Box<[AtomicU64]>,
}

impl SeenBodies {
    /// A slot for each 4 KiB of capacity, at most 8 MiB of slots.
    fn for_capacity(capacity: u64) -> Self {
        let slots = usize::try_from(capacity / 4096).unwrap_or(usize::MAX);
        let slots = slots.next_power_of_two().clamp(1 << 10, 1 << 20);
        Self {
            slots: (0..slots).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Notes a body; whether it had been noted before.
    fn again(&self, content: ContentHash) -> bool {
        let hash = u128::from_le_bytes(content.to_bytes());
        let place = usize::try_from(hash >> 64 & 0xffff_ffff).unwrap_or(0) % self.slots.len();
        let mark = u64::try_from(hash & u128::from(u64::MAX)).unwrap_or(0);
        self.slots[place].swap(mark, Ordering::Relaxed) == mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::StoredAbsence;
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
    fn identical_tiles_are_kept_once() {
        let tier = MemoryTier::new(64 << 20);
        let tiles = 2000;
        for n in 0..tiles {
            tier.put(key(n), tile(if n % 20 < 7 { body(0) } else { body(n) }));
        }
        tier.settle();
        let payload = u64::from(tiles) * 8192;
        let share = tier.weighted_bytes() * 100 / payload;
        // 65 % are bodies; the rest is what entries take, and the next thing to make smaller.
        assert!(share <= 74, "{share} % of the payload");
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
        let Stored::Tile(stored) = held.stored() else {
            panic!("a tile was stored")
        };
        tier.cache.invalidate(&MemoryKey::Body(stored.content));
        assert!(tier.lookup(key(2)).is_none());
        assert!(
            tier.lookup(key(1)).is_some(),
            "the first has its body inside"
        );
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
