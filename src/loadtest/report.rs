//! What a test found, for people, for machines and for the page.
//!
//! Invariant: the JSON's members keep their names and units (`schema` says so; a test compares them): times in
//! milliseconds, shares from 0 to 1, absent figures `null`. It never holds a token or a password.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::{Counter, Histogram};
use serde::Serialize;

use super::machine::SATURATED;
use super::outcome::Outcome;
use super::stats::Stats;
use super::{Ended, Load, LogIn, Measured, Settings};
use crate::client::Protocol;
use crate::metrics::{Label, Source};

/// The test.
#[derive(Debug, Clone, Serialize)]
pub struct About {
    /// `people` or `replay`.
    pub kind: &'static str,
    /// The server.
    pub url: String,
    /// `http1` or `http2`.
    pub protocol: &'static str,
    /// People, or browsers.
    pub users: u32,
    /// `nobody`, `token`, `log_in` or `one_log_in`.
    pub session: &'static str,
    /// Of all chance; only with people.
    pub seed: Option<u64>,
    /// The map's size; only with people.
    pub screen: Option<String>,
    /// The average pause; only with people.
    pub think_seconds: Option<f64>,
    /// Until when all had come; only with people.
    pub ramp_seconds: Option<f64>,
    /// Bytes of each browser's cache; only with people.
    pub browser_cache_bytes: Option<u64>,
    /// The log's name; only with a replay.
    pub log: Option<String>,
}

impl About {
    pub(super) fn new(settings: &Settings) -> Self {
        let mut about = Self {
            kind: "people",
            url: settings.url.to_string(),
            protocol: match settings.protocol {
                Protocol::Http1 => "http1",
                Protocol::Http2 => "http2",
            },
            users: settings.users,
            session: match &settings.log_in {
                LogIn::With(credentials)
                    if credentials.iter().any(crate::client::Credential::is_secret) =>
                {
                    "token"
                }
                LogIn::With(_) => "nobody",
                LogIn::Each { .. } => "log_in",
                LogIn::Once { .. } => "one_log_in",
            },
            seed: None,
            screen: None,
            think_seconds: None,
            ramp_seconds: None,
            browser_cache_bytes: None,
            log: None,
        };
        match &settings.load {
            Load::People {
                pause,
                ramp,
                seed,
                screen,
                cache,
                ..
            } => {
                about.seed = Some(*seed);
                about.screen = Some(screen.to_string());
                about.think_seconds = Some(pause.as_secs_f64());
                about.ramp_seconds = Some(ramp.as_secs_f64());
                about.browser_cache_bytes = Some(*cache);
            }
            Load::Replay { name, .. } => {
                about.kind = "replay";
                about.log = Some(name.clone());
            }
        }
        about
    }
}

/// Requests by how they ended.
#[derive(Debug, Clone, Serialize)]
pub struct Requests {
    /// Answered or failed; the sum of the next five.
    pub total: u64,
    /// A second.
    pub per_second: f64,
    /// With a tile.
    pub tiles: u64,
    /// 304.
    pub not_modified: u64,
    /// No such tile.
    pub absent: u64,
    /// Elsewhere; not followed.
    pub redirected: u64,
    /// Failed.
    pub failed: u64,
    /// Given up because the view was left; not in the total.
    pub cancelled: u64,
    /// Under way at the end; not in the total.
    pub unfinished: u64,
}

/// Percentiles in milliseconds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Percentiles {
    /// How many there were.
    pub count: u64,
    /// Average.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th.
    pub p90: f64,
    /// 95th.
    pub p95: f64,
    /// 99th.
    pub p99: f64,
    /// 99.9th.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// Microseconds as milliseconds.
#[allow(
    clippy::cast_precision_loss,
    reason = "ten minutes in microseconds have 30 bits"
)]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

impl Percentiles {
    fn of<C: Counter>(times: &Histogram<C>) -> Self {
        if times.is_empty() {
            return Self::default();
        }
        let at = |quantile| millis(times.value_at_quantile(quantile));
        Self {
            count: times.len(),
            mean: times.mean() / 1000.0,
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: millis(times.max()),
        }
    }
}

/// Views by how they ended.
#[derive(Debug, Clone, Serialize)]
pub struct Views {
    /// All; the sum of the next four.
    pub total: u64,
    /// The browser's cache had all of it.
    pub at_hand: u64,
    /// All of it came.
    pub filled: u64,
    /// Something failed.
    pub with_failures: u64,
    /// Left (or the test over) before all of it had come.
    pub left: u64,
    /// How long the filled and the left ones took; a left one counts with how long it was looked at.
    pub fill_ms: Percentiles,
}

/// A part of a whole.
#[derive(Debug, Clone, Serialize)]
pub struct Part {
    /// How many.
    pub count: u64,
    /// Of all.
    pub share: f64,
}

/// What the browsers' caches did.
#[derive(Debug, Clone, Serialize)]
pub struct BrowserCaches {
    /// Tiles that views wanted.
    pub wanted: u64,
    /// Of these: not asked for, fresh in the cache.
    pub fresh: u64,
    /// Of these: shown stale, asked for behind (`stale-while-revalidate`).
    pub stale: u64,
    /// Fresh and stale of all wanted.
    pub share: f64,
    /// Answers without a body (304).
    pub not_modified: u64,
    /// Bytes that were not sent because of the fresh ones and the 304s.
    pub bytes_saved: u64,
}

/// A way to fail.
#[derive(Debug, Clone, Serialize)]
pub struct Failures {
    /// How often.
    pub count: u64,
    /// What that usually comes from.
    pub reason: &'static str,
    /// The path of one of them.
    pub example: Option<String>,
}

/// Bodies.
#[derive(Debug, Clone, Serialize)]
pub struct Bytes {
    /// Received.
    pub received: u64,
    /// A second.
    pub per_second: f64,
}

/// What it cost, and whether the generator kept up.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// CPU of this process for a request, user and system, in microseconds.
    pub generator_cpu_us_per_request: Option<f64>,
    /// CPU of the server's process for a request; with `--server-pid`.
    pub server_cpu_us_per_request: Option<f64>,
    /// Cores that this process took on average.
    pub generator_cores: Option<f64>,
    /// Cores that the server took on average.
    pub server_cores: Option<f64>,
    /// How late this process's tasks were woken.
    pub loop_lag_ms: Percentiles,
    /// How late views began.
    pub view_lateness_ms: Percentiles,
    /// Whether the generator was what was slow: no figure is the server's then.
    pub saturated: bool,
    /// Whether this program was built without optimisation: its CPU is no measure then.
    pub debug_build: bool,
}

/// A step of the course.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    /// Seconds after the start.
    pub at_seconds: u64,
    /// Requests a second.
    pub requests_per_second: f64,
    /// Failures in it.
    pub failures: u64,
    /// Median latency.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
}

/// What a test found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Of this format: 1.
    pub schema: u32,
    /// Of this program.
    pub tilekeep: &'static str,
    /// When it began (seconds since 1970).
    pub started: u64,
    /// The test.
    pub test: About,
    /// The tilesets that were looked at.
    pub tilesets: Vec<String>,
    /// How long it took.
    pub seconds: f64,
    /// Why it ended.
    pub ended: Ended,
    /// Lines of the log that were no GET.
    pub skipped_lines: u64,
    /// Requests by how they ended.
    pub requests: Requests,
    /// From wanted to the last byte.
    pub latency_ms: Percentiles,
    /// From wanted to handed to a connection.
    pub wait_ms: Percentiles,
    /// From handed to a connection to the last byte.
    pub service_ms: Percentiles,
    /// Views by how they ended.
    pub views: Views,
    /// Good answers by where they came from; `none` without a `Cache-Status`.
    pub cache_status: BTreeMap<&'static str, Part>,
    /// What the browsers' caches did.
    pub browser_cache: BrowserCaches,
    /// Failures by kind.
    pub errors: BTreeMap<&'static str, Failures>,
    /// Bodies.
    pub bytes: Bytes,
    /// Connections that were opened.
    pub connections: u64,
    /// How long log-ins took, before the start.
    pub log_in_ms: Percentiles,
    /// What it cost.
    pub machine: Machine,
    /// A step's seconds.
    pub step_seconds: u64,
    /// The course.
    pub series: Vec<Point>,
    /// Latency by quantile, for the curve: quantile and milliseconds.
    pub curve: Vec<(f64, f64)>,
}

#[allow(
    clippy::cast_precision_loss,
    reason = "counts far below 2^53, for people to read"
)]
fn ratio(part: u64, whole: f64) -> f64 {
    if whole > 0.0 {
        part as f64 / whole
    } else {
        0.0
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "counts far below 2^53, for people to read"
)]
fn share(part: u64, whole: u64) -> f64 {
    ratio(part, whole as f64)
}

impl Report {
    pub(super) fn new(test: About, tilesets: &[String], measured: &Measured) -> Self {
        let stats = &measured.stats;
        let seconds = measured.elapsed.as_secs_f64();
        let total = stats.answered();
        Self {
            schema: 1,
            tilekeep: env!("CARGO_PKG_VERSION"),
            started: measured.at.secs(),
            test,
            tilesets: tilesets.to_vec(),
            seconds,
            ended: measured.ended,
            skipped_lines: measured.skipped_lines,
            requests: requests(stats, seconds),
            latency_ms: Percentiles::of(&stats.latency),
            wait_ms: Percentiles::of(&stats.wait),
            service_ms: Percentiles::of(&stats.service),
            views: Views {
                total: stats.views,
                at_hand: stats.views_at_hand,
                filled: stats.views_filled,
                with_failures: stats.views_with_holes,
                left: stats.views_left,
                fill_ms: Percentiles::of(&stats.fill),
            },
            cache_status: cache_status(stats),
            browser_cache: BrowserCaches {
                wanted: stats.wanted,
                fresh: stats.cached_fresh,
                stale: stats.cached_stale,
                share: share(stats.cached_fresh + stats.cached_stale, stats.wanted),
                not_modified: stats.ended(Outcome::NotModified),
                bytes_saved: stats.spared_bytes,
            },
            errors: errors(stats),
            bytes: Bytes {
                received: stats.bytes,
                per_second: ratio(stats.bytes, seconds),
            },
            connections: stats.connections,
            log_in_ms: Percentiles::of(&measured.log_ins),
            machine: machine(measured, total, seconds),
            step_seconds: stats.series.step,
            series: series(stats, seconds),
            curve: curve(&stats.latency),
        }
    }

    /// Whether anything failed.
    pub fn has_failures(&self) -> bool {
        self.requests.failed > 0
    }

    /// As JSON, in one line.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn requests(stats: &Stats, seconds: f64) -> Requests {
    let total = stats.answered();
    Requests {
        total,
        per_second: ratio(total, seconds),
        tiles: stats.ended(Outcome::Tile),
        not_modified: stats.ended(Outcome::NotModified),
        absent: stats.ended(Outcome::Absent),
        redirected: stats.ended(Outcome::Redirected),
        failed: stats.failed(),
        cancelled: stats.ended(Outcome::Cancelled),
        unfinished: stats.ended(Outcome::Unfinished),
    }
}

fn cache_status(stats: &Stats) -> BTreeMap<&'static str, Part> {
    let all: u64 = stats.sources.iter().sum();
    let words = Source::ALL.iter().map(|source| source.label());
    words
        .chain(["none"])
        .zip(stats.sources)
        .map(|(word, count)| {
            let share = share(count, all);
            (word, Part { count, share })
        })
        .collect()
}

fn errors(stats: &Stats) -> BTreeMap<&'static str, Failures> {
    Outcome::ALL
        .iter()
        .filter(|outcome| outcome.is_failure() && stats.ended(**outcome) > 0)
        .map(|outcome| {
            let failures = Failures {
                count: stats.ended(*outcome),
                reason: outcome.reason(),
                example: stats.examples[outcome.index()].clone(),
            };
            (outcome.label(), failures)
        })
        .collect()
}

fn machine(measured: &Measured, requests: u64, seconds: f64) -> Machine {
    let each = |cpu: Option<Duration>| {
        let cpu = cpu?.as_secs_f64() * 1e6;
        (requests > 0).then(|| cpu * share(1, requests))
    };
    let cores = |cpu: Option<Duration>| Some(cpu?.as_secs_f64() / seconds.max(0.001));
    let loop_lag = Percentiles::of(&measured.lag);
    let view_lateness = Percentiles::of(&measured.stats.lateness);
    let limit = SATURATED.as_secs_f64() * 1000.0;
    Machine {
        generator_cpu_us_per_request: each(measured.generator_cpu),
        server_cpu_us_per_request: each(measured.server_cpu),
        generator_cores: cores(measured.generator_cpu),
        server_cores: cores(measured.server_cpu),
        saturated: loop_lag.p99 > limit || view_lateness.p99 > limit,
        loop_lag_ms: loop_lag,
        view_lateness_ms: view_lateness,
        debug_build: cfg!(debug_assertions),
    }
}

fn series(stats: &Stats, seconds: f64) -> Vec<Point> {
    let step = stats.series.step;
    let last = stats.series.points.len().saturating_sub(1) as u64;
    (0_u64..)
        .zip(&stats.series.points)
        .map(|(number, point)| {
            let at_seconds = number * step;
            // The last step ends with the test: a little early or, with what it took in, a little late.
            let left = (seconds - ratio(at_seconds, 1.0)).max(0.001);
            let length = if number == last && left < ratio(step, 1.0) * 1.5 {
                left
            } else {
                ratio(step, 1.0)
            };
            let at = |quantile| millis(point.latency.value_at_quantile(quantile));
            Point {
                at_seconds,
                requests_per_second: ratio(point.requests, length),
                failures: point.failures,
                p50_ms: at(0.5),
                p90_ms: at(0.9),
                p99_ms: at(0.99),
            }
        })
        .collect()
}

/// Quantiles that come closer together towards 1, as far as there are samples to tell them apart.
fn curve(times: &Histogram<u64>) -> Vec<(f64, f64)> {
    let mut curve = Vec::new();
    let mut beyond = 1.0;
    while !times.is_empty() && beyond * ratio(times.len(), 1.0) >= 1.0 {
        for part in 0..8 {
            let quantile = 1.0 - beyond * (1.0 - f64::from(part) / 16.0);
            curve.push((quantile, millis(times.value_at_quantile(quantile))));
        }
        beyond /= 2.0;
    }
    curve
}
