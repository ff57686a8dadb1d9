//! Reading a `.pmtiles` file, directory by directory, in the order of its tiles.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{ArchiveError, ArchiveMetadata, ArchiveReader, Tiles};
use crate::tile::pmtiles::{
    Directory, Entry, FIRST_BYTES, Header, MAX_LEAF_DEPTH, MAX_METADATA_BYTES, PmtilesError,
    inflate, tile_of,
};
use crate::tile::{TileCoord, TileFormat};

/// An open archive.
pub(super) struct Pmtiles {
    path: PathBuf,
    file: File,
    header: Header,
    root: Directory,
    metadata: ArchiveMetadata,
}

impl Pmtiles {
    pub(super) fn open(path: &Path) -> Result<Self, ArchiveError> {
        let wrong = |error: PmtilesError| ArchiveError::content(path, error);
        let io = || ArchiveError::io(path, "read it");
        let file = File::open(path).map_err(io())?;
        let size = file.metadata().map_err(io())?.len();
        let first = usize::try_from(size)
            .unwrap_or(FIRST_BYTES)
            .min(FIRST_BYTES);
        let mut first = vec![0; first];
        file.read_exact_at(&mut first, 0).map_err(io())?;
        let header = Header::read(&first).map_err(wrong)?;
        let sections = [&header.metadata, &header.leaves, &header.data];
        if sections.iter().any(|section| section.end > size) {
            return Err(ArchiveError::content(
                path,
                format!("it is cut off: {size} bytes are fewer than its header promises"),
            ));
        }
        let root = header.root_directory(&first).map_err(wrong)?;
        let Some(format) = header.format else {
            return Err(ArchiveError::content(
                path,
                "its tiles are none of png, jpg, webp, avif and mvt",
            ));
        };
        let mut this = Self {
            path: path.to_owned(),
            metadata: metadata(&header, format),
            file,
            header,
            root,
        };
        let json = this.read(&this.header.metadata, MAX_METADATA_BYTES)?;
        if !json.is_empty() {
            let what = "the metadata";
            let json = inflate(&json, this.header.gzipped, MAX_METADATA_BYTES, what);
            let json = serde_json::from_slice(&json.map_err(wrong)?);
            this.metadata.absorb(json.map_err(|error| {
                ArchiveError::content(path, format!("its metadata are no JSON object: {error}"))
            })?);
        }
        Ok(this)
    }

    /// Reads a part of the file that is not larger than this.
    fn read(&self, range: &Range<u64>, most: usize) -> Result<Bytes, ArchiveError> {
        let length = range.end - range.start;
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= most);
        let Some(length) = length else {
            let said = format!("something in it has more than {most} bytes");
            return Err(ArchiveError::content(&self.path, said));
        };
        let mut bytes = vec![0; length];
        self.file
            .read_exact_at(&mut bytes, range.start)
            .map_err(ArchiveError::io(&self.path, "read it"))?;
        Ok(bytes.into())
    }

    fn at(&self, entry: &Entry, most: usize) -> Result<Bytes, ArchiveError> {
        let place = self.header.place(entry);
        self.read(
            &place.map_err(|error| ArchiveError::content(&self.path, error))?,
            most,
        )
    }
}

fn metadata(header: &Header, format: TileFormat) -> ArchiveMetadata {
    ArchiveMetadata {
        encoding: header.compression.into(),
        minzoom: header.minzoom,
        maxzoom: header.maxzoom,
        bounds: header.bounds,
        center: Some(header.center),
        ..ArchiveMetadata::new(format)
    }
}

impl ArchiveReader for Pmtiles {
    fn metadata(&self) -> &ArchiveMetadata {
        &self.metadata
    }

    fn count(&self) -> Option<u64> {
        self.header.tiles
    }

    fn tiles(&self) -> Tiles<'_> {
        Box::new(Walk {
            archive: self,
            open: vec![(self.root.clone(), 0)],
            run: None,
            next: 0,
        })
    }
}

/// Tiles are some kilobytes: what is larger would be held in memory whole.
const MAX_TILE_BYTES: usize = 64 << 20;

/// A walk through the directories, depth first: as many are held as lie above each other.
struct Walk<'a> {
    archive: &'a Pmtiles,
    /// From the root downwards: each directory, and its entry that comes next.
    open: Vec<(Directory, usize)>,
    /// What is left of a run of tiles with one content.
    run: Option<(Range<u64>, Bytes)>,
    /// No tile below this number is still to come: a directory that goes back would never end.
    next: u64,
}

impl Walk<'_> {
    fn step(&mut self) -> Result<Option<(TileCoord, Bytes)>, ArchiveError> {
        let wrong = |what: &str| ArchiveError::content(&self.archive.path, what);
        loop {
            if let Some((ids, body)) = &mut self.run {
                if let Some(id) = ids.next() {
                    let coord = tile_of(id).ok_or_else(|| wrong("it has tiles above zoom 30"))?;
                    return Ok(Some((coord, body.clone())));
                }
                self.run = None;
            }
            let depth = self.open.len();
            let Some((directory, at)) = self.open.last_mut() else {
                return Ok(None);
            };
            let Some(entry) = directory.entries().get(*at).copied() else {
                self.open.pop();
                continue;
            };
            *at += 1;
            if entry.id < self.next {
                return Err(wrong("its directories are out of order"));
            }
            if entry.is_leaf() {
                if depth > MAX_LEAF_DEPTH {
                    return Err(wrong("its directories lie too deep"));
                }
                let stored = self.archive.at(&entry, MAX_LEAF_BYTES)?;
                let leaf = Directory::read(&stored, self.archive.header.gzipped)
                    .map_err(|error| ArchiveError::content(&self.archive.path, error))?;
                // A leaf without entries goes on nowhere, but would let a loop stand still.
                if leaf.entries().is_empty() {
                    return Err(wrong("a leaf directory is empty"));
                }
                self.open.push((leaf, 0));
            } else {
                let body = self.archive.at(&entry, MAX_TILE_BYTES)?;
                self.next = entry.end();
                self.run = Some((entry.id..entry.end(), body));
            }
        }
    }
}

/// As stored; it inflates to [`crate::tile::pmtiles::MAX_DIRECTORY_BYTES`] at most.
const MAX_LEAF_BYTES: usize = crate::tile::pmtiles::MAX_DIRECTORY_BYTES;

impl Iterator for Walk<'_> {
    type Item = Result<(TileCoord, Bytes), ArchiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.open.clear();
            self.run = None;
        }
        step.transpose()
    }
}
