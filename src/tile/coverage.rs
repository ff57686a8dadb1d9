//! Which tiles an area has: counted without being listed, and walked in an order that keeps neighbours together.
//!
//! Invariant: memory does not grow with the number of tiles, and [`Cover::count`] is the number that [`Cover::walk`]
//! yields. A tile belongs to an area if its inside and the area's overlap: one that shares an edge does not. A box or
//! polygon is what is drawn between its corners on a web map (Mercator).
//!
//! The walk goes down before it goes aside: a tile, then each of its four children with all below it, in Z-order. So
//! what a person sees together lies together in time (and in the server's disk tier), a tile's parent has been asked
//! for when it comes, and a run that ends early leaves whole places done at every zoom instead of the whole world at
//! few.
//! Left out: overzoom, and any I/O.

mod boxes;
mod crossings;
mod geojson;
mod polygons;
mod rows;
mod walk;

use std::sync::Arc;

use boxes::{Boxes, Columns, Rect};
pub use geojson::{AreaError, MAX_AREA_BYTES, MAX_VERTICES};
use polygons::Polygons;
pub use walk::Walk;

use super::{Bounds, TileCoord};

/// The most tiles that a list may have: eight bytes each.
pub const MAX_LISTED: usize = 5_000_000;

/// What is to be covered.
#[derive(Debug, Clone)]
pub struct Coverage(Shape);

#[derive(Debug, Clone)]
enum Shape {
    Boxes(Arc<Boxes>),
    Polygons(Arc<Polygons>),
    /// In the walk's order, each once.
    Listed(Arc<[TileCoord]>),
}

impl Coverage {
    /// Areas of longitude and latitude, which may overlap and cross the antimeridian.
    pub fn boxes(areas: &[Bounds]) -> Self {
        Self(Shape::Boxes(Arc::new(Boxes::new(areas))))
    }

    /// The polygons of a GeoJSON text (RFC 7946), holes left out.
    pub fn geojson(text: &str) -> Result<Self, AreaError> {
        geojson::read(text).map(|polygons| Self(Shape::Polygons(Arc::new(polygons))))
    }

    /// These tiles and no others, in the walk's order.
    pub fn tiles(mut tiles: Vec<TileCoord>) -> Self {
        tiles.sort_unstable_by_key(|tile| preorder(*tile));
        tiles.dedup();
        Self(Shape::Listed(tiles.into()))
    }

    /// For telling plans apart: changes with whatever changes the tiles.
    pub fn digest(&self, into: &mut impl FnMut(&[u8])) {
        match &self.0 {
            Shape::Boxes(boxes) => boxes.digest(into),
            Shape::Polygons(polygons) => polygons.digest(into),
            Shape::Listed(tiles) => {
                into(b"listed");
                for tile in tiles.iter() {
                    into(&tile.number().to_le_bytes());
                }
            }
        }
    }
}

/// The walk's order: of a path from the root, each step before the steps below it. Depth tells a tile from its
/// first child's first child.
fn preorder(tile: TileCoord) -> (u64, u8) {
    let deepest = u32::from(super::MAX_ZOOM - tile.z());
    let at_deepest = TileCoord::new(super::MAX_ZOOM, tile.x() << deepest, tile.y() << deepest);
    (at_deepest.map_or(0, TileCoord::number), tile.z())
}

/// A coverage's tiles of some zooms that a tileset can have.
#[derive(Debug, Clone)]
pub struct Cover {
    coverage: Coverage,
    clip: Bounds,
    minzoom: u8,
    maxzoom: u8,
}

impl Cover {
    /// The tiles of zooms `minzoom` to `maxzoom` (none where that is backwards) that touch `clip`, as a server's
    /// [`Tileset::admit`](super::Tileset::admit) decides it.
    pub fn new(coverage: &Coverage, (minzoom, maxzoom): (u8, u8), clip: Bounds) -> Self {
        let maxzoom = maxzoom.min(super::MAX_ZOOM);
        let coverage = match &coverage.0 {
            Shape::Listed(tiles) => {
                let kept = tiles
                    .iter()
                    .copied()
                    .filter(|tile| (minzoom..=maxzoom).contains(&tile.z()) && clip.touches(*tile));
                Coverage(Shape::Listed(kept.collect()))
            }
            _ => coverage.clone(),
        };
        Self {
            coverage,
            clip,
            minzoom,
            maxzoom,
        }
    }

    /// How many tiles it has.
    pub fn count(&self) -> u64 {
        let counts = self.counts();
        counts
            .iter()
            .fold(0, |sum, (_, tiles)| sum.saturating_add(*tiles))
    }

    /// How many of them at each of its zooms, all in one go.
    pub fn counts(&self) -> Vec<(u8, u64)> {
        let mut counts: Vec<(u8, u64)> = (self.minzoom..=self.maxzoom).map(|z| (z, 0)).collect();
        let mut add = |zoom: u8, tiles: u64| {
            let place = zoom.checked_sub(self.minzoom);
            if let Some((_, count)) = place.and_then(|at| counts.get_mut(usize::from(at))) {
                *count = count.saturating_add(tiles);
            }
        };
        match &self.coverage.0 {
            Shape::Listed(tiles) => tiles.iter().for_each(|tile| add(tile.z(), 1)),
            _ if self.minzoom > self.maxzoom => {}
            _ => {
                if let Some(root) = walk::root(self) {
                    self.below(&root, &mut add);
                }
            }
        }
        counts
    }

    /// All of them, one after the other.
    pub fn walk(&self) -> Walk {
        Walk::new(self.clone())
    }

    /// Tells the tiles at and below a node, zoom by zoom.
    fn below(&self, node: &walk::Node, add: &mut impl FnMut(u8, u64)) {
        if self.count_at_once(node, add) {
            return;
        }
        if self.has(node.coord) {
            add(node.coord.z(), 1);
        }
        for child in walk::children(self, node) {
            self.below(&child, add);
        }
    }

    /// The same where arithmetic tells: for boxes, and for what is wholly inside. False: it does not.
    fn count_at_once(&self, node: &walk::Node, add: &mut impl FnMut(u8, u64)) -> bool {
        let z = node.coord.z();
        let zooms = self.minzoom.max(z)..=self.maxzoom;
        if node.is_whole() {
            zooms.for_each(|zoom| add(zoom, 1 << (2 * u32::from(zoom - z))));
            return true;
        }
        let places = |zoom| {
            let below = Rect::below(node.coord, zoom);
            (below, Columns::touching(self.clip, zoom))
        };
        match (node.part(), &self.coverage.0) {
            (None, _) => zooms.for_each(|zoom| {
                let (below, clip) = places(zoom);
                add(zoom, clip.count(below));
            }),
            (Some(part), Shape::Boxes(boxes)) => zooms.for_each(|zoom| {
                let (below, clip) = places(zoom);
                add(zoom, boxes.count(part, zoom, below, &clip));
            }),
            (Some(_), _) => return false,
        }
        true
    }

    /// Whether a tile on the way is one of the tiles. The walk sees to the rest.
    fn has(&self, tile: TileCoord) -> bool {
        tile.z() >= self.minzoom
    }
}

#[cfg(test)]
mod tests;
