//! The PMTiles format, version 3: header, directories and tile numbers, read from bytes that may be wrong.
//!
//! Invariant: nothing in the bytes makes this panic, loop or take more memory than its bounds; an entry
//! lies inside its section. The header's meaning and the numbers along the Hilbert curve are the `pmtiles`
//! crate's. Directories are read here: the crate inflates them without a bound and shows no entry's place,
//! which is what a validator, merged ranges and a walk in bounded memory need. The tests compare the two.
//! Left out on purpose: any I/O. `archive` reads files, `origin::pmtiles` reads ranges.
//!
//! Source: github.com/protomaps/PMTiles/blob/main/spec/v3/spec.md

use std::io::Read as _;
use std::ops::Range;

use bytes::Bytes;
use pmtiles::{Compression, TileId, TileType};

use super::{Bounds, TileCoord, TileFormat};

/// The header's length.
pub const HEADER_BYTES: usize = 127;
/// Header and root directory end here at the latest.
pub const FIRST_BYTES: usize = 16_384;
/// The largest directory that is inflated. A leaf of a planet's archive has about a megabyte.
pub const MAX_DIRECTORY_BYTES: usize = 16 << 20;
/// The largest metadata that is inflated.
pub const MAX_METADATA_BYTES: usize = 16 << 20;
/// How many leaf directories lie between the root and a tile at most. Writers make one.
pub const MAX_LEAF_DEPTH: usize = 4;

/// Why bytes are no archive that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PmtilesError {
    /// Not PMTiles, or not version 3, or a header that contradicts itself.
    #[error("no PMTiles version 3: {0}")]
    Header(String),
    /// Compressed in a way that is not read here.
    #[error(
        "its {0} compressed with {1}, and {2} read here: write it again, as `pmtiles convert` and tippecanoe do"
    )]
    Compression(&'static str, &'static str, &'static str),
    /// A directory that contradicts itself.
    #[error("a directory is broken: {0}")]
    Directory(&'static str),
    /// Larger than anything that is read.
    #[error("{0} of {1} bytes or more is not read: at most {2} are")]
    TooLarge(&'static str, u64, usize),
    /// Compressed bytes that are not.
    #[error("{0} cannot be decompressed")]
    Inflate(&'static str),
}

/// How tiles are compressed, as the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TileCompression {
    /// The header does not know.
    Unknown,
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Brotli.
    Brotli,
    /// Zstandard.
    Zstd,
}

impl TileCompression {
    /// As `Content-Encoding` calls it (RFC 9110 §8.4.1).
    pub fn content_encoding(self) -> Option<&'static str> {
        match self {
            Self::Unknown | Self::None => None,
            Self::Gzip => Some("gzip"),
            Self::Brotli => Some("br"),
            Self::Zstd => Some("zstd"),
        }
    }
}

/// What the header says.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Where the root directory is.
    pub root: Range<u64>,
    /// Where the metadata are.
    pub metadata: Range<u64>,
    /// Where the leaf directories are.
    pub leaves: Range<u64>,
    /// Where the tiles are.
    pub data: Range<u64>,
    /// Whether directories and metadata are compressed with gzip.
    pub gzipped: bool,
    /// How many tiles there are, where it says so.
    pub tiles: Option<u64>,
    /// How they are compressed.
    pub compression: TileCompression,
    /// What they are, where that is something that is served here.
    pub format: Option<TileFormat>,
    /// The first zoom.
    pub minzoom: u8,
    /// The last zoom.
    pub maxzoom: u8,
    /// The area, where it is one.
    pub bounds: Option<Bounds>,
    /// Longitude, latitude and zoom to begin with.
    pub center: (f64, f64, u8),
}

impl Header {
    /// Reads it from the archive's first bytes.
    pub fn read(first: &[u8]) -> Result<Self, PmtilesError> {
        let bytes = Bytes::copy_from_slice(&first[..first.len().min(HEADER_BYTES)]);
        let known = pmtiles::Header::try_from_bytes(bytes)
            .map_err(|error| PmtilesError::Header(error.to_string()))?;
        if known.spec_version() != 3 {
            let said = format!("it is version {}", known.spec_version());
            return Err(PmtilesError::Header(said));
        }
        let section = |at: usize| {
            let number = |at: usize| {
                let bytes = first.get(at..at + 8)?;
                Some(u64::from_le_bytes(bytes.try_into().ok()?))
            };
            let start = number(at)?;
            Some(start..start.checked_add(number(at + 8)?)?)
        };
        let section = |at: usize, name: &str| {
            section(at)
                .ok_or_else(|| PmtilesError::Header(format!("the place of its {name} is no place")))
        };
        let gzipped = match known.internal_compression() {
            Compression::None => false,
            Compression::Gzip => true,
            other => {
                let word = word(other);
                return Err(PmtilesError::Compression(
                    "directories are",
                    word,
                    "gzip or none are",
                ));
            }
        };
        Ok(Self {
            root: section(8, "root directory")?,
            metadata: section(24, "metadata")?,
            leaves: section(40, "leaf directories")?,
            data: section(56, "tiles")?,
            gzipped,
            tiles: known.n_addressed_tiles().map(u64::from),
            compression: match known.tile_compression {
                Compression::Unknown => TileCompression::Unknown,
                Compression::None => TileCompression::None,
                Compression::Gzip => TileCompression::Gzip,
                Compression::Brotli => TileCompression::Brotli,
                Compression::Zstd => TileCompression::Zstd,
            },
            format: match known.tile_type {
                TileType::Png => Some(TileFormat::Png),
                TileType::Jpeg => Some(TileFormat::Jpg),
                TileType::Webp => Some(TileFormat::Webp),
                TileType::Avif => Some(TileFormat::Avif),
                TileType::Mvt => Some(TileFormat::Mvt),
                TileType::Mlt | TileType::Unknown => None,
            },
            minzoom: known.min_zoom,
            maxzoom: known.max_zoom,
            bounds: Bounds::new([
                known.min_longitude,
                known.min_latitude,
                known.max_longitude,
                known.max_latitude,
            ])
            .ok(),
            center: (
                known.center_longitude,
                known.center_latitude,
                known.center_zoom,
            ),
        })
    }

    /// The root directory, out of the archive's first [`FIRST_BYTES`].
    pub fn root_directory(&self, first: &[u8]) -> Result<Directory, PmtilesError> {
        let range = |range: &Range<u64>| {
            let start = usize::try_from(range.start).ok()?;
            first.get(start..usize::try_from(range.end).ok()?)
        };
        if self.root.start < HEADER_BYTES as u64 || self.root.end > FIRST_BYTES as u64 {
            return Err(PmtilesError::Directory(
                "the root is not in the first 16 KiB",
            ));
        }
        let bytes = range(&self.root).ok_or(PmtilesError::Directory("the root is cut off"))?;
        Directory::read(bytes, self.gzipped)
    }

    /// Where a leaf directory or a tile lies in the archive.
    pub fn place(&self, entry: &Entry) -> Result<Range<u64>, PmtilesError> {
        let section = if entry.is_leaf() {
            &self.leaves
        } else {
            &self.data
        };
        let start = section.start.checked_add(entry.offset);
        let end = start.and_then(|start| start.checked_add(u64::from(entry.length)));
        match (start, end) {
            (Some(start), Some(end)) if end <= section.end => Ok(start..end),
            _ => Err(PmtilesError::Directory("an entry ends outside its section")),
        }
    }
}

fn word(compression: Compression) -> &'static str {
    match compression {
        Compression::Unknown => "something unknown",
        Compression::None => "nothing",
        Compression::Gzip => "gzip",
        Compression::Brotli => "Brotli",
        Compression::Zstd => "Zstandard",
    }
}

/// One line of a directory: tiles of one content, or a leaf directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The first tile's number along the curve.
    pub id: u64,
    /// Where it is in its section.
    pub offset: u64,
    /// How long it is, at least 1.
    pub length: u32,
    /// How many tiles from `id` on have this content; 0: it is a leaf directory.
    pub run: u32,
}

impl Entry {
    /// Whether it is a leaf directory.
    pub fn is_leaf(&self) -> bool {
        self.run == 0
    }

    /// The number behind its last tile; of a leaf, its own.
    pub fn end(&self) -> u64 {
        self.id.saturating_add(u64::from(self.run))
    }
}

/// A directory: entries in the order of their tiles, none in another's run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory(Box<[Entry]>);

impl Directory {
    /// Reads a directory as it is in the archive.
    pub fn read(stored: &[u8], gzipped: bool) -> Result<Self, PmtilesError> {
        let bytes = inflate(stored, gzipped, MAX_DIRECTORY_BYTES, "a directory")?;
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Result<Self, PmtilesError> {
        const ORDER: PmtilesError = PmtilesError::Directory("entries are out of order or overlap");
        let mut rest = bytes;
        let count = usize::try_from(varint(&mut rest)?).unwrap_or(usize::MAX);
        // Four numbers of at least a byte each.
        if count > rest.len() / 4 {
            return Err(PmtilesError::Directory("it says more entries than it has"));
        }
        let nothing = Entry {
            id: 0,
            offset: 0,
            length: 0,
            run: 0,
        };
        let mut entries = vec![nothing; count].into_boxed_slice();
        let mut id = 0u64;
        for (nth, entry) in entries.iter_mut().enumerate() {
            let step = varint(&mut rest)?;
            if nth > 0 && step == 0 {
                return Err(ORDER);
            }
            id = id.checked_add(step).ok_or(ORDER)?;
            entry.id = id;
        }
        for entry in &mut entries {
            entry.run = small(&mut rest)?;
        }
        for entry in &mut entries {
            entry.length = small(&mut rest)?;
            if entry.length == 0 {
                return Err(PmtilesError::Directory("an entry is empty"));
            }
        }
        let mut end = None;
        for entry in &mut entries {
            entry.offset = match (varint(&mut rest)?, end) {
                (0, Some(end)) => end,
                (0, None) => {
                    return Err(PmtilesError::Directory("the first entry follows none"));
                }
                (offset, _) => offset - 1,
            };
            let behind = entry.offset.checked_add(u64::from(entry.length));
            end = Some(behind.ok_or(PmtilesError::Directory("an offset is no offset"))?);
        }
        let overlap = entries.windows(2).any(|two| two[0].end() > two[1].id);
        let last = entries.iter().map(Entry::end).max().unwrap_or(0);
        if overlap || last > pmtiles::MAX_TILE_ID + 1 {
            return Err(ORDER);
        }
        Ok(Self(entries))
    }

    /// What it says of this tile: its entry, or the leaf directory to look into.
    pub fn find(&self, id: u64) -> Option<&Entry> {
        let behind = self.0.partition_point(|entry| entry.id <= id);
        let entry = self.0.get(behind.checked_sub(1)?)?;
        (entry.is_leaf() || id < entry.end()).then_some(entry)
    }

    /// Its entries, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// What it takes in memory.
    pub fn weight(&self) -> usize {
        size_of_val(&*self.0) + size_of::<Self>()
    }
}

/// A tile's number along the curve.
pub fn tile_id(coord: TileCoord) -> u64 {
    // Ours are tiles of the format's too: it has one zoom more.
    pmtiles::TileCoord::new(coord.z(), coord.x(), coord.y())
        .map_or(u64::MAX, |coord| TileId::from(coord).value())
}

/// The tile of this number; `None` above zoom 30.
pub fn tile_of(id: u64) -> Option<TileCoord> {
    let coord = pmtiles::TileCoord::from(TileId::new(id).ok()?);
    TileCoord::new(coord.z(), coord.x(), coord.y())
}

/// Inflates a directory or the metadata, to `most` bytes at most.
pub fn inflate(
    stored: &[u8],
    gzipped: bool,
    most: usize,
    what: &'static str,
) -> Result<Vec<u8>, PmtilesError> {
    let too_large = |bytes: usize| PmtilesError::TooLarge(what, bytes as u64, most);
    if stored.len() > most {
        return Err(too_large(stored.len()));
    }
    if !gzipped {
        return Ok(stored.to_vec());
    }
    let mut inflated = Vec::new();
    // A byte more than allowed tells too many from just enough.
    flate2::read::MultiGzDecoder::new(stored)
        .take(most as u64 + 1)
        .read_to_end(&mut inflated)
        .map_err(|_| PmtilesError::Inflate(what))?;
    if inflated.len() > most {
        return Err(too_large(inflated.len()));
    }
    Ok(inflated)
}

fn varint(rest: &mut &[u8]) -> Result<u64, PmtilesError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, behind) = rest
            .split_first()
            .ok_or(PmtilesError::Directory("it is cut off"))?;
        *rest = behind;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(PmtilesError::Directory("a number is too long"))
}

fn small(rest: &mut &[u8]) -> Result<u32, PmtilesError> {
    u32::try_from(varint(rest)?).map_err(|_| PmtilesError::Directory("a number is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use std::io::Write as _;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_directory_that_inflates_without_end_is_refused() {
        let bomb = gzip(&vec![0; MAX_DIRECTORY_BYTES + 1]);
        assert!(bomb.len() < 100_000);
        let refused = Directory::read(&bomb, true).unwrap_err();
        assert!(
            matches!(refused, PmtilesError::TooLarge("a directory", ..)),
            "{refused}"
        );
    }

    #[test]
    fn numbers_are_those_of_the_specification() {
        for (z, x, y, id) in [
            (0, 0, 0, 0),
            (1, 1, 0, 4),
            (2, 1, 3, 11),
            (3, 3, 0, 26),
            (20, 0, 0, 366_503_875_925),
        ] {
            let coord = TileCoord::new(z, x, y).unwrap();
            assert_eq!(tile_id(coord), id);
            assert_eq!(tile_of(id), Some(coord));
        }
        assert_eq!(tile_of(pmtiles::MAX_TILE_ID), None, "zoom 31");
        assert_eq!(tile_of(u64::MAX), None);
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_are_it_says_what_the_crate_says_or_less(
            bytes in proptest::collection::vec(prop_oneof![3 => 0u8..4, 1 => any::<u8>()], 0..64),
            asked in proptest::collection::vec(0u64..300, 8),
        ) {
            let theirs = pmtiles::Directory::try_from(Bytes::from(bytes.clone()));
            match Directory::parse(&bytes) {
                // What overlaps is refused here alone.
                Err(_) => {}
                Ok(ours) => {
                    let theirs = theirs.unwrap();
                    for id in asked {
                        let there = theirs.find_tile_id(TileId::new(id).unwrap());
                        prop_assert_eq!(ours.find(id).is_some(), there.is_some());
                        let run = there.map_or(0, |e| e.iter_coords().count());
                        prop_assert_eq!(ours.find(id).map_or(0, |e| e.run as usize), run);
                    }
                }
            }
        }

        #[test]
        fn a_header_of_any_bytes_is_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let magic = b"PMTiles\x03";
            let whole = bytes.len().min(magic.len());
            bytes[..whole].copy_from_slice(&magic[..whole]);
            if let Ok(header) = Header::read(&bytes) {
                let _ = header.root_directory(&bytes);
            }
        }
    }
}
