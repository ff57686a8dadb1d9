//! A tileset: where its tiles lie, what they are, what area they cover and how they are answered.

use std::time::Duration;

use serde::Deserialize;

use super::{
    Bounds, KeySpace, KeyTemplate, MAX_ZOOM, Scale, TemplateError, TileAddress, TileCoord,
    TileFormat, TileKey,
};

/// What 'no such tile' is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum MissingAnswer {
    /// 404: `MapLibre` overzooms a raster parent; for vector tiles it is empty.
    #[serde(rename = "404")]
    NotFound,
    /// 204: an empty tile.
    #[serde(rename = "204")]
    NoContent,
    /// 410: `MapLibre` keeps the parent, for vector tiles too.
    #[serde(rename = "410")]
    Gone,
    /// 200 with a transparent image, or an empty vector tile.
    #[serde(rename = "blank")]
    Blank,
}

/// How a tile travels to the browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// Through this server and its caches.
    #[default]
    Proxy,
    /// By a redirect to a signed URL.
    Redirect,
}

/// Who may see a tileset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// People with a session that names it.
    #[default]
    Session,
    /// Everybody.
    Public,
}

/// What `Cache-Control` tells a browser, before the session's end cuts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrowserCaching {
    /// `max-age`.
    pub max_age: Duration,
    /// `stale-while-revalidate` (RFC 5861 §3).
    pub stale_while_revalidate: Duration,
    /// `stale-if-error` (RFC 5861 §4).
    pub stale_if_error: Duration,
}

impl Default for BrowserCaching {
    fn default() -> Self {
        const HOUR: u64 = 3600;
        Self {
            max_age: Duration::from_secs(HOUR),
            stale_while_revalidate: Duration::from_secs(24 * HOUR),
            stale_if_error: Duration::from_secs(7 * 24 * HOUR),
        }
    }
}

/// Where a tileset's objects lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The bucket's name.
    pub bucket: String,
    /// How a tile's key is made.
    pub key: KeyTemplate,
}

/// What is known of a tileset before it is checked as a whole.
#[derive(Debug, Clone)]
pub struct TilesetSpec {
    /// Its name in URLs.
    pub name: String,
    /// Bucket.
    pub bucket: String,
    /// Key template, as written.
    pub key: String,
    /// What its tiles are.
    pub format: TileFormat,
    /// The first zoom that has tiles.
    pub minzoom: u8,
    /// The last zoom that has tiles.
    pub maxzoom: u8,
    /// The area that has tiles.
    pub bounds: Bounds,
    /// Credits, shown on maps.
    pub attribution: String,
    /// The data's epoch, part of the cache key.
    pub version: Option<String>,
    /// How 'no such tile' is answered; `None` takes the format's default.
    pub missing: Option<MissingAnswer>,
    /// How a tile travels.
    pub delivery: Delivery,
    /// What browsers are told.
    pub browser: BrowserCaching,
    /// Who may see it.
    pub access: Access,
    /// Members added to the TileJSON as they are: `vector_layers`, `encoding`, …
    pub tilejson: serde_json::Map<String, serde_json::Value>,
}

/// Why a tileset was refused; each names the configuration key it is about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TilesetError {
    /// The name cannot stand in a URL, or collides with a path of the server's own.
    #[error("a tileset's name is [a-z0-9][a-z0-9_-]*, at most 64 long, and none of the server's own paths ({})", RESERVED.join(", "))]
    Name,
    /// `key` was refused.
    #[error("key: {0}")]
    Key(#[from] TemplateError),
    /// The zooms are no range.
    #[error("minzoom: at most maxzoom, which is at most {MAX_ZOOM}")]
    Zooms,
    /// `version` cannot stand in a URL.
    #[error("version: letters, digits, `.`, `_` and `-`, 1 to 64 of them")]
    Version,
    /// A bucket name is missing.
    #[error("bucket: the name of the bucket that holds the tiles")]
    Bucket,
    /// The extra TileJSON members would replace ones that the server makes.
    #[error("tilejson: `{0}` is the server's own to say; leave it out")]
    TilejsonMember(String),
}

/// First path segments that are the server's own.
const RESERVED: [&str; 7] = [
    "assets",
    "credentials",
    "healthz",
    "login",
    "map",
    "session",
    "sign",
];

/// TileJSON members that come from the tileset itself.
const TILEJSON_OWN: [&str; 8] = [
    "tilejson", "tiles", "name", "minzoom", "maxzoom", "bounds", "version", "scheme",
];

/// Why an address is not among a tileset's tiles, found without asking any origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    /// `x` or `y` is not below `2^z`.
    Pyramid,
    /// Above or below the tileset's zooms.
    Zoom,
    /// Touches nothing of the tileset's area.
    Bounds,
    /// `@2x` of a tileset whose key template has no `{r}`.
    Density,
}

/// A checked tileset.
#[derive(Debug, Clone)]
pub struct Tileset {
    spec: TilesetSpec,
    place: Place,
    missing: MissingAnswer,
    space: KeySpace,
    every_version: KeySpace,
}

impl Tileset {
    /// Checks the whole; all problems at once.
    pub fn new(spec: TilesetSpec) -> Result<Self, Vec<TilesetError>> {
        let mut problems = Vec::new();
        if !valid_name(&spec.name) {
            problems.push(TilesetError::Name);
        }
        if spec.minzoom > spec.maxzoom || spec.maxzoom > MAX_ZOOM {
            problems.push(TilesetError::Zooms);
        }
        if spec
            .version
            .as_deref()
            .is_some_and(|version| !valid_version(version))
        {
            problems.push(TilesetError::Version);
        }
        if spec.bucket.is_empty() {
            problems.push(TilesetError::Bucket);
        }
        if let Some(own) = TILEJSON_OWN
            .iter()
            .find(|own| spec.tilejson.contains_key(**own))
        {
            problems.push(TilesetError::TilejsonMember((*own).to_owned()));
        }
        match KeyTemplate::new(&spec.key, spec.format, spec.version.as_deref()) {
            Ok(key) if problems.is_empty() => Ok(Self {
                place: Place {
                    bucket: spec.bucket.clone(),
                    key,
                },
                missing: spec.missing.unwrap_or(if spec.format.is_raster() {
                    MissingAnswer::NotFound
                } else {
                    MissingAnswer::NoContent
                }),
                space: KeySpace::new(&spec.name, spec.version.as_deref()),
                every_version: KeySpace::new(&spec.name, None),
                spec,
            }),
            Ok(_) => Err(problems),
            Err(error) => {
                problems.push(error.into());
                Err(problems)
            }
        }
    }

    /// The tile at this address if the tileset can have it: zoom, area, pyramid and density.
    pub fn admit(&self, address: TileAddress) -> Result<TileCoord, Outside> {
        if address.z < u32::from(self.spec.minzoom) || address.z > u32::from(self.spec.maxzoom) {
            return Err(Outside::Zoom);
        }
        let coord = address.locate().ok_or(Outside::Pyramid)?;
        if address.scale == Scale::Two && !self.place.key.has_density() {
            return Err(Outside::Density);
        }
        if !self.spec.bounds.touches(coord) {
            return Err(Outside::Bounds);
        }
        Ok(coord)
    }

    /// Whether it can have a tile there.
    pub fn covers(&self, coord: TileCoord) -> bool {
        (self.spec.minzoom..=self.spec.maxzoom).contains(&coord.z())
            && self.spec.bounds.touches(coord)
    }

    /// The cache key of one of its tiles.
    pub fn tile_key(&self, coord: TileCoord, scale: Scale) -> TileKey {
        TileKey::new(self.space, coord, scale)
    }

    /// One of its tiles whatever its version, density and address: what quotas count as one.
    pub fn tile_identity(&self, coord: TileCoord) -> TileKey {
        TileKey::new(self.every_version, coord, Scale::One)
    }

    /// Where its objects lie.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The number of its tiles' keys: name and version.
    pub fn space(&self) -> KeySpace {
        self.space
    }

    /// Its name in URLs.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// What its tiles are.
    pub fn format(&self) -> TileFormat {
        self.spec.format
    }

    /// The first zoom that has tiles.
    pub fn minzoom(&self) -> u8 {
        self.spec.minzoom
    }

    /// The last zoom that has tiles.
    pub fn maxzoom(&self) -> u8 {
        self.spec.maxzoom
    }

    /// The area that has tiles.
    pub fn bounds(&self) -> Bounds {
        self.spec.bounds
    }

    /// Credits, shown on maps.
    pub fn attribution(&self) -> &str {
        &self.spec.attribution
    }

    /// The data's epoch.
    pub fn version(&self) -> Option<&str> {
        self.spec.version.as_deref()
    }

    /// The same tileset at another version.
    pub fn at_version(&self, version: &str) -> Result<Self, Vec<TilesetError>> {
        Self::new(TilesetSpec {
            version: Some(version.to_owned()),
            ..self.spec.clone()
        })
    }

    /// Whether another version has other objects, so that there is something to switch to.
    pub fn has_versions(&self) -> bool {
        self.place.key.has_version()
    }

    /// Whether its objects may be in the bucket of this name. An access point has another name than the bucket behind
    /// it, which cannot be told from it: every bucket may be that one.
    pub fn may_lie_in(&self, bucket: &str) -> bool {
        let own = self.place.bucket.as_str();
        own == bucket || own.starts_with("arn:") || own.ends_with("-s3alias")
    }

    /// How 'no such tile' is answered.
    pub fn missing(&self) -> MissingAnswer {
        self.missing
    }

    /// How a tile travels.
    pub fn delivery(&self) -> Delivery {
        self.spec.delivery
    }

    /// What browsers are told.
    pub fn browser(&self) -> BrowserCaching {
        self.spec.browser
    }

    /// Who may see it.
    pub fn access(&self) -> Access {
        self.spec.access
    }

    /// Members added to the TileJSON.
    pub fn tilejson_members(&self) -> &serde_json::Map<String, serde_json::Value> {
        &self.spec.tilejson
    }
}

fn valid_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    matches!(bytes.first(), Some(first) if word(first))
        && bytes.iter().all(|b| word(b) || matches!(b, b'_' | b'-'))
        && bytes.len() <= 64
        && !RESERVED.contains(&name)
}

/// Whether it can stand in a URL.
pub(super) fn valid_version(version: &str) -> bool {
    // Of dots alone it would be a step in a path, to a server that takes keys for paths.
    (1..=64).contains(&version.len())
        && version.bytes().all(is_version_byte)
        && !version.bytes().all(|byte| byte == b'.')
}

/// What a version is made of.
pub(super) fn is_version_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::tile) fn spec() -> TilesetSpec {
        TilesetSpec {
            name: "world".into(),
            bucket: "acme".into(),
            key: "w/{z}/{x}/{y}.png".into(),
            format: TileFormat::Png,
            minzoom: 1,
            maxzoom: 5,
            bounds: Bounds::new([0.0, 0.0, 90.0, 80.0]).unwrap(),
            attribution: String::new(),
            version: None,
            missing: None,
            delivery: Delivery::default(),
            browser: BrowserCaching::default(),
            access: Access::default(),
            tilejson: serde_json::Map::new(),
        }
    }

    fn at(z: u32, x: u32, y: u32) -> TileAddress {
        TileAddress {
            z,
            x,
            y,
            scale: Scale::One,
        }
    }

    #[test]
    fn what_a_tileset_cannot_have_is_refused_without_asking() {
        let tileset = Tileset::new(spec()).unwrap();
        assert_eq!(tileset.admit(at(0, 0, 0)), Err(Outside::Zoom));
        assert_eq!(tileset.admit(at(6, 0, 0)), Err(Outside::Zoom));
        assert_eq!(tileset.admit(at(2, 4, 0)), Err(Outside::Pyramid));
        assert_eq!(tileset.admit(at(3, 0, 0)), Err(Outside::Bounds));
        assert!(tileset.admit(at(3, 4, 3)).is_ok());
        let dense = TileAddress {
            scale: Scale::Two,
            ..at(3, 4, 3)
        };
        assert_eq!(tileset.admit(dense), Err(Outside::Density));
    }

    #[test]
    fn names_that_a_url_or_the_server_needs_are_refused() {
        for name in ["", "-a", "Ä", "a/b", "map", "session", &"a".repeat(65)] {
            let refused = Tileset::new(TilesetSpec {
                name: name.into(),
                ..spec()
            });
            assert_eq!(refused.unwrap_err(), [TilesetError::Name], "{name}");
        }
        for name in ["a", "7", "world-2_x", &"a".repeat(64)] {
            assert!(
                Tileset::new(TilesetSpec {
                    name: name.into(),
                    ..spec()
                })
                .is_ok(),
                "{name}"
            );
        }
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let bad = TilesetSpec {
            name: "A".into(),
            bucket: String::new(),
            key: "{z}".into(),
            minzoom: 9,
            version: Some("a/b".into()),
            ..spec()
        };
        assert_eq!(Tileset::new(bad).unwrap_err().len(), 5);
    }

    #[test]
    fn a_missing_tile_means_what_its_format_means() {
        assert_eq!(
            Tileset::new(spec()).unwrap().missing(),
            MissingAnswer::NotFound
        );
        let vector = TilesetSpec {
            format: TileFormat::Mvt,
            ..spec()
        };
        assert_eq!(
            Tileset::new(vector).unwrap().missing(),
            MissingAnswer::NoContent
        );
    }
}
