//! The report as text, for people.

use std::fmt::{self, Write as _};

use super::Ended;
use super::report::{Percentiles, Report};

/// For people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (test, requests) = (&self.test, &self.requests);
        let who = if test.kind == "people" {
            "people"
        } else {
            "browsers"
        };
        write!(
            f,
            "{:.1} s, {} {who}, {}, {}",
            self.seconds,
            test.users,
            protocol(test.protocol),
            test.url
        )?;
        if !self.tilesets.is_empty() {
            write!(f, ": {}", self.tilesets.join(", "))?;
        }
        if let Some(log) = &test.log {
            write!(f, ": {log}")?;
        }
        if let Some(seed) = test.seed {
            write!(f, "; seed {seed}")?;
        }
        if self.ended == Ended::Interrupted {
            write!(f, "; interrupted")?;
        }
        writeln!(
            f,
            "\n\nrequests       {}  ({:.1}/s, {}, {} connections)",
            requests.total,
            requests.per_second,
            size(self.bytes.received),
            self.connections
        )?;
        writeln!(
            f,
            "               {} tiles, {} not modified, {} absent, {} failed; {} given up, {} unfinished",
            requests.tiles + requests.redirected,
            requests.not_modified,
            requests.absent,
            requests.failed,
            requests.cancelled,
            requests.unfinished
        )?;
        if self.skipped_lines > 0 {
            let skipped = self.skipped_lines;
            writeln!(f, "               lines that are no GET: {skipped}")?;
        }
        for (kind, failures) in &self.errors {
            let example = failures.example.as_deref().unwrap_or("?");
            writeln!(
                f,
                "  failed       {} × {}: {}; like {example}",
                failures.count,
                kind.replace('_', " "),
                failures.reason
            )?;
        }
        writeln!(
            f,
            "\nms                    p50      p90      p99    p99.9      max"
        )?;
        row(f, "latency", &self.latency_ms)?;
        row(f, "  wait", &self.wait_ms)?;
        row(f, "  service", &self.service_ms)?;
        if test.kind == "people" {
            row(f, "view filled", &self.views.fill_ms)?;
            self.people(f)?;
        }
        let mut shares: Vec<_> = self
            .cache_status
            .iter()
            .filter(|(_, part)| part.count > 0)
            .collect();
        shares.sort_by_key(|(_, part)| std::cmp::Reverse(part.count));
        let mut line = String::new();
        for (word, part) in shares {
            let _ = write!(line, ", {word} {:.1} %", part.share * 100.0);
        }
        if !line.is_empty() {
            writeln!(f, "cache status   {}", line.trim_start_matches(", "))?;
        }
        self.cost(f)
    }
}

impl Report {
    fn people(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (views, cache) = (&self.views, &self.browser_cache);
        writeln!(
            f,
            "\nviews          {}: {} filled, {} at hand in the browser, {} left unfilled, {} with failures",
            views.total, views.filled, views.at_hand, views.left, views.with_failures
        )?;
        writeln!(
            f,
            "browser cache  {} of {} tiles ({:.1} %), {} not modified; {} saved",
            cache.fresh + cache.stale,
            cache.wanted,
            cache.share * 100.0,
            cache.not_modified,
            size(cache.bytes_saved)
        )
    }

    fn cost(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = &self.machine;
        let figure =
            |us: Option<f64>| us.map_or("not known".to_owned(), |us| format!("{us:.0} µs"));
        write!(
            f,
            "CPU a request  generator {}",
            figure(machine.generator_cpu_us_per_request)
        )?;
        if machine.server_cpu_us_per_request.is_some() {
            write!(f, ", server {}", figure(machine.server_cpu_us_per_request))?;
        }
        write!(
            f,
            "; generator late by {:.1} ms at most in 99 % of looks",
            machine.loop_lag_ms.p99
        )?;
        if machine.debug_build {
            write!(f, "\nThis is a debug build: measure with a release build.")?;
        }
        if machine.saturated {
            write!(
                f,
                "\nTHE GENERATOR WAS SATURATED: these are its figures, not the server's. Take fewer people, or another machine."
            )?;
        }
        Ok(())
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, times: &Percentiles) -> fmt::Result {
    write!(f, "{name:<16}")?;
    for ms in [times.p50, times.p90, times.p99, times.p999, times.max] {
        write!(f, "{:>9}", short(ms))?;
    }
    writeln!(f)
}

/// Three digits that matter.
pub(super) fn short(ms: f64) -> String {
    if ms >= 100.0 {
        format!("{ms:.0}")
    } else if ms >= 10.0 {
        format!("{ms:.1}")
    } else {
        format!("{ms:.2}")
    }
}

/// `HTTP/1.1` for `http1`.
pub(super) fn protocol(word: &str) -> &'static str {
    if word == "http2" {
        "HTTP/2"
    } else {
        "HTTP/1.1"
    }
}

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}
