//! Tiles on their way into an archive.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::Value;

use super::facts::TilesetFacts;
use super::outcome::Reason;
use super::report::ArchiveReport;
use crate::archive::{ArchiveError, ArchiveMetadata, ArchiveWriter, Begin, Encoding, Export};
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

/// A body as archives keep it. Readers of both formats expect vector tiles in gzip, and a PMTiles archive declares one
/// compression for all: what came in gzip stays as it is, what came in anything else is unpacked here and compressed
/// by the writer. Everything is unpacked once, to see that it can be.
fn unpacked(body: Bytes, encoding: &str, format: TileFormat) -> Result<Bytes, Reason> {
    let is = |name: &str| encoding.eq_ignore_ascii_case(name);
    let vector = format == TileFormat::Mvt;
    let coding = match encoding {
        "" => Encoding::Identity,
        _ if is("identity") => Encoding::Identity,
        _ if is("gzip") || is("x-gzip") => Encoding::Gzip,
        _ if is("br") => Encoding::Brotli,
        _ if is("zstd") => Encoding::Zstd,
        _ => return Err(Reason::Corrupt),
    };
    // Compressed and not declared is the commonest fault of vector tiles.
    let coding = match coding {
        Encoding::Identity if vector => Encoding::look(&body),
        declared => declared,
    };
    match coding {
        Encoding::Identity => Ok(body),
        Encoding::Gzip => {
            let mut decoder = flate2::bufread::GzDecoder::new(&body[..]);
            let whole = bounded(&mut decoder);
            let rest = decoder.into_inner();
            match whole {
                Ok(_) if vector && rest.is_empty() => Ok(body),
                Ok(whole) if rest.is_empty() => Ok(whole),
                // Of more than one member (RFC 1952 §2.2), which not every reader looks for.
                Ok(_) => bounded(flate2::read::MultiGzDecoder::new(&body[..])),
                Err(reason) => Err(reason),
            }
        }
        Encoding::Brotli => bounded(brotli_decompressor::Decompressor::new(&body[..], 8192)),
        Encoding::Zstd => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(&body[..]);
            bounded(decoder.map_err(|_| Reason::Corrupt)?)
        }
    }
}

/// All of it, if that is no more than a tile can be.
fn bounded(reader: impl std::io::Read) -> Result<Bytes, Reason> {
    let mut whole = Vec::new();
    let read = reader.take(MAX_TILE as u64 + 1).read_to_end(&mut whole);
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

    /// `vector tile`, compressed by the formats' own tools.
    const BROTLI: &[u8] = b"\x0b\x05\x80\x76\x65\x63\x74\x6f\x72\x20\x74\x69\x6c\x65\x03";
    const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd\x04\x58\x59\x00\x00\x76\x65\x63\x74\x6f\x72\x20\x74\x69\x6c\x65\xe6\x12\x03\xc0";

    #[tokio::test]
    async fn vector_tiles_are_in_gzip_in_the_archive_however_they_come() {
        let json = serde_json::json!({
            "tiles": ["/v/{z}/{x}/{y}.mvt"], "format": "mvt", "vector_layers": [],
        });
        let facts = TilesetFacts::read("v", json.to_string().as_bytes()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let twice = [gzip(b"vector "), gzip(b"tile")].concat();
        let ways: Vec<(Bytes, &str)> = vec![
            (gzip(b"vector tile"), "gzip"),
            (gzip(b"vector tile"), ""),
            (Bytes::from("vector tile"), ""),
            (Bytes::from("vector tile"), "identity"),
            (Bytes::from_static(BROTLI), "br"),
            (Bytes::from_static(ZSTD), "zstd"),
            (Bytes::from_static(ZSTD), ""),
            (twice.into(), "gzip"),
        ];
        let mut names = vec!["v.pmtiles"];
        if cfg!(feature = "mbtiles") {
            names.push("v.mbtiles");
        }
        for name in names {
            let path = folder.path().join(name);
            let archive = Archive::open(&path, &facts, "http://h", Begin::Anew).unwrap();
            for (x, way) in (0u32..).zip(&ways) {
                let coord = TileCoord::new(3, x, 0).unwrap();
                let (body, encoding) = (way.0.clone(), way.1.to_owned());
                let put = archive.put(coord, Some((body, encoding))).await;
                assert_eq!(put.unwrap(), Ok(()), "{way:?}");
            }
            archive.finish(&facts, true).await.unwrap();
            let read = crate::archive::open(&path).unwrap();
            assert_eq!(read.metadata().encoding, Encoding::Gzip);
            let tiles: Vec<_> = read.tiles().map(Result::unwrap).collect();
            assert_eq!(tiles.len(), ways.len());
            for (coord, tile) in tiles {
                let mut text = String::new();
                let mut decoder = flate2::read::GzDecoder::new(&tile[..]);
                decoder.read_to_string(&mut text).unwrap();
                assert_eq!(text, "vector tile", "{coord}");
            }
        }
    }

    #[test]
    fn a_vector_tile_that_is_cut_off_is_corrupt() {
        let whole = gzip(b"a vector tile");
        let cut = whole.slice(..whole.len() - 3);
        for encoding in ["gzip", ""] {
            let read = unpacked(cut.clone(), encoding, TileFormat::Mvt);
            assert_eq!(read, Err(Reason::Corrupt), "{encoding:?}");
        }
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
