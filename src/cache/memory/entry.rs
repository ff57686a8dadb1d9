//! What memory keeps beside a tile's bytes: as little as its answers need.
//!
//! An entry is one allocation of 96 bytes, and its body another, of the body's own size; an answer's
//! [`Bytes`] hold the entry. `ETag` and `Last-Modified` are not kept as text, which would take more
//! than the rest of an entry does: they are made from the hash and the date at the answer, without
//! reaching for two more places in memory.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use bytes::Bytes;

use super::super::freshness::Confirmed;
use super::super::stored::{ContentHash, Stored, StoredAbsence, StoredTile};
use crate::clock::Timestamp;
use crate::origin::{ContentEncoding, OriginErrorKind, OriginValidator};

/// As far as an entry counts how often it was found. From here on it only counts round and round.
pub(crate) const FOUND_AT_MOST: u8 = 16;

/// What an entry stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A tile with its body.
    Tile,
    /// A tile whose body is an entry of its own, which others share.
    Reference,
    /// 'No such tile'.
    Absence,
    /// A body that references share.
    Body,
}

/// One entry of the memory tier.
#[derive(Debug)]
pub(super) struct Entry {
    body: Box<[u8]>,
    content: ContentHash,
    validator: Option<OriginValidator>,
    /// When the origin last confirmed it, in milliseconds since the epoch. A soft purge sets it back.
    validated_at: AtomicU64,
    /// When a revalidation last failed, in milliseconds since the epoch, and in the lowest three
    /// bits how; 0 is never.
    last_failure: AtomicU64,
    last_modified: Seconds,
    encoding: ContentEncoding,
    kind: Kind,
    /// How often it was found, as far as that matters: see [`Entry::is_to_be_told`].
    found: AtomicU8,
    /// Whether moka has dropped it.
    gone: AtomicBool,
}

impl Entry {
    /// An entry for a response with its body.
    pub(super) fn whole(stored: Stored) -> Arc<Self> {
        let body = match &stored {
            Stored::Tile(tile) => tile.body.as_ref().into(),
            Stored::Absence(_) => Box::default(),
        };
        let mut entry = Self::without_body(stored);
        if entry.kind == Kind::Reference {
            entry.kind = Kind::Tile;
        }
        entry.body = body;
        Arc::new(entry)
    }

    /// An entry for a response whose body is elsewhere.
    pub(super) fn reference(stored: Stored) -> Arc<Self> {
        Arc::new(Self::without_body(stored))
    }

    /// An entry for a body that tiles share.
    pub(super) fn of_body(content: ContentHash, body: &[u8]) -> Arc<Self> {
        Arc::new(Self {
            body: body.into(),
            content,
            ..Self::bare(Kind::Body, Timestamp::default())
        })
    }

    fn without_body(stored: Stored) -> Self {
        match stored {
            Stored::Tile(tile) => Self {
                content: tile.content,
                validator: tile.validator,
                last_modified: Seconds::new(tile.last_modified),
                encoding: tile.encoding,
                ..Self::bare(Kind::Reference, tile.validated_at)
            },
            Stored::Absence(absence) => Self::bare(Kind::Absence, absence.validated_at),
        }
    }

    fn bare(kind: Kind, validated_at: Timestamp) -> Self {
        Self {
            body: Box::default(),
            content: ContentHash::from_bytes([0; 16]),
            validator: None,
            validated_at: AtomicU64::new(validated_at.millis()),
            last_failure: AtomicU64::new(0),
            last_modified: Seconds::new(None),
            encoding: ContentEncoding::Identity,
            kind,
            found: AtomicU8::new(0),
            gone: AtomicBool::new(false),
        }
    }

    /// From now on it counts as confirmed no later than this.
    pub(super) fn expire(&self, validated_at: Timestamp) {
        self.validated_at
            .fetch_min(validated_at.millis(), Ordering::Relaxed);
    }

    /// moka has dropped it.
    pub(super) fn leave(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// Whether moka has dropped it.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Counts that it was found; whether moka is to be told so. It hears of an entry's first times, by which it
    /// tells what is asked for again from what is not (its sketch counts to fifteen), and then of one time in 32:
    /// to be told costs as much as a sixth of a hit. Over Zipf places that drift, about one look-up in a hundred
    /// fewer hits than where it hears of all.
    pub(super) fn is_to_be_told(&self) -> bool {
        const FIRST: u8 = FOUND_AT_MOST;
        const EVERY: u8 = 32;
        // Not one step: two who count at once may count one.
        let found = self.found.load(Ordering::Relaxed);
        let next = if found + 1 < FIRST + EVERY {
            found + 1
        } else {
            FIRST
        };
        self.found.store(next, Ordering::Relaxed);
        found <= FIRST
    }

    /// How often it was found; [`FOUND_AT_MOST`] stands for that and more.
    pub(super) fn found(&self) -> u8 {
        self.found.load(Ordering::Relaxed).min(FOUND_AT_MOST)
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn content(&self) -> ContentHash {
        self.content
    }

    pub(super) fn validated_at(&self) -> Timestamp {
        Timestamp::from_millis(self.validated_at.load(Ordering::Relaxed))
    }

    /// How long the body in here is: a reference has none.
    pub(super) fn body_len(&self) -> usize {
        self.body.len()
    }

    /// What the validator takes beside the entry.
    pub(super) fn validator_bytes(&self) -> usize {
        self.validator
            .as_ref()
            .map_or(0, OriginValidator::allocated)
    }
}

/// The body of an entry, as an owner of [`Bytes`].
struct Body(Arc<Entry>);

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.0.body
    }
}

/// A stored response, whole: what a look-up gives.
#[derive(Debug, Clone)]
pub struct Held {
    entry: Arc<Entry>,
    body: Place,
}

/// Where a held body is.
#[derive(Debug, Clone)]
enum Place {
    /// In the entry.
    Entry,
    /// In another one, which tiles share.
    Shared(Arc<Entry>),
    /// In no entry.
    Beside(Bytes),
}

impl Held {
    /// Holds a response that is in no tier, or not yet.
    pub fn new(mut stored: Stored) -> Self {
        let body = match &mut stored {
            Stored::Tile(tile) => Place::Beside(mem::take(&mut tile.body)),
            Stored::Absence(_) => Place::Entry,
        };
        let entry = Entry::reference(stored);
        Self { entry, body }
    }

    /// An entry with its body.
    pub(super) fn whole(entry: Arc<Entry>) -> Self {
        let body = Place::Entry;
        Self { entry, body }
    }

    /// An entry whose body is another.
    pub(super) fn with_shared(entry: Arc<Entry>, shared: Arc<Entry>) -> Self {
        let body = Place::Shared(shared);
        Self { entry, body }
    }

    pub(super) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// Whether this is the knowledge that there is no such tile.
    pub fn is_absence(&self) -> bool {
        self.entry.kind == Kind::Absence
    }

    /// The tile's bytes; empty for an absence.
    pub fn body(&self) -> &[u8] {
        match &self.body {
            Place::Entry => &self.entry.body,
            Place::Shared(shared) => &shared.body,
            Place::Beside(body) => body,
        }
    }

    /// The same to be sent: not copied, and valid for as long as it takes.
    pub fn bytes(&self) -> Bytes {
        match &self.body {
            Place::Entry if self.entry.body.is_empty() => Bytes::new(),
            Place::Entry => Bytes::from_owner(Body(Arc::clone(&self.entry))),
            Place::Shared(shared) => Bytes::from_owner(Body(Arc::clone(shared))),
            Place::Beside(body) => body.clone(),
        }
    }

    /// Which bytes they are; the public `ETag` comes from it. Zeros for an absence.
    pub fn content(&self) -> ContentHash {
        self.entry.content
    }

    /// How they are encoded.
    pub fn encoding(&self) -> ContentEncoding {
        self.entry.encoding
    }

    /// When the object was written, in seconds since the epoch.
    pub fn last_modified(&self) -> Option<u64> {
        self.entry.last_modified.get()
    }

    /// What to ask the origin about it with.
    pub fn validator(&self) -> Option<OriginValidator> {
        self.entry.validator.clone()
    }

    /// When the origin last confirmed it.
    pub fn validated_at(&self) -> Timestamp {
        self.entry.validated_at()
    }

    /// What was confirmed then: what the freshness is judged by.
    pub fn confirmed(&self) -> Confirmed {
        if self.is_absence() {
            Confirmed::Absence(self.validated_at())
        } else {
            Confirmed::Tile(self.validated_at())
        }
    }

    /// The same response, confirmed by the origin at `validated_at`.
    pub fn confirmed_at(&self, validated_at: Timestamp) -> Stored {
        if self.is_absence() {
            return Stored::Absence(StoredAbsence { validated_at });
        }
        Stored::Tile(StoredTile {
            body: self.bytes(),
            content: self.content(),
            encoding: self.encoding(),
            validator: self.validator(),
            last_modified: self.last_modified(),
            validated_at,
        })
    }

    /// A stored response with its body in place.
    pub fn to_stored(&self) -> Stored {
        self.confirmed_at(self.validated_at())
    }

    /// Remembers that a revalidation failed.
    pub fn note_failure(&self, now: Timestamp, kind: OriginErrorKind) {
        let place = OriginErrorKind::ALL
            .iter()
            .position(|k| *k == kind)
            .unwrap_or(0);
        self.entry
            .last_failure
            .store(now.millis() << 3 | place as u64, Ordering::Relaxed);
    }

    /// The origin said at `now` that this is right.
    pub(super) fn confirm(&self, now: Timestamp) {
        self.entry
            .validated_at
            .store(now.millis(), Ordering::Relaxed);
        self.entry.last_failure.store(0, Ordering::Relaxed);
    }

    /// When and how a revalidation last failed.
    pub fn failure(&self) -> Option<(Timestamp, OriginErrorKind)> {
        let packed = self.entry.last_failure.load(Ordering::Relaxed);
        let kind = OriginErrorKind::ALL.get(usize::try_from(packed & 7).ok()?)?;
        (packed > 0).then(|| (Timestamp::from_millis(packed >> 3), *kind))
    }
}

/// Seconds since the epoch in four bytes, or none: up to the year 2106, and no object is from later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seconds(u32);

impl Seconds {
    const NONE: u32 = u32::MAX;

    fn new(seconds: Option<u64>) -> Self {
        let known = seconds.and_then(|seconds| u32::try_from(seconds).ok());
        Self(known.unwrap_or(Self::NONE))
    }

    fn get(self) -> Option<u64> {
        (self.0 != Self::NONE).then_some(u64::from(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_allocation_of_96_bytes() {
        assert_eq!(size_of::<Entry>() + 2 * size_of::<usize>(), 96);
    }

    #[test]
    fn a_date_comes_back_in_four_bytes() {
        for seconds in [
            None,
            Some(0),
            Some(1_700_000_000),
            Some(u64::from(u32::MAX) - 1),
        ] {
            assert_eq!(Seconds::new(seconds).get(), seconds);
        }
        assert_eq!(Seconds::new(Some(1 << 40)).get(), None);
    }
}
