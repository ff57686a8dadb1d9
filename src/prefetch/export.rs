//! Tiles on their way into an archive.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::Value;

use super::facts::TilesetFacts;
use super::outcome::Reason;
use super::report::ArchiveReport;
use crate::archive::{ArchiveError, ArchiveMetadata, ArchiveWriter, Begin, Export};
use crate::tile::{TileCoord, TileFormat};

/// More than any tile: what is unpacked beyond it is no tile.
pub(super) const MAX_TILE: usize = 64 << 20;

/// An archive that workers write to. Everything in it is done on blocking threads.
#[derive(Clone)]
pub(super) struct Archive {
    writer: Arc<Mutex<Option<ArchiveWriter>>>,
    path: PathBuf,
    format: TileFormat,
}

impl Archive {
    /// Begins it, or goes on with what an earlier run has beside it.
    pub(super) fn open(
        path: &Path,
        tileset: &TilesetFacts,
        server: &str,
        begin: Begin,
    ) -> Result<Self, ArchiveError> {
        // With the version: tiles of two versions are not mixed.
        let export = Export {
            format: tileset.format,
            label: format!("{server}{}", tileset.template),
        };
        Ok(Self {
            writer: Arc::new(Mutex::new(Some(ArchiveWriter::create(
                path, &export, begin,
            )?))),
            path: path.to_owned(),
            format: tileset.format,
        })
    }

    /// Whether the tile is there, or known to be absent.
    pub(super) fn contains(&self, coord: TileCoord) -> bool {
        lock(&self.writer)
            .as_ref()
            .is_some_and(|writer| writer.contains(coord))
    }

    /// Keeps a tile as it came; `None`: there is none. The inner error is the tile's, the outer one the archive's.
    pub(super) async fn put(
        &self,
        coord: TileCoord,
        tile: Option<(Bytes, String)>,
    ) -> Result<Result<(), Reason>, ArchiveError> {
        let archive = self.clone();
        let put = tokio::task::spawn_blocking(move || {
            let body = match tile {
                None => None,
                Some((body, encoding)) => match unpacked(body, &encoding, archive.format) {
                    Ok(body) => Some(body),
                    Err(reason) => return Ok(Err(reason)),
                },
            };
            let mut writer = lock(&archive.writer);
            match (writer.as_mut(), body) {
                (Some(writer), Some(body)) => writer.put(coord, &body)?,
                (Some(writer), None) => writer.put_absent(coord)?,
                // Finished: nobody asks for tiles any more.
                (None, _) => {}
            }
            Ok(Ok(()))
        });
        // A panic there is a bug, which the tile's failure tells.
        put.await.unwrap_or(Ok(Err(Reason::Corrupt)))
    }

    /// Makes the archive of what there is.
    pub(super) async fn finish(
        &self,
        tileset: &TilesetFacts,
        complete: bool,
    ) -> Result<ArchiveReport, ArchiveError> {
        let metadata = metadata(tileset);
        let archive = self.clone();
        let finished = tokio::task::spawn_blocking(move || {
            let writer = lock(&archive.writer).take();
            writer.map(|writer| writer.finish(metadata)).transpose()
        });
        let summary = finished.await.unwrap_or(Ok(None))?;
        Ok(ArchiveReport {
            file: self.path.display().to_string(),
            tiles: summary.map_or(0, |summary| summary.tiles),
            distinct: summary.map_or(0, |summary| summary.distinct),
            bytes: summary.map_or(0, |summary| summary.bytes),
            complete,
        })
    }
}

fn lock(writer: &Mutex<Option<ArchiveWriter>>) -> MutexGuard<'_, Option<ArchiveWriter>> {
    writer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an archive says of itself, from the TileJSON. Zooms, area and centre are those of the tiles that are in it.
fn metadata(tileset: &TilesetFacts) -> ArchiveMetadata {
    let mut other = tileset.json.clone();
    let mut text = |key: &str| match other.remove(key) {
        Some(Value::String(text)) => text,
        _ => String::new(),
    };
    let (name, attribution, description) = (text("name"), text("attribution"), text("description"));
    for key in [
        "tiles", "tilejson", "scheme", "format", "minzoom", "maxzoom", "bounds", "center",
    ] {
        other.remove(key);
    }
    ArchiveMetadata {
        name: if name.is_empty() {
            tileset.name.clone()
        } else {
            name
        },
        attribution,
        description,
        other,
        ..ArchiveMetadata::new(tileset.format)
    }
}

/// A body as archives keep it: vector tiles may stay in gzip, everything else is as it is.
fn unpacked(body: Bytes, encoding: &str, format: TileFormat) -> Result<Bytes, Reason> {
    let gzip = encoding.eq_ignore_ascii_case("gzip");
    if encoding.is_empty()
        || encoding.eq_ignore_ascii_case("identity")
        || (gzip && format == TileFormat::Mvt)
    {
        return Ok(body);
    }
    let limit = MAX_TILE as u64 + 1;
    let mut whole = Vec::new();
    let read = if gzip {
        let decoder = flate2::read::MultiGzDecoder::new(&body[..]);
        decoder.take(limit).read_to_end(&mut whole)
    } else if encoding.eq_ignore_ascii_case("br") {
        let decoder = brotli_decompressor::Decompressor::new(&body[..], 8192);
        decoder.take(limit).read_to_end(&mut whole)
    } else if encoding.eq_ignore_ascii_case("zstd") {
        let decoder = ruzstd::decoding::StreamingDecoder::new(&body[..]);
        let decoder = decoder.map_err(|_| Reason::Corrupt)?;
        decoder.take(limit).read_to_end(&mut whole)
    } else {
        return Err(Reason::Corrupt);
    };
    read.map_err(|_| Reason::Corrupt)?;
    if whole.len() > MAX_TILE {
        return Err(Reason::TooLarge);
    }
    Ok(whole.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(bytes: &[u8]) -> Bytes {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap().into()
    }

    #[test]
    fn vector_tiles_stay_as_stored_and_pictures_are_unpacked() {
        let packed = gzip(b"tile");
        let kept = unpacked(packed.clone(), "gzip", TileFormat::Mvt).unwrap();
        assert_eq!(kept, packed);
        let picture = unpacked(packed, "gzip", TileFormat::Png).unwrap();
        assert_eq!(picture, "tile");
        let plain = unpacked(Bytes::from("tile"), "", TileFormat::Png).unwrap();
        assert_eq!(plain, "tile");
    }

    #[test]
    fn what_is_not_what_it_says_is_corrupt_and_a_bomb_is_too_large() {
        for encoding in ["gzip", "zstd", "br", "lzma"] {
            let read = unpacked(Bytes::from("tile"), encoding, TileFormat::Png);
            assert_eq!(read, Err(Reason::Corrupt), "{encoding}");
        }
        let bomb = gzip(&vec![0; MAX_TILE + 1]);
        assert_eq!(
            unpacked(bomb, "gzip", TileFormat::Png),
            Err(Reason::TooLarge)
        );
    }
}
