//! Quotas: how fast a person may ask, and how many different tiles they may take in an hour.
//!
//! A person pans over the same places again and again; who copies a map never sees a tile twice. So the
//! budget is of *different* tiles within the last hour, and a tile that was seen within it is free.
//!
//! Invariant: what a person has spent is counted once for all of their sessions, by `sub` and class, and is
//! not forgotten while it counts — a new session, a new token or a new browser gives no new budget. The one
//! exception is a table with more people in it than it holds: then those with the least counted go first,
//! and that is counted.
//!
//! Left out on purpose: other nodes (each counts for itself), and what a refusal looks like.

mod distinct;
mod rate;
mod room;
mod seen;
mod spender;

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hasher as _};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::room::Room;
pub use self::spender::Spender;
use super::{AuthError, NoRandomness, random};
use crate::clock::Uptime;
use crate::label_enum;

/// People who are remembered, some 700 bytes each without their tiles.
const PEOPLE: usize = 65_536;
/// So many that a sweep of one holds up nobody. A power of two.
const SHARDS: usize = 16;
/// Bytes of all tables of tiles together, but for small ones that must grow: sixteen hundred people who spend
/// 20,000 tiles in an hour, or fifty thousand who look at 500.
const ROOM: usize = 256 << 20;
/// How many seconds' worth of requests may come at once where a class does not say.
const BURST_SECONDS: u32 = 5;

label_enum! {
    /// Which limit a refusal is about.
    pub enum QuotaLimit {
        /// Requests a second.
        Rate = "rate",
        /// Different tiles within an hour.
        DistinctTiles = "distinct_tiles",
    }
}

/// A class of people, and what they may spend. What is `None` is not limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaClass {
    /// Its name, as in a token's `quota`.
    pub name: String,
    /// Requests for tiles, a second.
    pub requests_per_second: Option<NonZeroU32>,
    /// How many may come at once; `None`: five seconds' worth.
    pub burst: Option<NonZeroU32>,
    /// Different tiles within any hour.
    pub distinct_tiles_per_hour: Option<NonZeroU32>,
    /// Whether these are jobs, which give way to people.
    pub background: bool,
}

impl QuotaClass {
    /// Whether there is nothing to know of its people.
    fn is_plain(&self) -> bool {
        self.requests_per_second.is_none()
            && self.distinct_tiles_per_hour.is_none()
            && !self.background
    }

    fn burst_size(&self, per_second: NonZeroU32) -> NonZeroU32 {
        let default = per_second.get().saturating_mul(BURST_SECONDS);
        self.burst
            .or(NonZeroU32::new(default))
            .unwrap_or(per_second)
    }
}

/// A refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverQuota {
    /// Which limit.
    pub limit: QuotaLimit,
    /// When one more fits.
    pub retry_after: Duration,
    /// Whether every tile that was seen within the hour is still served meanwhile.
    pub seen_are_served: bool,
}

/// All classes, and what everybody has spent.
pub struct Quotas {
    classes: Vec<Arc<QuotaClass>>,
    /// A hash that has taken in a key of this process.
    keyed: DefaultHasher,
    room: Arc<Room>,
    shards: [Shard; SHARDS],
    people_of_a_shard: usize,
    forgotten: AtomicU64,
}

/// People by class and `sub`.
type Shard = Mutex<HashMap<Box<str>, Arc<Spender>>>;

impl Quotas {
    /// These classes; the first is that of sessions which name none. Without any, nothing is limited and no
    /// name means anything.
    pub fn new(classes: Vec<QuotaClass>) -> Result<Self, NoRandomness> {
        Ok(Self::with_key(classes, random()?))
    }

    /// The same under a given key, for simulations that have to be repeatable.
    pub fn with_key(classes: Vec<QuotaClass>, key: [u8; 16]) -> Self {
        // SipHash with the key as the beginning of what is hashed: who does not know it foresees nothing.
        let mut keyed = DefaultHasher::new();
        keyed.write(&key);
        Self {
            classes: classes.into_iter().map(Arc::new).collect(),
            keyed,
            room: Arc::new(Room::new(ROOM)),
            shards: Default::default(),
            people_of_a_shard: PEOPLE / SHARDS,
            forgotten: AtomicU64::new(0),
        }
    }

    /// No classes: nothing is limited.
    pub fn none() -> Self {
        Self::with_key(Vec::new(), [0; 16])
    }

    /// The names of the classes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.classes.iter().map(|class| &*class.name)
    }

    /// Whether tokens of this class are accepted: all are where there are no classes.
    pub fn accepts(&self, class: &str) -> bool {
        self.classes.is_empty() || self.names().any(|name| name == class)
    }

    /// What a session of this person and this class spends; `None` where the class says nothing. Takes a lock:
    /// for a session's first request.
    pub fn spender(
        &self,
        sub: &str,
        quota: Option<&str>,
    ) -> Result<Option<Arc<Spender>>, AuthError> {
        let class = match quota {
            None => self.classes.first(),
            Some(_) if self.classes.is_empty() => None,
            Some(name) => {
                let named = self.classes.iter().find(|class| class.name == name);
                Some(named.ok_or(AuthError::UnknownQuota)?)
            }
        };
        let Some(class) = class.filter(|class| !class.is_plain()) else {
            return Ok(None);
        };
        // No class has a NUL in its name.
        let key = format!("{}\0{sub}", class.name);
        let mut keyed = self.keyed.clone();
        keyed.write(key.as_bytes());
        let mut people = locked(self.shard(keyed.finish()));
        if let Some(spender) = people.get(&*key) {
            return Ok(Some(Arc::clone(spender)));
        }
        if people.len() >= self.people_of_a_shard || self.room.is_full() {
            self.forget_the_least(&mut people);
        }
        let spender = Arc::new(Spender::new(sub, class, keyed, &self.room));
        people.insert(key.into(), Arc::clone(&spender));
        Ok(Some(spender))
    }

    /// Forgets what no longer counts. To be called about once a minute; a few milliseconds at most.
    pub fn sweep(&self, now: Uptime) {
        for shard in &self.shards {
            locked(shard).retain(|_, spender| !spender.is_settled(now) || is_held(spender));
        }
    }

    /// How many people are remembered.
    pub fn people(&self) -> usize {
        self.shards.iter().map(|shard| locked(shard).len()).sum()
    }

    /// Bytes of all tables of tiles.
    pub fn table_bytes(&self) -> usize {
        self.room.taken()
    }

    /// How many people were forgotten while something of theirs counted.
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// Makes room: a quarter of those whom no session holds, those with the least counted first. A session
    /// keeps its spender, so whoever is held stays, and there are fewer remembered sessions than places.
    fn forget_the_least(&self, people: &mut HashMap<Box<str>, Arc<Spender>>) {
        let mut counts: Vec<u64> = people
            .values()
            .filter(|spender| !is_held(spender))
            .map(|spender| spender.counted())
            .collect();
        if counts.is_empty() {
            return;
        }
        let mut excess = counts.len().div_ceil(4);
        let (_, most, _) = counts.select_nth_unstable(excess - 1);
        let most = *most;
        people.retain(|_, spender| {
            let counted = spender.counted();
            let go = excess > 0 && counted <= most && !is_held(spender);
            excess -= usize::from(go);
            self.forgotten
                .fetch_add(u64::from(go && counted > 0), Ordering::Relaxed);
            !go
        });
    }

    fn shard(&self, hash: u64) -> &Shard {
        let index = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        &self.shards[index]
    }
}

impl Default for Quotas {
    fn default() -> Self {
        Self::none()
    }
}

impl fmt::Debug for Quotas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quotas")
            .field("classes", &self.classes)
            .field("people", &self.people())
            .finish_non_exhaustive()
    }
}

/// Whether a session has it. New holders come by the shard's lock, or from one who holds it already.
fn is_held(spender: &Arc<Spender>) -> bool {
    Arc::strong_count(spender) > 1
}

fn locked(shard: &Shard) -> MutexGuard<'_, HashMap<Box<str>, Arc<Spender>>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
