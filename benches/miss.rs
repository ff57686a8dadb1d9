//! What a miss costs: fetch, check, hash, store in both tiers, answer.
//!
//! `cargo bench --bench miss [-- cpu] [-- viewport]`. `cpu` is the server's own CPU (`utime + stime`) a miss over
//! distinct tiles of 8.7 kB on average, beside three that only fetch the same objects: the bare SDK (`sdk`), a
//! request signed by `aws-sigv4` over plain hyper (`signed`), and Tilekeep's own origin without caches or HTTP
//! around it (`origin`). The bucket is another process, and so is everybody who asks; what is measured has core 0.
//! `viewport` is how long 20 cold tiles take over one connection of HTTP/2, from a bucket 40 ms away and over
//! connections that are warm.
//!
//! These machines are noisy, so: many short rounds, the order rotated, ratios within a round alone, quartiles
//! beside the median. `MISS_ROUNDS` (10) and `MISS_TILES` (2000 a round and participant) say how many,
//! `MISS_CONCURRENCY` (16) how many at once, and `MISS_OTHERS` (paths, separated by colons) names other builds of
//! `tilekeep` to be measured beside this one.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on says where")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers, and figures for people"
)]

#[path = "shared/binary.rs"]
mod binary;
#[allow(dead_code, reason = "shared with another bench, which uses all of it")]
#[path = "speed/fixture.rs"]
mod fixture;

#[path = "miss/bucket.rs"]
mod bucket;
#[path = "miss/generator.rs"]
mod generator;
#[path = "miss/peers.rs"]
mod peers;
#[path = "miss/processes.rs"]
mod processes;

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use crate::fixture::BUCKET;
use crate::generator::Browser;
use crate::processes::{Fetcher, Server};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// In the environment: what this process is, whom it serves or asks, and how far away the bucket is.
const ROLE: &str = "MISS_ROLE";
const ADDRESS: &str = "MISS_ADDRESS";
const DELAY: &str = "MISS_DELAY";

const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
/// How far away the bucket is when a map is opened.
const FAR: Duration = Duration::from_millis(40);
const VIEW: usize = 20;
/// Before anything is counted: connections, caches, the allocator's pages.
const WARM: usize = 1000;

/// Where the tile of this number is: no two are the same.
fn place(number: usize) -> (u8, u32, u32) {
    (12, (number % 4096) as u32, (number / 4096) as u32)
}

/// Its object's key, which is also its path.
fn key(number: usize) -> String {
    let (z, x, y) = place(number);
    format!("world/{z}/{x}/{y}.png")
}

fn number(name: &str, default: usize) -> usize {
    env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn main() {
    if let Ok(role) = env::var(ROLE) {
        let address = env::var(ADDRESS).unwrap();
        let concurrency = number("MISS_CONCURRENCY", 16);
        return match role.as_str() {
            "bucket" => bucket::serve(&address, Duration::from_millis(number(DELAY, 0) as u64)),
            "generator" => generator::serve(&address, concurrency),
            peer => peers::serve(peer, &address, concurrency),
        };
    }
    let asked: Vec<String> = env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let wants = |name: &str| asked.is_empty() || asked.iter().any(|case| case == name);
    let rounds = number("MISS_ROUNDS", 10);
    if wants("cpu") {
        cpu(rounds, number("MISS_TILES", 2000));
    }
    if wants("viewport") {
        viewport(3 * rounds);
    }
}

/// This build's server, and others to compare it with.
fn servers() -> Vec<(String, PathBuf)> {
    let others = env::var("MISS_OTHERS").unwrap_or_default();
    let others = others.split(':').filter(|path| !path.is_empty());
    let named = others
        .enumerate()
        .map(|(n, path)| (format!("other-{}", n + 1), path.into()));
    let this = ("tilekeep".to_owned(), binary::tilekeep());
    std::iter::once(this).chain(named).collect()
}

/// Whose CPU is counted, and who makes it work.
enum Participant {
    Peer(Fetcher),
    Server(Server, Fetcher),
}

impl Participant {
    fn fetch(&mut self, from: usize, count: usize) {
        match self {
            Self::Peer(fetcher) | Self::Server(_, fetcher) => fetcher.fetch(from, count),
        }
    }

    fn cpu(&self) -> Duration {
        match self {
            Self::Peer(fetcher) => fetcher.cpu(),
            Self::Server(server, _) => server.cpu(),
        }
    }
}

fn cpu(rounds: usize, tiles: usize) {
    let (_bucket, bucket) = processes::bucket(Duration::ZERO);
    let peers = ["sdk", "signed", "origin"];
    let mut participants: Vec<(String, Participant)> = peers
        .into_iter()
        .map(|name| (name.into(), Participant::Peer(Fetcher::peer(name, bucket))))
        .collect();
    for (name, program) in servers() {
        let server = Server::start(&program, bucket);
        let generator = Fetcher::generator(server.address);
        participants.push((name, Participant::Server(server, generator)));
    }
    for (_, participant) in &mut participants {
        participant.fetch(0, WARM);
    }
    let mut figures = vec![Vec::new(); participants.len()];
    for round in 0..rounds {
        for turn in 0..participants.len() {
            let which = (turn + round) % participants.len();
            let participant = &mut participants[which].1;
            let before = participant.cpu();
            participant.fetch(WARM + round * tiles, tiles);
            let used = participant.cpu().saturating_sub(before);
            figures[which].push(used.as_secs_f64() * 1e6 / tiles as f64);
        }
    }
    println!("{rounds} rounds of {tiles} misses each");
    println!(
        "{:<10} {:>10} {:>17} {:>10} {:>17}",
        "", "µs a miss", "quartiles", "÷ sdk", "quartiles"
    );
    for (which, (name, _)) in participants.iter().enumerate() {
        let micros = Quartiles::of(figures[which].iter().copied());
        let ratio =
            Quartiles::of((0..rounds).map(|round| figures[which][round] / figures[0][round]));
        println!(
            "{name:<10} {:>10.1} {:>8.1} {:>8.1} {:>10.3} {:>8.3} {:>8.3}",
            micros.median, micros.lower, micros.upper, ratio.median, ratio.lower, ratio.upper,
        );
    }
}

fn viewport(rounds: usize) {
    let (_bucket, bucket) = processes::bucket(FAR);
    let maps: Vec<(String, Server, Browser)> = servers()
        .into_iter()
        .map(|(name, program)| {
            let server = Server::start(&program, bucket);
            let browser = Browser::connect(server.address);
            (name, server, browser)
        })
        .collect();
    for view in 0..3 {
        for (_, _, browser) in &maps {
            browser.view(view * VIEW, VIEW);
        }
    }
    let mut figures = vec![Vec::new(); maps.len()];
    for round in 0..rounds {
        for turn in 0..maps.len() {
            let which = (turn + round) % maps.len();
            let took = maps[which].2.view((3 + round) * VIEW, VIEW);
            figures[which].push(took.as_secs_f64() * 1e3);
        }
    }
    println!(
        "{rounds} views of {VIEW} cold tiles, the bucket {} ms away",
        FAR.as_millis()
    );
    println!(
        "{:<10} {:>10} {:>17} {:>10}",
        "", "ms a view", "quartiles", "longest"
    );
    for (which, (name, ..)) in maps.iter().enumerate() {
        let millis = Quartiles::of(figures[which].iter().copied());
        let longest = figures[which].iter().copied().fold(0.0, f64::max);
        println!(
            "{name:<10} {:>10.1} {:>8.1} {:>8.1} {longest:>10.1}",
            millis.median, millis.lower, millis.upper,
        );
    }
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
