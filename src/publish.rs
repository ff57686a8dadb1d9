//! Publishing: the tiles of an archive or a folder go to a tileset's bucket, under its key template.
//!
//! Invariant: an object is only ever written or removed where the template, at the version published, has a
//! tile. What is there with the same bytes is left alone, so that a run that was cut off is gone on with by
//! running it again. Memory is bounded by the objects there (32 bytes each), the tiles changed (8 bytes each)
//! and the uploads under way.
//! Left out on purpose: whom to tell (`cli`), and S3 itself (`aws::upload`).
//!
//! How a tile is known to be unchanged: size and MD5 as the listing's `ETag` says them. Where an `ETag` is no
//! MD5 (SSE-KMS, multipart), the SHA-256 that was noted with the object decides, at the price of a `HeadObject`.

mod md5;
mod switch;
mod there;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use aws_lc_rs::digest;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::there::{Compared, Destination, There};
use crate::archive::{ArchiveError, ArchiveReader, Encoding};
use crate::aws::upload::{Described, UploadError, Uploader};
use crate::shutdown::Shutdown;
use crate::tile::{Scale, TileCoord, TileFormat, Tileset};

pub use self::switch::{SwitchError, rewrite};

/// Failures that are told one by one.
const MOST_TOLD: usize = 100;
/// So many failures, and no success since the first, end the run.
const HOPELESS: u64 = 50;
/// What the server would not read.
const MAX_TILE: usize = 64 << 20;

/// What to publish to.
#[derive(Debug, Clone)]
pub struct Job {
    /// The bucket.
    pub uploader: Uploader,
    /// The tileset, at the version to publish.
    pub tileset: Arc<Tileset>,
    /// Uploads at once.
    pub concurrency: usize,
    /// Only look.
    pub dry_run: bool,
    /// Write what is there already, too.
    pub force: bool,
    /// Whether the source counts rows from the south.
    pub tms: bool,
}

/// What is being done, for who shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Listing what is there.
    Listing,
    /// Reading and uploading.
    Uploading,
    /// Removing.
    Pruning,
}

/// How far it has come.
#[derive(Debug, Default)]
pub struct Tally {
    phase: AtomicU8,
    /// Objects listed.
    pub listed: AtomicU64,
    /// Tiles that the source has; 0 where it does not know.
    pub total: AtomicU64,
    /// Tiles dealt with.
    pub done: AtomicU64,
    /// Of them: left alone.
    pub unchanged: AtomicU64,
    /// Of them: written.
    pub uploaded: AtomicU64,
    /// Bytes of these.
    pub bytes: AtomicU64,
    /// Of them, or of removals: failed.
    pub failed: AtomicU64,
    /// Objects to remove.
    pub to_remove: AtomicU64,
    /// Objects removed.
    pub removed: AtomicU64,
}

impl Tally {
    /// What is being done.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Listing,
            1 => Phase::Uploading,
            _ => Phase::Pruning,
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// Why a run ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// The source cannot be read on.
    #[error("{0}")]
    Source(#[from] ArchiveError),
    /// S3 would refuse everything.
    #[error("{0}")]
    Bucket(#[from] UploadError),
    /// Asked to.
    #[error("interrupted: run it again to go on")]
    Interrupted,
    /// The runtime is ending.
    #[error("the reading of the source ended by itself")]
    Reader,
}

/// What a run came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The first failures, in words.
    pub failures: Vec<String>,
    /// Tiles that were written, by their numbers.
    pub changed: Vec<u64>,
    /// What is there and not in the source.
    pub unwanted: Vec<TileCoord>,
    /// How many objects of the tileset were there before.
    pub there: usize,
    /// Tiles that the tileset's zooms or bounds leave out: nobody can ask for them.
    pub outside: u64,
    /// Why it ended early.
    pub stopped: Option<Stopped>,
}

impl Outcome {
    fn fail(&mut self, tally: &Tally, what: &impl ToString) {
        add(&tally.failed, 1);
        if self.failures.len() < MOST_TOLD {
            self.failures.push(what.to_string());
        }
    }
}

/// A tile on its way.
struct Parcel {
    coord: TileCoord,
    body: Bytes,
    compared: Compared,
}

/// What became of one.
enum Delivered {
    Uploaded(TileCoord, usize),
    Unchanged,
}

/// Uploads what is new or changed.
pub async fn upload(
    job: &Job,
    reader: Box<dyn ArchiveReader>,
    tally: &Arc<Tally>,
    mut ending: Shutdown,
) -> Outcome {
    let mut outcome = Outcome::default();
    tally.enter(Phase::Listing);
    let listed = tokio::select! {
        listed = listing(job, tally) => listed.map_err(Stopped::from),
        () = ending.asked() => Err(Stopped::Interrupted),
    };
    let there = match listed {
        Ok(there) => there,
        Err(stopped) => {
            outcome.stopped = Some(stopped);
            return outcome;
        }
    };
    outcome.there = there.len();
    tally
        .total
        .store(reader.count().unwrap_or(0), Ordering::Relaxed);
    tally.enter(Phase::Uploading);

    let brotli = reader.metadata().encoding == Encoding::Brotli;
    let (parcels, mut arriving) = mpsc::channel(job.concurrency * 2);
    let reading = {
        let (job, tally) = (job.clone(), tally.clone());
        tokio::task::spawn_blocking(move || read(&job, &*reader, there, &tally, &parcels))
    };
    let mut under_way = JoinSet::new();
    let mut failed_in_a_row = 0;
    outcome.stopped = loop {
        let parcel = tokio::select! {
            parcel = arriving.recv(), if under_way.len() < job.concurrency => parcel,
            Some(ended) = under_way.join_next() => {
                if let Some(stopped) = settle(ended, &mut outcome, tally, &mut failed_in_a_row) {
                    break Some(stopped);
                }
                continue;
            }
            () = ending.asked() => break Some(Stopped::Interrupted),
        };
        let Some(parcel) = parcel else { break None };
        under_way.spawn(deliver(job.clone(), parcel, brotli));
    };
    // What is under way is finished; nothing more is begun.
    drop(arriving);
    while let Some(ended) = under_way.join_next().await {
        let stopped = settle(ended, &mut outcome, tally, &mut failed_in_a_row);
        outcome.stopped = outcome.stopped.or(stopped);
    }
    match reading.await {
        Ok(Ok((there, outside))) => {
            outcome.outside = outside;
            if outcome.stopped.is_none() {
                outcome.unwanted = there.unwanted();
            }
        }
        Ok(Err(error)) => outcome.stopped = outcome.stopped.or(Some(error.into())),
        Err(_) => outcome.stopped = outcome.stopped.or(Some(Stopped::Reader)),
    }
    outcome
}

async fn listing(job: &Job, tally: &Tally) -> Result<There, UploadError> {
    let place = destination(&job.tileset);
    There::list(&job.uploader, &place, |listed| {
        tally.listed.store(listed as u64, Ordering::Relaxed);
    })
    .await
}

fn destination(tileset: &Tileset) -> Destination<'_> {
    Destination {
        key: &tileset.place().key,
        version: tileset.version(),
    }
}

/// Reads the source to its end, and hands on what has to be looked at. Blocks.
fn read(
    job: &Job,
    reader: &dyn ArchiveReader,
    mut there: There,
    tally: &Tally,
    parcels: &mpsc::Sender<Parcel>,
) -> Result<(There, u64), ArchiveError> {
    let mut outside = 0;
    for tile in reader.tiles() {
        let (coord, body) = tile?;
        let coord = if job.tms { flipped(coord) } else { coord };
        let address = crate::tile::TileAddress {
            z: coord.z().into(),
            x: coord.x(),
            y: coord.y(),
            scale: Scale::One,
        };
        outside += u64::from(job.tileset.admit(address).is_err());
        let compared = there.compare(coord, &body);
        if compared == Compared::Same && !job.force {
            add(&tally.unchanged, 1);
            add(&tally.done, 1);
            continue;
        }
        let parcel = Parcel {
            coord,
            body,
            compared,
        };
        // Nobody takes it: the run has ended.
        if parcels.blocking_send(parcel).is_err() {
            break;
        }
    }
    Ok((there, outside))
}

fn flipped(coord: TileCoord) -> TileCoord {
    TileCoord::new(coord.z(), coord.x(), coord.tms_y()).unwrap_or(coord)
}

async fn deliver(job: Job, parcel: Parcel, brotli: bool) -> Result<Delivered, UploadError> {
    let Parcel {
        coord,
        body,
        compared,
    } = parcel;
    let key = destination(&job.tileset).key(coord);
    let hash = hex(digest::digest(&digest::SHA256, &body).as_ref());
    if compared == Compared::Unsure
        && !job.force
        && job.uploader.noted_hash(&key).await?.as_ref() == Some(&hash)
    {
        return Ok(Delivered::Unchanged);
    }
    let format = job.tileset.format();
    let bytes = body.len();
    if bytes > MAX_TILE {
        return Err(job
            .uploader
            .refused(&key, "larger than the 64 MiB that a server reads"));
    }
    if !job.dry_run {
        let described = Described {
            content_type: format.content_type(),
            content_encoding: content_encoding(format, &body, brotli),
            hash: &hash,
        };
        job.uploader.put(&key, body, described).await?;
    }
    Ok(Delivered::Uploaded(coord, bytes))
}

/// A vector tile's compression, by its first bytes; Brotli has no sign, so there the archive's word counts.
fn content_encoding(format: TileFormat, body: &[u8], brotli: bool) -> Option<&'static str> {
    match Encoding::look(body) {
        _ if format.is_raster() => None,
        Encoding::Identity if brotli => Encoding::Brotli.content_encoding(),
        seen => seen.content_encoding(),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Counts what became of a tile. Some failures end the run.
fn settle(
    ended: Result<Result<Delivered, UploadError>, tokio::task::JoinError>,
    outcome: &mut Outcome,
    tally: &Tally,
    failed_in_a_row: &mut u64,
) -> Option<Stopped> {
    add(&tally.done, 1);
    let ended = match ended {
        Ok(ended) => ended,
        Err(error) => {
            outcome.fail(tally, &format!("an upload broke off: {error}"));
            return None;
        }
    };
    match ended {
        Ok(Delivered::Unchanged) => add(&tally.unchanged, 1),
        Ok(Delivered::Uploaded(coord, bytes)) => {
            add(&tally.uploaded, 1);
            add(&tally.bytes, bytes as u64);
            outcome.changed.push(coord.number());
        }
        Err(error) => {
            *failed_in_a_row += 1;
            outcome.fail(tally, &error);
            let hopeless = error.for_all || *failed_in_a_row >= HOPELESS;
            return hopeless.then_some(Stopped::Bucket(error));
        }
    }
    *failed_in_a_row = 0;
    None
}

/// Removes tiles from the bucket. What was removed is `changed` too.
pub async fn prune(job: &Job, outcome: &mut Outcome, tally: &Arc<Tally>, mut ending: Shutdown) {
    tally.enter(Phase::Pruning);
    let mut unwanted = std::mem::take(&mut outcome.unwanted).into_iter();
    tally
        .to_remove
        .store(unwanted.len() as u64, Ordering::Relaxed);
    let mut under_way = JoinSet::new();
    let mut stopped = None;
    loop {
        while stopped.is_none()
            && under_way.len() < job.concurrency
            && let Some(coord) = unwanted.next()
        {
            let job = job.clone();
            under_way.spawn(async move {
                let key = destination(&job.tileset).key(coord);
                if !job.dry_run {
                    job.uploader.delete(&key).await?;
                }
                Ok::<_, UploadError>(coord)
            });
        }
        let ended = tokio::select! {
            ended = under_way.join_next() => ended,
            () = ending.asked(), if stopped.is_none() => {
                stopped = Some(Stopped::Interrupted);
                continue;
            }
        };
        match ended {
            None => break,
            Some(Ok(Ok(coord))) => {
                add(&tally.removed, 1);
                outcome.changed.push(coord.number());
            }
            Some(Ok(Err(error))) => {
                outcome.fail(tally, &error);
                if error.for_all && stopped.is_none() {
                    stopped = Some(Stopped::Bucket(error));
                }
            }
            Some(Err(error)) => outcome.fail(tally, &format!("a removal broke off: {error}")),
        }
    }
    outcome.stopped = outcome.stopped.take().or(stopped);
}

/// Whether the bucket has at least one tile of the tileset at its version.
pub async fn is_there(uploader: &Uploader, tileset: &Tileset) -> Result<bool, UploadError> {
    let place = destination(tileset);
    let mut after = None;
    loop {
        let page = uploader.list(&place.prefix(), after).await?;
        if page.objects.iter().any(|o| place.tile_at(&o.key).is_some()) {
            return Ok(true);
        }
        after = page.next;
        if after.is_none() {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_vector_tiles_are_declared_compressed() {
        let gzip = [0x1f, 0x8b, 8];
        assert_eq!(
            content_encoding(TileFormat::Mvt, &gzip, false),
            Some("gzip")
        );
        assert_eq!(content_encoding(TileFormat::Mvt, b"\x1a", false), None);
        assert_eq!(content_encoding(TileFormat::Mvt, b"\x1a", true), Some("br"));
        assert_eq!(content_encoding(TileFormat::Png, &gzip, false), None);
    }

    #[test]
    fn rows_are_counted_from_the_other_end() {
        let tile = TileCoord::new(3, 1, 0).unwrap();
        assert_eq!(flipped(tile), TileCoord::new(3, 1, 7).unwrap());
        assert_eq!(flipped(flipped(tile)), tile);
    }
}
