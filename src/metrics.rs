//! What can be counted, as one table: name, help and labels, from closed sets of words.
//!
//! Invariant: no label comes from a client's text, so the number of series is fixed by the build
//! and the configuration. Handles are made once; counting on the tile path is one atomic addition.

use std::marker::PhantomData;
use std::time::Duration;

use prometheus::{
    Encoder as _, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder,
};

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

label_enum! {
    /// How a public request ended.
    pub enum Answer {
        /// 200 with a tile.
        Tile = "tile",
        /// 304.
        NotModified = "not_modified",
        /// The tile does not exist.
        Missing = "missing",
        /// A page, TileJSON, a session: anything that is no tile.
        Other = "other",
        /// 400 or 405.
        Malformed = "malformed",
        /// 401.
        Unauthorized = "unauthorized",
        /// 403.
        Forbidden = "forbidden",
        /// 404 for another reason than a missing tile.
        NotFound = "not_found",
        /// 429.
        OverQuota = "over_quota",
        /// 502, 503 or 504: the origin failed and nothing stale could stand in.
        OriginFailed = "origin_failed",
        /// 500: ours.
        Internal = "internal",
    }
}

label_enum! {
    /// Where a tile answer came from.
    pub enum Source {
        /// Fresh, from memory.
        Memory = "memory",
        /// Fresh, from disk.
        Disk = "disk",
        /// Stale, from memory, revalidated behind.
        StaleMemory = "stale_memory",
        /// Stale, from disk, revalidated behind.
        StaleDisk = "stale_disk",
        /// Fetched from the origin.
        Origin = "origin",
        /// Waited for another request's fetch.
        Collapsed = "collapsed",
        /// The origin confirmed the stale one.
        Revalidated = "revalidated",
        /// The origin failed, the stale one stood in.
        StaleIfError = "stale_if_error",
    }
}

label_enum! {
    /// How a request to the origin ended.
    pub enum OriginOutcome {
        /// A tile.
        Found = "found",
        /// The held one is right.
        NotModified = "not_modified",
        /// No such tile.
        NotFound = "not_found",
        /// Refused.
        Denied = "denied",
        /// Asked for less.
        Throttled = "throttled",
        /// Broke.
        Server = "server_error",
        /// Bytes that are not those promised.
        Truncated = "truncated",
        /// No connection.
        Unreachable = "unreachable",
        /// No answer in time.
        Deadline = "deadline",
        /// Never asked.
        HeldBack = "held_back",
    }
}

label_enum! {
    /// A cache tier.
    pub enum TierLabel {
        /// Memory.
        Memory = "memory",
        /// Disk.
        Disk = "disk",
    }
}

label_enum! {
    /// What happened in the disk tier.
    pub enum DiskEvent {
        /// A stored response was read.
        Hit = "hit",
        /// Nothing was stored.
        Miss = "miss",
        /// Bytes disagreed with what was written: forgotten, never served.
        Corrupt = "corrupt",
        /// The system refused a read or a write.
        IoError = "io_error",
        /// A record was written.
        Write = "write",
        /// A write was left out under pressure or after errors.
        Skipped = "skipped",
        /// An entry went for space.
        Eviction = "eviction",
        /// A body was already there and stored once.
        Duplicate = "duplicate",
        /// A hot entry moved when its segment was retired.
        Reinsertion = "reinsertion",
        /// A revalidation was recorded without its body.
        Touch = "touch",
        /// A purge dropped an entry or marked it stale.
        Invalidation = "invalidation",
    }
}

label_enum! {
    /// How somebody logs in.
    pub enum LoginWay {
        /// Name and password.
        Password = "password",
        /// Another issuer's token, exchanged.
        Issuer = "issuer",
        /// At an identity provider.
        Oidc = "oidc",
    }
}

label_enum! {
    /// What nodes tell each other.
    pub enum Message {
        /// A session was ended.
        Ending = "ending",
        /// Tiles were purged.
        Purge = "purge",
    }
}

label_enum! {
    /// How a request to an identity provider ended.
    pub enum IdentityAnswer {
        /// It answered.
        Answered = "answered",
        /// No connection, or none that can be trusted.
        Unreachable = "unreachable",
        /// No answer in time.
        Deadline = "deadline",
        /// An answer that is not what was asked for.
        Refused = "refused",
        /// More than such an answer has.
        TooLarge = "too_large",
    }
}

label_enum! {
    /// Which way.
    pub enum Direction {
        /// To the others.
        Sent = "sent",
        /// From the others.
        Received = "received",
    }
}

label_enum! {
    /// Trouble between nodes.
    pub enum ClusterEvent {
        /// The connection to Redis was lost, or was not there at the start.
        Lost = "lost",
        /// One more attempt to reach it failed.
        AttemptFailed = "attempt_failed",
        /// More was to be told than the queue holds.
        QueueFull = "queue_full",
        /// What was in Redis is nothing that a node writes.
        Ignored = "ignored",
        /// Ended sessions of other nodes found no room.
        NoRoom = "no_room",
        /// Redis no longer knew all purges of the time when this node was away.
        PurgesMissed = "purges_missed",
    }
}

label_enum! {
    /// How an attempt to get AWS credentials ended.
    pub enum CredentialOutcome {
        /// New ones came.
        Refreshed = "refreshed",
        /// The same ones came, still good: the source has no newer ones yet.
        Unchanged = "unchanged",
        /// No source has any.
        NotFound = "not_found",
        /// A source said no: trust, rights, or a configuration that cannot be used.
        Denied = "denied",
        /// A source is dead or broken.
        Unavailable = "unavailable",
        /// A source did not answer in time.
        Deadline = "deadline",
    }
}

/// Every metric there is.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Public answers.
    pub answers: CounterBy<Answer>,
    /// Tile answers by where they came from.
    pub tiles: CounterBy<Source>,
    /// Time to answer a tile that was not at hand.
    pub fill_seconds: Histogram,
    /// Requests to the origin.
    pub origin: CounterBy<OriginOutcome>,
    /// Body bytes from the origin.
    pub origin_bytes: IntCounter,
    /// Body bytes to clients in tile answers.
    pub tile_bytes: IntCounter,
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
    /// Refusals by quota class and limit.
    pub quota_refusals: CounterByName,
    /// People whose spending is remembered.
    pub quota_people: IntGauge,
    /// Bytes of their tables of tiles.
    pub quota_bytes: IntGauge,
    /// People forgotten while something of theirs counted.
    pub quota_forgotten: IntCounter,
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
    credentials_expire: GaugeVec,
}

impl Metrics {
    /// A registry of its own with every metric at zero.
    #[allow(clippy::too_many_lines, reason = "a table, a row a metric")]
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        Self {
            answers: CounterBy::new(
                r,
                "tilekeep_http_answers_total",
                "Answers on the public side, by how they ended.",
                "answer",
            ),
            tiles: CounterBy::new(
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
            tile_bytes: counter(
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
            credentials_expire: credentials_expire(r),
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
