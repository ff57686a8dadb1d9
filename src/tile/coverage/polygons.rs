//! Polygons with holes: which tiles their edges pass through, and which lie wholly inside.
//!
//! A point is inside a polygon if a ray from it crosses the rings an odd number of times, holes' too, and inside the
//! whole if it is inside any polygon. Only the middle of a tile that no edge passes through is ever asked for, so no
//! edge is ever near enough to be mistaken.

use std::sync::Arc;

use super::rows::Rows;
use crate::tile::TileCoord;

/// From one corner to the next, as shares of the map, y down.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edge {
    pub(super) from: [f64; 2],
    pub(super) to: [f64; 2],
    /// Which polygon's.
    pub(super) of: u32,
}

impl Edge {
    #[expect(clippy::float_cmp, reason = "the same numbers, not near ones")]
    fn is_a_point(&self) -> bool {
        self.from == self.to
    }
}

/// How an area lies to a tile.
#[derive(Debug, Clone)]
pub(super) enum Within {
    Outside,
    Whole,
    /// These edges pass through.
    Crossed(Arc<[u32]>),
}

/// A tile's left, top, right and bottom.
#[derive(Clone, Copy)]
struct Square([f64; 4]);

impl Square {
    fn of(tile: TileCoord) -> Self {
        let side = 1.0 / f64::from(1u32 << tile.z());
        let (left, top) = (f64::from(tile.x()) * side, f64::from(tile.y()) * side);
        Self([left, top, left + side, top + side])
    }

    fn middle(self) -> [f64; 2] {
        let [left, top, right, bottom] = self.0;
        [f64::midpoint(left, right), f64::midpoint(top, bottom)]
    }
}

/// All edges of all polygons, and an index of them by rows.
#[derive(Debug)]
pub(super) struct Polygons {
    edges: Vec<Edge>,
    rows: Rows,
    /// What this was read from, for telling plans apart.
    digest: Vec<u8>,
}

/// A share of an edge's length: what lies less far inside a tile is a corner that was met, rounded.
const HARDLY: f64 = 1e-12;

impl Polygons {
    /// `digest` stands for what the edges were made of.
    pub(super) fn new(mut edges: Vec<Edge>, digest: Vec<u8>) -> Self {
        edges.retain(|edge| !edge.is_a_point());
        let spans = edges.iter().map(|edge| {
            let (a, b) = (edge.from[1], edge.to[1]);
            (a.min(b), a.max(b))
        });
        let rows = Rows::new(edges.len(), spans);
        Self {
            edges,
            rows,
            digest,
        }
    }

    pub(super) fn digest(&self, into: &mut impl FnMut(&[u8])) {
        into(b"polygons");
        into(&self.digest);
    }

    /// How the tile 0/0/0 lies.
    pub(super) fn at_root(&self, root: TileCoord) -> Within {
        let all: Vec<u32> = (0u32..).zip(&self.edges).map(|(index, _)| index).collect();
        self.narrow(&all, root)
    }

    /// How a tile lies, if of all edges only these can pass through it.
    pub(super) fn narrow(&self, candidates: &[u32], tile: TileCoord) -> Within {
        let square = Square::of(tile);
        let crossing: Arc<[u32]> = candidates
            .iter()
            .copied()
            .filter(|&index| self.passes(index, square.0))
            .collect();
        if !crossing.is_empty() {
            return Within::Crossed(crossing);
        }
        if self.contains(square.middle()) {
            Within::Whole
        } else {
            Within::Outside
        }
    }

    /// Whether any of a tile is inside, if of all edges only these can pass through it.
    pub(super) fn touch(&self, candidates: &[u32], tile: TileCoord) -> bool {
        let square = Square::of(tile);
        candidates.iter().any(|&index| self.passes(index, square.0))
            || self.contains(square.middle())
    }

    /// Whether an edge passes through a square's inside (Liang and Barsky's clipping, 1984).
    fn passes(&self, index: u32, [left, top, right, bottom]: [f64; 4]) -> bool {
        let Some(Edge { from, to, .. }) = self.edges.get(index as usize) else {
            return false;
        };
        let (mut enters, mut leaves) = (0.0_f64, 1.0_f64);
        for (from, to, low, high) in [(from[0], to[0], left, right), (from[1], to[1], top, bottom)]
        {
            let along = to - from;
            if along == 0.0 {
                if from <= low || from >= high {
                    return false;
                }
                continue;
            }
            let (a, b) = ((low - from) / along, (high - from) / along);
            enters = enters.max(a.min(b));
            leaves = leaves.min(a.max(b));
        }
        leaves - enters > HARDLY
    }

    /// Whether any polygon has this point inside. A ray goes to the east.
    fn contains(&self, [x, y]: [f64; 2]) -> bool {
        // Polygons whose rings the ray has crossed an odd number of times; few at a time.
        let mut odd: Vec<u32> = Vec::new();
        for index in self.rows.at(y) {
            let Some(Edge { from, to, of }) = self.edges.get(index as usize) else {
                continue;
            };
            if (from[1] > y) == (to[1] > y) {
                continue;
            }
            let meets = from[0] + (y - from[1]) / (to[1] - from[1]) * (to[0] - from[0]);
            if meets <= x {
                continue;
            }
            match odd.iter().position(|one| one == of) {
                Some(at) => {
                    odd.swap_remove(at);
                }
                None => odd.push(*of),
            }
        }
        !odd.is_empty()
    }
}
