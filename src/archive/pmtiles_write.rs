//! Writing a `.pmtiles` file with the `pmtiles` crate: clustered, in the order of tile numbers, identical
//! tiles once and neighbours as runs.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;

use pmtiles::{Compression, PmTilesWriter, PmtError, TileId, TileType};

use super::spool::{Placed, Spool};
use super::{ArchiveError, ArchiveMetadata};
use crate::tile::TileFormat;

/// Writes all tiles, each at its place in the spool; they come in the order of their numbers.
pub(super) fn write(
    path: &Path,
    spool: &Spool,
    tiles: &[Placed],
    metadata: &ArchiveMetadata,
) -> Result<(), ArchiveError> {
    let file = File::create(path).map_err(ArchiveError::io(path, "create it"))?;
    let wrong = |error| match error {
        PmtError::Reading(source) => ArchiveError::io(path, "write it")(source),
        other => ArchiveError::content(path, format!("cannot be written: {other}")),
    };
    let (kind, compression) = match metadata.format {
        TileFormat::Png => (TileType::Png, Compression::None),
        TileFormat::Jpg => (TileType::Jpeg, Compression::None),
        TileFormat::Webp => (TileType::Webp, Compression::None),
        TileFormat::Avif => (TileType::Avif, Compression::None),
        // The spool has them compressed.
        TileFormat::Mvt => (TileType::Mvt, Compression::Gzip),
    };
    let mut builder = PmTilesWriter::new(kind)
        .precompressed(compression)
        .min_zoom(metadata.minzoom)
        .max_zoom(metadata.maxzoom)
        .metadata(metadata.to_json().to_string());
    if let Some(bounds) = metadata.bounds {
        let [w, s, e, n] = bounds.to_array();
        builder = builder.bounds(w, s, e, n);
    }
    if let Some((longitude, latitude, zoom)) = metadata.center {
        builder = builder.center(longitude, latitude).center_zoom(zoom);
    }
    // The writer remembers what has a name for as long as it writes: only what comes again gets one.
    let (mut once, mut again) = (HashSet::new(), HashSet::new());
    for tile in tiles {
        if !once.insert(tile.body) {
            again.insert(tile.body);
        }
    }
    drop(once);
    let mut writer = builder.dedup_by_key::<u64>().create(file).map_err(wrong)?;
    for tile in tiles {
        let name = again.contains(&tile.body).then_some(tile.body);
        let coord = TileId::new(tile.id).map_err(wrong)?.into();
        let body = spool.body(tile.body)?;
        writer.add_tile(coord, &body, name).map_err(wrong)?;
    }
    writer.finalize().map_err(wrong)
}
