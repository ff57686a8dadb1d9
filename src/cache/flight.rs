//! Collapsed requests: whoever wants a tile that is being fetched waits for that fetch.
//!
//! A fill runs as a task of its own, which every waiter joins, so a client that hangs up aborts
//! nobody's fill. Invariant: a key has at most one flight that can be joined, and a flight leaves
//! the table when its task ends, however it ends.

use std::collections::HashMap;
use std::future::Future;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::metrics::Label as _;
use crate::origin::{Lane, Urgency};
use crate::tile::TileKey;

const SHARDS: usize = 16;

type Table<T> = HashMap<TileKey, Flight<T>, foldhash::fast::RandomState>;

#[derive(Debug)]
struct Flight<T> {
    result: watch::Receiver<Option<T>>,
    /// Tells this flight from a later one under the same key.
    number: u64,
    withdrawn: Withdrawn,
    urgency: Urgency,
}

/// Whether a purge took a flight off the table: what it brings must not be kept.
#[derive(Debug, Clone, Default)]
pub struct Withdrawn(Arc<AtomicBool>);

impl Withdrawn {
    /// Whether one did by now.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The fills under way.
#[derive(Debug)]
pub struct Flights<T> {
    /// Where fills run: not on a core's runtime, whose business is hits.
    runtime: Handle,
    shards: [Mutex<(Table<T>, u64)>; SHARDS],
    /// Fills that have been begun and have not ended, by their lane at the beginning.
    under_way: [AtomicUsize; Lane::ALL.len()],
    hasher: foldhash::fast::RandomState,
}

/// A place in a flight.
#[derive(Debug)]
pub struct Ticket<T> {
    result: watch::Receiver<Option<T>>,
    /// Whether another request had started it.
    pub collapsed: bool,
    /// Which flight it is, of those under the key.
    pub number: u64,
}

impl<T: Clone> Ticket<T> {
    /// Waits for the fill's result. `None` if the fill's task died without one.
    pub async fn landed(mut self) -> Option<T> {
        match self.result.wait_for(Option::is_some).await {
            Ok(result) => result.clone(),
            Err(_) => None,
        }
    }
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    /// No flights. They will run on the runtime that this is called on.
    pub fn new() -> Self {
        Self {
            runtime: Handle::current(),
            shards: std::array::from_fn(|_| Mutex::new((Table::default(), 0))),
            under_way: std::array::from_fn(|_| AtomicUsize::new(0)),
            hasher: foldhash::fast::RandomState::default(),
        }
    }

    /// Joins the flight for `key`, which is then as urgent as `lane` at least, or starts one with `fill`.
    pub fn join<F>(
        self: &Arc<Self>,
        key: TileKey,
        lane: Lane,
        fill: impl FnOnce(Withdrawn, Urgency) -> F,
    ) -> Ticket<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut shard = self.shard(key);
        let (table, numbers) = &mut *shard;
        if let Some(flight) = table.get(&key) {
            flight.urgency.join(lane);
            return Ticket {
                result: flight.result.clone(),
                collapsed: true,
                number: flight.number,
            };
        }
        let (sender, result) = watch::channel(None);
        *numbers += 1;
        let number = *numbers;
        let withdrawn = Withdrawn::default();
        let urgency = Urgency::new(lane);
        let flight = Flight {
            result: result.clone(),
            number,
            withdrawn: withdrawn.clone(),
            urgency: urgency.clone(),
        };
        table.insert(key, flight);
        drop(shard);

        self.under_way[lane as usize].fetch_add(1, Ordering::Relaxed);
        let landing = Landing {
            flights: Arc::clone(self),
            key,
            number,
            lane,
        };
        let fill = fill(withdrawn, urgency);
        self.runtime.spawn(async move {
            let result = fill.await;
            // Off the table first: who comes now finds the result in the cache.
            drop(landing);
            sender.send_replace(Some(result));
        });
        Ticket {
            result,
            collapsed: false,
            number,
        }
    }

    /// Takes flights off the table and withdraws them: after a purge, who comes now starts anew, and
    /// a fetch that began before it must not keep what it brings.
    pub fn forget(&self, matches: impl Fn(&TileKey) -> bool) {
        for shard in &self.shards {
            lock(shard).0.retain(|key, flight| {
                let purged = matches(key);
                if purged {
                    flight.withdrawn.0.store(true, Ordering::Release);
                }
                !purged
            });
        }
    }

    /// As [`Flights::forget`], for one tile.
    pub fn forget_one(&self, key: TileKey) {
        if let Some(flight) = self.shard(key).0.remove(&key) {
            flight.withdrawn.0.store(true, Ordering::Release);
        }
    }

    /// Takes a flight off the table and withdraws it: it should have ended, and what it may still
    /// bring is late.
    pub fn give_up(&self, key: TileKey, number: u64) {
        let mut shard = self.shard(key);
        if let Some(flight) = shard.0.get(&key)
            && flight.number == number
        {
            flight.withdrawn.0.store(true, Ordering::Release);
            shard.0.remove(&key);
        }
    }

    /// Whether one can be joined.
    pub fn contains(&self, key: TileKey) -> bool {
        self.shard(key).0.contains_key(&key)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).0.len()).sum()
    }

    /// Fills of a lane that have been begun and have not ended: also those that no thread has come to yet.
    pub fn under_way(&self, lane: Lane) -> usize {
        self.under_way[lane as usize].load(Ordering::Relaxed)
    }

    fn shard(&self, key: TileKey) -> MutexGuard<'_, (Table<T>, u64)> {
        let hash = usize::try_from(self.hasher.hash_one(key) >> 32).unwrap_or(0);
        lock(&self.shards[hash % SHARDS])
    }
}

/// A panic elsewhere leaves a table of receivers whole: the lock's poison says nothing here.
fn lock<G>(mutex: &Mutex<G>) -> MutexGuard<'_, G> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes its flight off the table when dropped, also by a panic.
struct Landing<T: Clone + Send + Sync + 'static> {
    flights: Arc<Flights<T>>,
    key: TileKey,
    number: u64,
    lane: Lane,
}

impl<T: Clone + Send + Sync + 'static> Drop for Landing<T> {
    fn drop(&mut self) {
        self.flights.under_way[self.lane as usize].fetch_sub(1, Ordering::Relaxed);
        let mut shard = self.flights.shard(self.key);
        if shard
            .0
            .get(&self.key)
            .is_some_and(|flight| flight.number == self.number)
        {
            shard.0.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tile::{KeySpace, Scale, TileCoord};

    fn key() -> TileKey {
        TileKey::new(
            KeySpace::new("t", None),
            TileCoord::new(1, 0, 0).unwrap(),
            Scale::One,
        )
    }

    fn join<T: Clone + Send + Sync + 'static>(
        flights: &Arc<Flights<T>>,
        fill: impl Future<Output = T> + Send + 'static,
    ) -> Ticket<T> {
        flights.join(key(), Lane::Interactive, |_, _| fill)
    }

    #[tokio::test]
    async fn a_thousand_requests_make_one_fill_whoever_hangs_up() {
        let flights = Arc::new(Flights::new());
        let fills = Arc::new(AtomicUsize::new(0));
        let (open, gate) = watch::channel(false);
        let mut tickets = Vec::new();
        for _ in 0..1000 {
            let (fills, mut gate) = (fills.clone(), gate.clone());
            tickets.push(join(&flights, async move {
                fills.fetch_add(1, Ordering::SeqCst);
                gate.wait_for(|open| *open).await.map(|_| ()).ok();
                7
            }));
        }
        assert!(!tickets[0].collapsed && tickets[1].collapsed);
        // The one who started it hangs up, and every second of the others.
        let mut n = 0;
        tickets.retain(|_| {
            n += 1;
            n % 2 == 0
        });
        open.send_replace(true);
        for ticket in tickets {
            assert_eq!(ticket.landed().await, Some(7));
        }
        assert_eq!(fills.load(Ordering::SeqCst), 1);
        assert_eq!(
            (flights.len(), flights.under_way(Lane::Interactive)),
            (0, 0)
        );
    }

    #[tokio::test]
    async fn a_fill_that_panics_fails_its_waiters_and_blocks_nobody() {
        let flights = Arc::new(Flights::<u8>::new());
        let ticket = join(&flights, async { panic!("a fill that dies, on purpose") });
        assert_eq!(flights.under_way(Lane::Interactive), 1);
        assert_eq!(ticket.landed().await, None);
        assert_eq!(flights.under_way(Lane::Interactive), 0);
        assert_eq!(join(&flights, async { 1 }).landed().await, Some(1));
    }

    #[tokio::test]
    async fn who_comes_after_a_purge_starts_anew() {
        let flights = Arc::new(Flights::new());
        let (open, mut gate) = watch::channel(false);
        let old = join(&flights, async move {
            gate.wait_for(|open| *open).await.map(|_| ()).ok();
            "old"
        });
        flights.forget(|_| true);
        let new = join(&flights, async { "new" });
        assert!(!new.collapsed);
        open.send_replace(true);
        assert_eq!(
            (old.landed().await, new.landed().await),
            (Some("old"), Some("new"))
        );
        assert_eq!(flights.len(), 0);
    }

    #[tokio::test]
    async fn a_flight_that_was_given_up_is_joined_by_nobody() {
        let flights = Arc::new(Flights::new());
        let (_open, mut gate) = watch::channel(false);
        let stuck = join(&flights, async move {
            gate.wait_for(|open| *open).await.map(|_| ()).ok();
            "late"
        });
        flights.give_up(key(), stuck.number + 1);
        assert!(flights.contains(key()), "another one");
        flights.give_up(key(), stuck.number);
        let new = join(&flights, async { "new" });
        assert!(!new.collapsed);
        flights.give_up(key(), stuck.number);
        assert_eq!(new.landed().await, Some("new"));
    }
}
