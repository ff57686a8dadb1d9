//! Speculative fetching: a map asks for the neighbours of what it shows next.
//!
//! When somebody's miss has been filled, or a guess has come true, two kinds of tiles are fetched in the lowest
//! lane: only while nobody waits for the origin, and never more at once than `[origin] speculative` allows. Off by
//! default: it spends requests that nobody may ever want.
//!
//! - The ring: the eight tiles around it. Who looks at a map moves it.
//! - The children, one zoom deeper, of tiles in the inside of a view that is being zoomed. That is read off
//!   what was answered a moment ago, to whomever: the tile's parent (so somebody came from there) and the
//!   tiles on its four sides (so it is not at the view's edge, which the next zoom leaves behind).
//!
//! Invariant: a guess delays nobody, and what is remembered is two tables of a fixed size, which no client can
//! make grow; a place in them is overwritten by another tile, and all that is lost is a guess or its count.
//! Left out on purpose: rights (a guess lands in the caches alone; who asks for it is checked then), and who it
//! was that looked (no state for a person or a connection).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Timestamp;
use crate::metrics::{Guess, GuessKind, Metrics};
use crate::tile::{Scale, TileCoord, TileKey, Tileset};

/// How long "a moment ago" is, in seconds: a look at a map, or two.
const MOMENT: u64 = 10;
/// Tiles that were answered are remembered in so many places.
const SEEN: usize = 1 << 16;
/// Guesses are remembered in so many buckets of a cache line each.
const BUCKETS: usize = 1 << 13;

/// Which kinds of guesses are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guesses {
    /// The tiles around.
    pub ring: bool,
    /// The tiles below, in a view that is being zoomed.
    pub children: bool,
}

impl Guesses {
    /// These kinds.
    pub fn of(kinds: &[GuessKind]) -> Self {
        Self {
            ring: kinds.contains(&GuessKind::Ring),
            children: kinds.contains(&GuessKind::Children),
        }
    }
}

/// What was guessed, so that a guess that comes true leads to the next, and what was looked at a moment ago.
#[derive(Debug)]
pub struct Speculation {
    guesses: Guesses,
    guessed: Guessed,
    /// Only where children are guessed: nothing else asks.
    seen: Option<Seen>,
    metrics: Arc<Metrics>,
}

impl Speculation {
    /// Nothing guessed yet.
    pub fn new(guesses: Guesses, metrics: Arc<Metrics>) -> Self {
        Self {
            guesses,
            guessed: Guessed::new(),
            seen: guesses.children.then(Seen::new),
            metrics,
        }
    }

    /// Somebody who looks at a map is given this tile: whether it had been guessed. Says so once.
    ///
    /// It is called for every hit: two cache lines are read, and one is written once a second at most.
    pub(super) fn answered(&self, key: TileKey, now: Timestamp) -> bool {
        let hash = key.spread();
        if let Some(seen) = &self.seen {
            seen.note(hash, now.secs());
        }
        let kind = self.guessed.take(hash);
        if let Some(kind) = kind {
            self.metrics.guesses.add(kind, Guess::CameTrue, 1);
        }
        kind.is_some()
    }

    /// What somebody who was just given a tile may want next, the likeliest first, of what a tileset can have.
    pub(super) fn next<'a>(
        &'a self,
        tileset: &'a Tileset,
        coord: TileCoord,
        scale: Scale,
        now: Timestamp,
    ) -> impl Iterator<Item = (GuessKind, TileCoord)> + 'a {
        let ring = self.guesses.ring.then(|| coord.ring());
        let ring = ring.into_iter().flatten();
        let zoomed = self.seen.as_ref().map(|seen| {
            let seen = move |at| seen.within(tileset.tile_key(at, scale).spread(), now.secs());
            zoomed_into(coord, move |at| tileset.covers(at), seen)
        });
        let children = zoomed.into_iter().flatten().flat_map(TileCoord::children);
        ring.map(|at| (GuessKind::Ring, at))
            .chain(children.map(|at| (GuessKind::Children, at)))
            .filter(|(_, at)| tileset.covers(*at))
    }

    /// Notes a guess that is to be made; `false` if it was before, and has not come true since.
    pub(super) fn guess(&self, key: TileKey, kind: GuessKind) -> bool {
        self.guessed.note(key.spread(), kind)
    }

    /// The origin was asked for it.
    pub(super) fn made(&self, kind: GuessKind) {
        self.metrics.guesses.add(kind, Guess::Made, 1);
    }

    /// There was no room for it: it may be made again.
    pub(super) fn held_back(&self, key: TileKey, kind: GuessKind) {
        self.guessed.take(key.spread());
        self.metrics.guesses.add(kind, Guess::HeldBack, 1);
    }
}

/// Of a tile that was just answered and its four sides, those in the inside of a view that is being zoomed:
/// their parent was seen a moment ago, and all that there can be on their own four sides was. Tiles of a view
/// come one by one: with the last of its sides, a tile turns out to be inside.
fn zoomed_into(
    coord: TileCoord,
    covers: impl Fn(TileCoord) -> bool,
    seen: impl Fn(TileCoord) -> bool,
) -> impl Iterator<Item = TileCoord> {
    coord.sides().chain([coord]).filter(move |inner| {
        seen(*inner)
            && inner.parent().is_some_and(&seen)
            && inner.sides().all(|side| seen(side) || !covers(side))
    })
}

/// When tiles were answered last, to the second. A tile has one place, which another may take.
#[derive(Debug)]
struct Seen(Box<[AtomicU64]>);

impl Seen {
    /// Of a place: the seconds, below the hash's upper bits.
    const SECONDS: u64 = (1 << 24) - 1;

    fn new() -> Self {
        Self(zeroes(SEEN))
    }

    #[allow(
        clippy::cast_possible_truncation,
        reason = "the lower bits are as good as any"
    )]
    fn place(&self, hash: u64) -> &AtomicU64 {
        &self.0[hash as usize % SEEN]
    }

    fn note(&self, hash: u64, seconds: u64) {
        let (place, new) = (
            self.place(hash),
            (hash & !Self::SECONDS) | (seconds & Self::SECONDS),
        );
        // What many look at is written once a second, not by every core at every hit.
        if place.load(Ordering::Relaxed) != new {
            place.store(new, Ordering::Relaxed);
        }
    }

    fn within(&self, hash: u64, seconds: u64) -> bool {
        let there = self.place(hash).load(Ordering::Relaxed);
        let ago = seconds.wrapping_sub(there) & Self::SECONDS;
        (there ^ hash) & !Self::SECONDS == 0 && ago <= MOMENT
    }
}

/// Guesses that have not come true: a hash without its lowest bit, which says of which kind.
#[derive(Debug)]
struct Guessed(Box<[Bucket]>);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket([AtomicU64; 8]);

impl Guessed {
    fn new() -> Self {
        Self((0..BUCKETS).map(|_| Bucket::default()).collect())
    }

    /// The bucket of a hash, and what stands for it there; never 0, which is an empty place.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the lower bits are as good as any"
    )]
    fn places(&self, hash: u64) -> (&[AtomicU64; 8], u64) {
        (
            &self.0[(hash >> 1) as usize % BUCKETS].0,
            (hash & !1).max(2),
        )
    }

    fn note(&self, hash: u64, kind: GuessKind) -> bool {
        let (places, tag) = self.places(hash);
        let there = places.each_ref().map(|place| place.load(Ordering::Relaxed));
        if there.iter().any(|there| there & !1 == tag) {
            return false;
        }
        // With all of them taken, one is forgotten: whichever.
        let forgotten = usize::try_from(hash >> 61).unwrap_or(0);
        let place = there.iter().position(|there| *there == 0);
        let place = &places[place.unwrap_or(forgotten)];
        place.store(
            tag | u64::from(kind == GuessKind::Children),
            Ordering::Relaxed,
        );
        true
    }

    fn take(&self, hash: u64) -> Option<GuessKind> {
        let (places, tag) = self.places(hash);
        let (place, there) = places.iter().find_map(|place| {
            let there = place.load(Ordering::Relaxed);
            (there & !1 == tag).then_some((place, there))
        })?;
        // Of those who come at the same moment, one takes it.
        place
            .compare_exchange(there, 0, Ordering::Relaxed, Ordering::Relaxed)
            .ok()?;
        Some(if there & 1 == 1 {
            GuessKind::Children
        } else {
            GuessKind::Ring
        })
    }
}

fn zeroes(count: usize) -> Box<[AtomicU64]> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn tile(z: u8, x: u32, y: u32) -> TileCoord {
        TileCoord::new(z, x, y).unwrap()
    }

    /// Five by five tiles, and their parents where the view was zoomed.
    fn view(zoomed: bool) -> HashSet<TileCoord> {
        let tiles = (10..15).flat_map(|x| (20..25).map(move |y| tile(6, x, y)));
        let mut seen: HashSet<TileCoord> = tiles.collect();
        if zoomed {
            let parents: Vec<_> = seen.iter().filter_map(|at| at.parent()).collect();
            seen.extend(parents);
        }
        seen
    }

    fn guessed(
        seen: &HashSet<TileCoord>,
        covers: impl Fn(TileCoord) -> bool + Copy,
    ) -> Vec<TileCoord> {
        let of_zoom = seen.iter().filter(|at| at.z() == 6);
        let each = of_zoom.flat_map(|at| zoomed_into(*at, covers, |at| seen.contains(&at)));
        let mut inner: Vec<_> = each.collect();
        inner.sort();
        inner.dedup();
        inner
    }

    #[test]
    fn the_inside_of_a_view_that_is_zoomed_is_what_leads_deeper() {
        let inside: Vec<_> = (11..14)
            .flat_map(|x| (21..24).map(move |y| tile(6, x, y)))
            .collect();
        let mut seen = view(true);
        let mut found = guessed(&seen, |_| true);
        found.sort_by_key(|at| (at.x(), at.y()));
        assert_eq!(found, inside);
        // One that only moves leads nowhere deeper, and neither does the edge.
        assert!(guessed(&view(false), |_| true).is_empty());
        seen.remove(&tile(6, 12, 22));
        assert_eq!(guessed(&seen, |_| true).len(), 4, "the corners alone");
    }

    #[test]
    fn where_a_tileset_ends_nothing_is_missing() {
        let seen = HashSet::from([tile(6, 0, 0), tile(5, 0, 0)]);
        let found = guessed(&seen, |at| at == tile(6, 0, 0));
        assert_eq!(found, [tile(6, 0, 0)]);
        let top = HashSet::from([tile(0, 0, 0)]);
        let found = zoomed_into(tile(0, 0, 0), |_| true, |at| top.contains(&at)).count();
        assert_eq!(found, 0, "nobody comes from above the whole world");
    }

    #[test]
    fn a_moment_ends_and_a_place_that_another_took_says_nothing() {
        let seen = Seen::new();
        let hash = 0xdead_beef_0123_4567;
        assert!(!seen.within(hash, 5));
        seen.note(hash, 1_795_351_817);
        assert!(seen.within(hash, 1_795_351_817) && seen.within(hash, 1_795_351_827));
        assert!(!seen.within(hash, 1_795_351_828));
        seen.note(hash ^ 1 << 60, 1_795_351_818);
        assert!(!seen.within(hash, 1_795_351_818));
    }

    #[test]
    fn a_guess_comes_true_once_and_what_is_remembered_does_not_grow() {
        let guessed = Guessed::new();
        assert!(guessed.note(77, GuessKind::Children) && !guessed.note(77, GuessKind::Ring));
        assert_eq!(guessed.take(77), Some(GuessKind::Children));
        assert_eq!(guessed.take(77), None);
        // More than there is room for, in one bucket: the eight places are taken in turn, and none is added.
        for n in 0..100_u64 {
            let hash = n.wrapping_mul(0x9e37_79b9_0000_0000) | 6;
            assert!(guessed.note(hash, GuessKind::Ring), "{n}");
        }
        let taken = guessed.0.iter().flat_map(|bucket| &bucket.0);
        let taken = taken.filter(|place| place.load(Ordering::Relaxed) != 0);
        assert!(taken.count() <= 8);
    }
}
