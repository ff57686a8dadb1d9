//! The cache key of a tile: tileset, version, coordinates and variant, in 16 bytes.
//!
//! The bucket's address is no part of it: a bucket that moves keeps its cache.

use twox_hash::XxHash3_64;

use super::{Scale, TileCoord};

/// A tileset at one version, as a number that is the same on every node and after every restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeySpace(u64);

impl KeySpace {
    /// The space of a tileset's tiles. Names hold no NUL, so two pairs never spell the same bytes;
    /// that no two configured tilesets share a number is checked when the configuration is read.
    pub fn new(tileset: &str, version: Option<&str>) -> Self {
        let mut bytes = Vec::with_capacity(tileset.len() + 1 + version.map_or(0, str::len));
        bytes.extend_from_slice(tileset.as_bytes());
        if let Some(version) = version {
            bytes.push(0);
            bytes.extend_from_slice(version.as_bytes());
        }
        Self(XxHash3_64::oneshot(&bytes))
    }

    /// The number itself, for records on disk.
    pub fn to_u64(self) -> u64 {
        self.0
    }
}

/// What one stored response is stored under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TileKey {
    space: u64,
    /// The tile's number over all zooms, shifted left by one, plus one for `@2x`.
    place: u64,
}

impl TileKey {
    /// The key of one variant of one tile.
    pub fn new(space: KeySpace, coord: TileCoord, scale: Scale) -> Self {
        Self {
            space: space.0,
            place: coord.number() << 1 | u64::from(scale == Scale::Two),
        }
    }

    /// The tileset and version that the tile belongs to.
    pub fn space(self) -> KeySpace {
        KeySpace(self.space)
    }

    /// Where the tile is; `None` for bytes from a disk that never were a tile's key.
    pub fn coord(self) -> Option<TileCoord> {
        TileCoord::from_number(self.place >> 1)
    }

    /// Which density the tile has.
    pub fn scale(self) -> Scale {
        if self.place & 1 == 1 {
            Scale::Two
        } else {
            Scale::One
        }
    }

    /// The key as it stands in a record on disk: two little-endian numbers.
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.space) | u128::from(self.place) << 64).to_le_bytes()
    }

    /// The inverse of [`TileKey::to_bytes`].
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the halves of a u128 are u64s"
    )]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let both = u128::from_le_bytes(bytes);
        Self {
            space: both as u64,
            place: (both >> 64) as u64,
        }
    }

    /// A number from the key that is spread evenly: for jitter, shards and tables.
    pub fn spread(self) -> u64 {
        XxHash3_64::oneshot(&self.to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_its_bytes() {
        let coord = TileCoord::new(7, 66, 45).unwrap();
        for scale in [Scale::One, Scale::Two] {
            let key = TileKey::new(KeySpace::new("world", Some("2026-11")), coord, scale);
            let back = TileKey::from_bytes(key.to_bytes());
            assert_eq!(back, key);
            assert_eq!((back.coord(), back.scale()), (Some(coord), scale));
        }
    }

    #[test]
    fn tilesets_and_versions_do_not_share_keys() {
        let spaces = [
            KeySpace::new("a", None),
            KeySpace::new("a", Some("1")),
            KeySpace::new("a", Some("2")),
            KeySpace::new("a1", None),
            KeySpace::new("b", Some("1")),
        ];
        for (i, a) in spaces.iter().enumerate() {
            assert!(spaces[i + 1..].iter().all(|b| a != b));
        }
    }
}
