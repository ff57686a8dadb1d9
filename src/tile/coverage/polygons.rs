//! Polygons with holes: which tiles their edges pass through, and which lie wholly inside.
//!
//! A point is inside a polygon if a ray from it crosses the rings an odd number of times, holes' too, and inside the
//! whole if it is inside any polygon. Only the middle of a tile that no edge passes through is ever asked for, so no
//! edge is ever near enough to be mistaken.

use std::sync::Arc;

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

/// All edges of all polygons, and an index of them by rows.
#[derive(Debug)]
pub(super) struct Polygons {
    edges: Vec<Edge>,
    /// For each row of the map's height the edges that reach into it.
    rows: Vec<Vec<u32>>,
    /// What this was read from, for telling plans apart.
    digest: Vec<u8>,
}

/// A share of an edge's length: what lies less far inside a tile is a corner that was met, rounded.
const HARDLY: f64 = 1e-12;

impl Polygons {
    /// `digest` stands for what the edges were made of.
    pub(super) fn new(mut edges: Vec<Edge>, digest: Vec<u8>) -> Self {
        edges.retain(|edge| !edge.is_a_point());
        let count = (edges.len() / 8).clamp(1, 16_384);
        let mut rows = vec![Vec::new(); count];
        for (index, edge) in (0u32..).zip(&edges) {
            let (a, b) = (edge.from[1], edge.to[1]);
            for row in &mut rows[row_of(a.min(b), count)..=row_of(a.max(b), count)] {
                row.push(index);
            }
        }
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
        let size = f64::from(1u32 << tile.z());
        let (left, top) = (f64::from(tile.x()) / size, f64::from(tile.y()) / size);
        let side = 1.0 / size;
        let square = [left, top, left + side, top + side];
        let crossing: Arc<[u32]> = candidates
            .iter()
            .copied()
            .filter(|&index| self.passes(index, square))
            .collect();
        if !crossing.is_empty() {
            return Within::Crossed(crossing);
        }
        if self.contains([left + side / 2.0, top + side / 2.0]) {
            Within::Whole
        } else {
            Within::Outside
        }
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
        let row = self.rows.get(row_of(y, self.rows.len()));
        for &index in row.into_iter().flatten() {
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

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "clamped to the rows that there are"
)]
fn row_of(y: f64, count: usize) -> usize {
    ((y * count as f64).floor().max(0.0) as usize).min(count - 1)
}
