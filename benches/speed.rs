//! What a tile costs, beside what a user would pick instead: nginx serving the same files without any
//! check, and the least that hyper can do (`speed/limit.rs`). All with everything on: sessions of a
//! thousand people in turn, quotas, metrics, every header, both tiers.
//!
//! `cargo bench --bench speed [-- CASE…]`, on Debian with `nginx-light`, `wrk` and `nghttp2-client`.
//!
//! The figure is the server's own CPU (`utime + stime`) a request, as a ratio to nginx in the same
//! round. These machines are noisy, so: many short rounds, the order rotated, ratios within a round
//! alone, quartiles beside the median. `SPEED_ROUNDS` (10) and `SPEED_SECONDS` (3) say how long; `SPEED_CHART` names a
//! file for the picture of the cases that nginx is the measure of. `SPEED_OTHER` names another build of Tilekeep, to be
//! compared with this one.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on says where")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers, and figures for people"
)]

#[path = "shared/binary.rs"]
mod binary;
#[path = "speed/chart.rs"]
mod chart;
#[path = "speed/fixture.rs"]
mod fixture;
#[path = "speed/generator.rs"]
mod generator;
#[path = "speed/limit.rs"]
mod limit;
#[path = "speed/servers.rs"]
mod servers;

use std::ffi::OsString;
use std::{env, fs};

use crate::chart::{Bar, Row};
use crate::fixture::Fixture;
use crate::generator::Load;
use crate::servers::{Cores, Server};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is compared with what: the first is what the others are divided by.
struct Case {
    name: &'static str,
    /// In the chart; where nginx is the measure.
    words: &'static str,
    load: Load,
    cores: Cores,
    servers: &'static [Kind],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nginx,
    Limit,
    Memory,
    Disk,
    /// Another build of Tilekeep, memory hits.
    Other,
}

const CASES: [Case; 8] = [
    Case {
        name: "hit",
        words: "a memory hit, one core",
        load: Load::Get,
        cores: Cores::One,
        servers: &[Kind::Nginx, Kind::Limit, Kind::Memory],
    },
    Case {
        name: "304",
        words: "304, one core",
        load: Load::Conditional,
        cores: Cores::One,
        servers: &[Kind::Nginx, Kind::Limit, Kind::Memory],
    },
    Case {
        name: "disk",
        words: "a disk hit",
        load: Load::Get,
        cores: Cores::One,
        servers: &[Kind::Memory, Kind::Disk],
    },
    Case {
        name: "two-cores",
        words: "a memory hit, both cores shared",
        load: Load::Get,
        cores: Cores::Both,
        servers: &[Kind::Nginx, Kind::Limit, Kind::Memory],
    },
    Case {
        name: "h2c",
        words: "a memory hit, HTTP/2",
        load: Load::H2c,
        cores: Cores::One,
        servers: &[Kind::Nginx, Kind::Limit, Kind::Memory],
    },
    Case {
        name: "other",
        words: "another build's memory hit, one core",
        load: Load::Get,
        cores: Cores::One,
        servers: &[Kind::Memory, Kind::Other],
    },
    Case {
        name: "other-304",
        words: "another build's 304, one core",
        load: Load::Conditional,
        cores: Cores::One,
        servers: &[Kind::Memory, Kind::Other],
    },
    Case {
        name: "other-two-cores",
        words: "another build's memory hit, both cores shared",
        load: Load::Get,
        cores: Cores::Both,
        servers: &[Kind::Memory, Kind::Other],
    },
];

fn main() {
    if let Ok(folder) = env::var(limit::ROLE) {
        return limit::serve(&folder);
    }
    let asked: Vec<String> = env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let number = |name: &str, default: usize| {
        env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let (rounds, seconds) = (number("SPEED_ROUNDS", 10), number("SPEED_SECONDS", 3));
    for tool in ["nginx", "wrk", "h2load", "taskset"] {
        assert!(
            generator::is_there(tool),
            "needs {tool}: apt-get install nginx-light wrk nghttp2-client util-linux"
        );
    }
    let fixture = Fixture::new();
    println!(
        "{} tiles, {:.1} kB on average, {} requests in the trace; {rounds} rounds of {seconds} s a server",
        fixture.tiles.len(),
        fixture.mean_body() / 1000.0,
        fixture.trace.len(),
    );
    println!(
        "{:<10} {:<10} {:>12} {:>14} {:>8} {:>17} {:>10}",
        "case", "server", "µs a request", "requests/s", "ratio", "quartiles", "p99 ms"
    );
    let mut rows = Vec::new();
    for case in CASES
        .iter()
        .filter(|case| asked.is_empty() || asked.iter().any(|name| name == case.name))
        .filter(|case| other().is_some() || !case.servers.contains(&Kind::Other))
    {
        rows.extend(run(case, &fixture, rounds, seconds));
    }
    if let Some(path) = env::var_os("SPEED_CHART") {
        fs::write(path, chart::svg(&rows)).expect("SPEED_CHART is a file that can be written");
    }
}

/// Another build to compare with.
fn other() -> Option<OsString> {
    env::var_os("SPEED_OTHER")
}

/// Measures and prints; what of it is for the chart.
fn run(case: &Case, fixture: &Fixture, rounds: usize, seconds: usize) -> Option<Row> {
    let ours = binary::tilekeep();
    let servers: Vec<Server> = case
        .servers
        .iter()
        .map(|kind| {
            let server = match kind {
                Kind::Nginx => Server::nginx(fixture, case.cores),
                Kind::Limit => Server::limit(fixture, case.cores),
                Kind::Memory => Server::ours(fixture, case.cores, &ours, true),
                Kind::Disk => Server::ours(fixture, case.cores, &ours, false),
                Kind::Other => Server::ours(fixture, case.cores, other().unwrap(), true),
            };
            server.warm(fixture);
            server
        })
        .collect();
    let scripts: Vec<_> = servers
        .iter()
        .map(|server| case.load.prepare(fixture, server))
        .collect();
    let mut figures = vec![Vec::new(); servers.len()];
    for round in 0..rounds {
        for turn in 0..servers.len() {
            let which = (turn + round) % servers.len();
            let before = servers[which].cpu();
            let done = case.load.run(
                &scripts[which],
                fixture,
                &servers[which],
                case.cores,
                seconds,
            );
            let micros = servers[which].cpu().saturating_sub(before).as_secs_f64() * 1e6;
            figures[which].push((micros / done.requests as f64, done));
        }
    }
    let mut bars = Vec::new();
    for (which, kind) in case.servers.iter().enumerate() {
        let ratios = (0..rounds).map(|round| figures[which][round].0 / figures[0][round].0);
        let ratio = Quartiles::of(ratios);
        let micros = Quartiles::of(figures[which].iter().map(|(micros, _)| *micros));
        let rate = Quartiles::of(
            figures[which]
                .iter()
                .map(|(_, done)| done.requests as f64 / done.seconds),
        );
        let p99 = Quartiles::of(figures[which].iter().map(|(_, done)| done.p99_ms));
        println!(
            "{:<10} {:<10} {:>12.2} {:>14.0} {:>8.3} {:>8.3} {:>8.3} {:>10.2}",
            case.name,
            format!("{kind:?}").to_lowercase(),
            micros.median,
            rate.median,
            ratio.median,
            ratio.lower,
            ratio.upper,
            p99.median,
        );
        let name = match kind {
            Kind::Nginx | Kind::Other => continue,
            Kind::Limit => "the least hyper can do",
            Kind::Memory | Kind::Disk => "Tilekeep, everything on",
        };
        bars.push(Bar {
            server: name,
            ratio,
        });
    }
    let words = case.words;
    (case.servers[0] == Kind::Nginx).then_some(Row { words, bars })
}

/// A sample's middle.
struct Quartiles {
    lower: f64,
    median: f64,
    upper: f64,
}

impl Quartiles {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = share * (values.len() - 1) as f64;
            let (low, high) = (place.floor() as usize, place.ceil() as usize);
            values[low] + (values[high] - values[low]) * (place - place.floor())
        };
        Self {
            lower: at(0.25),
            median: at(0.5),
            upper: at(0.75),
        }
    }
}
