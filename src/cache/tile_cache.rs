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
use super::flight::{Flights, Withdrawn};
use super::freshness::{Assessment, FAILURE_PAUSE, Freshness, FreshnessPolicy};
use super::memory::{Held, MemoryTier};
use super::stored::{Stored, StoredAbsence, StoredTile};
use crate::clock::{Clock, Timestamp};
use crate::metrics::{Metrics, OriginOutcome, TierLabel as Tier};
use crate::origin::{
    Origin, OriginError, OriginErrorKind, OriginReply, OriginRequest, OriginValidator,
};
use crate::tile::{Scale, TileCoord, TileKey, Tileset};

/// How long a fill waits for the disk before it asks the origin instead.
const DISK_PATIENCE: Duration = Duration::from_secs(1);

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

type Filled = Result<Served, OriginError>;

/// Why a fill runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Somebody waits: anything servable will do.
    Answer,
    /// Nobody waits: only a fresh response makes it needless.
    Revalidate,
}

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

struct Shared {
    parts: TileCacheParts,
    origin: Arc<dyn Origin>,
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
    pub fn lookup(&self, wanted: Wanted<'_>, now: Timestamp) -> Option<Served> {
        let key = wanted.key();
        let (held, tier) = self.shared.at_hand(key)?;
        let served = self.shared.judge(held, tier, now)?;
        self.revalidate_if_stale(&served, wanted, now);
        Some(served)
    }

    /// Answers from what is at hand or by a fill.
    pub async fn get(&self, wanted: Wanted<'_>) -> Filled {
        let now = self.shared.parts.clock.now();
        match self.lookup(wanted, now) {
            Some(served) => Ok(served),
            None => self.fill(wanted, now).await,
        }
    }

    /// Fills a tile that [`TileCache::lookup`] could not answer.
    pub async fn fill(&self, wanted: Wanted<'_>, now: Timestamp) -> Filled {
        let ticket = self.start(wanted, Purpose::Answer);
        let collapsed = ticket.collapsed;
        // The origin keeps its deadline by itself; this one is for a disk that hangs.
        let landed = timeout(self.shared.parts.deadline * 2, ticket.landed()).await;
        let mut served = match landed {
            Ok(Some(filled)) => filled?,
            Ok(None) => {
                let died = "the fill's task ended without a result";
                return Err(OriginError::new(OriginErrorKind::Server, died));
            }
            Err(_) => {
                let late = "the fill did not end within twice the origin's deadline";
                return Err(OriginError::new(OriginErrorKind::Deadline, late));
            }
        };
        if collapsed {
            served.status = served.status.joined();
        }
        self.revalidate_if_stale(&served, wanted, now);
        Ok(served)
    }

    fn start(&self, wanted: Wanted<'_>, purpose: Purpose) -> super::flight::Ticket<Filled> {
        let key = wanted.key();
        self.shared.flights.join(key, |withdrawn| {
            let fill = Fill {
                shared: self.shared.clone(),
                tileset: wanted.tileset.clone(),
                coord: wanted.coord,
                scale: wanted.scale,
                key,
                purpose,
                withdrawn,
            };
            fill.run()
        })
    }

    /// A stale answer brings its tile up to date behind itself, once however many ask; after a
    /// failure not before a pause.
    fn revalidate_if_stale(&self, served: &Served, wanted: Wanted<'_>, now: Timestamp) {
        let stale = matches!(served.status, CacheStatus::Hit { ttl, .. } if ttl < 0);
        if stale && !recently(served.held.failure(), now) {
            drop(self.start(wanted, Purpose::Revalidate));
        }
    }

    /// Drops what matches from both tiers, or marks it stale; takes effect before it returns.
    pub fn purge(&self, purge: Purge, matches: impl Fn(&TileKey) -> bool) -> Purged {
        self.shared.purge(purge, &matches)
    }

    /// Where a tile is and how fresh, without fetching, promoting or counting anything.
    pub fn explain(&self, wanted: Wanted<'_>) -> Explained {
        let (key, now) = (wanted.key(), self.shared.parts.clock.now());
        let parts = &self.shared.parts;
        let memory = parts.memory.as_ref().and_then(|tier| tier.lookup(key));
        Explained {
            memory: memory.map(|held| (parts.policy.assess(held.stored(), now), held)),
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
    /// Marks it stale: it is revalidated, and may still stand in while that happens or fails.
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
        let before = self.purges.load(Ordering::Acquire);
        match disk.try_get(&key) {
            TryGet::Hit(stored) => {
                let held = self.promote(key, stored);
                if self.purges.load(Ordering::Acquire) == before {
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

    /// Brings what the disk had into memory, unless a newer one has come there meanwhile.
    fn promote(&self, key: TileKey, stored: Stored) -> Held {
        match &self.parts.memory {
            Some(memory) => memory.promote(key, stored),
            None => Held::new(stored),
        }
    }

    /// Puts a response into memory, where there is a memory tier.
    fn admit(&self, key: TileKey, stored: Stored) -> Held {
        match &self.parts.memory {
            Some(memory) => memory.put(key, stored),
            None => Held::new(stored),
        }
    }

    /// Whether a held response may be answered now, and as what.
    fn judge(&self, held: Held, tier: Tier, now: Timestamp) -> Option<Served> {
        let judged = self.parts.policy.assess(held.stored(), now);
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
        // Just past fresh: both stale windows begin now.
        let stale_since = Timestamp::from_millis(
            now.millis()
                .saturating_sub(u64::try_from(policy.fresh.as_millis()).unwrap_or(u64::MAX)),
        );
        let disk = self.parts.disk.as_ref().map_or(0, |disk| match purge {
            Purge::Hard => disk.invalidate_matching(matches),
            Purge::Soft => disk.expire_matching(matches),
        });
        self.purges.fetch_add(1, Ordering::AcqRel);
        self.flights.forget(matches);
        let memory = self.parts.memory.as_ref().map_or(0, |memory| match purge {
            Purge::Hard => memory.remove_matching(matches),
            Purge::Soft => memory.expire_matching(matches, stale_since),
        });
        self.parts.metrics.purged.add(Tier::Memory, memory);
        self.parts.metrics.purged.add(Tier::Disk, disk);
        Purged { memory, disk }
    }
}

/// One fill: disk, origin, then the tiers.
struct Fill {
    shared: Arc<Shared>,
    tileset: Arc<Tileset>,
    coord: TileCoord,
    scale: Scale,
    key: TileKey,
    purpose: Purpose,
    /// Whether a purge has taken back what it may bring.
    withdrawn: Withdrawn,
}

impl Fill {
    async fn run(self) -> Filled {
        let parts = &self.shared.parts;
        let begun = tokio::time::Instant::now();
        parts.metrics.fills_in_flight.inc();
        let filled = self.fill().await;
        parts.metrics.fills_in_flight.dec();
        if self.purpose == Purpose::Answer {
            parts.metrics.observe_fill(begun.elapsed());
        }
        filled
    }

    async fn fill(&self) -> Filled {
        let held = self.held().await;
        if let Some((held, tier)) = &held {
            let now = self.shared.parts.clock.now();
            let judged = self.shared.parts.policy.assess(held.stored(), now);
            let enough = match self.purpose {
                Purpose::Answer => judged.freshness != Freshness::RevalidateFirst,
                Purpose::Revalidate => judged.freshness == Freshness::Fresh,
            };
            if enough {
                let status = CacheStatus::Hit {
                    tier: *tier,
                    ttl: judged.ttl,
                };
                return Ok(Served {
                    held: held.clone(),
                    status,
                });
            }
        }
        let held = held.map(|(held, _)| held);
        match self.ask_origin(held.as_ref()).await {
            Ok(reply) => self.take_in(reply, held.as_ref()).await,
            Err(error) => self.stand_in(error, held),
        }
    }

    /// What a tier holds: looked at again, as the fill before this one may have brought it.
    async fn held(&self) -> Option<(Held, Tier)> {
        let parts = &self.shared.parts;
        if let Some(held) = parts
            .memory
            .as_ref()
            .and_then(|memory| memory.lookup(self.key))
        {
            return Some((held, Tier::Memory));
        }
        let disk = parts.disk.as_ref()?;
        // A disk that hangs must not fail a request that the origin can answer.
        let Ok(stored) = timeout(DISK_PATIENCE, disk.get(&self.key)).await else {
            tracing::warn!(tile = %self.coord, "the disk did not answer; asking the origin");
            return None;
        };
        let held = self.shared.promote(self.key, stored?);
        (!self.withdrawn().await).then_some((held, Tier::Disk))
    }

    async fn ask_origin(&self, held: Option<&Held>) -> Result<OriginReply, OriginError> {
        let parts = &self.shared.parts;
        let request = OriginRequest {
            tileset: self.tileset.clone(),
            coord: self.coord,
            scale: self.scale,
            validator: held.and_then(validator),
            deadline: parts.deadline,
        };
        let reply = self.shared.origin.fetch(request).await;
        parts.metrics.origin.inc(outcome(&reply));
        if let Ok(OriginReply::Found(tile)) = &reply {
            parts.metrics.origin_bytes.inc_by(tile.body.len() as u64);
        }
        reply
    }

    async fn take_in(&self, reply: OriginReply, held: Option<&Held>) -> Filled {
        let now = self.shared.parts.clock.now();
        let (stored, found) = match (reply, held) {
            (OriginReply::Found(tile), _) => (
                Stored::Tile(StoredTile::from_origin(tile, now)),
                Revalidation::Changed,
            ),
            (OriginReply::NotFound, _) => (
                Stored::Absence(StoredAbsence { validated_at: now }),
                Revalidation::Absence,
            ),
            (OriginReply::NotModified, Some(held)) => {
                (held.confirmed(now), Revalidation::NotModified)
            }
            (OriginReply::NotModified, None) => {
                let odd = "the origin answered 304 to a request without a validator";
                return Err(OriginError::new(OriginErrorKind::Server, odd));
            }
        };
        if let Some(disk) = &self.shared.parts.disk {
            match found {
                Revalidation::NotModified => disk.touch(self.key, now),
                // A write that is left out under pressure is counted there; the tile is served all the same.
                Revalidation::Changed | Revalidation::Absence => {
                    let _ = disk.put(self.key, stored.clone());
                }
            }
        }
        let kept = self.shared.parts.memory.is_some() || self.shared.parts.disk.is_some();
        let served = self.shared.admit(self.key, stored);
        let stored = kept && !self.withdrawn().await;
        let status = match held {
            None => CacheStatus::Fetched {
                stored,
                collapsed: false,
            },
            Some(_) => CacheStatus::Revalidated {
                found,
                collapsed: false,
            },
        };
        Ok(Served {
            held: served,
            status,
        })
    }

    /// The origin failed: what is held may stand in while `stale_if_error` lasts.
    fn stand_in(&self, error: OriginError, held: Option<Held>) -> Filled {
        let now = self.shared.parts.clock.now();
        if self.purpose == Purpose::Revalidate {
            self.shared.parts.metrics.revalidation_failures.inc();
        }
        let Some(held) = held else { return Err(error) };
        held.note_failure(now, error.kind);
        let judged = self.shared.parts.policy.assess(held.stored(), now);
        if !judged.usable_on_error {
            return Err(error);
        }
        tracing::warn!(
            tileset = self.tileset.name(), tile = %self.coord, error = %error,
            "the origin failed, a stale tile stands in"
        );
        let status = CacheStatus::StaleIfError {
            error: error.kind,
            ttl: judged.ttl,
        };
        Ok(Served { held, status })
    }

    /// Whether a purge came while this fill was under way; then what it has stored goes again.
    async fn withdrawn(&self) -> bool {
        if !self.withdrawn.is_set() {
            return false;
        }
        if let Some(memory) = &self.shared.parts.memory {
            memory.invalidate(self.key);
        }
        if let Some(disk) = self.shared.parts.disk.clone() {
            // It writes the invalidation down before it returns, which may wait for the disk.
            let key = self.key;
            let _ = tokio::task::spawn_blocking(move || disk.invalidate(&key)).await;
        }
        true
    }
}

fn validator(held: &Held) -> Option<OriginValidator> {
    match held.stored() {
        Stored::Tile(tile) => tile.validator.clone(),
        Stored::Absence(_) => None,
    }
}

fn outcome(reply: &Result<OriginReply, OriginError>) -> OriginOutcome {
    match reply {
        Ok(OriginReply::Found(_)) => OriginOutcome::Found,
        Ok(OriginReply::NotModified) => OriginOutcome::NotModified,
        Ok(OriginReply::NotFound) => OriginOutcome::NotFound,
        Err(error) => match error.kind {
            OriginErrorKind::Denied => OriginOutcome::Denied,
            OriginErrorKind::Throttled => OriginOutcome::Throttled,
            OriginErrorKind::Server => OriginOutcome::Server,
            OriginErrorKind::Truncated => OriginOutcome::Truncated,
            OriginErrorKind::Unreachable => OriginOutcome::Unreachable,
            OriginErrorKind::Deadline => OriginOutcome::Deadline,
            OriginErrorKind::HeldBack => OriginOutcome::HeldBack,
        },
    }
}
