//! What is counted while people look at maps.
//!
//! Invariant: memory is bounded whatever the test's length: histograms, counters of closed sets, and a
//! series of at most [`Series::MAX`] points, which grow coarser. Latency counts from when a view wanted its
//! tile, not from when a connection was free ("coordinated omission"); both parts are kept besides. What was
//! given up counts as long as it was waited for: a lower bound, rather than nothing.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::outcome::Outcome;
use super::series::Series;
use crate::clock::Uptime;
use crate::metrics::{Label, Source};

/// A request that is over.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// When its view wanted the tile.
    pub wanted: Uptime,
    /// When it was handed to a connection; `None` when that never came about.
    pub sent: Option<Uptime>,
    /// When its last byte was there, or it was given up.
    pub done: Uptime,
    /// How it ended.
    pub outcome: Outcome,
    /// Where the answer came from.
    pub source: Option<Source>,
    /// Of its body.
    pub bytes: u64,
}

/// How a view ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewEnd {
    /// The browser's cache had all of it.
    AtHand,
    /// All came, after so long.
    Filled(Duration),
    /// All was answered, but some of it with failures.
    Holes,
    /// It was left before all had come, after so long.
    Left(Duration),
}

/// Microseconds; up to ten minutes, three digits.
pub type Times = Histogram<u64>;

/// Ten minutes: longer waits are cut to it.
pub const LONGEST: u64 = 600_000_000;

/// An empty one.
pub fn times() -> Times {
    Histogram::new_with_bounds(1, LONGEST, 3).expect("bounds that a histogram can have")
}

/// As such a histogram counts it.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros())
        .unwrap_or(u64::MAX)
        .clamp(1, LONGEST)
}

/// All that is counted.
#[derive(Debug, Clone)]
pub struct Stats {
    start: Uptime,
    /// Requests by how they ended, in the order of [`Outcome`]'s words.
    pub outcomes: [u64; 18],
    /// Answers by where they came from, in the order of [`Source`]'s words; those without a word last.
    pub sources: [u64; 9],
    /// From wanted to the last byte.
    pub latency: Times,
    /// From handed to a connection to the last byte.
    pub service: Times,
    /// From wanted to handed to a connection.
    pub wait: Times,
    /// Bytes of bodies.
    pub bytes: u64,
    /// Of views that asked the server: until all was there, or they were left.
    pub fill: Times,
    /// Views.
    pub views: u64,
    /// Of these: the browser had all of it.
    pub views_at_hand: u64,
    /// Of these: all came.
    pub views_filled: u64,
    /// Of these: with failures.
    pub views_with_holes: u64,
    /// Of these: left before all had come.
    pub views_left: u64,
    /// Tiles that views wanted.
    pub wanted: u64,
    /// Of these: fresh in the browser's cache.
    pub cached_fresh: u64,
    /// Of these: stale there, used, and asked for behind.
    pub cached_stale: u64,
    /// Bytes that the browser's cache spared: fresh ones, and those of 304s.
    pub spared_bytes: u64,
    /// Connections that were opened.
    pub connections: u64,
    /// How late views began: the generator's own delay.
    pub lateness: Times,
    /// For each way to fail, the first path that did, without its query.
    pub examples: [Option<String>; 18],
    /// The course.
    pub series: Series,
}

impl Stats {
    /// Nothing yet.
    pub fn new(start: Uptime) -> Self {
        Self {
            start,
            outcomes: [0; 18],
            sources: [0; 9],
            latency: times(),
            service: times(),
            wait: times(),
            bytes: 0,
            fill: times(),
            views: 0,
            views_at_hand: 0,
            views_filled: 0,
            views_with_holes: 0,
            views_left: 0,
            wanted: 0,
            cached_fresh: 0,
            cached_stale: 0,
            spared_bytes: 0,
            connections: 0,
            lateness: times(),
            examples: [const { None }; 18],
            series: Series::new(),
        }
    }

    /// Counts a request.
    pub fn request(&mut self, sample: &Sample) {
        let outcome = sample.outcome;
        self.outcomes[outcome.index()] += 1;
        let latency = micros(sample.done.since(sample.wanted));
        self.latency.saturating_record(latency);
        if let Some(sent) = sample.sent {
            self.service
                .saturating_record(micros(sample.done.since(sent)));
            self.wait
                .saturating_record(micros(sent.since(sample.wanted)));
        } else {
            self.wait.saturating_record(latency);
        }
        if outcome.is_good() {
            let source = sample.source.map_or(self.sources.len() - 1, Label::index);
            self.sources[source] += 1;
        }
        self.bytes += sample.bytes;
        let point = self.series.at(sample.done.since(self.start));
        point.latency.saturating_record(latency);
        if outcome.is_good() || outcome.is_failure() {
            point.requests += 1;
        }
        point.failures += u64::from(outcome.is_failure());
    }

    /// Counts a view.
    pub fn view(&mut self, end: ViewEnd) {
        self.views += 1;
        match end {
            ViewEnd::AtHand => self.views_at_hand += 1,
            ViewEnd::Filled(after) => {
                self.views_filled += 1;
                self.fill.saturating_record(micros(after));
            }
            ViewEnd::Holes => self.views_with_holes += 1,
            ViewEnd::Left(after) => {
                self.views_left += 1;
                self.fill.saturating_record(micros(after));
            }
        }
    }

    /// Remembers what failed, if it is the first of its kind. A query may hold a signature, so it is left out.
    pub fn example(&mut self, outcome: Outcome, path: impl FnOnce() -> String) {
        let example = &mut self.examples[outcome.index()];
        if example.is_none() {
            let mut path = path();
            path.truncate(path.find('?').unwrap_or(path.len()));
            *example = Some(path);
        }
    }

    /// Counts how late a view began.
    pub fn late(&mut self, by: Duration) {
        self.lateness.saturating_record(micros(by));
    }

    /// Requests that ended so.
    pub fn ended(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome.index()]
    }

    /// Requests that the server answered, or should have.
    pub fn answered(&self) -> u64 {
        self.sum(|outcome| outcome.is_good() || outcome.is_failure())
    }

    /// Requests that failed.
    pub fn failed(&self) -> u64 {
        self.sum(Outcome::is_failure)
    }

    fn sum(&self, which: impl Fn(Outcome) -> bool) -> u64 {
        let all = Outcome::ALL.iter().zip(self.outcomes);
        all.filter(|(outcome, _)| which(**outcome))
            .map(|(_, count)| count)
            .sum()
    }

    /// Adds what another counted.
    pub fn add(&mut self, other: Self) {
        let pairs = self.outcomes.iter_mut().zip(other.outcomes);
        pairs.for_each(|(own, more)| *own += more);
        let pairs = self.sources.iter_mut().zip(other.sources);
        pairs.for_each(|(own, more)| *own += more);
        for (own, more) in [
            (&mut self.latency, &other.latency),
            (&mut self.service, &other.service),
            (&mut self.wait, &other.wait),
            (&mut self.fill, &other.fill),
            (&mut self.lateness, &other.lateness),
        ] {
            // All have the same bounds.
            let _ = own.add(more);
        }
        for (own, more) in [
            (&mut self.bytes, other.bytes),
            (&mut self.views, other.views),
            (&mut self.views_at_hand, other.views_at_hand),
            (&mut self.views_filled, other.views_filled),
            (&mut self.views_with_holes, other.views_with_holes),
            (&mut self.views_left, other.views_left),
            (&mut self.wanted, other.wanted),
            (&mut self.cached_fresh, other.cached_fresh),
            (&mut self.cached_stale, other.cached_stale),
            (&mut self.spared_bytes, other.spared_bytes),
            (&mut self.connections, other.connections),
        ] {
            *own += more;
        }
        for (own, more) in self.examples.iter_mut().zip(other.examples) {
            *own = own.take().or(more);
        }
        self.series.add(other.series);
    }
}

/// How it goes.
#[derive(Debug, Clone, Default)]
pub struct Glance {
    /// Requests that were answered or failed.
    pub requests: u64,
    /// Of these: failed.
    pub failed: u64,
    /// Views.
    pub views: u64,
    /// Tiles that views wanted.
    pub wanted: u64,
    /// Of these: in the browser's cache.
    pub cached: u64,
    /// Median latency.
    pub p50: Duration,
    /// 99th percentile.
    pub p99: Duration,
}

/// Where people on several threads count: they hardly ever wait for each other.
#[derive(Debug)]
pub struct Recorder {
    shards: Vec<Mutex<Stats>>,
}

/// Each takes some 3 MB at most.
const SHARDS: usize = 8;

impl Recorder {
    /// Nothing yet.
    pub fn new(start: Uptime) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::new(Stats::new(start)));
        Self {
            shards: shards.collect(),
        }
    }

    /// The test begins now.
    pub fn begin(&self, start: Uptime) {
        for shard in &self.shards {
            let mut stats = shard.lock().unwrap_or_else(PoisonError::into_inner);
            stats.start = start;
        }
    }

    /// Lets one of the people count.
    pub fn with<T>(&self, person: u32, count: impl FnOnce(&mut Stats) -> T) -> T {
        let shard = &self.shards[person as usize % SHARDS];
        count(&mut shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A few figures so far, without holding anybody up.
    pub fn glance(&self) -> Glance {
        let mut glance = Glance::default();
        let mut latency = times();
        for shard in &self.shards {
            let stats = shard.lock().unwrap_or_else(PoisonError::into_inner);
            glance.requests += stats.answered();
            glance.failed += stats.failed();
            glance.views += stats.views;
            glance.wanted += stats.wanted;
            glance.cached += stats.cached_fresh + stats.cached_stale;
            let _ = latency.add(&stats.latency);
        }
        glance.p50 = Duration::from_micros(latency.value_at_quantile(0.5));
        glance.p99 = Duration::from_micros(latency.value_at_quantile(0.99));
        glance
    }

    /// The sum so far.
    pub fn sum(&self) -> Stats {
        let of =
            |shard: &Mutex<Stats>| shard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut sum = of(&self.shards[0]);
        for shard in &self.shards[1..] {
            sum.add(of(shard));
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_have_their_places() {
        let stats = Stats::new(Uptime::default());
        assert_eq!(stats.outcomes.len(), Outcome::ALL.len());
        assert_eq!(stats.sources.len(), Source::ALL.len() + 1);
    }

    fn sample(wanted: u64, sent: u64, done: u64) -> Sample {
        let at = |millis: u64| Uptime::from_nanos(millis * 1_000_000);
        Sample {
            wanted: at(wanted),
            sent: Some(at(sent)),
            done: at(done),
            outcome: Outcome::Tile,
            source: Some(Source::Memory),
            bytes: 10,
        }
    }

    #[test]
    fn latency_counts_the_wait_for_a_connection() {
        let mut stats = Stats::new(Uptime::default());
        stats.request(&sample(100, 300, 310));
        let near = |times: &Times, millis: u64| {
            let value = times.max();
            value.abs_diff(millis * 1000) <= millis
        };
        assert!(near(&stats.latency, 210) && near(&stats.wait, 200) && near(&stats.service, 10));
    }

    #[test]
    fn a_long_test_has_no_longer_a_series() {
        let mut stats = Stats::new(Uptime::default());
        for second in 0..1000 {
            stats.request(&sample(second * 1000, second * 1000, second * 1000 + 5));
        }
        let series = &stats.series;
        assert!(series.points.len() <= Series::MAX);
        assert_eq!(series.step, 8);
        let sum: u64 = series.points.iter().map(|point| point.requests).sum();
        assert_eq!(sum, 1000);
    }

    #[test]
    fn a_stub_of_a_second_makes_no_rate_of_its_own() {
        let mut series = Series::new();
        for after in [100, 900, 1500, 2003] {
            series.at(Duration::from_millis(after)).requests += 1;
        }
        let mut longer = series.clone();
        series.end(Duration::from_millis(2010));
        let requests =
            |series: &Series| series.points.iter().map(|p| p.requests).collect::<Vec<_>>();
        assert_eq!(requests(&series), [2, 2]);
        longer.end(Duration::from_millis(2600));
        assert_eq!(requests(&longer), [2, 1, 1]);
    }

    #[test]
    fn sums_are_those_of_all_shards() {
        let recorder = Recorder::new(Uptime::default());
        for person in 0..100 {
            recorder.with(person, |stats| {
                stats.request(&sample(0, 0, u64::from(person) * 10_000));
                stats.view(ViewEnd::AtHand);
            });
        }
        let sum = recorder.sum();
        assert_eq!((sum.answered(), sum.views, sum.bytes), (100, 100, 1000));
        assert_eq!(sum.sources.iter().sum::<u64>(), 100);
        let points: u64 = sum.series.points.iter().map(|point| point.requests).sum();
        assert_eq!(points, 100);
    }
}
