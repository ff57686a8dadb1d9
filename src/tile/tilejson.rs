//! TileJSON 3.0.0 (github.com/mapbox/tilejson-spec): what a map library needs to know of a tileset.

use serde_json::{Value, json};

use super::{TileFormat, Tileset};

/// The TileJSON of a tileset, with absolute URLs under `base_url` (without a trailing slash).
///
/// `vector_layers` is required for vector tiles; where the configuration names none it is empty.
pub fn tilejson(tileset: &Tileset, base_url: &str) -> Value {
    let (name, extension) = (tileset.name(), tileset.format().extension());
    let version = tileset
        .version()
        .map_or_else(String::new, |v| format!("?v={v}"));
    let mut json = json!({
        "tilejson": "3.0.0",
        "name": name,
        "tiles": [format!("{base_url}/{name}/{{z}}/{{x}}/{{y}}.{extension}{version}")],
        "minzoom": tileset.minzoom(),
        "maxzoom": tileset.maxzoom(),
        "bounds": tileset.bounds().to_array(),
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
