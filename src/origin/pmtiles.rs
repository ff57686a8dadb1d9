//! Tiles out of a PMTiles archive in the bucket: an object of any size, read by ranges.
//!
//! Invariant: whatever a reply is made of, header, directories, tile, comes from one version of the
//! object. Every range is asked for with `If-Match`; an archive that was replaced is read anew from its
//! header on. 'No such tile' and 'not modified' are said after the object was seen to be the same still,
//! in a request that began after the question.
//! Left out on purpose: what is asked at once and when to stop (`origin::limits`), credentials, retries
//! and what S3's words mean (`origin::s3`), and a checksum of tiles: PMTiles has none. A byte that rots
//! within a tile is found by nobody; one in a directory or the header mostly contradicts the rest.
//!
//! The format is `tile::pmtiles`, which says why the `pmtiles` crate's own reader is not used.

mod leaves;
mod merge;
mod version;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use self::merge::Trouble;
use self::version::Version;
use super::{
    ErrorScope, Origin, OriginError, OriginErrorKind, OriginFuture, OriginReply, OriginRequest,
    OriginTile, OriginValidator, encoding,
};
use crate::tile::pmtiles::tile_id;
use crate::tile::{Scale, Tileset};

/// A part of an object that is wanted.
#[derive(Debug, Clone)]
pub struct RangeRequest {
    /// Whose bucket and credentials.
    pub tileset: Arc<Tileset>,
    /// The object's key.
    pub key: String,
    /// Which bytes; at least one.
    pub range: Range<u64>,
    /// Of this version alone: `If-Match`.
    pub only: Option<OriginValidator>,
    /// Of any other version: `If-None-Match`.
    pub unless: Option<OriginValidator>,
    /// How long it may take, retries included.
    pub deadline: Duration,
}

/// A part of an object: all that was asked for, or up to the object's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The bytes.
    pub body: Bytes,
    /// The version that they are of.
    pub validator: OriginValidator,
    /// When it was written, in seconds since the epoch.
    pub last_modified: Option<u64>,
    /// How large the whole object is.
    pub size: u64,
}

/// What something with ranges can say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RangeReply {
    /// The bytes.
    Part(Part),
    /// It is the version that was excepted.
    NotModified,
    /// It is another version than was asked for.
    Changed,
    /// There is no such object.
    NotFound,
}

/// The future of a part.
pub type RangeFuture<'a> =
    Pin<Box<dyn Future<Output = Result<RangeReply, OriginError>> + Send + 'a>>;

/// Something that objects can be read from in parts.
pub trait RangeSource: Send + Sync + 'static {
    /// Asks for one part.
    fn read(&self, request: RangeRequest) -> RangeFuture<'_>;
}

impl<S: RangeSource + ?Sized> RangeSource for Arc<S> {
    fn read(&self, request: RangeRequest) -> RangeFuture<'_> {
        (**self).read(request)
    }
}

/// The largest tile that is read, as of single objects: what an archive says of lengths is anybody's word.
const MAX_TILE_BYTES: u64 = 64 << 20;

/// How often a version is forgotten for being broken: not for every tile that finds out.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// How often an archive may be replaced while one tile is fetched.
const MAX_VERSIONS: u32 = 3;

/// The origin that reads tiles out of archives.
pub struct PmtilesOrigin<S> {
    source: S,
    /// By tileset, as many as the configuration has.
    archives: Mutex<HashMap<Box<str>, Arc<Archive>>>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    reads: AtomicU64,
    joined: AtomicU64,
    opened: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveStats {
    /// Ranges asked for, confirmations included, retries not.
    pub reads: u64,
    /// Ranges that came with a neighbour's.
    pub joined: u64,
    /// How often an archive's header was read.
    pub opened: u64,
}

/// One tileset's archive.
#[derive(Default)]
struct Archive {
    current: Mutex<Option<Arc<Version>>>,
    /// Held by the one who reads the header; the others wait for what it finds.
    opening: tokio::sync::Mutex<()>,
    /// When it could not be opened last, under which key, and why.
    failed: Mutex<Option<(Instant, Box<str>, OriginError)>>,
    /// When a version was last forgotten for being broken.
    forgotten: Mutex<Option<Instant>>,
}

impl Archive {
    fn current(&self) -> Option<Arc<Version>> {
        lock(&self.current).clone()
    }

    /// Why it could not be opened since then. Who waited for somebody else's attempt has its outcome: one after
    /// the other, they would hold the origin's slots for as long as anybody asks.
    fn failure(&self, since: Instant, key: Option<&str>) -> Option<OriginError> {
        let failed = lock(&self.failed);
        let (at, of, error) = failed.as_ref()?;
        (*at >= since && key == Some(of)).then(|| error.clone())
    }

    /// Forgets a version that is broken, not for every tile that finds out: what is kept of it serves the others.
    fn forget_broken(&self, version: &Arc<Version>) {
        let mut forgotten = lock(&self.forgotten);
        if forgotten.is_none_or(|at| at.elapsed() >= FORGET_EVERY) {
            *forgotten = Some(Instant::now());
            self.forget(version);
        }
    }

    /// Forgets a version that is past, if nobody has done so already.
    fn forget(&self, past: &Arc<Version>) {
        let mut current = lock(&self.current);
        if current.as_ref().is_some_and(|held| Arc::ptr_eq(held, past)) {
            *current = None;
        }
    }
}

impl<S> fmt::Debug for PmtilesOrigin<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PmtilesOrigin").finish_non_exhaustive()
    }
}

impl<S: RangeSource> PmtilesOrigin<S> {
    /// An origin over this source.
    pub fn new(source: S) -> Self {
        Self {
            source,
            archives: Mutex::default(),
            counters: Counters::default(),
        }
    }

    /// The counters now.
    pub fn stats(&self) -> ArchiveStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ArchiveStats {
            reads: read(&self.counters.reads),
            joined: read(&self.counters.joined),
            opened: read(&self.counters.opened),
        }
    }

    async fn get(&self, request: OriginRequest) -> Result<OriginReply, OriginError> {
        let until = Instant::now() + request.deadline;
        let result = tokio::time::timeout_at(until, self.get_until(&request, until)).await;
        result.unwrap_or_else(|_| {
            let detail = format!(
                "archive of {}: no answer in {:?}",
                request.tileset.name(),
                request.deadline
            );
            Err(OriginError::new(OriginErrorKind::Deadline, detail))
        })
    }

    async fn get_until(
        &self,
        request: &OriginRequest,
        until: Instant,
    ) -> Result<OriginReply, OriginError> {
        let archive = {
            let mut archives = lock(&self.archives);
            Arc::clone(archives.entry(request.tileset.name().into()).or_default())
        };
        for _ in 0..MAX_VERSIONS {
            let version = self.open(&archive, request, until).await?;
            let asked = Asked {
                source: &self.source,
                counters: &self.counters,
                request,
                until,
            };
            match asked.tile(&version).await {
                Ok(reply) => return Ok(reply),
                Err(Trouble::Changed) => {
                    tracing::info!(
                        tileset = request.tileset.name(),
                        "the archive was replaced: reading it anew"
                    );
                    archive.forget(&version);
                }
                Err(Trouble::Failed(error)) => {
                    // What is kept of a broken archive would be said of the right one that replaces it.
                    if error.scope == ErrorScope::Object {
                        archive.forget_broken(&version);
                    }
                    return Err(error);
                }
            }
        }
        let detail = format!(
            "archive of {}: replaced {MAX_VERSIONS} times while one tile was read",
            request.tileset.name()
        );
        Err(OriginError::of_object(OriginErrorKind::Server, detail))
    }

    /// The version that is known, or the one that is there.
    async fn open(
        &self,
        archive: &Archive,
        request: &OriginRequest,
        until: Instant,
    ) -> Result<Arc<Version>, OriginError> {
        // A tileset whose `version` was switched has another key now.
        let key = request.tileset.place().key.archive();
        let current = || archive.current().filter(|v| Some(&*v.key) == key);
        if let Some(version) = current() {
            return Ok(version);
        }
        let arrived = Instant::now();
        let _turn = archive.opening.lock().await;
        if let Some(version) = current() {
            return Ok(version);
        }
        if let Some(error) = archive.failure(arrived, key) {
            return Err(error);
        }
        self.counters.opened.fetch_add(1, Ordering::Relaxed);
        self.counters.reads.fetch_add(1, Ordering::Relaxed);
        let opened = Version::open(&self.source, &request.tileset, until).await;
        let failed = match &opened {
            // That was this request's own time.
            Err(error) if error.kind == OriginErrorKind::Deadline => None,
            Err(error) => Some((
                Instant::now(),
                key.unwrap_or_default().into(),
                error.clone(),
            )),
            Ok(_) => None,
        };
        *lock(&archive.failed) = failed;
        let version = Arc::new(opened?);
        *lock(&archive.current) = Some(Arc::clone(&version));
        Ok(version)
    }
}

impl<S: RangeSource> Origin for PmtilesOrigin<S> {
    fn fetch(&self, request: OriginRequest) -> OriginFuture<'_> {
        Box::pin(self.get(request))
    }
}

/// One request, with what it needs to ask.
struct Asked<'a, S> {
    source: &'a S,
    counters: &'a Counters,
    request: &'a OriginRequest,
    until: Instant,
}

impl<S: RangeSource> Asked<'_, S> {
    async fn tile(&self, version: &Version) -> Result<OriginReply, Trouble> {
        let place = match self.request.scale {
            Scale::One => self.find(version, tile_id(self.request.coord)).await?,
            // An archive has one density.
            Scale::Two => None,
        };
        let Some(place) = place else {
            self.confirm(version).await?;
            return Ok(OriginReply::NotFound);
        };
        let validator = version.validator_of(&place);
        if self.request.validator.is_some() && self.request.validator == validator {
            self.confirm(version).await?;
            return Ok(OriginReply::NotModified);
        }
        let length = place.end - place.start;
        if length > MAX_TILE_BYTES {
            return Err(version.broken(
                &self.request.tileset,
                OriginErrorKind::Server,
                format_args!("a tile of {length} bytes is none"),
            ));
        }
        let body = self.read(version, place).await?;
        let declared = version.header.compression.content_encoding();
        let encoding = encoding::detect(declared, &body).map_err(|unknown| {
            version.broken(&self.request.tileset, OriginErrorKind::Server, unknown)
        })?;
        Ok(OriginReply::Found(OriginTile {
            body,
            encoding,
            validator,
            last_modified: version.last_modified,
        }))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What is held are whole values: a panic leaves none half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
