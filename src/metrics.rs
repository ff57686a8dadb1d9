//! What can be counted, as one table: name, help and labels, from closed sets of words.
//!
//! Invariant: no label comes from a client's text, so the number of series is fixed by the build
//! and the configuration. Handles are made once; counting on the tile path is one addition to a thread's own cell.

mod events;
mod helpers;
mod labels;
mod per_core;

use std::marker::PhantomData;
use std::time::Duration;

use prometheus::{
    Encoder as _, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder,
};

pub use self::events::{EventMetrics, EventOutcome, SwitchedBy};
pub use self::helpers::HelperMetrics;
pub use self::labels::*;
pub use self::per_core::{PerCore, PerCoreBy};

/// A closed set of words: a metric's label, a log's field and a header's parameter say the same.
pub trait Label: Copy + 'static {
    /// Every member, in the order of [`Label::index`].
    const ALL: &'static [Self];
    /// The word.
    fn label(self) -> &'static str;
    /// Its place in [`Label::ALL`].
    fn index(self) -> usize;
}

/// Declares an enum whose members are label values.
#[macro_export]
macro_rules! label_enum {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $vis enum $name { $($(#[$vmeta])* $variant,)+ }

        impl $crate::metrics::Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];
            fn label(self) -> &'static str { match self { $(Self::$variant => $word,)+ } }
            fn index(self) -> usize { self as usize }
        }
    };
}

/// A counter for each word of a closed set.
#[derive(Debug, Clone)]
pub struct CounterBy<L> {
    each: Vec<IntCounter>,
    words: PhantomData<L>,
}

impl<L: Label> CounterBy<L> {
    fn new(registry: &Registry, name: &str, help: &str, label: &str) -> Self {
        let vec = IntCounterVec::new(Opts::new(name, help), &[label]).expect("a valid metric");
        let each = L::ALL
            .iter()
            .map(|word| vec.with_label_values(&[word.label()]))
            .collect();
        registry
            .register(Box::new(vec))
            .expect("a metric is registered once");
        Self {
            each,
            words: PhantomData,
        }
    }

    /// Counts one.
    pub fn inc(&self, word: L) {
        self.each[word.index()].inc();
    }

    /// Counts several.
    pub fn add(&self, word: L, count: u64) {
        self.each[word.index()].inc_by(count);
    }

    /// What has been counted.
    pub fn get(&self, word: L) -> u64 {
        self.each[word.index()].get()
    }

    /// Follows a count that is kept elsewhere.
    pub fn follow(&self, word: L, total: u64) {
        follow(&self.each[word.index()], total);
    }
}

/// A counter for each pair of words of two closed sets.
#[derive(Debug, Clone)]
pub struct CounterByTwo<A, B> {
    each: Vec<CounterBy<B>>,
    words: PhantomData<A>,
}

impl<A: Label, B: Label> CounterByTwo<A, B> {
    fn new(registry: &Registry, name: &str, help: &str, labels: [&str; 2]) -> Self {
        let vec = IntCounterVec::new(Opts::new(name, help), &labels).expect("a valid metric");
        let counter = |a: &A, b: &B| vec.with_label_values(&[a.label(), b.label()]);
        let row = |a| CounterBy {
            each: B::ALL.iter().map(|b| counter(a, b)).collect(),
            words: PhantomData,
        };
        let each = A::ALL.iter().map(row).collect();
        registry
            .register(Box::new(vec))
            .expect("a metric is registered once");
        Self {
            each,
            words: PhantomData,
        }
    }

    /// Counts several.
    pub fn add(&self, first: A, second: B, count: u64) {
        self.each[first.index()].add(second, count);
    }

    /// What has been counted.
    pub fn get(&self, first: A, second: B) -> u64 {
        self.each[first.index()].get(second)
    }
}

/// A counter for each configured name and each word of a closed set. A name has no series before it is
/// counted under: with none configured there is nothing to count.
#[derive(Debug, Clone)]
pub struct CounterByName {
    vec: IntCounterVec,
    name: &'static str,
    help: &'static str,
}

impl CounterByName {
    fn new(
        registry: &Registry,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; 2],
    ) -> Self {
        let vec = IntCounterVec::new(Opts::new(name, help), &labels).expect("a valid metric");
        registry
            .register(Box::new(vec.clone()))
            .expect("a metric is registered once");
        Self { vec, name, help }
    }

    /// Counts several, or none to begin the series. The name is one of the configuration's.
    pub fn add(&self, name: &str, word: impl Label, count: u64) {
        let labels = [name, word.label()];
        self.vec.with_label_values(&labels).inc_by(count);
    }

    /// What has been counted.
    pub fn get(&self, name: &str, word: impl Label) -> u64 {
        self.vec.with_label_values(&[name, word.label()]).get()
    }
}

/// Lifts a counter to a total that is kept elsewhere; counters never go back.
pub fn follow(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

/// Upper bounds of latency buckets, in seconds: a memory hit takes microseconds, a deadline ten seconds.
const LATENCY: [f64; 14] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0,
];

/// Every metric there is.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Public answers.
    pub answers: PerCoreBy<Answer>,
    /// Tile answers by where they came from.
    pub tiles: PerCoreBy<Source>,
    /// Time to answer a tile that was not at hand.
    pub fill_seconds: Histogram,
    /// Requests to the origin.
    pub origin: CounterBy<OriginOutcome>,
    /// Body bytes from the origin.
    pub origin_bytes: IntCounter,
    /// Body bytes to clients in tile answers.
    pub tile_bytes: PerCore,
    /// Open client connections.
    pub connections: IntGauge,
    /// Connections closed because their address had too many.
    pub connections_refused: IntCounter,
    /// `accept()` failures, each followed by a pause.
    pub accept_errors: IntCounter,
    /// Log-ins that were refused.
    pub login_failures: CounterBy<LoginWay>,
    /// Log-ins that succeeded.
    pub logins: CounterBy<LoginWay>,
    /// Requests to identity providers.
    pub identity_requests: CounterBy<IdentityAnswer>,
    /// Guesses at what will be wanted next.
    pub guesses: CounterByTwo<GuessKind, Guess>,
    /// Refusals by quota class and limit.
    pub quota_refusals: CounterByName,
    /// People whose spending is remembered.
    pub quota_people: IntGauge,
    /// Bytes of their tables of tiles.
    pub quota_bytes: IntGauge,
    /// People forgotten while something of theirs counted.
    pub quota_forgotten: IntCounter,
    /// Requests with the distribution's secret header.
    pub cloudfront: CounterBy<OriginSecret>,
    /// Events of the disk tier.
    pub disk: CounterBy<DiskEvent>,
    /// Bytes in the memory tier, as it accounts for them.
    pub memory_bytes: IntGauge,
    /// Entries in the memory tier.
    pub memory_entries: IntGauge,
    /// Entries that went for space.
    pub memory_evictions: IntCounter,
    /// Bytes on disk.
    pub disk_bytes: IntGauge,
    /// Entries in the disk tier's index.
    pub disk_entries: IntGauge,
    /// Bytes that reached the disk.
    pub disk_written_bytes: IntCounter,
    /// Entries dropped by purges.
    pub purged: CounterBy<TierLabel>,
    /// Fills under way.
    pub fills_in_flight: IntGauge,
    /// Failed background revalidations.
    pub revalidation_failures: IntCounter,
    /// Whether Redis is there.
    pub cluster_connected: IntGauge,
    /// What nodes told each other.
    pub cluster_messages: CounterByTwo<Message, Direction>,
    /// Trouble between nodes.
    pub cluster_events: CounterBy<ClusterEvent>,
    /// Attempts to get AWS credentials.
    pub credential_refreshes: CounterBy<CredentialOutcome>,
    /// Changes in buckets.
    pub events: EventMetrics,
    /// Versions switched while the server runs.
    pub version_switches: CounterBy<SwitchedBy>,
    credentials_expire: GaugeVec,
    /// Signed URLs and lent credentials.
    pub helpers: HelperMetrics,
}

impl Metrics {
    /// A registry of its own with every metric at zero.
    #[allow(clippy::too_many_lines, reason = "a table, a row a metric")]
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        Self {
            answers: PerCoreBy::new(
                r,
                "tilekeep_http_answers_total",
                "Answers on the public side, by how they ended.",
                "answer",
            ),
            tiles: PerCoreBy::new(
                r,
                "tilekeep_tiles_served_total",
                "Tile answers (200, 304 and missing), by where they came from.",
                "source",
            ),
            fill_seconds: histogram(
                r,
                "tilekeep_fill_seconds",
                "Time to bring a tile that no tier could answer at once.",
            ),
            origin: CounterBy::new(
                r,
                "tilekeep_origin_requests_total",
                "Requests to the origin, by how they ended.",
                "outcome",
            ),
            origin_bytes: counter(
                r,
                "tilekeep_origin_body_bytes_total",
                "Body bytes received from the origin.",
            ),
            tile_bytes: PerCore::new(
                r,
                "tilekeep_tile_body_bytes_total",
                "Body bytes sent in tile answers.",
            ),
            connections: gauge(
                r,
                "tilekeep_connections",
                "Open client connections on the public side.",
            ),
            connections_refused: counter(
                r,
                "tilekeep_connections_refused_total",
                "Connections closed at once: their address had as many open as one may have.",
            ),
            accept_errors: counter(
                r,
                "tilekeep_accept_errors_total",
                "Failures to accept a connection; each is followed by a pause.",
            ),
            login_failures: CounterBy::new(
                r,
                "tilekeep_login_failures_total",
                "Log-ins that were refused.",
                "way",
            ),
            logins: CounterBy::new(r, "tilekeep_logins_total", "Log-ins that succeeded.", "way"),
            identity_requests: CounterBy::new(
                r,
                "tilekeep_identity_requests_total",
                "Requests to identity providers, by how they ended.",
                "outcome",
            ),
            guesses: CounterByTwo::new(
                r,
                "tilekeep_guesses_total",
                "Tiles fetched before anybody asked for them, by what became of it.",
                ["kind", "outcome"],
            ),
            quota_refusals: CounterByName::new(
                r,
                "tilekeep_quota_refusals_total",
                "Requests over a quota, by its class and limit.",
                ["class", "limit"],
            ),
            quota_people: gauge(
                r,
                "tilekeep_quota_people",
                "People whose spending is remembered, each class by itself.",
            ),
            quota_bytes: gauge(
                r,
                "tilekeep_quota_bytes",
                "Bytes of the tables of tiles that count against budgets.",
            ),
            quota_forgotten: counter(
                r,
                "tilekeep_quota_forgotten_total",
                "People forgotten for want of room while something of theirs counted.",
            ),
            cloudfront: CounterBy::new(
                r,
                "tilekeep_cloudfront_requests_total",
                "Requests with the distribution's secret header, by what it was worth.",
                "secret",
            ),
            disk: CounterBy::new(
                r,
                "tilekeep_disk_events_total",
                "Events of the disk tier.",
                "event",
            ),
            memory_bytes: gauge(
                r,
                "tilekeep_memory_bytes",
                "Bytes held by the memory tier, with its own overhead.",
            ),
            memory_entries: gauge(r, "tilekeep_memory_entries", "Entries in the memory tier."),
            memory_evictions: counter(
                r,
                "tilekeep_memory_evictions_total",
                "Entries that the memory tier dropped for space.",
            ),
            disk_bytes: gauge(
                r,
                "tilekeep_disk_bytes",
                "Bytes that the disk tier takes on disk, all files included.",
            ),
            disk_entries: gauge(
                r,
                "tilekeep_disk_entries",
                "Entries in the disk tier's index.",
            ),
            disk_written_bytes: counter(
                r,
                "tilekeep_disk_written_bytes_total",
                "Bytes that the disk tier wrote.",
            ),
            purged: CounterBy::new(
                r,
                "tilekeep_purged_entries_total",
                "Entries dropped or marked stale by purges.",
                "tier",
            ),
            fills_in_flight: gauge(
                r,
                "tilekeep_fills_in_flight",
                "Fetches from disk or origin under way.",
            ),
            revalidation_failures: counter(
                r,
                "tilekeep_revalidation_failures_total",
                "Revalidations behind an answer that failed.",
            ),
            cluster_connected: gauge(
                r,
                "tilekeep_cluster_connected",
                "Whether what nodes share goes through Redis: 1, or 0 while it is away or none is configured.",
            ),
            cluster_messages: CounterByTwo::new(
                r,
                "tilekeep_cluster_messages_total",
                "What nodes told each other.",
                ["kind", "direction"],
            ),
            cluster_events: CounterBy::new(
                r,
                "tilekeep_cluster_events_total",
                "Trouble between nodes.",
                "event",
            ),
            credential_refreshes: CounterBy::new(
                r,
                "tilekeep_aws_credentials_refreshes_total",
                "Attempts to get AWS credentials, by how they ended.",
                "outcome",
            ),
            events: EventMetrics::new(r),
            version_switches: events::version_switches(r),
            credentials_expire: credentials_expire(r),
            helpers: HelperMetrics::new(r),
            registry,
        }
    }

    /// Sets how long an identity's credentials are good for, in seconds: infinity where they have no
    /// end, 0 where there are none. The identity is a configured name.
    pub fn credentials_expire_in(&self, identity: &str, seconds: f64) {
        let gauge = self.credentials_expire.with_label_values(&[identity]);
        gauge.set(seconds);
    }

    /// All of it in Prometheus' text format.
    pub fn render(&self) -> Vec<u8> {
        self.answers.settle();
        self.tiles.settle();
        self.tile_bytes.settle();
        let mut text = Vec::new();
        // Writing to memory cannot fail, and the families are our own.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        text
    }

    /// Name and help of every metric, for the comparison with the README.
    pub fn table(&self) -> Vec<(String, String)> {
        let families = self.registry.gather();
        let mut table: Vec<_> = families
            .iter()
            .map(|f| (f.name().to_owned(), f.help().to_owned()))
            .collect();
        // Not gathered while it has no series.
        let CounterByName { name, help, .. } = self.quota_refusals;
        if table.iter().all(|(known, _)| known != name) {
            table.push((name.to_owned(), help.to_owned()));
        }
        table
    }

    /// Records how long a fill took.
    pub fn observe_fill(&self, took: Duration) {
        self.fill_seconds.observe(took.as_secs_f64());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    let counter = IntCounter::new(name, help).expect("a valid metric");
    registry
        .register(Box::new(counter.clone()))
        .expect("a metric is registered once");
    counter
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    let gauge = IntGauge::new(name, help).expect("a valid metric");
    registry
        .register(Box::new(gauge.clone()))
        .expect("a metric is registered once");
    gauge
}

fn credentials_expire(registry: &Registry) -> GaugeVec {
    let gauges = GaugeVec::new(
        Opts::new(
            "tilekeep_aws_credentials_expires_in_seconds",
            "Seconds for which the AWS credentials held are good; +Inf without an end, 0 without any.",
        ),
        &["identity"],
    )
    .expect("a valid metric");
    registry
        .register(Box::new(gauges.clone()))
        .expect("a metric is registered once");
    // There is always a first one: without it the metric would not be told of at all.
    gauges.with_label_values(&["default"]).set(0.0);
    gauges
}

fn histogram(registry: &Registry, name: &str, help: &str) -> Histogram {
    let options = HistogramOpts::new(name, help).buckets(LATENCY.to_vec());
    let histogram = Histogram::with_opts(options).expect("a valid metric");
    registry
        .register(Box::new(histogram.clone()))
        .expect("a metric is registered once");
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_starts_with_ours_and_has_a_help() {
        let table = Metrics::new().table();
        assert!(table.len() > 10);
        for (name, help) in table {
            assert!(name.starts_with("tilekeep_"), "{name}");
            assert!(help.ends_with('.'), "{name}: {help}");
        }
    }

    #[test]
    fn a_followed_counter_never_goes_back() {
        let metrics = Metrics::new();
        metrics.disk.follow(DiskEvent::Hit, 5);
        metrics.disk.follow(DiskEvent::Hit, 3);
        assert_eq!(metrics.disk.get(DiskEvent::Hit), 5);
    }
}
