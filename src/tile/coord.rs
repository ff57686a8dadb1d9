//! Coordinates in the XYZ scheme: zoom, column from the west, row from the north.

use std::fmt;

/// The deepest zoom that a [`TileCoord`] can name. At 30 a tile is 3.7 cm wide at the equator.
pub const MAX_ZOOM: u8 = 30;

/// Pixel density of a tile image: `@2x` in a URL asks for the double one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scale {
    /// One image pixel for one CSS pixel.
    One,
    /// Two image pixels for one CSS pixel, `@2x` in URLs and for `{r}` in key templates.
    Two,
}

impl Scale {
    /// What `{r}` stands for in a key template: nothing, or `@2x`.
    pub fn suffix(self) -> &'static str {
        match self {
            Scale::One => "",
            Scale::Two => "@2x",
        }
    }
}

/// Coordinates as somebody asked for them: well-formed numbers that need not exist in any pyramid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileAddress {
    /// Zoom as asked for.
    pub z: u32,
    /// Column as asked for.
    pub x: u32,
    /// Row as asked for, y down.
    pub y: u32,
    /// Density as asked for.
    pub scale: Scale,
}

impl TileAddress {
    /// The tile at this address, or `None` where the pyramid has no such place: `x` and `y` are
    /// below `2^z`, and `z` is at most [`MAX_ZOOM`].
    pub fn locate(self) -> Option<TileCoord> {
        let z = u8::try_from(self.z).ok()?;
        TileCoord::new(z, self.x, self.y)
    }
}

/// One place in the tile pyramid: `z` is at most [`MAX_ZOOM`], `x` and `y` are below `2^z`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TileCoord {
    z: u8,
    x: u32,
    y: u32,
}

impl TileCoord {
    /// The place `z/x/y` (XYZ, y down), or `None` where there is none.
    pub fn new(z: u8, x: u32, y: u32) -> Option<Self> {
        (z <= MAX_ZOOM && x < 1 << z && y < 1 << z).then_some(Self { z, x, y })
    }

    /// Zoom.
    pub fn z(self) -> u8 {
        self.z
    }

    /// Column, counted from the antimeridian eastwards.
    pub fn x(self) -> u32 {
        self.x
    }

    /// Row, counted from the north.
    pub fn y(self) -> u32 {
        self.y
    }

    /// Row in the TMS scheme: counted from the south, `{-y}` in templates.
    pub fn tms_y(self) -> u32 {
        (1 << self.z) - 1 - self.y
    }

    /// Bing's quadkey: a base-4 digit a zoom, the empty string at zoom 0.
    /// Source: "Bing Maps Tile System", Microsoft.
    pub fn quadkey(self) -> String {
        (0..self.z)
            .rev()
            .map(|bit| {
                let digit = (self.x >> bit & 1) | (self.y >> bit & 1) << 1;
                char::from_digit(digit, 4).unwrap_or('0')
            })
            .collect()
    }

    /// The tiles around it, at most eight: columns go around the world, rows end at the edges.
    pub fn ring(self) -> impl Iterator<Item = Self> {
        const AROUND: [(u32, u32); 8] = {
            let back = u32::MAX;
            [
                (back, back),
                (0, back),
                (1, back),
                (back, 0),
                (1, 0),
                (back, 1),
                (0, 1),
                (1, 1),
            ]
        };
        let side = 1 << self.z;
        AROUND.into_iter().filter_map(move |(right, down)| {
            let x = self.x.wrapping_add(right) % side;
            let there = Self::new(self.z, x, self.y.wrapping_add(down))?;
            (there != self).then_some(there)
        })
    }

    /// The tiles on its four sides: columns go around the world, rows end at the edges.
    pub fn sides(self) -> impl Iterator<Item = Self> {
        self.ring()
            .filter(move |other| other.x == self.x || other.y == self.y)
    }

    /// The tile that covers it one zoom higher; the whole world has none.
    pub fn parent(self) -> Option<Self> {
        Self::new(self.z.checked_sub(1)?, self.x / 2, self.y / 2)
    }

    /// The four tiles that cover it one zoom deeper; none at the deepest.
    pub fn children(self) -> impl Iterator<Item = Self> {
        const QUARTERS: [(u32, u32); 4] = [(0, 0), (1, 0), (0, 1), (1, 1)];
        QUARTERS.into_iter().filter_map(move |(right, down)| {
            if self.z >= MAX_ZOOM {
                return None;
            }
            Self::new(self.z + 1, self.x * 2 + right, self.y * 2 + down)
        })
    }

    /// The tile's number over all zooms: zooms in order, Z-order (Morton) within a zoom, so that
    /// neighbours lie near to each other. At most `2^61`.
    pub fn number(self) -> u64 {
        Self::zoom_start(self.z) + (spread(self.x) | spread(self.y) << 1)
    }

    /// The inverse of [`TileCoord::number`]; `None` for a number that no tile has.
    pub fn from_number(number: u64) -> Option<Self> {
        let z = (0..=MAX_ZOOM).rfind(|&z| Self::zoom_start(z) <= number)?;
        let morton = number - Self::zoom_start(z);
        (morton < 1 << (2 * z)).then(|| Self {
            z,
            x: gather(morton),
            y: gather(morton >> 1),
        })
    }

    /// How many tiles lie above zoom `z`: `(4^z - 1) / 3`.
    fn zoom_start(z: u8) -> u64 {
        ((1 << (2 * u32::from(z))) - 1) / 3
    }
}

impl fmt::Display for TileCoord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.z, self.x, self.y)
    }
}

impl fmt::Debug for TileCoord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Puts a zero between each two bits.
fn spread(value: u32) -> u64 {
    let mut v = u64::from(value);
    v = (v | v << 16) & 0x0000_ffff_0000_ffff;
    v = (v | v << 8) & 0x00ff_00ff_00ff_00ff;
    v = (v | v << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    v = (v | v << 2) & 0x3333_3333_3333_3333;
    (v | v << 1) & 0x5555_5555_5555_5555
}

/// Takes every second bit: the inverse of [`spread`].
fn gather(value: u64) -> u32 {
    let mut v = value & 0x5555_5555_5555_5555;
    v = (v | v >> 1) & 0x3333_3333_3333_3333;
    v = (v | v >> 2) & 0x0f0f_0f0f_0f0f_0f0f;
    v = (v | v >> 4) & 0x00ff_00ff_00ff_00ff;
    v = (v | v >> 8) & 0x0000_ffff_0000_ffff;
    v = (v | v >> 16) & 0x0000_0000_ffff_ffff;
    u32::try_from(v).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_goes_around_the_world_and_ends_at_the_poles() {
        let ring = |z, x, y| {
            let ring = TileCoord::new(z, x, y).unwrap().ring();
            ring.map(|at| (at.x, at.y)).collect::<Vec<_>>()
        };
        assert_eq!(ring(0, 0, 0), []);
        assert_eq!(ring(3, 0, 0), [(7, 0), (1, 0), (7, 1), (0, 1), (1, 1)]);
        assert_eq!(ring(3, 4, 4).len(), 8);
        assert_eq!(ring(3, 7, 7), [(6, 6), (7, 6), (0, 6), (6, 7), (0, 7)]);
    }
    use proptest::prelude::*;

    #[test]
    fn a_tile_outside_its_zoom_does_not_exist() {
        assert!(TileCoord::new(0, 0, 0).is_some());
        assert!(TileCoord::new(0, 1, 0).is_none());
        assert!(TileCoord::new(3, 7, 8).is_none());
        assert!(TileCoord::new(30, (1 << 30) - 1, 0).is_some());
        assert!(TileCoord::new(31, 0, 0).is_none());
        let far = TileAddress {
            z: 400,
            x: 0,
            y: 0,
            scale: Scale::One,
        };
        assert_eq!(far.locate(), None);
    }

    #[test]
    fn quadkeys_are_those_of_the_bing_maps_article() {
        assert_eq!(TileCoord::new(3, 3, 5).unwrap().quadkey(), "213");
        assert_eq!(TileCoord::new(0, 0, 0).unwrap().quadkey(), "");
    }

    #[test]
    fn tms_rows_count_from_the_south() {
        assert_eq!(TileCoord::new(3, 3, 5).unwrap().tms_y(), 2);
    }

    proptest! {
        #[test]
        fn every_tile_has_a_number_of_its_own(z in 0u8..=MAX_ZOOM, x: u32, y: u32) {
            let mask = (1u32 << z) - 1;
            let tile = TileCoord::new(z, x & mask, y & mask).unwrap();
            prop_assert!(tile.number() < 1 << 61);
            prop_assert_eq!(TileCoord::from_number(tile.number()), Some(tile));
        }
    }
}
