//! What is at the destination already: one listing, kept small.
//!
//! Invariant: only keys that the template makes of exactly one tile, of this version, are in it: nothing else
//! is ever compared or removed. An object takes 32 bytes: 320 MB for ten million.

use super::md5;
use crate::aws::upload::{Listed, UploadError, Uploader};
use crate::tile::{KeyTemplate, Scale, TileCoord};

/// The objects there, by their tiles' numbers.
#[derive(Debug, Default)]
pub(super) struct There {
    objects: Vec<Object>,
}

#[derive(Debug, Clone, Copy)]
struct Object {
    number: u64,
    /// Of the plain `ETag`; zeros where it is none.
    md5: [u8; 16],
    size: u32,
    plain: bool,
    wanted: bool,
}

/// How a tile compares with what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compared {
    /// Nothing is there.
    New,
    /// The same bytes are.
    Same,
    /// Other bytes are.
    Changed,
    /// As many bytes, and an `ETag` that tells nothing (multipart, SSE-KMS): what was noted with it may.
    Unsure,
}

impl There {
    /// Lists what is there. `heard` is told how many objects there are so far.
    pub(super) async fn list(
        uploader: &Uploader,
        place: &Destination<'_>,
        mut heard: impl FnMut(usize),
    ) -> Result<Self, UploadError> {
        let mut there = Self::default();
        let mut after = None;
        loop {
            let page = uploader.list(&place.prefix(), after).await?;
            there
                .objects
                .extend(page.objects.iter().filter_map(|o| object(o, place)));
            heard(there.objects.len());
            after = page.next;
            if after.is_none() {
                there.objects.sort_unstable_by_key(|o| o.number);
                return Ok(there);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    /// Compares a tile with what is there; from now on it is wanted.
    pub(super) fn compare(&mut self, coord: TileCoord, body: &[u8]) -> Compared {
        let found = self
            .objects
            .binary_search_by_key(&coord.number(), |o| o.number);
        let Some(object) = found.ok().and_then(|at| self.objects.get_mut(at)) else {
            return Compared::New;
        };
        object.wanted = true;
        if u32::try_from(body.len()).ok() != Some(object.size) {
            return Compared::Changed;
        }
        if object.plain && object.md5 == md5::digest(body) {
            return Compared::Same;
        }
        Compared::Unsure
    }

    /// The tiles that nobody asked about.
    pub(super) fn unwanted(&self) -> Vec<TileCoord> {
        let unwanted = self.objects.iter().filter(|o| !o.wanted);
        unwanted
            .filter_map(|o| TileCoord::from_number(o.number))
            .collect()
    }
}

fn object(listed: &Listed, place: &Destination<'_>) -> Option<Object> {
    let coord = place.tile_at(&listed.key)?;
    let md5 = md5::from_hex(&listed.etag);
    Some(Object {
        number: coord.number(),
        md5: md5.unwrap_or_default(),
        size: u32::try_from(listed.size).unwrap_or(u32::MAX),
        plain: md5.is_some(),
        wanted: false,
    })
}

/// Where tiles go: a template, at one version.
#[derive(Debug, Clone, Copy)]
pub(super) struct Destination<'a> {
    pub(super) key: &'a KeyTemplate,
    pub(super) version: Option<&'a str>,
}

impl Destination<'_> {
    /// What all keys of this version begin with.
    pub(super) fn prefix(&self) -> String {
        let keys = [(0, 0, Scale::One), (1, 1, Scale::One), (2, 2, Scale::Two)];
        let mut keys = keys
            .into_iter()
            .filter_map(|(z, at, scale)| Some(self.key.key(TileCoord::new(z, at, at)?, scale)));
        let mut prefix = keys.next().unwrap_or_default();
        for key in keys {
            let same = prefix.chars().zip(key.chars()).take_while(|(a, b)| a == b);
            let same: usize = same.map(|(c, _)| c.len_utf8()).sum();
            prefix.truncate(same);
        }
        prefix
    }

    /// The tile at a key, where it is one of this template and version, in single density, beyond doubt.
    pub(super) fn tile_at(&self, key: &str) -> Option<TileCoord> {
        let tiles = self.key.tiles_at(key);
        let [tile] = tiles.as_slice() else {
            return None;
        };
        let ours = tile.version.is_none() || tile.version.as_deref() == self.version;
        (ours && tile.scale == Scale::One && self.key.key(tile.coord, Scale::One) == key)
            .then_some(tile.coord)
    }

    pub(super) fn key(&self, coord: TileCoord) -> String {
        self.key.key(coord, Scale::One)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tile::TileFormat;

    fn template(source: &str) -> KeyTemplate {
        KeyTemplate::new(source, TileFormat::Png, Some("v7")).unwrap()
    }

    fn at(key: &KeyTemplate) -> Destination<'_> {
        Destination {
            key,
            version: Some("v7"),
        }
    }

    #[test]
    fn the_prefix_is_what_all_keys_begin_with() {
        for (source, prefix) in [
            ("w/{z}/{x}/{y}.png", "w/"),
            ("w/{version}/{z}/{x}/{y}.png", "w/v7/"),
            ("w/{version}-{quadkey}.{ext}", "w/v7-"),
            ("{z}/{x}/{y}", ""),
            ("w{r}/{z}/{x}/{y}", "w"),
        ] {
            assert_eq!(at(&template(source)).prefix(), prefix, "{source}");
        }
    }

    #[test]
    fn what_is_no_tile_of_this_template_and_version_is_not_seen() {
        let key = template("w/{version}/{z}/{x}/{-y}{r}.png");
        let place = at(&key);
        let tile = TileCoord::new(3, 3, 5).unwrap();
        assert_eq!(place.tile_at("w/v7/3/3/2.png"), Some(tile));
        for other in [
            "w/v6/3/3/2.png",
            "w/v7/3/3/2@2x.png",
            "w/v7/3/3/2.png.bak",
            "w/v7/readme.txt",
            "w/v7/03/3/2.png",
            "x/v7/3/3/2.png",
        ] {
            assert_eq!(place.tile_at(other), None, "{other}");
        }
        let ambiguous = template("w/{z}/{x}{y}");
        assert_eq!(at(&ambiguous).tile_at("w/7/123"), None);
    }

    #[test]
    fn the_same_bytes_are_known_by_size_and_etag() {
        let key = template("w/{z}/{x}/{y}");
        let place = at(&key);
        let listed = |key: &str, size: u64, etag: &str| {
            object(
                &Listed {
                    key: key.into(),
                    size,
                    etag: etag.into(),
                },
                &place,
            )
            .unwrap()
        };
        let mut there = There {
            objects: vec![
                listed("w/0/0/0", 1, "0cc175b9c0f1b6a831c399e269772661"),
                listed("w/1/0/0", 1, "0cc175b9c0f1b6a831c399e269772661-1"),
                listed("w/1/1/1", 9, "x"),
            ],
        };
        there.objects.sort_unstable_by_key(|o| o.number);
        let tile = |z, x, y| TileCoord::new(z, x, y).unwrap();
        assert_eq!(there.compare(tile(0, 0, 0), b"a"), Compared::Same);
        assert_eq!(there.compare(tile(0, 0, 0), b"b"), Compared::Unsure);
        assert_eq!(there.compare(tile(0, 0, 0), b"ab"), Compared::Changed);
        assert_eq!(there.compare(tile(1, 0, 0), b"a"), Compared::Unsure);
        assert_eq!(there.compare(tile(5, 0, 0), b"a"), Compared::New);
        assert_eq!(there.unwanted(), [tile(1, 1, 1)]);
    }
}
