//! What an archive says of itself, whichever format it is in.

use serde_json::{Map, Value};

use crate::tile::pmtiles::TileCompression;
use crate::tile::{Bounds, TileFormat};

/// How an archive's tiles are compressed, beside what their format does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// gzip, as vector tiles are in most archives.
    Gzip,
    /// Brotli.
    Brotli,
    /// Zstandard.
    Zstd,
}

impl Encoding {
    /// As `Content-Encoding` calls it (RFC 9110 §8.4.1).
    pub fn content_encoding(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Brotli => Some("br"),
            Self::Zstd => Some("zstd"),
        }
    }

    /// By the first bytes; Brotli has no sign.
    pub fn look(tile: &[u8]) -> Self {
        if tile.starts_with(&[0x1f, 0x8b]) {
            Self::Gzip
        } else if tile.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Self::Zstd
        } else {
            Self::Identity
        }
    }
}

impl From<TileCompression> for Encoding {
    fn from(compression: TileCompression) -> Self {
        match compression {
            TileCompression::Unknown | TileCompression::None => Self::Identity,
            TileCompression::Gzip => Self::Gzip,
            TileCompression::Brotli => Self::Brotli,
            TileCompression::Zstd => Self::Zstd,
        }
    }
}

/// What an archive says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct ArchiveMetadata {
    /// A name for people.
    pub name: String,
    /// Credits.
    pub attribution: String,
    /// A sentence about it.
    pub description: String,
    /// What the tiles are.
    pub format: TileFormat,
    /// How they are compressed: as the archive says, or as its first tile looks.
    pub encoding: Encoding,
    /// The first zoom that has tiles.
    pub minzoom: u8,
    /// The last zoom that has tiles.
    pub maxzoom: u8,
    /// The area that has tiles; written without one, it is the tiles' own.
    pub bounds: Option<Bounds>,
    /// Longitude, latitude and zoom to begin with.
    pub center: Option<(f64, f64, u8)>,
    /// Everything else: `vector_layers`, `tilestats`, `encoding` of elevation, …
    pub other: Map<String, Value>,
}

impl ArchiveMetadata {
    /// With nothing in it but what the tiles are.
    pub fn new(format: TileFormat) -> Self {
        Self {
            name: String::new(),
            attribution: String::new(),
            description: String::new(),
            format,
            encoding: Encoding::Identity,
            minzoom: 0,
            maxzoom: 0,
            bounds: None,
            center: None,
            other: Map::new(),
        }
    }

    /// Takes what has a field of its own out of a JSON object; the rest goes to `other`.
    pub(super) fn absorb(&mut self, mut json: Map<String, Value>) {
        let mut text = |key: &str| match json.remove(key) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        self.name = text("name");
        self.attribution = text("attribution");
        self.description = text("description");
        self.other = json;
    }

    /// The reverse: everything in one JSON object, as PMTiles keeps it.
    pub(super) fn to_json(&self) -> Value {
        let mut json = self.other.clone();
        for (key, text) in [
            ("name", &self.name),
            ("attribution", &self.attribution),
            ("description", &self.description),
        ] {
            if !text.is_empty() {
                json.insert(key.into(), text.as_str().into());
            }
        }
        // TileJSON 3.0.0 §3.3: vector tiles come with their layers, even where nobody named them.
        if self.format == TileFormat::Mvt && !json.contains_key("vector_layers") {
            json.insert("vector_layers".into(), Value::Array(Vec::new()));
        }
        Value::Object(json)
    }
}

/// `west,south,east,north`, as MBTiles and folders write it.
pub(super) fn bounds(text: &str) -> Option<Bounds> {
    let numbers: Vec<f64> = text
        .split(',')
        .map_while(|n| n.trim().parse().ok())
        .collect();
    Bounds::new(numbers.try_into().ok()?).ok()
}

/// `longitude,latitude,zoom`.
pub(super) fn center(text: &str) -> Option<(f64, f64, u8)> {
    let mut parts = text.split(',').map(str::trim);
    let degrees = |part: Option<&str>| part?.parse::<f64>().ok().filter(|n| n.is_finite());
    let (longitude, latitude) = (degrees(parts.next())?, degrees(parts.next())?);
    Some((longitude, latitude, parts.next()?.parse().ok()?))
}

/// A format by the word that MBTiles, folders and TileJSON use for it.
pub(super) fn format(word: &str) -> Option<TileFormat> {
    use TileFormat::{Avif, Jpg, Mvt, Png, Webp};
    [Png, Jpg, Webp, Avif, Mvt]
        .into_iter()
        .find(|format| format.answers_to(word) || format.content_type() == word)
        .or_else(|| (word == "application/x-protobuf").then_some(Mvt))
}
