//! Reading an `.mbtiles` file: SQLite with a table or view `tiles`, rows counted from the south (TMS).
//!
//! Source: github.com/mapbox/mbtiles-spec/blob/master/1.3/spec.md

use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use bytes::Bytes;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use serde_json::{Map, Value};

use super::metadata::format;
use super::{ArchiveError, ArchiveMetadata, ArchiveReader, Encoding, Tiles};
use crate::tile::{TileCoord, TileFormat};

/// An open archive.
pub(super) struct Mbtiles {
    path: PathBuf,
    metadata: ArchiveMetadata,
    count: u64,
}

type Row = Result<(TileCoord, Bytes), ArchiveError>;

impl Mbtiles {
    pub(super) fn open(path: &Path) -> Result<Self, ArchiveError> {
        let db = connect(path)?;
        let wrong = |error| sqlite(path, &error);
        let rows = metadata_rows(&db).map_err(wrong)?;
        let first: Option<Vec<u8>> = db
            .query_row("SELECT tile_data FROM tiles LIMIT 1", [], |row| row.get(0))
            .optional()
            .map_err(wrong)?;
        let Some(first) = first else {
            return Err(ArchiveError::content(path, "there are no tiles in it"));
        };
        let said = rows.get("format").and_then(Value::as_str);
        let Some(format) = said.and_then(format).or_else(|| looks_like(&first)) else {
            let said = said.unwrap_or("nothing");
            let said = format!("its `format` is {said:?}, none of png, jpg, webp, avif and pbf");
            return Err(ArchiveError::content(path, said));
        };
        let whole = "SELECT count(*), min(zoom_level), max(zoom_level) FROM tiles";
        let whole = db.query_row(whole, [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?))
        });
        let (count, minzoom, maxzoom): (i64, u8, u8) = whole.map_err(wrong)?;
        let mut metadata = ArchiveMetadata {
            encoding: Encoding::look(&first),
            minzoom,
            maxzoom,
            ..ArchiveMetadata::new(format)
        };
        metadata.describe(rows);
        Ok(Self {
            path: path.to_owned(),
            metadata,
            count: u64::try_from(count).unwrap_or(0),
        })
    }
}

fn connect(path: &Path) -> Result<Connection, ArchiveError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags).map_err(|error| sqlite(path, &error))
}

/// What SQLite says, which mostly means that the file is no MBTiles.
pub(super) fn sqlite(path: &Path, error: &rusqlite::Error) -> ArchiveError {
    use rusqlite::ErrorCode::{DiskFull, PermissionDenied, ReadOnly};
    let kind = match error.sqlite_error_code() {
        Some(DiskFull) => std::io::ErrorKind::StorageFull,
        Some(ReadOnly) => std::io::ErrorKind::ReadOnlyFilesystem,
        Some(PermissionDenied) => std::io::ErrorKind::PermissionDenied,
        _ => return ArchiveError::content(path, format!("no MBTiles that can be read: {error}")),
    };
    ArchiveError::io(path, "write it")(kind.into())
}

fn metadata_rows(db: &Connection) -> rusqlite::Result<Map<String, Value>> {
    let mut rows = db.prepare("SELECT name, value FROM metadata")?;
    rows.query_map([], |row| {
        let value = row.get::<_, rusqlite::types::Value>(1)?;
        let value = match value {
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Real(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            _ => String::new(),
        };
        Ok((row.get::<_, String>(0)?, Value::String(value)))
    })?
    .collect()
}

fn looks_like(tile: &[u8]) -> Option<TileFormat> {
    match tile {
        [0x89, b'P', b'N', b'G', ..] => Some(TileFormat::Png),
        [0xff, 0xd8, 0xff, ..] => Some(TileFormat::Jpg),
        [b'R', b'I', b'F', b'F', ..] => Some(TileFormat::Webp),
        [0x1f, 0x8b, ..] => Some(TileFormat::Mvt),
        _ => None,
    }
}

impl ArchiveReader for Mbtiles {
    fn metadata(&self) -> &ArchiveMetadata {
        &self.metadata
    }

    fn count(&self) -> Option<u64> {
        Some(self.count)
    }

    fn tiles(&self) -> Tiles<'_> {
        // SQLite's rows borrow their statement, and it its connection: they stay on a thread of their
        // own, which a bounded channel holds up, and which ends when nobody listens any more.
        let (sender, receiver) = sync_channel(64);
        let path = self.path.clone();
        let reading = thread::Builder::new()
            .name("mbtiles".into())
            .spawn(move || read_all(&path, &sender));
        let failed = reading.err().map(|error| {
            Err(ArchiveError::io(&self.path, "start a thread to read it")(
                error,
            ))
        });
        Box::new(failed.into_iter().chain(receiver))
    }
}

fn read_all(path: &Path, sender: &SyncSender<Row>) {
    if let Err(error) = send_all(path, sender) {
        // Nobody listens: nobody minds.
        let _ = sender.send(Err(error));
    }
}

fn send_all(path: &Path, sender: &SyncSender<Row>) -> Result<(), ArchiveError> {
    let wrong = |error| sqlite(path, &error);
    let db = connect(path)?;
    let mut tiles = db
        .prepare("SELECT zoom_level, tile_column, tile_row, tile_data FROM tiles")
        .map_err(wrong)?;
    let mut rows = tiles.query([]).map_err(wrong)?;
    while let Some(row) = rows.next().map_err(wrong)? {
        let number = |at: usize| row.get::<_, i64>(at);
        let (z, x, y) = (number(0), number(1), number(2));
        let (z, x, y) = (z.map_err(wrong)?, x.map_err(wrong)?, y.map_err(wrong)?);
        let Some(coord) = from_tms(z, x, y) else {
            let said = format!("it has a tile that there is not: zoom {z}, column {x}, row {y}");
            return Err(ArchiveError::content(path, said));
        };
        let body: Vec<u8> = row.get(3).map_err(wrong)?;
        if sender.send(Ok((coord, body.into()))).is_err() {
            break;
        }
    }
    Ok(())
}

fn from_tms(z: i64, x: i64, y: i64) -> Option<TileCoord> {
    let flipped = TileCoord::new(z.try_into().ok()?, x.try_into().ok()?, y.try_into().ok()?)?;
    TileCoord::new(flipped.z(), flipped.x(), flipped.tms_y())
}
