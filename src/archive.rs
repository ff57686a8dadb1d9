//! Tile archives on disk: PMTiles, MBTiles and folders are read; PMTiles and MBTiles are written.
//!
//! Invariant: under the output's name there is a whole archive or nothing. Reading takes memory for one
//! directory or one row at a time, however many tiles there are; what was handed to [`ArchiveWriter::put`]
//! is there after `kill -9`.
//! Left out on purpose: S3 and HTTP. Everything here blocks: call it from a blocking thread.

mod error;
mod folder;
#[cfg(feature = "mbtiles")]
mod mbtiles;
#[cfg(feature = "mbtiles")]
mod mbtiles_write;
mod metadata;
mod pmtiles;
mod pmtiles_write;
mod ranges;
mod spool;
mod writer;

use std::path::Path;

use bytes::Bytes;

pub use self::error::ArchiveError;
pub use self::metadata::{ArchiveMetadata, Encoding};
pub use self::writer::{ArchiveWriter, Begin, Export, Summary};
use crate::tile::TileCoord;

/// One tile after the other, in the archive's order; ends after an error.
pub type Tiles<'a> = Box<dyn Iterator<Item = Result<(TileCoord, Bytes), ArchiveError>> + Send + 'a>;

/// An archive that is open for reading.
pub trait ArchiveReader: Send {
    /// What it says of itself, completed by looking at it.
    fn metadata(&self) -> &ArchiveMetadata;

    /// How many tiles [`ArchiveReader::tiles`] will give, where that is known without reading them.
    fn count(&self) -> Option<u64>;

    /// All tiles, as stored.
    fn tiles(&self) -> Tiles<'_>;
}

/// Kinds of archive, by a path's ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `.pmtiles`
    Pmtiles,
    /// `.mbtiles`
    Mbtiles,
}

impl Kind {
    /// By the ending; `None`: neither.
    pub fn of(path: &Path) -> Option<Self> {
        let ending = path.extension()?.to_str()?;
        if ending.eq_ignore_ascii_case("pmtiles") {
            Some(Self::Pmtiles)
        } else if ending.eq_ignore_ascii_case("mbtiles") {
            Some(Self::Mbtiles)
        } else {
            None
        }
    }
}

/// Opens a `.pmtiles`, a `.mbtiles` or a folder of `z/x/y.ext`.
pub fn open(path: &Path) -> Result<Box<dyn ArchiveReader>, ArchiveError> {
    let there = std::fs::metadata(path).map_err(ArchiveError::io(path, "open it"))?;
    if there.is_dir() {
        return Ok(Box::new(folder::Folder::open(path)?));
    }
    match Kind::of(path) {
        Some(Kind::Pmtiles) => Ok(Box::new(pmtiles::Pmtiles::open(path)?)),
        #[cfg(feature = "mbtiles")]
        Some(Kind::Mbtiles) => Ok(Box::new(mbtiles::Mbtiles::open(path)?)),
        #[cfg(not(feature = "mbtiles"))]
        Some(Kind::Mbtiles) => Err(ArchiveError::no_mbtiles(path)),
        None => Err(ArchiveError::unknown_kind(path)),
    }
}

#[cfg(test)]
mod tests;
