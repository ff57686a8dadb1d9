//! A person's browser with a map in it: what a view shows is taken from the cache or asked for.
//!
//! Invariant: each tile that a view wants is at hand, under way, or in the queue, from the middle outwards;
//! and every request is counted exactly once. Requests of a view that was left are given up, as MapLibre
//! does (Leaflet does when the zoom changes). Left out: overzoomed parents, and asking again after a failure:
//! a map without `tilekeep.js` leaves the hole.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use http::header::SET_COOKIE;
use http::{HeaderValue, StatusCode};
use tokio::task::AbortHandle;

use super::browser_cache::{BrowserCache, Key, Lookup};
use super::outcome::{self, Outcome};
use super::person::World;
use super::stats::{Recorder, Sample, ViewEnd};
use super::view::View;
use super::wire::{Answered, Done, Next, Order, Wire};
use crate::client::Credential;
use crate::clock::{Clock, Uptime};
use crate::tile::TileCoord;

/// A tile that is to be asked for.
struct Wanted {
    key: Key,
    tile: TileCoord,
    etag: Option<HeaderValue>,
    since: Uptime,
    /// Nobody waits for it: what was stale is on the screen.
    behind: bool,
}

/// A request under way.
struct Flight {
    wanted: Wanted,
    sent: Uptime,
    abort: AbortHandle,
}

/// The view on the screen, until it is complete.
struct Viewing {
    since: Uptime,
    missing: HashSet<Key>,
    holes: bool,
}

/// The browser of one person.
pub struct Browser {
    person: u32,
    world: Arc<World>,
    recorder: Arc<Recorder>,
    clock: Clock,
    credential: Credential,
    cache: BrowserCache,
    wire: Wire,
    queue: VecDeque<Wanted>,
    flights: HashMap<u64, Flight>,
    next_id: u64,
    viewing: Option<Viewing>,
}

impl Browser {
    /// A browser with an empty cache of so many bytes.
    pub fn new(
        person: u32,
        world: Arc<World>,
        recorder: Arc<Recorder>,
        clock: Clock,
        wire: Wire,
        cache: u64,
    ) -> Self {
        Self {
            person,
            world,
            recorder,
            clock,
            credential: Credential::Nobody,
            cache: BrowserCache::new(cache),
            wire,
            queue: VecDeque::new(),
            flights: HashMap::new(),
            next_id: 0,
            viewing: None,
        }
    }

    /// As whom it asks.
    pub fn sign_in(&mut self, credential: Credential) {
        self.credential = credential;
    }

    /// Shows a view, which its person wanted at `since`.
    pub fn show(&mut self, view: &View, since: Uptime) {
        // What has come by now has come in time.
        while let Some(done) = self.wire.try_next() {
            self.settle(done);
        }
        self.leave(since);
        // What is fresh is asked of the time at which it is looked up, not of when the view was
        // wanted: an answer without any freshness that came in between would else count as fresh.
        let now = self.clock.uptime();
        let ground = &self.world.grounds()[view.ground];
        let number = u16::try_from(view.ground).unwrap_or(u16::MAX);
        let tiles = view.tiles(ground, self.world.screen());
        let keys: HashSet<Key> = tiles.iter().map(|tile| (number, tile.number())).collect();
        self.give_up(&keys);
        let mut queued: HashMap<Key, Wanted> = HashMap::new();
        let mut behind = VecDeque::new();
        for wanted in self.queue.drain(..) {
            if wanted.behind {
                behind.push_back(wanted);
            } else {
                queued.insert(wanted.key, wanted);
            }
        }
        let under_way: HashSet<Key> = self.flights.values().map(|f| f.wanted.key).collect();
        let mut missing = HashSet::new();
        let (mut fresh, mut stale, mut spared) = (0, 0, 0);
        let many = tiles.len() as u64;
        for tile in tiles {
            let key = (number, tile.number());
            let wanted = |etag, behind| Wanted {
                key,
                tile,
                etag,
                since,
                behind,
            };
            if let Some(waiting) = queued.remove(&key) {
                missing.insert(key);
                self.queue.push_back(waiting);
                continue;
            }
            match self.cache.lookup(key, now) {
                Lookup::Fresh { bytes } => {
                    fresh += 1;
                    spared += bytes;
                }
                Lookup::Stale { etag, .. } => {
                    stale += 1;
                    let waits = behind.iter().any(|other: &Wanted| other.key == key);
                    if !waits && !under_way.contains(&key) {
                        behind.push_back(wanted(etag, true));
                    }
                }
                Lookup::Expired { .. } | Lookup::Absent if under_way.contains(&key) => {
                    missing.insert(key);
                }
                Lookup::Expired { etag } => {
                    missing.insert(key);
                    self.queue.push_back(wanted(etag, false));
                }
                Lookup::Absent => {
                    missing.insert(key);
                    self.queue.push_back(wanted(None, false));
                }
            }
        }
        self.queue.append(&mut behind);
        let at_hand = missing.is_empty();
        self.recorder.with(self.person, |stats| {
            stats.wanted += many;
            stats.cached_fresh += fresh;
            stats.cached_stale += stale;
            stats.spared_bytes += spared;
            if at_hand {
                stats.view(ViewEnd::AtHand);
            }
        });
        self.viewing = (!at_hand).then_some(Viewing {
            since,
            missing,
            holes: false,
        });
        self.dispatch();
    }

    /// Waits for the next answer; for ever where none is under way.
    pub async fn turn(&mut self) {
        match self.wire.next().await {
            Next::Done(done) => self.settle(*done),
            Next::Aborted => {}
            Next::Idle => std::future::pending().await,
        }
        self.dispatch();
    }

    /// The test is over: what is under way is counted as such.
    pub fn close(&mut self, now: Uptime) {
        while let Some(done) = self.wire.try_next() {
            self.settle(done);
        }
        self.leave(now);
        for wanted in std::mem::take(&mut self.queue) {
            if !wanted.behind {
                self.count_lost(&wanted, None, now, Outcome::Unfinished);
            }
        }
        for flight in std::mem::take(&mut self.flights).into_values() {
            flight.abort.abort();
            self.count_lost(&flight.wanted, Some(flight.sent), now, Outcome::Unfinished);
        }
    }

    /// The view that was on the screen is left.
    fn leave(&mut self, now: Uptime) {
        if let Some(viewing) = self.viewing.take() {
            let end = ViewEnd::Left(now.since(viewing.since));
            self.recorder.with(self.person, |stats| stats.view(end));
        }
    }

    /// Gives up what the new view does not show.
    fn give_up(&mut self, shown: &HashSet<Key>) {
        let now = self.clock.uptime();
        let (kept, gone): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.queue)
            .into_iter()
            .partition(|wanted| wanted.behind || shown.contains(&wanted.key));
        self.queue = kept;
        for wanted in gone {
            self.count_lost(&wanted, None, now, Outcome::Cancelled);
        }
        let left: Vec<u64> = self
            .flights
            .iter()
            .filter(|(_, flight)| !flight.wanted.behind && !shown.contains(&flight.wanted.key))
            .map(|(id, _)| *id)
            .collect();
        for flight in left
            .iter()
            .filter_map(|id| self.flights.remove(id))
            .collect::<Vec<_>>()
        {
            flight.abort.abort();
            self.count_lost(&flight.wanted, Some(flight.sent), now, Outcome::Cancelled);
        }
    }

    fn count_lost(&self, wanted: &Wanted, sent: Option<Uptime>, now: Uptime, outcome: Outcome) {
        let sample = Sample {
            wanted: wanted.since,
            sent,
            done: now,
            outcome,
            source: None,
            bytes: 0,
        };
        self.recorder
            .with(self.person, |stats| stats.request(&sample));
    }

    /// Sends what there is room for.
    fn dispatch(&mut self) {
        while self.wire.has_room() {
            let Some(mut wanted) = self.queue.pop_front() else {
                return;
            };
            let now = self.clock.uptime();
            if wanted.behind {
                wanted.since = now;
            }
            self.next_id += 1;
            let ground = &self.world.grounds()[usize::from(wanted.key.0)];
            let order = Order {
                id: self.next_id,
                path: ground.path(wanted.tile),
                etag: wanted.etag.clone(),
            };
            let abort = self.wire.send(order, &self.credential);
            let flight = Flight {
                wanted,
                sent: now,
                abort,
            };
            self.flights.insert(self.next_id, flight);
        }
    }

    /// Takes an answer in.
    fn settle(&mut self, done: Done) {
        // One that was given up just as it ended has been counted already.
        let Some(flight) = self.flights.remove(&done.id) else {
            return;
        };
        let key = flight.wanted.key;
        let mut sample = Sample {
            wanted: flight.wanted.since,
            sent: done.sent,
            done: done.ended,
            outcome: Outcome::Unfinished,
            source: None,
            bytes: 0,
        };
        let mut spared = 0;
        match done.answer {
            Ok(answered) => {
                sample.outcome = Outcome::of_status(answered.status);
                sample.source = outcome::source(&answered.headers);
                sample.bytes = answered.bytes;
                spared = self.keep(key, &answered, done.ended);
            }
            Err(outcome) => sample.outcome = outcome,
        }
        let mut end = None;
        if let Some(viewing) = &mut self.viewing
            && viewing.missing.remove(&key)
        {
            viewing.holes |= !sample.outcome.is_good();
            if viewing.missing.is_empty() {
                end = Some(if viewing.holes {
                    ViewEnd::Holes
                } else {
                    ViewEnd::Filled(done.ended.since(viewing.since))
                });
                self.viewing = None;
            }
        }
        self.recorder.with(self.person, |stats| {
            stats.request(&sample);
            stats.connections += done.opened;
            stats.spared_bytes += spared;
            if sample.outcome.is_failure() {
                let ground = &self.world.grounds()[usize::from(key.0)];
                stats.example(sample.outcome, || ground.path(flight.wanted.tile));
            }
            if let Some(end) = end {
                stats.view(end);
            }
        });
    }

    /// What a browser does with an answer besides showing it. The bytes that a 304 spared.
    fn keep(&mut self, key: Key, answered: &Answered, now: Uptime) -> u64 {
        if answered.headers.contains_key(SET_COOKIE) {
            self.credential.absorb(&answered.headers);
        }
        match answered.status {
            StatusCode::NOT_MODIFIED => return self.cache.confirm(key, &answered.headers, now),
            // Kept by a browser where `max-age` says so (RFC 9111 §3, RFC 9110 §15.1).
            StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::NOT_FOUND | StatusCode::GONE => {
                self.cache
                    .store(key, &answered.headers, answered.bytes, now);
            }
            _ => {}
        }
        0
    }
}
