//! The order of tiles: a stack of nodes whose children are still to come.

use std::sync::Arc;

use super::polygons::Within;
use super::{Cover, Shape};
use crate::tile::{Bounds, TileCoord};

/// A tile on the way, and how what is to be covered lies to it.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) coord: TileCoord,
    /// Boxes or edges that matter here; `None`: all of the tile is inside.
    part: Option<Arc<[u32]>>,
    /// Whether the tileset's bounds hold all of it.
    in_clip: bool,
}

impl Node {
    pub(super) fn is_whole(&self) -> bool {
        self.part.is_none() && self.in_clip
    }

    /// Boxes or edges that matter here; `None`: all of the tile is inside.
    pub(super) fn part(&self) -> Option<&[u32]> {
        self.part.as_deref()
    }
}

/// The node to begin at; `None` where nothing is to be covered.
pub(super) fn root(cover: &Cover) -> Option<Node> {
    let coord = TileCoord::new(0, 0, 0)?;
    let part = match &cover.coverage.0 {
        Shape::Boxes(boxes) => {
            let all: Vec<u32> = (0u32..).take(boxes.len()).collect();
            part_of(boxes.narrow(&all, coord))?
        }
        Shape::Polygons(polygons) => part_within(polygons.at_root(coord))?,
        Shape::Listed(_) => return None,
    };
    node(cover, coord, part, false)
}

/// The children with something to cover, in Z-order.
pub(super) fn children(cover: &Cover, parent: &Node) -> Vec<Node> {
    let z = parent.coord.z() + 1;
    if z > cover.maxzoom {
        return Vec::new();
    }
    let (x, y) = (parent.coord.x() * 2, parent.coord.y() * 2);
    [(x, y), (x + 1, y), (x, y + 1), (x + 1, y + 1)]
        .into_iter()
        .filter_map(|(x, y)| {
            let coord = TileCoord::new(z, x, y)?;
            let part = match (&parent.part, &cover.coverage.0) {
                (None, _) => None,
                (Some(part), Shape::Boxes(boxes)) => part_of(boxes.narrow(part, coord))?,
                // Nothing lies below it that would have to know which edges.
                (Some(part), Shape::Polygons(polygons)) if z == cover.maxzoom => {
                    if !polygons.touch(part, coord) {
                        return None;
                    }
                    None
                }
                (Some(part), Shape::Polygons(polygons)) => {
                    part_within(polygons.narrow(part, coord))?
                }
                (Some(_), Shape::Listed(_)) => return None,
            };
            node(cover, coord, part, parent.in_clip)
        })
        .collect()
}

/// The outer `None`: nothing is left.
#[allow(clippy::option_option, reason = "the inner one says: all of it")]
fn part_of(kept: Option<Vec<u32>>) -> Option<Option<Arc<[u32]>>> {
    match kept {
        None => Some(None),
        Some(kept) if kept.is_empty() => None,
        Some(kept) => Some(Some(kept.into())),
    }
}

#[allow(clippy::option_option, reason = "the inner one says: all of it")]
fn part_within(within: Within) -> Option<Option<Arc<[u32]>>> {
    match within {
        Within::Outside => None,
        Within::Whole => Some(None),
        Within::Crossed(edges) => Some(Some(edges)),
    }
}

fn node(cover: &Cover, coord: TileCoord, part: Option<Arc<[u32]>>, in_clip: bool) -> Option<Node> {
    // What does not touch the bounds has nothing below it that does.
    if !in_clip && !cover.clip.touches(coord) {
        return None;
    }
    Some(Node {
        in_clip: in_clip || holds(cover.clip, coord),
        coord,
        part,
    })
}

/// Whether the bounds hold all of a tile, and so all below it.
fn holds(bounds: Bounds, tile: TileCoord) -> bool {
    let [left, top, right, bottom] = bounds.shares();
    let size = f64::from(1u32 << tile.z());
    let (x, y) = (f64::from(tile.x()), f64::from(tile.y()));
    let starts = left * size <= x;
    let ends = x + 1.0 <= right * size;
    let across = if left <= right {
        starts && ends
    } else {
        starts || ends
    };
    across && top * size <= y && y + 1.0 <= bottom * size
}

/// All tiles of a [`Cover`], one after the other.
#[derive(Debug, Clone)]
pub struct Walk {
    cover: Cover,
    /// The next on top.
    stack: Vec<Node>,
    /// The next of a list.
    listed: usize,
}

impl Walk {
    pub(super) fn new(cover: Cover) -> Self {
        let root = (cover.minzoom <= cover.maxzoom).then(|| root(&cover));
        Self {
            stack: root.flatten().into_iter().collect(),
            cover,
            listed: 0,
        }
    }

    /// Leaves out the next `count` tiles, without visiting them where arithmetic tells how many there are.
    pub fn skip_tiles(&mut self, mut count: u64) {
        if matches!(self.cover.coverage.0, Shape::Listed(_)) {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            self.listed = self.listed.saturating_add(count);
            return;
        }
        while count > 0 {
            let Some(node) = self.stack.pop() else {
                return;
            };
            let mut below = 0_u64;
            let known = self.cover.count_at_once(&node, &mut |_, tiles| {
                below = below.saturating_add(tiles);
            });
            if known && below <= count {
                count -= below;
            } else {
                if self.cover.has(node.coord) {
                    count -= 1;
                }
                self.stack
                    .extend(children(&self.cover, &node).into_iter().rev());
            }
        }
    }
}

impl Iterator for Walk {
    type Item = TileCoord;

    fn next(&mut self) -> Option<TileCoord> {
        if let Shape::Listed(tiles) = &self.cover.coverage.0 {
            let tile = tiles.get(self.listed).copied();
            self.listed = self.listed.saturating_add(1);
            return tile;
        }
        loop {
            let node = self.stack.pop()?;
            self.stack
                .extend(children(&self.cover, &node).into_iter().rev());
            if self.cover.has(node.coord) {
                return Some(node.coord);
            }
        }
    }
}
