//! TileJSON 3.0.0 (github.com/mapbox/tilejson-spec): what a map library needs to know of a tileset.

use serde_json::{Value, json};

use super::{Bounds, TileFormat, Tileset};

/// What somebody may see of a tileset: zooms up to `maxzoom`, within `bounds`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reach {
    /// The deepest zoom.
    pub maxzoom: u8,
    /// The area.
    pub bounds: Bounds,
}

impl Reach {
    /// All of a tileset, or what a session's limits leave of it. A session that may see nothing of it is told the
    /// tileset's lowest zoom or its own area: TileJSON has no way to say 'nothing'.
    pub fn new(tileset: &Tileset, maxzoom: Option<u8>, bounds: Option<Bounds>) -> Self {
        let deepest = maxzoom.unwrap_or(u8::MAX).min(tileset.maxzoom());
        Self {
            maxzoom: deepest.max(tileset.minzoom()),
            bounds: bounds.map_or(tileset.bounds(), |bounds| bounds.within(tileset.bounds())),
        }
    }
}

/// The TileJSON of a tileset, with absolute URLs under `base_url` (without a trailing slash). A map enlarges what
/// is at the deepest zoom that it is told, and asks for no more.
///
/// `vector_layers` is required for vector tiles; where the configuration names none it is empty.
pub fn tilejson(tileset: &Tileset, reach: Reach, base_url: &str) -> Value {
    let (name, extension) = (tileset.name(), tileset.format().extension());
    let version = tileset
        .version()
        .map_or_else(String::new, |v| format!("?v={v}"));
    let mut json = json!({
        "tilejson": "3.0.0",
        "name": name,
        "tiles": [format!("{base_url}/{name}/{{z}}/{{x}}/{{y}}.{extension}{version}")],
        "minzoom": tileset.minzoom(),
        "maxzoom": reach.maxzoom,
        "bounds": reach.bounds.to_array(),
        "scheme": "xyz",
        "format": extension,
    });
    if !tileset.attribution().is_empty() {
        json["attribution"] = tileset.attribution().into();
    }
    if tileset.format() == TileFormat::Mvt {
        json["vector_layers"] = json!([]);
    }
    for (member, value) in tileset.tilejson_members() {
        json[member] = value.clone();
    }
    json
}
