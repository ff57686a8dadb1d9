//! What one person has spent. A session holds its spender, so that a tile costs no look-up by name.

use std::fmt;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::distinct::DistinctTiles;
use super::rate::Rate;
use super::room::Room;
use super::{OverQuota, QuotaClass, QuotaLimit};
use crate::clock::Uptime;
use crate::tile::TileKey;

/// Refusals are told of no more often than this, each person's by themselves.
const SPACING: Duration = Duration::from_mins(1);

/// One person in one class, however many sessions, tokens and browsers they have.
pub struct Spender {
    sub: Box<str>,
    class: Arc<QuotaClass>,
    rate: Option<Rate>,
    tiles: Option<Mutex<DistinctTiles>>,
    /// A hash that has taken in the process's key and the person: what follows is unforeseeable.
    keyed: DefaultHasher,
    untold: Mutex<Untold>,
}

/// Refusals since the last that was told of.
#[derive(Default)]
struct Untold {
    count: u64,
    last_told: Option<Uptime>,
}

impl Spender {
    pub(super) fn new(
        sub: &str,
        class: &Arc<QuotaClass>,
        keyed: DefaultHasher,
        room: &Arc<Room>,
    ) -> Self {
        Self {
            sub: sub.into(),
            rate: class
                .requests_per_second
                .map(|per_second| Rate::new(per_second, class.burst_size(per_second))),
            tiles: class
                .distinct_tiles_per_hour
                .map(|budget| Mutex::new(DistinctTiles::new(budget, Arc::clone(room)))),
            class: Arc::clone(class),
            keyed,
            untold: Mutex::default(),
        }
    }

    /// Whose spender it is.
    pub fn sub(&self) -> &str {
        &self.sub
    }

    /// The class's name.
    pub fn class(&self) -> &str {
        &self.class.name
    }

    /// Whether it is a job, which gives way to people.
    pub fn is_background(&self) -> bool {
        self.class.background
    }

    /// Spends a request, of whatever kind.
    pub fn spend_request(&self, now: Uptime) -> Result<(), OverQuota> {
        let Some(rate) = &self.rate else {
            return Ok(());
        };
        rate.spend(now).map_err(|retry_after| OverQuota {
            limit: QuotaLimit::Rate,
            retry_after,
            seen_are_served: false,
        })
    }

    /// Spends a tile, named by [`Tileset::tile_identity`](crate::tile::Tileset::tile_identity); whoever
    /// hands it out in another way than as an answer (a signed URL, a redirect) spends it too.
    pub fn spend_tile(&self, tile: TileKey, now: Uptime) -> Result<(), OverQuota> {
        let Some(tiles) = &self.tiles else {
            return Ok(());
        };
        let mut hasher = self.keyed.clone();
        hasher.write(&tile.to_bytes());
        let hash = hasher.finish();
        let mut tiles = locked(tiles);
        tiles.spend(hash, now).map_err(|retry_after| OverQuota {
            limit: QuotaLimit::DistinctTiles,
            retry_after,
            seen_are_served: tiles.is_exact(),
        })
    }

    /// How many more different tiles fit, or about how many; `None` without such a limit.
    pub fn tiles_left(&self, now: Uptime) -> Option<u64> {
        let budget = u64::from(self.class.distinct_tiles_per_hour?.get());
        let mut tiles = locked(self.tiles.as_ref()?);
        tiles.advance(now);
        Some(budget.saturating_sub(tiles.count()))
    }

    /// To be asked at every refusal: how many there were since the last time, if that is to be told now.
    pub fn tell_refusals(&self, now: Uptime) -> Option<u64> {
        let mut untold = locked(&self.untold);
        untold.count += 1;
        if untold
            .last_told
            .is_some_and(|last| now.since(last) < SPACING)
        {
            return None;
        }
        untold.last_told = Some(now);
        Some(std::mem::take(&mut untold.count))
    }

    /// How many tiles counted when it was last used.
    pub(super) fn counted(&self) -> u64 {
        self.tiles.as_ref().map_or(0, |tiles| locked(tiles).count())
    }

    /// Whether nothing of theirs counts any more, so that forgetting it gives nobody anything.
    pub(super) fn is_settled(&self, now: Uptime) -> bool {
        if let Some(tiles) = &self.tiles {
            locked(tiles).advance(now);
        }
        self.counted() == 0 && self.rate.as_ref().is_none_or(|rate| rate.is_settled(now))
    }
}

impl fmt::Debug for Spender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spender")
            .field("sub", &self.sub)
            .field("class", &self.class.name)
            .finish_non_exhaustive()
    }
}

/// Nothing is left half done behind these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
