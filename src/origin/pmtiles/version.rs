//! One version of an archive: its validator, header and root directory, and the leaves that were read.

use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;

use tokio::time::Instant;

use super::leaves::Leaves;
use super::merge::{Merge, Trouble};
use super::{Asked, RangeReply, RangeRequest, RangeSource};
use crate::origin::{OriginError, OriginErrorKind, OriginValidator};
use crate::tile::pmtiles::{
    Directory, Entry, FIRST_BYTES, Header, MAX_DIRECTORY_BYTES, MAX_LEAF_DEPTH, PmtilesError,
};
use crate::tile::{Bounds, Tileset};

/// What is known of one version.
pub(super) struct Version {
    pub(super) key: String,
    pub(super) validator: OriginValidator,
    pub(super) last_modified: Option<u64>,
    pub(super) header: Header,
    root: Directory,
    leaves: Leaves,
    pub(super) merge: Merge,
}

impl Version {
    /// Reads the header and the root directory: one range.
    pub(super) async fn open(
        source: &impl RangeSource,
        tileset: &Arc<Tileset>,
        until: Instant,
    ) -> Result<Self, OriginError> {
        let key = tileset.place().key.archive().unwrap_or_default().to_owned();
        let request = RangeRequest {
            tileset: Arc::clone(tileset),
            key: key.clone(),
            range: 0..FIRST_BYTES as u64,
            only: None,
            unless: None,
            deadline: until.saturating_duration_since(Instant::now()),
        };
        let part = match source.read(request).await? {
            RangeReply::Part(part) => part,
            // Never 'no such tile': that would be believed of all of them.
            RangeReply::NotFound | RangeReply::Changed | RangeReply::NotModified => {
                let said = "there is no such object: correct the tileset's `archive`";
                let detail = format!("{}: {said}", name(tileset, &key));
                return Err(OriginError::new(OriginErrorKind::Denied, detail));
            }
        };
        let wrong = |error: PmtilesError| {
            let detail = format!("{}: {error}", name(tileset, &key));
            OriginError::of_object(OriginErrorKind::Server, detail)
        };
        let header = Header::read(&part.body).map_err(wrong)?;
        for section in [&header.root, &header.leaves, &header.data] {
            if section.end > part.size {
                let said = format!(
                    "{}: it is cut off: its header promises {} bytes, and it has {}; upload it again",
                    name(tileset, &key),
                    section.end,
                    part.size
                );
                return Err(OriginError::of_object(OriginErrorKind::Truncated, said));
            }
        }
        let root = header.root_directory(&part.body).map_err(wrong)?;
        compare(tileset, &header).map_err(|said| {
            let detail = format!("{}: {said}", name(tileset, &key));
            OriginError::of_object(OriginErrorKind::Server, detail)
        })?;
        Ok(Self {
            key,
            validator: part.validator,
            last_modified: part.last_modified,
            header,
            root,
            leaves: Leaves::default(),
            merge: Merge::default(),
        })
    }

    /// The validator of what lies there: the archive's, and where.
    pub(super) fn validator_of(&self, place: &Range<u64>) -> Option<OriginValidator> {
        let (etag, start) = (&self.validator, place.start);
        OriginValidator::new(&format!("{etag}@{start}+{}", place.end - start))
    }

    /// Trouble that is this archive's own.
    pub(super) fn broken(
        &self,
        tileset: &Tileset,
        kind: OriginErrorKind,
        what: impl Display,
    ) -> Trouble {
        let detail = format!("{}: {what}", name(tileset, &self.key));
        Trouble::Failed(OriginError::of_object(kind, detail))
    }
}

fn name(tileset: &Tileset, key: &str) -> String {
    format!("archive s3://{}/{key}", tileset.place().bucket)
}

impl<S: RangeSource> Asked<'_, S> {
    /// Where a tile lies in the archive.
    pub(super) async fn find(
        &self,
        version: &Version,
        id: u64,
    ) -> Result<Option<Range<u64>>, Trouble> {
        let wrong = |error: PmtilesError| {
            version.broken(&self.request.tileset, OriginErrorKind::Server, error)
        };
        let Some(mut entry) = version.root.find(id).copied() else {
            return Ok(None);
        };
        for _ in 0..=MAX_LEAF_DEPTH {
            let place = version.header.place(&entry).map_err(wrong)?;
            if !entry.is_leaf() {
                return Ok(Some(place));
            }
            let read = || self.leaf(version, &entry, place);
            let leaf = version.leaves.get(entry.offset, read).await?;
            match leaf.find(id) {
                None => return Ok(None),
                Some(next) => entry = *next,
            }
        }
        Err(wrong(PmtilesError::Directory("they lie too deep")))
    }

    async fn leaf(
        &self,
        version: &Version,
        entry: &Entry,
        place: Range<u64>,
    ) -> Result<Directory, Trouble> {
        let wrong = |error: PmtilesError| {
            version.broken(&self.request.tileset, OriginErrorKind::Server, error)
        };
        if entry.length as usize > MAX_DIRECTORY_BYTES {
            let length = u64::from(entry.length);
            return Err(wrong(PmtilesError::TooLarge(
                "a directory",
                length,
                MAX_DIRECTORY_BYTES,
            )));
        }
        let stored = self.read(version, place).await?;
        Directory::read(&stored, version.header.gzipped).map_err(wrong)
    }
}

/// Compares an archive with what the configuration says of its tileset. Another format is an error;
/// what makes a map worse is a warning.
fn compare(tileset: &Tileset, header: &Header) -> Result<(), String> {
    match header.format {
        Some(format) if format != tileset.format() => {
            return Err(format!(
                "its tiles are {}, and the tileset's `format` says {}: correct one of them",
                format.extension(),
                tileset.format().extension()
            ));
        }
        Some(_) => {}
        None => tracing::warn!(
            tileset = tileset.name(),
            "the archive does not say what its tiles are; they are served as the tileset's `format`"
        ),
    }
    let (min, max) = (header.minzoom, header.maxzoom);
    if (min, max) != (tileset.minzoom(), tileset.maxzoom()) {
        tracing::warn!(
            tileset = tileset.name(),
            "the archive has zooms {min} to {max}, the tileset says {} to {}: set `minzoom = {min}` and \
             `maxzoom = {max}`, or maps ask for tiles that are not there instead of enlarging those that are",
            tileset.minzoom(),
            tileset.maxzoom()
        );
    }
    if let Some(bounds) = header.bounds
        && cuts(tileset.bounds(), bounds)
    {
        tracing::warn!(
            tileset = tileset.name(),
            "the archive's area is {:?}, the tileset's `bounds` leave out some of it",
            bounds.to_array()
        );
    }
    Ok(())
}

/// Whether `bounds` leave out something of an archive's area; a rounded edge is none.
fn cuts(bounds: Bounds, area: Bounds) -> bool {
    const ROUNDED: f64 = 0.001;
    let [west, south, east, north] = bounds.to_array();
    let [w, s, e, n] = area.to_array();
    // Across the antimeridian there is no order to compare by.
    west <= east
        && (w < west - ROUNDED || s < south - ROUNDED || e > east + ROUNDED || n > north + ROUNDED)
}
