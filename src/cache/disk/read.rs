//! Reading: look up, read, compare everything, and only then believe it.
//!
//! Invariant: what is returned was verified against the key, its segment and its checksum; anything
//! else is a miss with a counter. `try_get` never waits for the disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::cache::{ContentHash, Stored, StoredAbsence, StoredTile};
use crate::clock::Timestamp;
use crate::tile::TileKey;

use super::buffer::Buffer;
use super::index::{Entry, Place, prefix};
use super::io::NotNow;
use super::record::{self, Head, Kind};
use super::segment::Segment;
use super::state::State;
use super::stats::{Corruption, DiskOperation};

/// How often a look-up follows a record that moves while it is read.
const CHASES: usize = 3;

/// What a look-up that never waits can say.
#[derive(Debug)]
pub enum TryGet {
    /// It is here.
    Hit(Stored),
    /// It is not here.
    Miss,
    /// It is here, but the disk has to be waited for.
    WouldBlock(PendingRead),
}

/// A read that has to wait for the disk.
#[derive(Debug)]
pub struct PendingRead {
    state: Arc<State>,
    key: TileKey,
}

impl PendingRead {
    /// Waits for it. Not for an async thread.
    pub fn read(self) -> Option<Stored> {
        let found = match self.state.look(&self.key, Patience::Any) {
            Look::Hit(stored) => Some(stored),
            Look::Miss | Look::Cold => None,
        };
        if found.is_some() {
            self.state.counters.hits_blocking.one();
        }
        found
    }
}

/// What the index knows about a key, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskMeta {
    /// When the origin last confirmed it.
    pub validated_at: Timestamp,
    /// Bytes of its record: body, metadata, padding. Of a tile that shares its body with others,
    /// those of the reference.
    pub record_bytes: u64,
    /// Whether it is 'no such tile'.
    pub absent: bool,
    /// Whether its body is stored once for several tiles.
    pub shared: bool,
    /// Whether it still waits to be written.
    pub queued: bool,
    /// Recent hits, up to 15: halved now and then.
    pub hits: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    None,
    Any,
}

enum Look {
    Hit(Stored),
    Miss,
    Cold,
}

/// Why a record could not be had.
enum Failure {
    /// Only by waiting.
    Cold,
    /// Its segment went while it was read.
    Overtaken,
    /// It disagrees, or the disk failed: it is not looked at again.
    Bad,
}

impl State {
    pub(super) fn try_get(self: &Arc<Self>, key: &TileKey) -> TryGet {
        match self.look(key, Patience::None) {
            Look::Hit(stored) => TryGet::Hit(stored),
            Look::Miss => TryGet::Miss,
            Look::Cold => TryGet::WouldBlock(PendingRead {
                state: Arc::clone(self),
                key: *key,
            }),
        }
    }

    fn look(&self, key: &TileKey, patience: Patience) -> Look {
        for _ in 0..CHASES {
            let (entry, segment) = match self.locate(key) {
                Located::Nowhere => {
                    self.counters.misses.one();
                    return Look::Miss;
                }
                Located::Queued(stored) => {
                    self.counters.hits.one();
                    self.counters.hits_queued.one();
                    return Look::Hit(stored);
                }
                Located::At(entry, segment) => (entry, segment),
            };
            match self.read_entry(key, entry, &segment, patience) {
                Ok(Some(stored)) => {
                    // A read that waited may have been overtaken by a purge: then it never was.
                    if patience == Patience::Any && !self.is_still(key, entry) {
                        continue;
                    }
                    let nth = self.counters.hits.one() + 1;
                    if nth.is_multiple_of(self.cool_every.load(Ordering::Relaxed)) {
                        self.cool();
                    }
                    return Look::Hit(stored);
                }
                Ok(None) => {
                    self.counters.misses_dangling.one();
                    return Look::Miss;
                }
                Err(Failure::Cold) => return Look::Cold,
                Err(Failure::Overtaken) => {}
                Err(Failure::Bad) => {
                    self.mark_bad(key, entry);
                    return Look::Miss;
                }
            }
        }
        self.counters.misses_overtaken.one();
        Look::Miss
    }

    fn locate(&self, key: &TileKey) -> Located {
        let mut shard = self.index.shard(key);
        if !shard.pending.is_empty()
            && let Some(pending) = shard.pending.get(key)
        {
            let (stored, at) = (Arc::clone(&pending.stored), pending.validated_at);
            drop(shard);
            return Located::Queued(with_validated_at(&stored, at));
        }
        let found = shard.entries.peek_mut(key);
        let Some(entry) = found.filter(|entry| !entry.is_bad()) else {
            return Located::Nowhere;
        };
        let hit = entry.hit(self.age());
        let entry = *entry;
        if hit.first_of_age {
            shard.entries.promote(key);
        }
        match shard.segment(entry.place) {
            Some(segment) => {
                if hit.counts {
                    segment.hit();
                }
                Located::At(entry, Arc::clone(segment))
            }
            None => Located::Nowhere,
        }
    }

    fn is_still(&self, key: &TileKey, entry: Entry) -> bool {
        let shard = self.index.shard(key);
        shard
            .entries
            .peek(key)
            .is_some_and(|now| now.place == entry.place)
            && !shard.pending.contains_key(key)
    }

    fn mark_bad(&self, key: &TileKey, entry: Entry) {
        let mut shard = self.index.shard(key);
        if let Some(now) = shard.entries.peek_mut(key)
            && now.place == entry.place
        {
            now.set_bad();
        }
    }

    /// `None`: a reference to content that is gone.
    fn read_entry(
        &self,
        key: &TileKey,
        entry: Entry,
        segment: &Segment,
        patience: Patience,
    ) -> Result<Option<Stored>, Failure> {
        let (head, body) = self.read_record(entry.place, segment, patience)?;
        if head.key != *key || head.kind != entry.kind() {
            return Err(self.disagree(Corruption::Key, segment));
        }
        let validated_at = entry.validated_at();
        let body = match head.kind {
            Kind::Absence => {
                return Ok(Some(Stored::Absence(StoredAbsence { validated_at })));
            }
            Kind::Reference => match self.read_content(head.content, patience)? {
                Some(body) => body,
                None => return Ok(None),
            },
            _ => body,
        };
        Ok(Some(Stored::Tile(StoredTile {
            body,
            content: head.content,
            encoding: head.encoding,
            validator: head.validator,
            last_modified: head.last_modified,
            validated_at,
        })))
    }

    /// The body that references with this hash share.
    fn read_content(
        &self,
        content: ContentHash,
        patience: Patience,
    ) -> Result<Option<Bytes>, Failure> {
        let prefix = prefix(content);
        for _ in 0..CHASES {
            let found = {
                let mut shard = self.index.content(prefix);
                shard.find(prefix).inspect(|_| shard.share(prefix))
            };
            let Some((place, segment)) = found else {
                return Ok(None);
            };
            let bad = match self.read_record(place, &segment, patience) {
                Ok((head, body)) if head.content == content => {
                    segment.hit();
                    return Ok(Some(body));
                }
                Ok(_) => self.disagree(Corruption::Content, &segment),
                Err(failure) => failure,
            };
            match bad {
                Failure::Cold => return Err(Failure::Cold),
                Failure::Overtaken => {}
                // The references are as good as they were: the next put brings the content back.
                Failure::Bad => {
                    self.index.content(prefix).forget(prefix, place);
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }

    fn read_record(
        &self,
        place: Place,
        segment: &Segment,
        patience: Patience,
    ) -> Result<(Head, Bytes), Failure> {
        let mut buffer = Buffer::of(place.len());
        let bytes = buffer.bytes_mut();
        let read = match patience {
            Patience::Any => segment.file.read_exact_at(bytes, place.offset()),
            Patience::None if self.no_cached_reads.load(Ordering::Relaxed) => {
                return Err(Failure::Cold);
            }
            Patience::None => match segment.file.read_cached_at(bytes, place.offset()) {
                Ok(()) => Ok(()),
                Err(NotNow::Cold) => return Err(Failure::Cold),
                Err(NotNow::Unsupported) => {
                    self.no_cached_reads.store(true, Ordering::Relaxed);
                    return Err(Failure::Cold);
                }
                Err(NotNow::Failed(error)) => Err(error),
            },
        };
        match read {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(self.disagree(Corruption::Short, segment));
            }
            Err(error) => {
                self.counters.io_error(DiskOperation::Read, &error);
                return Err(Failure::Bad);
            }
        }
        match record::decode(buffer.as_ref(), segment.id) {
            Ok((head, body)) => Ok((head, buffer.into_part(body))),
            Err(reason) => Err(self.disagree(reason, segment)),
        }
    }

    fn disagree(&self, reason: Corruption, segment: &Segment) -> Failure {
        if segment.is_retired() {
            return Failure::Overtaken;
        }
        self.counters.corrupt(reason);
        tracing::debug!(
            segment = %segment.path.display(),
            reason = reason.as_str(),
            "a record on disk is not what was written; it is not used"
        );
        Failure::Bad
    }

    pub(super) fn meta(&self, key: &TileKey) -> Option<DiskMeta> {
        let shard = self.index.shard(key);
        if let Some(pending) = shard.pending.get(key) {
            let body = match &*pending.stored {
                Stored::Tile(tile) => tile.body.len() as u64,
                Stored::Absence(_) => 0,
            };
            return Some(DiskMeta {
                validated_at: pending.validated_at,
                record_bytes: body,
                absent: matches!(*pending.stored, Stored::Absence(_)),
                shared: false,
                queued: true,
                hits: 0,
            });
        }
        let entry = shard.entries.peek(key).filter(|entry| !entry.is_bad())?;
        Some(DiskMeta {
            validated_at: entry.validated_at(),
            record_bytes: entry.place.len() as u64,
            absent: entry.kind() == Kind::Absence,
            shared: entry.kind() == Kind::Reference,
            queued: false,
            hits: entry.hits(self.age()),
        })
    }
}

enum Located {
    Nowhere,
    Queued(Stored),
    At(Entry, Arc<Segment>),
}

fn with_validated_at(stored: &Stored, validated_at: Timestamp) -> Stored {
    match stored {
        Stored::Tile(tile) => Stored::Tile(StoredTile {
            validated_at,
            ..tile.clone()
        }),
        Stored::Absence(_) => Stored::Absence(StoredAbsence { validated_at }),
    }
}
