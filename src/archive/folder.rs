//! Reading a folder of `z/x/y.ext`, as `mb-util` and `gdal2tiles --xyz` write it. Rows count from the north.
//!
//! Its zooms are its folders, its format is its files' ending, and `metadata.json` beside them, where
//! there is one, says the rest. Hidden files and folders, and names at the top that are no zoom, are not looked at.

use std::ffi::OsStr;
use std::fs::{self, ReadDir};
use std::path::{Path, PathBuf};
use std::vec;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::metadata::{bounds, center, format};
use super::{ArchiveError, ArchiveMetadata, ArchiveReader, Encoding, Tiles};
use crate::tile::{MAX_ZOOM, TileCoord, TileFormat};

/// A folder with tiles.
pub(super) struct Folder {
    path: PathBuf,
    zooms: Vec<u8>,
    metadata: ArchiveMetadata,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, ArchiveError> {
        let mut zooms = Vec::new();
        for name in names(path)? {
            if let Some(zoom) = number(&name).and_then(|z| u8::try_from(z).ok())
                && zoom <= MAX_ZOOM
                && path.join(&name).is_dir()
            {
                zooms.push(zoom);
            }
        }
        zooms.sort_unstable();
        let nothing = || {
            let said = "no tiles in it: they lie in z/x/y.png, like 3/4/2.png (or .jpg, .webp, .avif, .mvt)";
            ArchiveError::content(path, said)
        };
        let (Some(&minzoom), Some(&maxzoom)) = (zooms.first(), zooms.last()) else {
            return Err(nothing());
        };
        let mut this = Self {
            path: path.to_owned(),
            zooms,
            metadata: ArchiveMetadata::new(TileFormat::Png),
        };
        let (file, format) = this.first_tile()?.ok_or_else(nothing)?;
        let body = fs::read(&file).map_err(ArchiveError::io(&file, "read it"))?;
        this.metadata = ArchiveMetadata {
            encoding: Encoding::look(&body),
            ..ArchiveMetadata::new(format)
        };
        this.describe()?;
        this.metadata.minzoom = minzoom;
        this.metadata.maxzoom = maxzoom;
        Ok(this)
    }

    fn first_tile(&self) -> Result<Option<(PathBuf, TileFormat)>, ArchiveError> {
        for zoom in &self.zooms {
            let zoom = self.path.join(zoom.to_string());
            for column in names(&zoom)?.iter().filter(|name| number(name).is_some()) {
                let column = zoom.join(column);
                for file in names(&column)? {
                    if let Some((_, format)) = tile_file(&file) {
                        return Ok(Some((column.join(file), format)));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Takes what `metadata.json` says: MBTiles' metadata as one object of strings, or a TileJSON.
    fn describe(&mut self) -> Result<(), ArchiveError> {
        let file = self.path.join("metadata.json");
        let Ok(text) = fs::read(&file) else {
            return Ok(());
        };
        let json: Map<String, Value> = serde_json::from_slice(&text)
            .map_err(|error| ArchiveError::content(&file, format!("no JSON object: {error}")))?;
        self.metadata.describe(json);
        Ok(())
    }
}

impl ArchiveMetadata {
    /// Takes MBTiles' rows, or a TileJSON: what has a field goes there, `json` is unfolded.
    pub(super) fn describe(&mut self, mut rows: Map<String, Value>) {
        let list = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Array(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(Value::to_string).collect();
                numbers.join(",")
            }
            other => other.to_string(),
        };
        self.bounds = rows
            .remove("bounds")
            .and_then(|value| bounds(&list(&value)));
        self.center = rows
            .remove("center")
            .and_then(|value| center(&list(&value)));
        for known in [
            "minzoom", "maxzoom", "format", "scheme", "tiles", "tilejson",
        ] {
            rows.remove(known);
        }
        if let Some(Value::String(text)) = rows.remove("json")
            && let Ok(Value::Object(more)) = serde_json::from_str(&text)
        {
            rows.extend(more);
        }
        self.absorb(rows);
    }
}

impl ArchiveReader for Folder {
    fn metadata(&self) -> &ArchiveMetadata {
        &self.metadata
    }

    fn count(&self) -> Option<u64> {
        None
    }

    fn tiles(&self) -> Tiles<'_> {
        Box::new(Walk {
            folder: self,
            zooms: self.zooms.clone().into_iter(),
            columns: None,
            files: None,
            failed: false,
        })
    }
}

/// A walk: a zoom's column names and one open folder of files are held.
struct Walk<'a> {
    folder: &'a Folder,
    zooms: vec::IntoIter<u8>,
    columns: Option<(u8, vec::IntoIter<u32>)>,
    files: Option<(u8, u32, PathBuf, ReadDir)>,
    failed: bool,
}

impl Walk<'_> {
    fn step(&mut self) -> Result<Option<(TileCoord, Bytes)>, ArchiveError> {
        loop {
            if let Some((z, x, column, files)) = &mut self.files {
                match files.next() {
                    None => self.files = None,
                    Some(file) => {
                        let file = file.map_err(ArchiveError::io(column, "list it"))?;
                        let (z, x, path) = (*z, *x, file.path());
                        if let Some(tile) = self.tile(z, x, &file.file_name(), &path)? {
                            return Ok(Some(tile));
                        }
                    }
                }
            } else if let Some((z, columns)) = &mut self.columns {
                let z = *z;
                match columns.next() {
                    None => self.columns = None,
                    Some(x) => {
                        let path = self.folder.path.join(format!("{z}/{x}"));
                        let files =
                            fs::read_dir(&path).map_err(ArchiveError::io(&path, "list it"))?;
                        self.files = Some((z, x, path, files));
                    }
                }
            } else if let Some(z) = self.zooms.next() {
                let path = self.folder.path.join(z.to_string());
                let columns = names(&path)?;
                let mut columns: Vec<u32> = columns.iter().filter_map(|n| number(n)).collect();
                columns.sort_unstable();
                self.columns = Some((z, columns.into_iter()));
            } else {
                return Ok(None);
            }
        }
    }

    /// The tile of a file; a hidden file is none, and any other that is no tile is a mistake somebody wants to know of.
    fn tile(
        &self,
        z: u8,
        x: u32,
        name: &OsStr,
        path: &Path,
    ) -> Result<Option<(TileCoord, Bytes)>, ArchiveError> {
        if name.as_encoded_bytes().starts_with(b".") {
            return Ok(None);
        }
        let Some((y, format)) = tile_file(name) else {
            return Err(ArchiveError::content(
                path,
                "no tile: the name is a row and a format, like 5.png; move it out of the folder",
            ));
        };
        let ours = self.folder.metadata.format;
        if format != ours {
            let said = format!(
                "the other tiles are .{}: one folder holds one format",
                ours.extension()
            );
            return Err(ArchiveError::content(path, said));
        }
        let Some(coord) = TileCoord::new(z, x, y) else {
            let said =
                format!("there is no such tile: columns and rows of zoom {z} are below 2^{z}");
            return Err(ArchiveError::content(path, said));
        };
        let body = fs::read(path).map_err(ArchiveError::io(path, "read it"))?;
        Ok(Some((coord, body.into())))
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<(TileCoord, Bytes), ArchiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let step = self.step();
        self.failed = step.is_err();
        step.transpose()
    }
}

fn names(folder: &Path) -> Result<Vec<std::ffi::OsString>, ArchiveError> {
    let io = || ArchiveError::io(folder, "list it");
    fs::read_dir(folder)
        .map_err(io())?
        .map(|entry| Ok(entry.map_err(io())?.file_name()))
        .collect()
}

/// A number in canonical decimal.
fn number(name: &OsStr) -> Option<u32> {
    let text = name.to_str()?;
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn tile_file(name: &OsStr) -> Option<(u32, TileFormat)> {
    let name = Path::new(name);
    Some((
        number(name.file_stem()?)?,
        format(name.extension()?.to_str()?)?,
    ))
}
