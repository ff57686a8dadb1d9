//! The one look-up algorithm: memory, then disk, then origin.
//!
//! What is at hand is answered at once ([`TileCache::lookup`]): fresh, or stale inside its window
//! with a revalidation behind. Anything else is a fill ([`TileCache::get`]): a task of its own that
//! every concurrent request for the tile joins. A failing origin is covered by `stale_if_error`;
//! trouble in a tier is a miss there and never fails a request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use super::disk::{DiskTier, TryGet};
use super::fill::{Fill, Purpose};
use super::flight::Flights;
use super::freshness::{Assessment, FAILURE_PAUSE, Freshness, FreshnessPolicy, lasts};
use super::memory::{Held, MemoryTier};
use super::speculation::Speculation;
use super::stored::Stored;
use crate::clock::{Clock, Timestamp};
use crate::metrics::{Metrics, OriginOutcome, TierLabel as Tier};
use crate::origin::{Lane, Origin, OriginError, OriginErrorKind};
use crate::tile::{Scale, TileCoord, TileKey, Tileset};

/// How much longer than a fill may take its waiters wait for it.
const LATE: Duration = Duration::from_secs(1);

/// One tile that somebody wants.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Of which tileset.
    pub tileset: &'a Arc<Tileset>,
    /// Where.
    pub coord: TileCoord,
    /// In which density.
    pub scale: Scale,
}

impl Wanted<'_> {
    /// What it is stored under.
    pub fn key(&self) -> TileKey {
        self.tileset.tile_key(self.coord, self.scale)
    }
}

/// What a fetch on behalf of a stale response brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revalidation {
    /// The stale one is right.
    NotModified,
    /// Another tile.
    Changed,
    /// The tile is gone, or has come.
    Absence,
}

/// How an answer came about, in the words of RFC 9211.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheStatus {
    /// From a tier, with the seconds of freshness left (negative: stale).
    Hit {
        /// Which tier.
        tier: Tier,
        /// Seconds.
        ttl: i64,
    },
    /// Nothing was stored; the origin was asked.
    Fetched {
        /// Whether a tier keeps it now.
        stored: bool,
        /// Whether another request's fetch was waited for.
        collapsed: bool,
    },
    /// Too stale to serve unasked; the origin was asked.
    Revalidated {
        /// What it said.
        found: Revalidation,
        /// Whether another request's fetch was waited for.
        collapsed: bool,
    },
    /// The origin failed, and a stale response stands in.
    StaleIfError {
        /// How it failed.
        error: OriginErrorKind,
        /// Seconds since freshness ended, negative.
        ttl: i64,
    },
}

impl CacheStatus {
    fn joined(self) -> Self {
        match self {
            Self::Fetched { stored, .. } => Self::Fetched {
                stored,
                collapsed: true,
            },
            Self::Revalidated { found, .. } => Self::Revalidated {
                found,
                collapsed: true,
            },
            other => other,
        }
    }
}

/// An answer from the caches.
#[derive(Debug, Clone)]
pub struct Served {
    /// The tile, or the knowledge that there is none.
    pub held: Held,
    /// How it came about.
    pub status: CacheStatus,
}

pub(super) type Filled = Result<Served, OriginError>;

/// What the caches are made of.
#[derive(Debug)]
pub struct TileCacheParts {
    /// `None` switches the tier off.
    pub memory: Option<MemoryTier>,
    /// `None` switches the tier off.
    pub disk: Option<DiskTier>,
    /// How long responses are believed.
    pub policy: FreshnessPolicy,
    /// For one tile from the origin, retries included.
    pub deadline: Duration,
    /// Whether neighbours are fetched before they are asked for.
    pub speculation: Option<Speculation>,
    /// The time.
    pub clock: Clock,
    /// Where outcomes are counted.
    pub metrics: Arc<Metrics>,
}

/// Memory, disk and origin behind one `get`.
#[derive(Clone)]
pub struct TileCache {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) parts: TileCacheParts,
    pub(super) origin: Arc<dyn Origin>,
    flights: Arc<Flights<Filled>>,
    /// How many purges there have been: a promotion that read the disk before one must not store
    /// after it.
    purges: AtomicU64,
    /// One purge at a time: a soft one must not put back what a hard one beside it drops.
    purging: Mutex<()>,
}

impl TileCache {
    /// Caches in front of an origin.
    pub fn new(parts: TileCacheParts, origin: Arc<dyn Origin>) -> Self {
        let flights = Arc::new(Flights::new());
        Self {
            shared: Arc::new(Shared {
                parts,
                origin,
                flights,
                purges: AtomicU64::new(0),
                purging: Mutex::new(()),
            }),
        }
    }

    /// Answers from what is at hand, without waiting for anything; `None` where only a fill can tell.
    pub fn lookup(&self, wanted: Wanted<'_>, lane: Lane, now: Timestamp) -> Option<Served> {
        let key = wanted.key();
        let (held, tier) = self.shared.at_hand(key)?;
        let served = self.shared.judge(held, tier, now)?;
        self.revalidate_if_stale(&served, wanted, lane, now);
        if let Some(speculation) = &self.shared.parts.speculation
            && lane == Lane::Interactive
            && speculation.answered(key, now)
        {
            self.look_ahead(speculation, wanted, now);
        }
        Some(served)
    }

    /// Answers from what is at hand or by a fill, to somebody who looks at a map.
    pub async fn get(&self, wanted: Wanted<'_>) -> Filled {
        let now = self.shared.parts.clock.now();
        match self.lookup(wanted, Lane::Interactive, now) {
            Some(served) => Ok(served),
            None => self.fill(wanted, Lane::Interactive, now).await,
        }
    }

    /// Fills a tile that [`TileCache::lookup`] could not answer.
    pub async fn fill(&self, wanted: Wanted<'_>, lane: Lane, now: Timestamp) -> Filled {
        if let Some(refused) = self.shared.refused(wanted.key(), lane) {
            return Err(refused);
        }
        let mut filled = self.join(wanted, Purpose::Answer, lane).await;
        if let (Err(error), true) = &filled
            && (error.kind, lane) == (OriginErrorKind::HeldBack, Lane::Interactive)
        {
            // It was a job's or a guess's fetch that was held back, before it was known who joins it.
            filled = self.join(wanted, Purpose::Answer, lane).await;
        }
        let served = told(filled)?;
        self.revalidate_if_stale(&served, wanted, lane, now);
        if let Some(speculation) = &self.shared.parts.speculation
            && lane == Lane::Interactive
        {
            let guessed = speculation.answered(wanted.key(), now);
            if guessed || matches!(served.status, CacheStatus::Fetched { .. }) {
                self.look_ahead(speculation, wanted, now);
            }
        }
        Ok(served)
    }

    /// Asks the origin whether a tile has changed that does not stay fresh for as long as is wished: a job works ahead,
    /// and waits for the answer. 'No such tile' is left to its own time, which is short, and an origin that has
    /// just failed to a pause.
    pub async fn refresh(
        &self,
        served: Served,
        wanted: Wanted<'_>,
        lane: Lane,
        wish: Duration,
        now: Timestamp,
    ) -> Filled {
        let ends = matches!(served.status, CacheStatus::Hit { ttl, .. } if !lasts(ttl, wish));
        if !ends || served.held.is_absence() || recently(served.held.failure(), now) {
            return Ok(served);
        }
        told(self.join(wanted, Purpose::Refresh(wish), lane).await)
    }

    /// Joins the tile's fill or starts one, and waits for it; and whether it was another's.
    async fn join(&self, wanted: Wanted<'_>, purpose: Purpose, lane: Lane) -> (Filled, bool) {
        let ticket = self.start(wanted, purpose, lane);
        let collapsed = ticket.collapsed;
        // A fill ends by itself in that time, unless its thread is held up.
        let patience = super::fill::longest(self.shared.parts.deadline) + LATE;
        let flight = ticket.number;
        let filled = match timeout(patience, ticket.landed()).await {
            Ok(Some(filled)) => filled,
            Ok(None) => {
                let died = "the fill's task ended without a result";
                Err(OriginError::new(OriginErrorKind::Server, died))
            }
            Err(_) => {
                self.shared.flights.give_up(wanted.key(), flight);
                let late = "the fill did not end when its time was over";
                Err(OriginError::new(OriginErrorKind::Deadline, late))
            }
        };
        (filled, collapsed)
    }

    fn start(
        &self,
        wanted: Wanted<'_>,
        purpose: Purpose,
        lane: Lane,
    ) -> super::flight::Ticket<Filled> {
        let key = wanted.key();
        self.shared.flights.join(key, lane, |withdrawn, urgency| {
            let fill = Fill {
                shared: self.shared.clone(),
                tileset: wanted.tileset.clone(),
                coord: wanted.coord,
                scale: wanted.scale,
                key,
                purpose,
                withdrawn,
                urgency,
            };
            fill.run()
        })
    }

    /// Fetches a tile's neighbours that no tier has, where the origin has room for guesses.
    fn look_ahead(&self, speculation: &Speculation, wanted: Wanted<'_>, now: Timestamp) {
        let next = speculation.next(wanted.tileset, wanted.coord, wanted.scale, now);
        for (kind, coord) in next {
            let neighbour = Wanted { coord, ..wanted };
            let key = neighbour.key();
            if self.shared.has(key) {
                continue;
            }
            if !self.shared.origin.has_room_for_guess() {
                speculation.held_back(key, kind);
            } else if speculation.guess(key, kind) {
                drop(self.start(neighbour, Purpose::Guess(kind), Lane::Speculative));
            }
        }
    }

    /// A stale answer brings its tile up to date behind itself, once however many ask; after a
    /// failure not before a pause.
    fn revalidate_if_stale(&self, served: &Served, wanted: Wanted<'_>, lane: Lane, now: Timestamp) {
        let stale = matches!(served.status, CacheStatus::Hit { ttl, .. } if ttl < 0);
        if stale && !recently(served.held.failure(), now) {
            drop(self.start(wanted, Purpose::Revalidate, lane));
        }
    }

    /// Drops what matches from both tiers, or marks it stale; takes effect before it returns.
    pub fn purge(&self, purge: Purge, matches: impl Fn(&TileKey) -> bool) -> Purged {
        self.shared.purge(purge, &matches)
    }

    /// Drops these tiles from both tiers; takes effect before it returns. It looks at no other: what it costs is a
    /// matter of how many they are, not of what is cached. It writes to the disk: not for an async thread.
    pub fn purge_tiles(&self, keys: &[TileKey]) -> Purged {
        self.shared.purge_tiles(keys)
    }

    /// Where a tile is and how fresh, without fetching, promoting or counting anything.
    pub fn explain(&self, wanted: Wanted<'_>) -> Explained {
        let (key, now) = (wanted.key(), self.shared.parts.clock.now());
        let parts = &self.shared.parts;
        let memory = parts.memory.as_ref().and_then(|tier| tier.lookup(key));
        Explained {
            memory: memory.map(|held| (parts.policy.assess(held.confirmed(), now), held)),
            disk: parts.disk.as_ref().and_then(|tier| tier.lookup_meta(&key)),
            filling: self.shared.flights.contains(key),
            now,
        }
    }

    /// The memory tier, for gauges.
    pub fn memory(&self) -> Option<&MemoryTier> {
        self.shared.parts.memory.as_ref()
    }

    /// The disk tier, for gauges and shutdown.
    pub fn disk(&self) -> Option<&DiskTier> {
        self.shared.parts.disk.as_ref()
    }

    /// Fills under way.
    pub fn fills_in_flight(&self) -> usize {
        self.shared.flights.len()
    }

    /// How long responses are believed.
    pub fn policy(&self) -> FreshnessPolicy {
        self.shared.parts.policy
    }
}

/// What a purge does to what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purge {
    /// Drops it.
    Hard,
    /// Marks it stale as of now: it is revalidated, and may still stand in while that happens or
    /// fails, as long as if its freshness had just run out. 'No such tile' has no such time and is
    /// dropped.
    Soft,
}

/// What a purge changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purged {
    /// Entries in memory.
    pub memory: u64,
    /// Entries on disk.
    pub disk: u64,
}

/// What is known of a tile without fetching it.
#[derive(Debug, Clone)]
pub struct Explained {
    /// In memory.
    pub memory: Option<(Assessment, Held)>,
    /// On disk.
    pub disk: Option<super::disk::DiskMeta>,
    /// Whether a fill is under way.
    pub filling: bool,
    /// When this was looked up.
    pub now: Timestamp,
}

/// What a fill brought, said to one of those who waited for it.
fn told((filled, collapsed): (Filled, bool)) -> Filled {
    let mut served = filled?;
    if collapsed {
        served.status = served.status.joined();
    }
    Ok(served)
}

fn recently(failure: Option<(Timestamp, OriginErrorKind)>, now: Timestamp) -> bool {
    failure.is_some_and(|(at, _)| now.since(at) < FAILURE_PAUSE)
}

impl Shared {
    /// What a tier can give without waiting: memory, or a disk read that the page cache answers.
    fn at_hand(&self, key: TileKey) -> Option<(Held, Tier)> {
        if let Some(held) = self
            .parts
            .memory
            .as_ref()
            .and_then(|memory| memory.lookup(key))
        {
            return Some((held, Tier::Memory));
        }
        let disk = self.parts.disk.as_ref()?;
        let before = self.purges();
        match disk.try_get(&key) {
            TryGet::Hit(stored) => {
                let held = self.promote(key, stored);
                if self.purges() == before {
                    return Some((held, Tier::Disk));
                }
                // A purge came by: what was read may be what it dropped. Storing first and looking
                // afterwards leaves no gap between the two.
                if let Some(memory) = &self.parts.memory {
                    memory.invalidate(key);
                }
                None
            }
            TryGet::Miss | TryGet::WouldBlock(_) => None,
        }
    }

    /// Whether a tier has it or is about to, without counting anything.
    fn has(&self, key: TileKey) -> bool {
        let memory = self.parts.memory.as_ref();
        let disk = self.parts.disk.as_ref();
        self.flights.contains(key)
            || memory.is_some_and(|tier| tier.contains(key))
            || disk.is_some_and(|tier| tier.lookup_meta(&key).is_some())
    }

    /// What a fill would be told, where nothing is held, nobody fetches it, and the origin has no place: before
    /// a task is begun for it. Under overload a refusal has to cost next to nothing, or refusing is the load.
    fn refused(&self, key: TileKey, lane: Lane) -> Option<OriginError> {
        if self.has(key) {
            return None;
        }
        let begun = self.flights.under_way(lane);
        let refused = self.origin.refuses(lane, begun, self.parts.deadline)?;
        self.parts.metrics.origin.inc(OriginOutcome::HeldBack);
        Some(refused)
    }

    /// Brings what the disk had into memory, unless a newer one has come there meanwhile.
    pub(super) fn promote(&self, key: TileKey, stored: Stored) -> Held {
        match &self.parts.memory {
            Some(memory) => memory.promote(key, stored),
            None => Held::new(stored),
        }
    }

    /// How many purges have come so far; what was read from disk before one may be what it dropped.
    pub(super) fn purges(&self) -> u64 {
        self.purges.load(Ordering::Acquire)
    }

    /// Whoever has read the disk and not yet looked whether a purge came will find that one did.
    pub(super) fn purge_came(&self) {
        self.purges.fetch_add(1, Ordering::AcqRel);
    }

    /// The origin confirmed what is held: in memory only the time of that changes, where it is there.
    pub(super) fn confirm(&self, key: TileKey, held: &Held, now: Timestamp) -> Held {
        let memory = self.parts.memory.as_ref();
        let there = memory.and_then(|memory| memory.confirm(key, held.content(), now));
        there.unwrap_or_else(|| self.admit(key, held.confirmed_at(now)))
    }

    /// Puts a response into memory, where there is a memory tier.
    pub(super) fn admit(&self, key: TileKey, stored: Stored) -> Held {
        match &self.parts.memory {
            Some(memory) => memory.put(key, stored),
            None => Held::new(stored),
        }
    }

    /// Whether a held response may be answered now, and as what.
    fn judge(&self, held: Held, tier: Tier, now: Timestamp) -> Option<Served> {
        let judged = self.parts.policy.assess(held.confirmed(), now);
        let status = match judged.freshness {
            Freshness::Fresh | Freshness::StaleWhileRevalidate => CacheStatus::Hit {
                tier,
                ttl: judged.ttl,
            },
            // The origin failed a moment ago: nobody waits for it to fail again.
            Freshness::RevalidateFirst => match held.failure() {
                Some((at, error)) if judged.usable_on_error && now.since(at) < FAILURE_PAUSE => {
                    CacheStatus::StaleIfError {
                        error,
                        ttl: judged.ttl,
                    }
                }
                _ => return None,
            },
        };
        Some(Served { held, status })
    }

    fn purge(&self, purge: Purge, matches: &dyn Fn(&TileKey) -> bool) -> Purged {
        let _one_at_a_time = self.purging.lock().unwrap_or_else(PoisonError::into_inner);
        // Fills from before are withdrawn, so that nothing of them reaches the disk behind the sweep
        // there; and once more after it, for those that read the disk ahead of the sweep. Memory
        // comes last, when nobody can bring an old tile there any more.
        self.flights.forget(matches);
        let policy = self.parts.policy;
        let now = self.parts.clock.now();
        // Just past fresh: both stale windows begin now, in both tiers. What has been stale for longer
        // stays as stale as it is.
        let stale_since = Timestamp::from_millis(
            now.millis()
                .saturating_sub(u64::try_from(policy.fresh.as_millis()).unwrap_or(u64::MAX)),
        );
        let disk = self.parts.disk.as_ref().map_or(0, |disk| match purge {
            Purge::Hard => disk.invalidate_matching(matches),
            Purge::Soft => disk.expire_matching(matches, stale_since),
        });
        self.purge_came();
        self.flights.forget(matches);
        let memory = self.parts.memory.as_ref().map_or(0, |memory| match purge {
            Purge::Hard => memory.remove_matching(matches),
            Purge::Soft => memory.expire_matching(matches, stale_since),
        });
        self.purged(memory, disk)
    }

    /// In the order of [`Shared::purge`], and for its reasons.
    fn purge_tiles(&self, keys: &[TileKey]) -> Purged {
        let _one_at_a_time = self.purging.lock().unwrap_or_else(PoisonError::into_inner);
        let withdraw = || keys.iter().for_each(|key| self.flights.forget_one(*key));
        withdraw();
        let disk = self.parts.disk.as_ref();
        let disk = disk.map_or(0, |disk| disk.invalidate_each(keys));
        self.purge_came();
        withdraw();
        let memory = self.parts.memory.as_ref().map_or(0, |memory| {
            let dropped = keys.iter().filter(|key| memory.invalidate(**key));
            dropped.count() as u64
        });
        self.purged(memory, disk)
    }

    fn purged(&self, memory: u64, disk: u64) -> Purged {
        self.parts.metrics.purged.add(Tier::Memory, memory);
        self.parts.metrics.purged.add(Tier::Disk, disk);
        Purged { memory, disk }
    }
}
