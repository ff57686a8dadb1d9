//! One fill: what a tier could not answer at once is looked for on disk, fetched from the origin, and
//! put into the tiers.
//!
//! Invariant: a fill that a purge has withdrawn leaves nothing behind; an origin that fails takes
//! nothing from the tiers. A fill ends in bounded time, whatever hangs: who comes after starts anew.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::flight::Withdrawn;
use super::freshness::Freshness;
use super::memory::Held;
use super::stored::{Stored, StoredAbsence, StoredTile};
use super::tile_cache::{CacheStatus, Filled, Revalidation, Served, Shared};
use crate::metrics::{GuessKind, OriginOutcome, TierLabel as Tier};
use crate::origin::{Lane, OriginError, OriginErrorKind, OriginReply, OriginRequest, Urgency};
use crate::tile::{Scale, TileCoord, TileKey, Tileset};

/// How long a fill waits for the disk before it asks the origin instead.
const DISK_PATIENCE: Duration = Duration::from_secs(1);

/// How long a fill may take: its waits for the disk, before and after, and twice what the origin has.
pub(super) fn longest(deadline: Duration) -> Duration {
    DISK_PATIENCE * 2 + deadline * 2
}

/// Why a fill runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Somebody waits: anything servable will do.
    Answer,
    /// Nobody waits: only a fresh response makes it needless.
    Revalidate,
    /// A job waits that works ahead: only a tile that stays fresh for so long makes it needless.
    Refresh(Duration),
    /// Nobody has asked yet; as for an answer otherwise.
    Guess(GuessKind),
}

/// One fill: disk, origin, then the tiers.
pub(super) struct Fill {
    pub(super) shared: Arc<Shared>,
    pub(super) tileset: Arc<Tileset>,
    pub(super) coord: TileCoord,
    pub(super) scale: Scale,
    pub(super) key: TileKey,
    pub(super) purpose: Purpose,
    /// Whether a purge has taken back what it may bring.
    pub(super) withdrawn: Withdrawn,
    /// Who waits for it.
    pub(super) urgency: Urgency,
}

impl Fill {
    pub(super) async fn run(self) -> Filled {
        let parts = &self.shared.parts;
        let begun = tokio::time::Instant::now();
        parts.metrics.fills_in_flight.inc();
        // Every wait in there has its own end; this one is for what may hang all the same, so that no
        // tile is stuck behind it.
        let filled = timeout(longest(parts.deadline), self.fill()).await;
        let filled = filled.unwrap_or_else(|_| {
            let late = "the fill did not end when its time was over";
            Err(OriginError::new(OriginErrorKind::Deadline, late))
        });
        parts.metrics.fills_in_flight.dec();
        // How long people wait: what jobs and guesses take says nothing of that.
        if self.purpose != Purpose::Revalidate && self.urgency.lane() == Lane::Interactive {
            parts.metrics.observe_fill(begun.elapsed());
        }
        filled
    }

    async fn fill(&self) -> Filled {
        let held = self.held().await;
        if let Some((held, tier)) = &held {
            let now = self.shared.parts.clock.now();
            let judged = self.shared.parts.policy.assess(held.confirmed(), now);
            let enough = match self.purpose {
                Purpose::Answer | Purpose::Guess(_) => {
                    judged.freshness != Freshness::RevalidateFirst
                }
                Purpose::Revalidate => judged.freshness == Freshness::Fresh,
                Purpose::Refresh(wish) => judged.stays_fresh(wish),
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
        match self.ask_origin(held.as_ref().map(|(held, _)| held)).await {
            Ok(reply) => {
                self.take_in(reply, held.as_ref().map(|(held, _)| held))
                    .await
            }
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
        let before = self.shared.purges();
        // A disk that hangs must not fail a request that the origin can answer.
        let Ok(stored) = timeout(DISK_PATIENCE, disk.get(&self.key)).await else {
            tracing::warn!(tile = %self.coord, "the disk did not answer; asking the origin");
            return None;
        };
        let held = self.shared.promote(self.key, stored?);
        if self.shared.purges() != before {
            // What was read may be what that purge dropped: out of memory again, and the origin is asked.
            if let Some(memory) = &parts.memory {
                memory.invalidate(self.key);
            }
            return None;
        }
        (!self.withdrawn().await).then_some((held, Tier::Disk))
    }

    async fn ask_origin(&self, held: Option<&Held>) -> Result<OriginReply, OriginError> {
        let parts = &self.shared.parts;
        let request = OriginRequest {
            tileset: self.tileset.clone(),
            coord: self.coord,
            scale: self.scale,
            validator: held.and_then(Held::validator),
            deadline: parts.deadline,
            urgency: self.urgency.clone(),
        };
        // It keeps its deadline by itself. One that does not is a failing origin like any other.
        let reply = timeout(parts.deadline * 2, self.shared.origin.fetch(request)).await;
        let reply = reply.unwrap_or_else(|_| {
            let late = "no answer within twice the origin's deadline";
            Err(OriginError::new(OriginErrorKind::Deadline, late))
        });
        if let (Purpose::Guess(kind), Some(speculation)) = (self.purpose, &parts.speculation) {
            let unwanted = self.urgency.lane() == Lane::Speculative;
            match &reply {
                Err(error) if unwanted && error.kind == OriginErrorKind::HeldBack => {
                    // Nobody was refused anything.
                    speculation.held_back(self.key, kind);
                    return reply;
                }
                _ => speculation.made(kind),
            }
        }
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
                (held.confirmed_at(now), Revalidation::NotModified)
            }
            (OriginReply::NotModified, None) => {
                let odd = "the origin answered 304 to a request without a validator";
                return Err(OriginError::new(OriginErrorKind::Server, odd));
            }
        };
        if self.withdrawn.is_set() {
            // The purge is over, or nearly so: nothing is stored only to be dropped again.
            let status = status(held, found, false);
            let held = Held::new(stored);
            return Ok(Served { held, status });
        }
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
        let served = match (found, held) {
            (Revalidation::NotModified, Some(held)) => self.shared.confirm(self.key, held, now),
            _ => self.shared.admit(self.key, stored),
        };
        let stored = kept && !self.withdrawn().await;
        Ok(Served {
            held: served,
            status: status(held, found, stored),
        })
    }

    /// The origin failed: what is held may stand in while `stale_if_error` lasts. What is fresh does not stand in.
    fn stand_in(&self, error: OriginError, held: Option<(Held, Tier)>) -> Filled {
        let now = self.shared.parts.clock.now();
        if matches!(self.purpose, Purpose::Revalidate | Purpose::Refresh(_)) {
            self.shared.parts.metrics.revalidation_failures.inc();
        }
        let Some((held, tier)) = held else {
            return Err(error);
        };
        held.note_failure(now, error.kind);
        let judged = self.shared.parts.policy.assess(held.confirmed(), now);
        if judged.freshness == Freshness::Fresh {
            let ttl = judged.ttl;
            let status = CacheStatus::Hit { tier, ttl };
            return Ok(Served { held, status });
        }
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
        // The disk first and memory last, as a purge does: nobody can bring the old tile from there then,
        // and who just did finds that a purge came.
        if let Some(disk) = self.shared.parts.disk.clone() {
            // It writes the invalidation down before it returns, which may wait for the disk.
            let key = self.key;
            let _ = tokio::task::spawn_blocking(move || disk.invalidate(&key)).await;
        }
        self.shared.purge_came();
        if let Some(memory) = &self.shared.parts.memory {
            memory.invalidate(self.key);
        }
        true
    }
}

fn status(held: Option<&Held>, found: Revalidation, stored: bool) -> CacheStatus {
    let collapsed = false;
    match held {
        None => CacheStatus::Fetched { stored, collapsed },
        Some(_) => CacheStatus::Revalidated { found, collapsed },
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
