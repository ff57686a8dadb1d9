//! Purges, between nodes: each is applied once, in order, also by a node that was away.
//!
//! A purge may be applied twice (that loses entries, never truth) but not left out: the place up to which this
//! node has followed moves on after a purge is in effect. Where the cache survives a restart, so does that place,
//! in a small file. It is written a while late, because the disk tier syncs what it was told to forget a moment
//! after the purge has returned, and a power cut must not leave us believing in what it took back.
//!
//! Redis does not keep purges for ever ([`KEPT`], [`STREAM_LENGTH`]), and may lose them. A node that was away
//! for longer cannot know what it has missed: it says so.

use std::convert::Infallible;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use redis::{Value, cmd};
use tokio::sync::watch;
use tokio::time::Instant;

use super::connection::{Connection, Trouble};
use super::stream::{self, Entry, StreamId};
use super::{Node, Purged, Shared, blocking};
use crate::metrics::{ClusterEvent, Message};

/// The stream.
pub(super) const PURGES: &str = "purges";
/// Since when this Redis has kept it.
const SINCE: &str = "since";
/// The fields of an entry.
pub(super) const REQUEST: &str = "purge";
pub(super) const NODE: &str = "node";
/// Purges that the stream keeps, about.
pub(super) const STREAM_LENGTH: u64 = 10_000;
/// And for how long.
pub(super) const KEPT: Duration = Duration::from_hours(7 * 24);

/// Purges in one answer; each may be megabytes.
const PAGE: usize = 4;
/// How often the place is written down.
const WRITE_EVERY: Duration = Duration::from_mins(1);
/// A node with an empty cache begins this long before its start: a purge may have been on its way.
const MARGIN: Duration = Duration::from_mins(1);
/// The file's first line.
const FORMAT: &str = "tilekeep-purges-followed 1";

/// How far the purges were followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// The last that is in effect here.
    id: StreamId,
    /// When, by Redis's clock, there was none after it.
    seen: u64,
}

/// The place, from one connection to the next and from one start to the next.
pub(super) struct Followed {
    file: Option<PathBuf>,
    place: Option<Place>,
    /// What is written down next: the place of the time before.
    settled: Option<Place>,
    written: Instant,
    begun: Instant,
}

impl Followed {
    /// Reads the file, where there is one.
    pub(super) async fn new(shared: &Shared, begun: Instant) -> Self {
        let file = shared.settings.position.clone();
        let place = match file.clone() {
            Some(file) => blocking(move || read(&file)).await.flatten(),
            None => None,
        };
        Self {
            file,
            place,
            settled: place,
            written: begun,
            begun,
        }
    }

    /// Where to go on, and whether something may be missing before it.
    fn resume(&self, redis: Kept) -> (Place, bool) {
        let last = redis.last.unwrap_or_default();
        let Some(place) = self.place else {
            // A cache that was kept from before: all that Redis knows. An empty one: what came since the start.
            let begun = match &self.file {
                Some(_) => 0,
                None => redis
                    .now
                    .saturating_sub(millis(self.begun.elapsed() + MARGIN)),
            };
            let id = StreamId {
                millis: begun,
                number: 0,
            };
            let seen = redis.now;
            return (
                Place {
                    id: id.min(last),
                    seen,
                },
                false,
            );
        };
        if redis.since() > place.seen {
            let id = StreamId::default();
            return (Place { id, ..place }, true);
        }
        // Redis's clock may have been set back, and its ids with it.
        let id = place.id.min(last);
        (Place { id, ..place }, false)
    }

    async fn write_down(&mut self) {
        let (Some(file), Some(place)) = (&self.file, self.settled) else {
            self.settled = self.place;
            return;
        };
        if self.written.elapsed() < WRITE_EVERY {
            return;
        }
        let path = file.clone();
        if let Some(Err(error)) = blocking(move || write(&path, place)).await {
            // Purges are then applied again after a restart.
            tracing::warn!(%error, file = %file.display(), "[cluster] how far purges were followed cannot be kept");
        }
        self.settled = self.place;
        self.written = Instant::now();
    }
}

/// What Redis has of the stream.
#[derive(Debug, Clone, Copy)]
struct Kept {
    now: u64,
    /// Since when it keeps anything at all.
    began: u64,
    first: Option<StreamId>,
    last: Option<StreamId>,
    length: u64,
}

impl Kept {
    /// From when on it has every purge.
    fn since(&self) -> u64 {
        let by_age = self.now.saturating_sub(millis(KEPT));
        let by_length = match self.first {
            Some(first) if self.length >= STREAM_LENGTH => first.millis,
            _ => 0,
        };
        self.began.max(by_age).max(by_length)
    }
}

/// Catches up, and then follows. Ends with what ended it.
pub(super) async fn follow(
    shared: &Shared,
    line: Connection,
    node: &Arc<dyn Node>,
    followed: &mut Followed,
    known: &watch::Sender<bool>,
) -> Trouble {
    match follow_on(shared, line, node, followed, known).await {
        Ok(never) => match never {},
        Err(trouble) => trouble,
    }
}

async fn follow_on(
    shared: &Shared,
    mut line: Connection,
    node: &Arc<dyn Node>,
    followed: &mut Followed,
    known: &watch::Sender<bool>,
) -> Result<Infallible, Trouble> {
    let key = shared.key(PURGES);
    let redis = kept(shared, &mut line, &key).await?;
    let (mut place, missing) = followed.resume(redis);
    if missing {
        shared.event(ClusterEvent::PurgesMissed, 1);
        tracing::warn!(
            "[cluster] this node was away for longer than Redis remembers purges: what was purged meanwhile may \
             still be in its cache; purge here again what matters, --soft is enough"
        );
    }
    let newest = redis.last.unwrap_or_default();
    loop {
        if place.id >= newest {
            known.send_replace(true);
        }
        let asked = stream::time(&mut line).await?;
        let entries = stream::news(&mut line, &key, place.id, PAGE).await?;
        let all = entries.len() < PAGE;
        for entry in entries {
            place.id = entry.id;
            apply(shared, node, entry).await?;
            followed.place = Some(place);
        }
        if all {
            place.seen = place.seen.max(asked);
            followed.place = Some(place);
        }
        followed.write_down().await;
    }
}

async fn kept(shared: &Shared, line: &mut Connection, key: &str) -> Result<Kept, Trouble> {
    let now = stream::time(line).await?;
    let since = shared.key(SINCE);
    let mut mark = cmd("SET");
    mark.arg(&since).arg(now).arg("NX");
    line.ask::<Value>(&mark).await?;
    let began: Vec<u8> = line.ask(cmd("GET").arg(&since)).await?;
    let began = str::from_utf8(&began)
        .ok()
        .and_then(|text| text.parse().ok());
    if began.is_none() {
        shared.event(ClusterEvent::Ignored, 1);
    }
    Ok(Kept {
        now,
        began: began.unwrap_or(now),
        first: stream::end(line, key, false).await?,
        last: stream::end(line, key, true).await?,
        length: line.ask(cmd("XLEN").arg(key)).await?,
    })
}

async fn apply(shared: &Shared, node: &Arc<dyn Node>, entry: Entry) -> Result<(), Trouble> {
    let own = format!("{:032x}", shared.settings.node);
    if entry.field(NODE) == Some(own.as_bytes()) {
        return Ok(());
    }
    let Some(request) = entry.field(REQUEST).map(<[u8]>::to_vec) else {
        shared.event(ClusterEvent::Ignored, 1);
        return Ok(());
    };
    let node = node.clone();
    match blocking(move || node.purge(&request)).await {
        Some(Purged::Applied | Purged::NotHere) => shared.received(Message::Purge, 1),
        Some(Purged::Malformed) => shared.event(ClusterEvent::Ignored, 1),
        None => return Err(Trouble::Stopping),
    }
    Ok(())
}

/// `None` where there is none, or none that can be read: then everything is applied again.
fn read(file: &Path) -> Option<Place> {
    let text = std::fs::read_to_string(file).ok()?;
    let mut lines = text.lines();
    if lines.next() != Some(FORMAT) {
        return None;
    }
    let (id, seen) = lines.next()?.split_once(' ')?;
    Some(Place {
        id: StreamId::parse(id)?,
        seen: seen.parse().ok()?,
    })
}

/// By a second file and a rename: half a file is never there.
fn write(file: &Path, place: Place) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut draft = tempfile::NamedTempFile::new_in(folder)?;
    writeln!(draft, "{FORMAT}\n{} {}", place.id, place.seen)?;
    draft.persist(file)?;
    Ok(())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3_600_000;
    const NOW: u64 = 1_000 * DAY;

    fn id(millis: u64) -> StreamId {
        StreamId { millis, number: 0 }
    }

    fn redis(first: u64, last: u64) -> Kept {
        Kept {
            now: NOW,
            began: 0,
            first: Some(id(first)),
            last: Some(id(last)),
            length: 2,
        }
    }

    fn followed(file: Option<&str>, place: Option<(u64, u64)>) -> Followed {
        let place = place.map(|(at, seen)| Place { id: id(at), seen });
        Followed {
            file: file.map(PathBuf::from),
            place,
            settled: place,
            written: Instant::now(),
            begun: Instant::now(),
        }
    }

    #[test]
    fn an_empty_cache_begins_where_it_began_and_a_kept_one_with_all_there_is() {
        let (place, missing) = followed(None, None).resume(redis(NOW - DAY, NOW - 5));
        assert!(!missing && place.id.millis > NOW - 2 * 60_000 && place.id.millis < NOW);
        let (place, missing) = followed(None, None).resume(redis(NOW - DAY, NOW - DAY));
        assert!(!missing && place.id == id(NOW - DAY), "nothing came since");
        let (place, missing) = followed(Some("f"), None).resume(redis(NOW - DAY, NOW));
        assert!(!missing && place.id == StreamId::default());
    }

    #[test]
    fn a_node_that_was_away_goes_on_where_it_was() {
        let before = Some((NOW - 3 * DAY, NOW - 2 * DAY));
        for file in [None, Some("f")] {
            let (place, missing) = followed(file, before).resume(redis(NOW - 5 * DAY, NOW));
            assert!(!missing && place.id == id(NOW - 3 * DAY));
        }
        // Purges that were trimmed for their age are no loss to one who was there since.
        let quiet = Some((NOW - 300 * DAY, NOW - 1));
        let (place, missing) = followed(None, quiet).resume(redis(NOW, NOW));
        assert!(!missing && place.id == id(NOW - 300 * DAY));
    }

    #[test]
    fn what_redis_no_longer_knows_is_told() {
        let before = Some((NOW - 3 * DAY, NOW - 2 * DAY));
        let replaced = Kept {
            began: NOW - DAY,
            ..redis(NOW, NOW)
        };
        let (place, missing) = followed(None, before).resume(replaced);
        assert!(
            missing && place.id == StreamId::default(),
            "all that is there"
        );
        let many = Kept {
            length: STREAM_LENGTH,
            ..redis(NOW - DAY, NOW)
        };
        assert!(followed(None, before).resume(many).1, "trimmed by number");
        let long_ago = Some((NOW - 30 * DAY, NOW - 20 * DAY));
        let (_, missing) = followed(None, long_ago).resume(redis(NOW - DAY, NOW));
        assert!(missing, "trimmed by age");
    }

    #[test]
    fn a_clock_that_was_set_back_hides_no_purge() {
        let before = Some((NOW - 1_000, NOW - 500));
        let back = Kept {
            now: NOW - DAY,
            ..redis(NOW - 2 * DAY, NOW - DAY)
        };
        assert_eq!(followed(None, before).resume(back).0.id, id(NOW - DAY));
    }

    #[tokio::test]
    async fn what_is_written_down_is_the_place_of_the_time_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("followed");
        let mut followed = followed(file.to_str(), Some((NOW, NOW)));
        let first = followed.place;
        let mut later = async |at| {
            followed.place = Some(Place {
                id: id(at),
                seen: at,
            });
            followed.write_down().await;
            let soon = read(&file);
            followed.written = followed.written.checked_sub(WRITE_EVERY).unwrap();
            followed.write_down().await;
            (soon, read(&file), followed.place)
        };
        let (soon, written, second) = later(NOW + 1).await;
        assert_eq!((soon, written), (None, first));
        let (soon, written, _) = later(NOW + 2).await;
        assert_eq!((soon, written), (first, second));
    }

    #[test]
    fn the_place_is_read_as_it_was_written_and_rubbish_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("followed");
        assert_eq!(read(&file), None);
        let place = Place {
            id: StreamId {
                millis: NOW,
                number: 7,
            },
            seen: NOW + 9,
        };
        write(&file, place).unwrap();
        assert_eq!(read(&file), Some(place));
        for rubbish in ["", "x\n1-0 5\n", "tilekeep-purges-followed 1\n1-0\n"] {
            std::fs::write(&file, rubbish).unwrap();
            assert_eq!(read(&file), None, "{rubbish}");
        }
    }
}
