//! Writing an `.mbtiles` file as `mb-util` lays it out: `map` says which picture of `images` each tile is,
//! and the view `tiles` joins them, so that identical tiles are stored once and every reader sees what the
//! specification promises.

use std::path::Path;

use rusqlite::{Connection, params};

use super::mbtiles::sqlite;
use super::spool::{Placed, Spool};
use super::{ArchiveError, ArchiveMetadata};
use crate::tile::TileFormat;
use crate::tile::pmtiles::tile_of;

/// The file is at nobody's disposal until it is whole and renamed: no journal, and one sync at the end.
const SCHEMA: &str = "
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA application_id = 0x4d504258;
BEGIN;
CREATE TABLE metadata (name TEXT NOT NULL, value TEXT NOT NULL);
CREATE UNIQUE INDEX metadata_name ON metadata (name);
CREATE TABLE images (tile_id INTEGER PRIMARY KEY, tile_data BLOB NOT NULL);
CREATE TABLE map (zoom_level INTEGER NOT NULL, tile_column INTEGER NOT NULL, tile_row INTEGER NOT NULL,
    tile_id INTEGER NOT NULL, PRIMARY KEY (zoom_level, tile_column, tile_row)) WITHOUT ROWID;
CREATE VIEW tiles AS SELECT map.zoom_level AS zoom_level, map.tile_column AS tile_column,
    map.tile_row AS tile_row, images.tile_data AS tile_data
    FROM map JOIN images ON images.tile_id = map.tile_id;
";

/// Writes all tiles, each at its place in the spool.
pub(super) fn write(
    path: &Path,
    spool: &Spool,
    tiles: &[Placed],
    metadata: &ArchiveMetadata,
) -> Result<(), ArchiveError> {
    let wrong = |error| sqlite(path, &error);
    let db = Connection::open(path).map_err(wrong)?;
    db.execute_batch(SCHEMA).map_err(wrong)?;
    {
        let mut image = db
            .prepare("INSERT OR IGNORE INTO images (tile_id, tile_data) VALUES (?1, ?2)")
            .map_err(wrong)?;
        let mut place = db
            .prepare("INSERT INTO map (zoom_level, tile_column, tile_row, tile_id) VALUES (?1, ?2, ?3, ?4)")
            .map_err(wrong)?;
        let mut there = db
            .prepare("SELECT 1 FROM images WHERE tile_id = ?1")
            .map_err(wrong)?;
        for tile in tiles {
            let Some(coord) = tile_of(tile.id) else {
                continue;
            };
            // A body's place in the spool names it.
            let id = i64::try_from(tile.body).unwrap_or(i64::MAX);
            if !there.exists([id]).map_err(wrong)? {
                let body = spool.body(tile.body)?;
                image.execute(params![id, &body[..]]).map_err(wrong)?;
            }
            place
                .execute((coord.z(), coord.x(), coord.tms_y(), id))
                .map_err(wrong)?;
        }
        let mut row = db
            .prepare("INSERT INTO metadata (name, value) VALUES (?1, ?2)")
            .map_err(wrong)?;
        for (name, value) in rows(metadata) {
            row.execute((name, value)).map_err(wrong)?;
        }
    }
    db.execute_batch("COMMIT;").map_err(wrong)?;
    db.close().map_err(|(_, error)| wrong(error))
}

/// The rows of `metadata`. `name` and `format` must be there; vector tiles need `json` too.
fn rows(metadata: &ArchiveMetadata) -> Vec<(String, String)> {
    let format = match metadata.format {
        TileFormat::Mvt => "pbf",
        // A media type, for formats that the specification has no word for.
        TileFormat::Avif => TileFormat::Avif.content_type(),
        other => other.extension(),
    };
    let mut rows: Vec<(String, String)> = vec![
        ("format".into(), format.into()),
        ("minzoom".into(), metadata.minzoom.to_string()),
        ("maxzoom".into(), metadata.maxzoom.to_string()),
        ("type".into(), "baselayer".into()),
    ];
    if let Some(bounds) = metadata.bounds {
        let [w, s, e, n] = bounds.to_array();
        rows.push(("bounds".into(), format!("{w},{s},{e},{n}")));
    }
    if let Some((longitude, latitude, zoom)) = metadata.center {
        rows.push(("center".into(), format!("{longitude},{latitude},{zoom}")));
    }
    let mut json = metadata.to_json();
    let nested = ["vector_layers", "tilestats"];
    let mut inner = serde_json::Map::new();
    let serde_json::Value::Object(members) = &mut json else {
        return rows;
    };
    members.entry("name").or_insert_with(|| "tiles".into());
    for (name, value) in std::mem::take(members) {
        match value {
            value if nested.contains(&name.as_str()) => {
                inner.insert(name, value);
            }
            serde_json::Value::String(text) => rows.push((name, text)),
            other => rows.push((name, other.to_string())),
        }
    }
    if !inner.is_empty() {
        rows.push(("json".into(), serde_json::Value::Object(inner).to_string()));
    }
    // `other` may bring what has a row already.
    let mut seen = std::collections::HashSet::new();
    rows.retain(|(name, _)| seen.insert(name.clone()));
    rows
}
