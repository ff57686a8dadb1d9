//! Writing an archive: tiles go to the spool as they come, in any order; finishing makes the file of them.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::spool::{Placed, Spool};
use super::{ArchiveError, ArchiveMetadata, Encoding, Kind};
use super::{pmtiles_write, spool};
use crate::tile::pmtiles::{tile_id, tile_of};
use crate::tile::{Bounds, TileCoord, TileFormat};

/// What an export is of: the same again may be gone on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// What the tiles are.
    pub format: TileFormat,
    /// For people and for the comparison: where from, like `https://tiles.example.com/world?v=2026-11`.
    pub label: String,
}

/// What to do with an unfinished export beside the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// There must be none.
    Anew,
    /// Go on with it, where there is one.
    Resume,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Tiles in the archive.
    pub tiles: u64,
    /// Different contents among them: each is stored once.
    pub distinct: u64,
    /// Tiles that were asked for and do not exist.
    pub absent: u64,
    /// The archive's size.
    pub bytes: u64,
    /// The first zoom with a tile.
    pub minzoom: u8,
    /// The last zoom with a tile.
    pub maxzoom: u8,
}

/// An archive that is being written. Dropped without [`ArchiveWriter::finish`], what it has stays in
/// `FILE.partial` for [`Begin::Resume`].
pub struct ArchiveWriter {
    path: PathBuf,
    kind: Kind,
    format: TileFormat,
    spool_path: PathBuf,
    spool: Spool,
}

impl ArchiveWriter {
    /// Begins an archive, `.pmtiles` or `.mbtiles` by the path's ending; its spool is `FILE.partial`. An
    /// archive of this name is replaced when the new one is whole.
    pub fn create(path: &Path, export: &Export, begin: Begin) -> Result<Self, ArchiveError> {
        let Some(kind) = Kind::of(path) else {
            return Err(ArchiveError::unknown_kind(path));
        };
        #[cfg(not(feature = "mbtiles"))]
        if kind == Kind::Mbtiles {
            return Err(ArchiveError::no_mbtiles(path));
        }
        let spool_path = beside(path, ".partial");
        let label = format!("{} ({})", export.label, export.format.extension());
        let spool = spool::Spool::open(&spool_path, &label, begin)?;
        Ok(Self {
            path: path.to_owned(),
            kind,
            format: export.format,
            spool_path,
            spool,
        })
    }

    /// Whether this tile is there already, or known to be absent. A million neighbours take no more than ten.
    pub fn contains(&self, coord: TileCoord) -> bool {
        self.spool.contains(tile_id(coord))
    }

    /// Keeps a tile: as it is, or compressed with gzip. Of two of one place, the later one counts. Vector
    /// tiles are compressed if they are not, as both formats want them; an empty tile is an absent one.
    pub fn put(&mut self, coord: TileCoord, body: &Bytes) -> Result<(), ArchiveError> {
        let id = tile_id(coord);
        if body.is_empty() {
            return self.spool.put_absent(id);
        }
        if self.format != TileFormat::Mvt || Encoding::look(body) == Encoding::Gzip {
            return self.spool.put(id, body);
        }
        let gzipped = gzip(body).map_err(ArchiveError::io(&self.path, "compress a tile"))?;
        self.spool.put(id, &gzipped)
    }

    /// Keeps that there is no such tile, so that going on does not ask for it again.
    pub fn put_absent(&mut self, coord: TileCoord) -> Result<(), ArchiveError> {
        self.spool.put_absent(tile_id(coord))
    }

    /// Makes the archive, and puts it under its name when it is whole and on disk. Zooms are those of the
    /// tiles; so is the area, where `metadata` has none. After a failure the spool is still there.
    pub fn finish(self, metadata: ArchiveMetadata) -> Result<Summary, ArchiveError> {
        let (tiles, absent) = self.spool.sorted()?;
        let Some(metadata) = self.complete(metadata, &tiles) else {
            return Err(ArchiveError::Empty { path: self.path });
        };
        let unfinished = Unfinished(beside(&self.path, ".writing"));
        let temporary = unfinished.0.as_path();
        // A killed run's.
        if let Err(error) = fs::remove_file(temporary)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(ArchiveError::io(temporary, "remove it")(error));
        }
        match self.kind {
            Kind::Pmtiles => pmtiles_write::write(temporary, &self.spool, &tiles, &metadata)?,
            #[cfg(feature = "mbtiles")]
            Kind::Mbtiles => {
                super::mbtiles_write::write(temporary, &self.spool, &tiles, &metadata)?;
            }
            #[cfg(not(feature = "mbtiles"))]
            Kind::Mbtiles => return Err(ArchiveError::no_mbtiles(&self.path)),
        }
        let file = File::open(temporary).map_err(ArchiveError::io(temporary, "open it"))?;
        file.sync_all()
            .map_err(ArchiveError::io(temporary, "sync it"))?;
        let bytes = file
            .metadata()
            .map_err(ArchiveError::io(temporary, "read it"))?
            .len();
        fs::rename(temporary, &self.path).map_err(ArchiveError::io(&self.path, "rename it"))?;
        sync_folder(&self.path)?;
        fs::remove_file(&self.spool_path)
            .map_err(ArchiveError::io(&self.spool_path, "remove it"))?;
        let mut bodies: Vec<u64> = tiles.iter().map(|tile| tile.body).collect();
        bodies.sort_unstable();
        bodies.dedup();
        Ok(Summary {
            tiles: tiles.len() as u64,
            distinct: bodies.len() as u64,
            absent,
            bytes,
            minzoom: metadata.minzoom,
            maxzoom: metadata.maxzoom,
        })
    }

    /// Sets what the tiles say better; `None` where there are none.
    fn complete(&self, metadata: ArchiveMetadata, tiles: &[Placed]) -> Option<ArchiveMetadata> {
        // Numbers go up with the zooms.
        let first = tile_of(tiles.first()?.id)?;
        let last = tile_of(tiles.last()?.id)?;
        let bounds = metadata.bounds.unwrap_or_else(|| area(tiles, last.z()));
        // Neither format has a word for an area across the antimeridian.
        let [west, south, east, north] = bounds.to_array();
        let bounds = if west > east {
            Bounds::new([-180.0, south, 180.0, north]).unwrap_or(Bounds::WORLD)
        } else {
            bounds
        };
        let [west, south, east, north] = bounds.to_array();
        let middle = (
            f64::midpoint(west, east),
            f64::midpoint(south, north),
            first.z(),
        );
        Some(ArchiveMetadata {
            format: self.format,
            encoding: if self.format == TileFormat::Mvt {
                Encoding::Gzip
            } else {
                Encoding::Identity
            },
            minzoom: first.z(),
            maxzoom: last.z(),
            bounds: Some(bounds),
            center: metadata.center.or(Some(middle)),
            ..metadata
        })
    }
}

/// The area of the tiles of the last zoom.
fn area(tiles: &[Placed], zoom: u8) -> Bounds {
    let of_zoom = tiles
        .iter()
        .rev()
        .map_while(|tile| tile_of(tile.id).filter(|t| t.z() == zoom));
    let (mut left, mut top, mut right, mut bottom) = (u32::MAX, u32::MAX, 0, 0);
    for tile in of_zoom {
        (left, right) = (left.min(tile.x()), right.max(tile.x()));
        (top, bottom) = (top.min(tile.y()), bottom.max(tile.y()));
    }
    let size = f64::from(1u32 << zoom);
    let longitude = |column: u32| f64::from(column) / size * 360.0 - 180.0;
    // The inverse of the spherical Mercator projection (EPSG:3857).
    let latitude = |row: u32| {
        let y = std::f64::consts::PI * (1.0 - 2.0 * f64::from(row) / size);
        y.sinh().atan().to_degrees()
    };
    let edges = [
        longitude(left),
        latitude(bottom + 1),
        longitude(right + 1),
        latitude(top),
    ];
    Bounds::new(edges).unwrap_or(Bounds::WORLD)
}

pub(super) fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let level = flate2::Compression::default();
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(body.len()), level);
    encoder.write_all(body)?;
    encoder.finish()
}

/// The same name with something behind it.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// So that the new name is on disk too.
fn sync_folder(path: &Path) -> Result<(), ArchiveError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(ArchiveError::io(folder, "sync it"))
}

/// The file before it is whole; gone where that does not come to be.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Renamed, it is not there.
        let _ = fs::remove_file(&self.0);
    }
}
