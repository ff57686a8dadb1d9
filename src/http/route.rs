//! What a request's path asks for, parsed once at the door.
//!
//! Nothing is percent-decoded: every path of ours is plain ASCII, so an escape is never needed and
//! no second reading of a path can differ from the first.

use crate::tile::{Scale, TileAddress};

/// A path, understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<'p> {
    /// `/{tileset}/{z}/{x}/{y}[@2x][.ext]`, or `/{z}/{x}/{y}…` of the default tileset.
    Tile(TileRoute<'p>),
    /// The tile's path with `/explain` behind it.
    Explain(TileRoute<'p>),
    /// The tile's path with `/sign` before it.
    Sign(TileRoute<'p>),
    /// `/{tileset}.json`.
    TileJson(&'p str),
    /// Everything else: pages, sessions, assets, and what there is not.
    Page,
}

/// A tile's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileRoute<'p> {
    /// The tileset's name; `None` for the default one.
    pub tileset: Option<&'p str>,
    /// Where, as asked for.
    pub address: TileAddress,
    /// The extension, without its dot.
    pub extension: Option<&'p str>,
}

/// A path that is none of ours and cannot become one: the answer is 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Empty segments, escapes, dots or characters that no path of ours has.
    Path,
    /// Coordinates that are not canonical decimal numbers.
    Coordinates,
    /// Something else than `@2x` behind the row.
    Density,
}

/// More segments than any path of ours has.
const MAX_SEGMENTS: usize = 6;

impl<'p> Route<'p> {
    /// Reads an absolute path (without its query).
    pub fn parse(path: &'p str) -> Result<Self, Malformed> {
        let rest = path.strip_prefix('/').ok_or(Malformed::Path)?;
        let mut segments = [""; MAX_SEGMENTS];
        let (mut count, mut begin) = (0, 0);
        // Byte by byte: for a path this short, a search for the next slash costs more than it saves.
        for (end, byte) in rest.bytes().chain([b'/']).enumerate() {
            if byte == b'/' {
                *segments.get_mut(count).ok_or(Malformed::Path)? = &rest[begin..end];
                count += 1;
                begin = end + 1;
            }
        }
        let segments = &segments[..count];
        if rest.is_empty() {
            return Ok(Self::Page);
        }
        match *segments {
            ["sign", z, x, y] => Ok(Self::Sign(TileRoute::parse(None, z, x, y)?)),
            ["sign", tileset, z, x, y] => Ok(Self::Sign(TileRoute::parse(Some(tileset), z, x, y)?)),
            [z, x, y] if digit_first(z) => Ok(Self::Tile(TileRoute::parse(None, z, x, y)?)),
            [z, x, y, "explain"] if digit_first(z) => {
                Ok(Self::Explain(TileRoute::parse(None, z, x, y)?))
            }
            [tileset, z, x, y] => Ok(Self::Tile(TileRoute::parse(Some(tileset), z, x, y)?)),
            [tileset, z, x, y, "explain"] => {
                Ok(Self::Explain(TileRoute::parse(Some(tileset), z, x, y)?))
            }
            _ if !segments.iter().all(|segment| plain(segment)) => Err(Malformed::Path),
            [file] => match file.strip_suffix(".json") {
                Some(tileset) => Ok(Self::TileJson(tileset)),
                None => Ok(Self::Page),
            },
            _ => Ok(Self::Page),
        }
    }
}

impl<'p> TileRoute<'p> {
    fn parse(
        tileset: Option<&'p str>,
        z: &'p str,
        x: &'p str,
        row: &'p str,
    ) -> Result<Self, Malformed> {
        if tileset.is_some_and(|name| !plain(name)) {
            return Err(Malformed::Path);
        }
        let digits = row.bytes().take_while(u8::is_ascii_digit).count();
        let (y, tail) = row.split_at(digits);
        let (scale, tail) = match tail.as_bytes() {
            [b'@', b'2', b'x', ..] => (Scale::Two, &tail[3..]),
            [b'@', ..] => return Err(Malformed::Density),
            _ => (Scale::One, tail),
        };
        let extension = match tail.as_bytes() {
            [] => None,
            [b'.', ext @ ..] if !ext.is_empty() && ext.iter().all(u8::is_ascii_alphanumeric) => {
                Some(&tail[1..])
            }
            _ => return Err(Malformed::Coordinates),
        };
        let address = TileAddress {
            z: canonical(z).ok_or(Malformed::Coordinates)?,
            x: canonical(x).ok_or(Malformed::Coordinates)?,
            y: canonical(y).ok_or(Malformed::Coordinates)?,
            scale,
        };
        Ok(Self {
            tileset,
            address,
            extension,
        })
    }
}

/// A number in the one way to write it: ASCII digits, no sign, no leading zero, below 2^32.
fn canonical(text: &str) -> Option<u32> {
    let bytes = text.as_bytes();
    let canonical = match bytes {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.len() < 10 && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !canonical {
        return None;
    }
    let value = bytes
        .iter()
        .fold(0u64, |value, b| value * 10 + u64::from(b - b'0'));
    u32::try_from(value).ok()
}

fn digit_first(segment: &str) -> bool {
    segment
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_digit() || b == b'-')
}

/// Whether a segment has only what our paths have: letters, digits, `-`, `_` and single dots inside.
fn plain(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    !bytes.is_empty()
        && bytes[0] != b'.'
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile(tileset: Option<&str>, z: u32, x: u32, y: u32) -> TileRoute<'_> {
        let address = TileAddress {
            z,
            x,
            y,
            scale: Scale::One,
        };
        TileRoute {
            tileset,
            address,
            extension: None,
        }
    }

    #[test]
    fn a_tile_has_one_canonical_path_and_its_aliases() {
        let plain = tile(Some("world"), 3, 1, 2);
        assert_eq!(Route::parse("/world/3/1/2"), Ok(Route::Tile(plain)));
        let png = TileRoute {
            extension: Some("png"),
            ..plain
        };
        assert_eq!(Route::parse("/world/3/1/2.png"), Ok(Route::Tile(png)));
        let dense = TileRoute {
            address: TileAddress {
                scale: Scale::Two,
                ..png.address
            },
            ..png
        };
        assert_eq!(Route::parse("/world/3/1/2@2x.png"), Ok(Route::Tile(dense)));
        assert_eq!(Route::parse("/3/1/2"), Ok(Route::Tile(tile(None, 3, 1, 2))));
        assert_eq!(
            Route::parse("/world/3/1/2/explain"),
            Ok(Route::Explain(plain))
        );
        assert_eq!(
            Route::parse("/3/1/2/explain"),
            Ok(Route::Explain(tile(None, 3, 1, 2)))
        );
        assert_eq!(Route::parse("/sign/world/3/1/2.png"), Ok(Route::Sign(png)));
        assert_eq!(
            Route::parse("/sign/3/1/2"),
            Ok(Route::Sign(tile(None, 3, 1, 2)))
        );
        assert_eq!(
            Route::parse("/7/3/1/2"),
            Ok(Route::Tile(tile(Some("7"), 3, 1, 2)))
        );
    }

    #[test]
    fn a_far_coordinate_is_well_formed_all_the_same() {
        assert_eq!(
            Route::parse("/w/99/4294967295/0"),
            Ok(Route::Tile(tile(Some("w"), 99, u32::MAX, 0)))
        );
    }

    #[test]
    fn coordinates_that_are_not_canonical_are_malformed() {
        for path in [
            "/w/03/1/2",
            "/w/+3/1/2",
            "/w/-3/1/2",
            "/-3/1/2",
            "/w/3/1/",
            "/w/3//2",
            "/w/3/1/2.",
            "/w/3/1/x",
            "/w/3/1/2x",
            "/w/3/1.0/2",
            "/w/3/1/2.p%6eg",
            "/w/3/1/4294967296",
            "/w/3/1/99999999999999999999",
            "/w/3/1/٣",
            "/w/3/1/２",
            "/w/3/1/2.png.gz",
            "/3/1/2.5.6",
            "/w/ 3/1/2",
            "/w/3/1/0x2",
            "/w/3/1/1e3",
            "/sign/w/3/1/x",
            "/sign/w/3/1",
        ] {
            assert_eq!(Route::parse(path), Err(Malformed::Coordinates), "{path}");
        }
        assert_eq!(Route::parse("/w/3/1/2@3x.png"), Err(Malformed::Density));
        assert_eq!(Route::parse("/w/3/1/2@.png"), Err(Malformed::Density));
    }

    #[test]
    fn path_tricks_are_malformed() {
        for path in [
            "//",
            "/a//b",
            "/..",
            "/../etc/passwd",
            "/%2e%2e/a",
            "/a/..%2f",
            "/w%00/3/1/2",
            "/a/b/c/d/e/f/g",
            "/.hidden",
            "/w\\3",
            "/\u{202e}",
            "/w//3/1/2",
            "/wörld/3/1/2",
            "",
            "world",
        ] {
            assert_eq!(Route::parse(path), Err(Malformed::Path), "{path}");
        }
    }

    #[test]
    fn the_rest_are_pages() {
        for path in [
            "/",
            "/login",
            "/map",
            "/session/renew",
            "/assets/map-1a2b.js",
            "/favicon.ico",
        ] {
            assert_eq!(Route::parse(path), Ok(Route::Page), "{path}");
        }
        assert_eq!(Route::parse("/world.json"), Ok(Route::TileJson("world")));
    }
}
