//! What a screen shows: a tileset, a zoom, a middle, and the tiles that this takes.
//!
//! Invariant: a view asks for each tile once, from the middle outwards, and for none outside its tileset's
//! bounds: so do Leaflet, MapLibre and OpenLayers. Left out: whether a tile is there.

use std::fmt;
use std::str::FromStr;

use crate::tile::{Bounds, MAX_ZOOM, TileCoord};

/// The widest and highest screen: 8K. It bounds how many tiles a view can ask for (some 600 at 256 px).
const MAX_SIDE: u32 = 8192;
const MIN_SIDE: u32 = 64;

/// A map's size in CSS pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Screen {
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

impl Default for Screen {
    /// A laptop's browser window.
    fn default() -> Self {
        Self {
            width: 1280,
            height: 800,
        }
    }
}

impl FromStr for Screen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sides = text.split_once(['x', '×']).and_then(|(width, height)| {
            Some(Self {
                width: width.trim().parse().ok()?,
                height: height.trim().parse().ok()?,
            })
        });
        let sides = sides.ok_or("write width and height in pixels, like 1280x800")?;
        let fits = MIN_SIDE..=MAX_SIDE;
        if fits.contains(&sides.width) && fits.contains(&sides.height) {
            Ok(sides)
        } else {
            Err(format!("each side has {MIN_SIDE} to {MAX_SIDE} pixels"))
        }
    }
}

impl fmt::Display for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// A tileset as people know it, from its TileJSON.
#[derive(Debug, Clone)]
pub struct Ground {
    /// Its name.
    pub name: String,
    /// The first zoom that it has.
    pub minzoom: u8,
    /// The last one.
    pub maxzoom: u8,
    /// Its area.
    pub bounds: Bounds,
    /// The side of a tile on the screen: 256 CSS pixels, 512 for vector tiles, as MapLibre has it.
    pub tile_size: u32,
    /// A tile's path and query with `{z}`, `{x}` and `{y}`.
    pub template: String,
}

impl Ground {
    /// A tile's path and query.
    pub fn path(&self, tile: TileCoord) -> String {
        let mut path = String::with_capacity(self.template.len() + 16);
        let mut rest = self.template.as_str();
        while let Some(at) = rest.find('{') {
            path.push_str(&rest[..at]);
            let number = match rest.get(at..at + 3) {
                Some("{z}") => u32::from(tile.z()),
                Some("{x}") => tile.x(),
                Some("{y}") => tile.y(),
                _ => {
                    path.push('{');
                    rest = &rest[at + 1..];
                    continue;
                }
            };
            path.push_str(itoa::Buffer::new().format(number));
            rest = &rest[at + 3..];
        }
        path.push_str(rest);
        path
    }
}

/// What somebody looks at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// The tileset's number.
    pub ground: usize,
    /// The zoom.
    pub z: u8,
    /// The middle, as a share of the map from the west.
    pub x: f64,
    /// The middle, as a share of the map from the north.
    pub y: f64,
}

impl View {
    /// How much of the map's width and height the screen shows; more than 1 where it shows all.
    pub fn shown(z: u8, ground: &Ground, screen: Screen) -> (f64, f64) {
        let side = f64::from(1_u32 << z.min(MAX_ZOOM)) * f64::from(ground.tile_size);
        (
            f64::from(screen.width) / side,
            f64::from(screen.height) / side,
        )
    }

    /// The tiles on the screen, those in the middle first.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "columns and rows of a bounded screen on a map of at most 2^30 tiles"
    )]
    pub fn tiles(&self, ground: &Ground, screen: Screen) -> Vec<TileCoord> {
        let side = 1_i64 << self.z;
        let tiles = f64::from(1_u32 << self.z.min(MAX_ZOOM));
        let (wide, high) = Self::shown(self.z, ground, screen);
        let span = |middle: f64, shown: f64| {
            let first = ((middle - shown / 2.0) * tiles).floor() as i64;
            let last = ((middle + shown / 2.0) * tiles).ceil() as i64 - 1;
            first..=last.max(first)
        };
        let (middle_x, middle_y) = (self.x * tiles, self.y * tiles);
        let mut found: Vec<(f64, TileCoord)> = Vec::new();
        for row in span(self.y, high).filter(|row| (0..side).contains(row)) {
            for column in span(self.x, wide) {
                // East of the antimeridian the map goes on with its west.
                let (Ok(x), Ok(y)) = (u32::try_from(column.rem_euclid(side)), u32::try_from(row))
                else {
                    continue;
                };
                let Some(tile) = TileCoord::new(self.z, x, y) else {
                    continue;
                };
                if ground.bounds.touches(tile) {
                    found.push((distance(middle_x, column) + distance(middle_y, row), tile));
                }
            }
        }
        found.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut tiles: Vec<TileCoord> = Vec::with_capacity(found.len());
        for (_, tile) in found {
            // Far out the screen shows the map more than once; its copies are one request.
            if side > i64::from(MAX_SIDE) || !tiles.contains(&tile) {
                tiles.push(tile);
            }
        }
        tiles
    }
}

/// The square of how far a tile's middle is from the view's, in one direction.
#[allow(
    clippy::cast_precision_loss,
    reason = "columns and rows have 31 bits at most"
)]
fn distance(middle: f64, number: i64) -> f64 {
    (number as f64 + 0.5 - middle).powi(2)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn ground(minzoom: u8, maxzoom: u8, bounds: Bounds) -> Ground {
        Ground {
            name: "world".into(),
            minzoom,
            maxzoom,
            bounds,
            tile_size: 256,
            template: "/world/{z}/{x}/{y}.png?v=1".into(),
        }
    }

    fn at(z: u8, x: f64, y: f64) -> View {
        View { ground: 0, z, x, y }
    }

    fn names(tiles: &[TileCoord]) -> Vec<String> {
        tiles.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_view_asks_for_what_the_screen_shows_from_the_middle_outwards() {
        let world = ground(0, 12, Bounds::WORLD);
        let view = at(6, 0.5 + 0.5 / 64.0, 0.5 + 0.5 / 64.0);
        let tiles = view.tiles(&world, Screen::default());
        // 1280 pixels show 5 columns exactly, 800 touch 5 rows.
        assert_eq!(tiles.len(), 25);
        assert_eq!(tiles[0], TileCoord::new(6, 32, 32).unwrap());
        let far = |tile: &TileCoord| {
            (i64::from(tile.x()) - 32).pow(2) + (i64::from(tile.y()) - 32).pow(2)
        };
        assert!(tiles.windows(2).all(|pair| far(&pair[0]) <= far(&pair[1])));
    }

    #[test]
    fn the_whole_world_is_asked_for_once_however_often_it_is_shown() {
        let world = ground(0, 12, Bounds::WORLD);
        let screen = Screen {
            width: 4096,
            height: 800,
        };
        assert_eq!(names(&at(0, 0.5, 0.5).tiles(&world, screen)), ["0/0/0"]);
        assert_eq!(at(1, 0.5, 0.5).tiles(&world, screen).len(), 4);
    }

    #[test]
    fn the_antimeridian_is_crossed() {
        let world = ground(0, 12, Bounds::WORLD);
        let tiles = at(5, 0.0, 0.5).tiles(&world, Screen::default());
        let columns: std::collections::BTreeSet<u32> = tiles.iter().map(|t| t.x()).collect();
        assert_eq!(
            columns.into_iter().collect::<Vec<_>>(),
            [0, 1, 2, 29, 30, 31]
        );
    }

    #[test]
    fn nothing_is_asked_for_outside_of_the_bounds() {
        let alps = Bounds::new([5.0, 44.0, 16.0, 48.5]).unwrap();
        let ground = ground(0, 12, alps);
        for z in 0..=8 {
            let tiles = at(z, 0.53, 0.35).tiles(&ground, Screen::default());
            assert!(tiles.iter().all(|tile| alps.touches(*tile)));
        }
        assert!(at(8, 0.1, 0.9).tiles(&ground, Screen::default()).is_empty());
    }

    #[test]
    fn a_tiles_path_is_the_templates() {
        let tile = TileCoord::new(12, 2145, 7).unwrap();
        let mut ground = ground(0, 12, Bounds::WORLD);
        assert_eq!(ground.path(tile), "/world/12/2145/7.png?v=1");
        ground.template = "/a{b}/{z}{y".into();
        assert_eq!(ground.path(tile), "/a{b}/12{y");
    }

    #[test]
    fn screens_are_read_and_bounded() {
        assert_eq!("1280x800".parse(), Ok(Screen::default()));
        for refused in ["1280", "0x800", "axb", "100000x800", "-5x9"] {
            assert!(refused.parse::<Screen>().is_err(), "{refused}");
        }
    }
}
