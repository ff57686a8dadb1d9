//! Areas with four sides: rectangles of tiles at every zoom, counted by arithmetic.

use crate::tile::{Bounds, TileCoord};

/// Tiles `left..=right` by `top..=bottom` of a zoom. Never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rect {
    left: u64,
    top: u64,
    right: u64,
    bottom: u64,
}

impl Rect {
    /// What lies below a tile at a deeper zoom, or the tile itself at its own.
    pub(super) fn below(tile: TileCoord, zoom: u8) -> Self {
        let depth = zoom.saturating_sub(tile.z());
        let (x, y) = (u64::from(tile.x()), u64::from(tile.y()));
        Self {
            left: x << depth,
            top: y << depth,
            right: ((x + 1) << depth) - 1,
            bottom: ((y + 1) << depth) - 1,
        }
    }

    fn intersection(self, other: Self) -> Option<Self> {
        let both = Self {
            left: self.left.max(other.left),
            top: self.top.max(other.top),
            right: self.right.min(other.right),
            bottom: self.bottom.min(other.bottom),
        };
        (both.left <= both.right && both.top <= both.bottom).then_some(both)
    }

    fn count(self) -> u64 {
        (self.right - self.left + 1) * (self.bottom - self.top + 1)
    }

    fn contains(self, tile: TileCoord) -> bool {
        let (x, y) = (u64::from(tile.x()), u64::from(tile.y()));
        (self.left..=self.right).contains(&x) && (self.top..=self.bottom).contains(&y)
    }
}

/// What a tileset's bounds leave of a zoom: one rectangle, or two across the antimeridian.
pub(super) struct Columns(Vec<Rect>);

impl Columns {
    /// The tiles that [`Bounds::touches`] holds for.
    pub(super) fn touching(bounds: Bounds, zoom: u8) -> Self {
        let [left, top, right, bottom] = bounds.shares();
        let size = f64::from(1u32 << zoom);
        let first = |share: f64| tile_at((share * size - 1.0).ceil(), size);
        let last = |share: f64| tile_at((share * size).floor(), size);
        let rect = |left, right| Rect {
            left,
            top: first(top),
            right,
            bottom: last(bottom),
        };
        let end = tile_at(size, size);
        if left <= right {
            return Self(vec![rect(first(left), last(right))]);
        }
        let (west, east) = (rect(0, last(right)), rect(first(left), end));
        if east.left <= west.right + 1 {
            return Self(vec![rect(0, end)]);
        }
        Self(vec![west, east])
    }
}

impl Columns {
    /// How many of these tiles there are.
    pub(super) fn count(&self, within: Rect) -> u64 {
        let left = self.0.iter().filter_map(|clip| clip.intersection(within));
        left.map(Rect::count).sum()
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the zoom's own tiles"
)]
fn tile_at(index: f64, size: f64) -> u64 {
    index.clamp(0.0, size - 1.0) as u64
}

/// Left, top, right, bottom as shares of the map, left not above right.
pub(super) type Edges = [f64; 4];

/// Areas, those across the antimeridian in two.
#[derive(Debug)]
pub(super) struct Boxes(Vec<Edges>);

impl Boxes {
    pub(super) fn new(areas: &[Bounds]) -> Self {
        let mut boxes = Vec::new();
        for area in areas {
            let [left, top, right, bottom] = area.shares();
            if left <= right {
                boxes.push([left, top, right, bottom]);
            } else {
                boxes.push([left, top, 1.0, bottom]);
                boxes.push([0.0, top, right, bottom]);
            }
        }
        Self(boxes)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn digest(&self, into: &mut impl FnMut(&[u8])) {
        into(b"boxes");
        for share in self.0.iter().flatten() {
            into(&share.to_le_bytes());
        }
    }

    /// The box's tiles at a zoom: those whose inside it overlaps; a line or a point still has a tile.
    fn rect(&self, index: u32, zoom: u8) -> Rect {
        let [left, top, right, bottom] = self.edges(index);
        let size = f64::from(1u32 << zoom);
        let first = |share: f64| tile_at((share * size).floor(), size);
        let last = |share: f64| tile_at((share * size).ceil() - 1.0, size);
        let (x, y) = (first(left), first(top));
        Rect {
            left: x,
            top: y,
            right: last(right).max(x),
            bottom: last(bottom).max(y),
        }
    }

    fn edges(&self, index: u32) -> Edges {
        self.0.get(index as usize).copied().unwrap_or_default()
    }

    /// Of these boxes, those that the tile belongs to; `None`: one of them holds all of it.
    pub(super) fn narrow(&self, candidates: &[u32], tile: TileCoord) -> Option<Vec<u32>> {
        let size = f64::from(1u32 << tile.z());
        let (x, y) = (f64::from(tile.x()) / size, f64::from(tile.y()) / size);
        let mut kept = Vec::new();
        for &index in candidates {
            let [left, top, right, bottom] = self.edges(index);
            let side = 1.0 / size;
            if left <= x && top <= y && x + side <= right && y + side <= bottom {
                return None;
            }
            if self.rect(index, tile.z()).contains(tile) {
                kept.push(index);
            }
        }
        Some(kept)
    }

    /// How many tiles of `zoom` within `within` and `clip` belong to any of these boxes: each counted once.
    pub(super) fn count(&self, candidates: &[u32], zoom: u8, within: Rect, clip: &Columns) -> u64 {
        let mut rects = Vec::new();
        for &index in candidates {
            let Some(rect) = self.rect(index, zoom).intersection(within) else {
                continue;
            };
            rects.extend(clip.0.iter().filter_map(|clip| rect.intersection(*clip)));
        }
        united(&rects)
    }
}

/// How many tiles are in any of the rectangles: slab by slab between the columns where one begins or ends.
fn united(rects: &[Rect]) -> u64 {
    if let [only] = rects {
        return only.count();
    }
    let mut cuts: Vec<u64> = rects.iter().flat_map(|r| [r.left, r.right + 1]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut sum = 0;
    for slab in cuts.windows(2) {
        let &[from, to] = slab else { continue };
        let across = rects.iter().filter(|r| r.left <= from && from <= r.right);
        let mut rows: Vec<(u64, u64)> = across.map(|r| (r.top, r.bottom)).collect();
        rows.sort_unstable();
        let (mut tall, mut next) = (0, 0);
        for (top, bottom) in rows {
            let top = top.max(next);
            if bottom >= top {
                tall += bottom - top + 1;
                next = bottom + 1;
            }
        }
        sum += (to - from) * tall;
    }
    sum
}
