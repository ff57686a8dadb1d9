//! From an object's key back to its tile.
//!
//! A template need not say where one number ends and the next begins (`{x}{y}`): then a key is the key of several
//! tiles, and all of them are found. Who asks drops them from caches, where one too many costs a fetch and one
//! too few is an old tile.

use super::{KeyTemplate, Part};
use crate::tile::tileset::{is_version_byte, valid_version};
use crate::tile::{MAX_ZOOM, Scale, TileCoord};

/// Attempts to take a key apart; templates with something between their placeholders take a few dozen.
const MOST_STEPS: u32 = 20_000;
/// Tiles that one key may be the key of.
const MOST_TILES: usize = 64;
/// Digits of a column or row.
const MOST_DIGITS: usize = 10;
/// Bytes of a version.
const MOST_VERSION: usize = 64;

/// A tile that an object's key is the key of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedTile {
    /// Where.
    pub coord: TileCoord,
    /// In which density.
    pub scale: Scale,
    /// Of which version; `None` where the template has no `{version}`.
    pub version: Option<String>,
}

impl KeyTemplate {
    /// The tiles whose key this is, of whatever version; none for a key that the template does not make.
    pub fn tiles_at(&self, key: &str) -> Vec<KeyedTile> {
        let mut search = Search {
            template: self,
            key,
            steps: 0,
            found: Vec::new(),
        };
        search.walk(&self.parts, key, Read::default());
        search.found
    }

    /// Whether this is the archive's key, of whatever version: then which, `Some(None)` where the template has
    /// no `{version}`.
    pub fn archive_at(&self, key: &str) -> Option<Option<String>> {
        let archive = self.archive()?;
        let mut before = String::new();
        for (place, part) in self.parts.iter().enumerate() {
            let (Part::Version(own), text) = (part, &self.parts[place + 1..]) else {
                if let Part::Text(text) = part {
                    before.push_str(text);
                }
                continue;
            };
            let after: String = text
                .iter()
                .map(|part| match part {
                    Part::Text(text) => text.as_str(),
                    // Named twice, it is looked for as it is now.
                    Part::Version(_) => own.as_str(),
                    _ => "",
                })
                .collect();
            let version = key.strip_prefix(&*before)?.strip_suffix(&*after)?;
            return valid_version(version).then(|| Some(version.to_owned()));
        }
        (key == archive).then_some(None)
    }
}

/// What the placeholders stand for, as far as the key was read.
#[derive(Debug, Clone, Copy, Default)]
struct Read<'k> {
    z: Option<&'k str>,
    x: Option<&'k str>,
    y: Option<&'k str>,
    tms_y: Option<&'k str>,
    quadkey: Option<&'k str>,
    density: Option<&'k str>,
    version: Option<&'k str>,
}

impl<'k> Read<'k> {
    fn of(&mut self, part: &Part) -> Option<&mut Option<&'k str>> {
        Some(match part {
            Part::Text(_) => return None,
            Part::Version(_) => &mut self.version,
            Part::Z => &mut self.z,
            Part::X => &mut self.x,
            Part::Y => &mut self.y,
            Part::TmsY => &mut self.tms_y,
            Part::Quadkey => &mut self.quadkey,
            Part::Density => &mut self.density,
        })
    }

    fn coord(&self) -> Option<TileCoord> {
        let number = |text: Option<&str>| text?.parse::<u32>().ok();
        let row = || {
            let z = self.z?.parse::<u8>().ok().filter(|z| *z <= MAX_ZOOM)?;
            let y = match (self.y, self.tms_y) {
                (Some(y), _) => number(Some(y))?,
                (None, tms_y) => ((1_u32 << z) - 1).checked_sub(number(tms_y)?)?,
            };
            TileCoord::new(z, number(self.x)?, y)
        };
        match self.quadkey {
            Some(quadkey) => from_quadkey(quadkey),
            None => row(),
        }
    }
}

struct Search<'t, 'k> {
    template: &'t KeyTemplate,
    key: &'k str,
    steps: u32,
    found: Vec<KeyedTile>,
}

impl<'k> Search<'_, 'k> {
    fn walk(&mut self, parts: &[Part], rest: &'k str, read: Read<'k>) {
        self.steps += 1;
        if self.steps > MOST_STEPS || self.found.len() >= MOST_TILES {
            return;
        }
        let Some((part, after)) = parts.split_first() else {
            if rest.is_empty() {
                self.take(read);
            }
            return;
        };
        let known = match part {
            Part::Text(text) => Some(text.as_str()),
            other => read.clone().of(other).and_then(|place| *place),
        };
        if let Some(known) = known {
            if let Some(rest) = rest.strip_prefix(known) {
                self.walk(after, rest, read);
            }
            return;
        }
        let (least, most) = lengths(part, rest);
        // The longest first: it is right unless the next placeholder follows at once.
        for length in (least..=most).rev() {
            let (text, rest) = rest.split_at(length);
            let mut next = read;
            if let Some(place) = next.of(part) {
                *place = Some(text);
            }
            self.walk(after, rest, next);
        }
    }

    /// Only what makes this very key counts: `07` is no zoom.
    fn take(&mut self, read: Read<'k>) {
        let Some(coord) = read.coord() else { return };
        let scale = match read.density {
            Some(suffix) if suffix == Scale::Two.suffix() => Scale::Two,
            _ => Scale::One,
        };
        let tile = KeyedTile {
            coord,
            scale,
            version: read.version.map(str::to_owned),
        };
        if self.template.key_of(coord, scale, read.version) == self.key
            && !self.found.contains(&tile)
        {
            self.found.push(tile);
        }
    }
}

/// How many bytes of this a placeholder may stand for, at least and at most; all of them are ASCII.
fn lengths(part: &Part, rest: &str) -> (usize, usize) {
    let run = |most: usize, is: fn(u8) -> bool| {
        let bytes = rest.bytes().take(most);
        bytes.take_while(|byte| is(*byte)).count()
    };
    let digit = |byte: u8| byte.is_ascii_digit();
    match part {
        Part::Text(_) => (1, 0),
        Part::Version(_) => (1, run(MOST_VERSION, is_version_byte)),
        Part::Z => (1, run(2, digit)),
        Part::X | Part::Y | Part::TmsY => (1, run(MOST_DIGITS, digit)),
        Part::Quadkey => (
            0,
            run(usize::from(MAX_ZOOM), |byte| (b'0'..=b'3').contains(&byte)),
        ),
        Part::Density => {
            let two = Scale::Two.suffix();
            let there = rest.starts_with(two);
            (0, if there { two.len() } else { 0 })
        }
    }
}

fn from_quadkey(quadkey: &str) -> Option<TileCoord> {
    let z = u8::try_from(quadkey.len()).ok()?;
    let (mut x, mut y) = (0_u32, 0_u32);
    for digit in quadkey.bytes() {
        let digit = u32::from(digit.wrapping_sub(b'0'));
        (x, y) = (x << 1 | digit & 1, y << 1 | digit >> 1 & 1);
    }
    TileCoord::new(z, x, y)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tile::TileFormat;

    fn template(source: &str) -> KeyTemplate {
        KeyTemplate::new(source, TileFormat::Png, Some("v7")).unwrap()
    }

    fn found(source: &str, key: &str) -> Vec<String> {
        let tiles = template(source).tiles_at(key);
        let text = |tile: &KeyedTile| {
            let version = tile.version.as_deref().unwrap_or("-");
            format!("{}{} {version}", tile.coord, tile.scale.suffix())
        };
        tiles.iter().map(text).collect()
    }

    #[test]
    fn a_key_is_read_back() {
        for (source, key, tile) in [
            ("a/{z}/{x}/{y}.{ext}", "a/3/3/5.png", "3/3/5 -"),
            ("a/{z}/{x}/{-y}{r}.png", "a/3/3/2@2x.png", "3/3/5@2x -"),
            ("{version}/{quadkey}", "2026-12/213", "3/3/5 2026-12"),
            ("w/{version}/{quadkey}.png", "w/v7/.png", "0/0/0 v7"),
            ("{z}/{z}-{x}-{y}", "3/3-3-5", "3/3/5 -"),
        ] {
            assert_eq!(found(source, key), [tile]);
        }
    }

    #[test]
    fn what_the_template_does_not_make_is_no_tile() {
        for key in [
            "",
            "a",
            "a/3/3/5",
            "a/3/3/5.jpg",
            "b/3/3/5.png",
            "a/03/3/5.png",
            "a/3/8/5.png",
            "a/3/3/5.png.bak",
            "a/+3/3/5.png",
            "a/3/3/5@2x.png",
            "a/31/3/5.png",
            "a/3/3/ä.png",
            "a/3/99999999999/5.png",
            "a/3//5.png",
        ] {
            assert!(found("a/{z}/{x}/{y}.png", key).is_empty(), "{key}");
        }
        assert!(found("{z}/{z}-{x}-{y}", "3/4-3-5").is_empty());
        assert!(found("{version}/{quadkey}", "a b/213").is_empty());
    }

    #[test]
    fn a_key_that_several_tiles_share_is_read_as_all_of_them() {
        assert_eq!(found("{z}/{x}{y}", "7/123"), ["7/12/3 -", "7/1/23 -"]);
    }

    #[test]
    fn a_key_made_to_be_hard_is_given_up_soon() {
        let hard = template("{version}{z}{x}{y}{-y}{quadkey}{r}");
        assert!(hard.tiles_at(&"1".repeat(1000)).len() <= MOST_TILES);
    }

    proptest! {
        #[test]
        fn every_template_is_inverted(
            z in 0u8..=MAX_ZOOM, x: u32, y: u32, dense: bool, version in "[A-Za-z0-9._-]{1,64}",
            parts in proptest::collection::vec(0usize..9, 0..4),
        ) {
            let mask = (1u32 << z) - 1;
            let tile = TileCoord::new(z, x & mask, y & mask).unwrap();
            let whole = [
                "{z}/{x}/{y}", "{z}/{x}/{-y}", "t{quadkey}.", "{version}/", "{r}", "{ext}", "-é/", "{x}/", "{z}_",
            ];
            let mut source: String = parts.iter().map(|part| whole[*part]).collect();
            source.push_str("/{z}/{x}/{y}{r}");
            let make = |version| KeyTemplate::new(&source, TileFormat::Png, version).unwrap();
            let scale = if dense { Scale::Two } else { Scale::One };
            let key = make(Some(version.as_str())).key(tile, scale);
            // Read by a server that is at another version.
            let reader = make(Some("now"));
            let version = reader.has_version().then_some(version);
            let wanted = KeyedTile { coord: tile, scale, version };
            let tiles = reader.tiles_at(&key);
            prop_assert!(tiles.contains(&wanted), "{source} {key} {tiles:?}");
        }

        #[test]
        fn no_key_is_read_as_what_does_not_make_it(key in "a[0-3]{1,2}/[0-3]{1,2}/[0-3]{0,2}(@2x)?") {
            let template = template("a{z}/{x}/{y}{r}");
            for tile in template.tiles_at(&key) {
                prop_assert_eq!(template.key(tile.coord, tile.scale), key.clone());
            }
        }
    }
}
