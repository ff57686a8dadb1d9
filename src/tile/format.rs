//! Tile formats: their names in configuration, URLs and content types.

use serde::Deserialize;

/// What the bytes of a tileset's tiles are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TileFormat {
    /// PNG image.
    Png,
    /// JPEG image.
    #[serde(alias = "jpeg")]
    Jpg,
    /// WebP image.
    Webp,
    /// AVIF image.
    Avif,
    /// Mapbox vector tile, usually stored compressed.
    #[serde(alias = "pbf")]
    Mvt,
}

impl TileFormat {
    /// The extension of canonical URLs, and `{ext}` in key templates.
    pub fn extension(self) -> &'static str {
        match self {
            TileFormat::Png => "png",
            TileFormat::Jpg => "jpg",
            TileFormat::Webp => "webp",
            TileFormat::Avif => "avif",
            TileFormat::Mvt => "mvt",
        }
    }

    /// Whether a URL with this extension means this format: `.pbf` is `.mvt`, `.jpeg` is `.jpg`.
    pub fn answers_to(self, extension: &str) -> bool {
        extension == self.extension()
            || match self {
                TileFormat::Jpg => extension == "jpeg",
                TileFormat::Mvt => extension == "pbf",
                _ => false,
            }
    }

    /// The media type. For vector tiles: the one registered with IANA.
    pub fn content_type(self) -> &'static str {
        match self {
            TileFormat::Png => "image/png",
            TileFormat::Jpg => "image/jpeg",
            TileFormat::Webp => "image/webp",
            TileFormat::Avif => "image/avif",
            TileFormat::Mvt => "application/vnd.mapbox-vector-tile",
        }
    }

    /// Whether the tiles are pictures.
    pub fn is_raster(self) -> bool {
        self != TileFormat::Mvt
    }
}
