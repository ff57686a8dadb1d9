//! What the memory tier costs: resident bytes over payload, and a look-up's time.
//!
//! `cargo bench --bench memory`. The figure is the process's resident size, the allocator's own
//! overhead included, over the bytes of the tiles' bodies. Each case is a process of its own: what one
//! has freed would make the next look smaller.
//!
//! The bars: at most 115 % for tiles of the median size (8 KB), and no more than that of the bodies that
//! differ where some are the same: of 35 % that are, 0.65 x 115 % = 75 %.

#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::hint::black_box;
use std::process::Command;
use std::time::Instant;

use bytes::Bytes;
use tilekeep::cache::{MemoryTier, Stored, StoredTile};
use tilekeep::clock::Timestamp;
use tilekeep::origin::{ContentEncoding, OriginTile, OriginValidator};
use tilekeep::tile::{KeySpace, Scale, TileCoord, TileKey};

// As the server has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Tells the child which case it is.
const CASE: &str = "TILEKEEP_BENCH_CASE";
const TILES: u32 = 100_000;
const LOOKUPS: u32 = 500_000;

/// Which tiles, and how many in a hundred are the same one.
struct Case {
    name: &'static str,
    size: fn(u32) -> usize,
    shared_percent: u32,
}

const CASES: [Case; 5] = [
    Case {
        name: "8 KiB, all different",
        size: |_| 8192,
        shared_percent: 0,
    },
    Case {
        name: "8 KiB, 35 % the same one",
        size: |_| 8192,
        shared_percent: 35,
    },
    Case {
        name: "8,000 bytes, all different",
        size: |_| 8000,
        shared_percent: 0,
    },
    Case {
        name: "4 to 12 KiB, all different",
        size: mixed,
        shared_percent: 0,
    },
    Case {
        name: "4 to 12 KiB, 35 % the same",
        size: mixed,
        shared_percent: 35,
    },
];

fn mixed(n: u32) -> usize {
    4096 + n as usize * 7919 % 8192
}

fn key(n: u32) -> TileKey {
    let coord = TileCoord::new(17, n, 0).expect("fewer tiles than columns at zoom 17");
    TileKey::new(KeySpace::new("bench", None), coord, Scale::One)
}

/// A tile of its own, or the one that many share.
fn tile(n: u32, case: &Case) -> Stored {
    let seed = if shared(n, case) { TILES } else { n };
    let len = (case.size)(seed);
    let mut body = seed.to_le_bytes().repeat(len.div_ceil(4));
    body.truncate(len);
    // What S3 sends: an MD5, as far as it looks like one.
    let etag = format!(
        "\"{:032x}\"",
        u128::from(n) << 64 | u128::from(u32::MAX - n)
    );
    let origin = OriginTile {
        body: Bytes::from(body.into_boxed_slice()),
        encoding: ContentEncoding::Identity,
        validator: OriginValidator::new(&etag),
        last_modified: Some(1_700_000_000),
    };
    Stored::Tile(StoredTile::from_origin(
        origin,
        Timestamp::from_secs(1_800_000_000),
    ))
}

fn shared(n: u32, case: &Case) -> bool {
    n % 100 < case.shared_percent
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

fn run(case: &Case) {
    let before = resident();
    // Half as much again as it takes.
    let tier = MemoryTier::new(u64::from(TILES) * 12_288);
    let mut payload = 0;
    for n in 0..TILES {
        let tile = tile(n, case);
        payload += match &tile {
            Stored::Tile(tile) => tile.body.len(),
            Stored::Absence(_) => 0,
        };
        tier.put(key(n), tile);
    }
    tier.settle();
    let resident = resident().saturating_sub(before);
    let percent = |bytes: u64| bytes as f64 * 100.0 / payload as f64;
    println!(
        "{:<28} resident {:6.1} % of payload, accounted {:6.1} %; look-up {:5.0} ns, of neighbours {:5.0} ns",
        case.name,
        percent(resident),
        percent(tier.weighted_bytes()),
        look_up(&tier, |n| n * 7919 % TILES),
        look_up(&tier, |n| n % 64),
    );
}

/// ns a look-up. Far apart, most of it is waiting for what is in no cache of the processor.
fn look_up(tier: &MemoryTier, place: impl Fn(u32) -> u32) -> f64 {
    let begun = Instant::now();
    for n in 0..LOOKUPS {
        black_box(tier.lookup(key(place(n))));
    }
    begun.elapsed().as_secs_f64() * 1e9 / f64::from(LOOKUPS)
}

/// What moka takes with next to nothing in it: no entry can take less.
fn moka_alone() {
    let before = resident();
    let cache: moka::sync::Cache<u128, u64> = moka::sync::Cache::builder()
        .max_capacity(8 << 30)
        .weigher(|_, _| 8192)
        .build();
    for n in 0..TILES {
        cache.insert(u128::from(n), u64::from(n));
    }
    cache.run_pending_tasks();
    let taken = resident().saturating_sub(before);
    println!(
        "moka alone                   {:6.0} bytes an entry",
        taken as f64 / f64::from(TILES)
    );
}

fn main() {
    match std::env::var(CASE)
        .ok()
        .and_then(|nth| nth.parse::<usize>().ok())
    {
        Some(nth) if nth < CASES.len() => return run(&CASES[nth]),
        Some(_) => return moka_alone(),
        None => println!("{TILES} tiles"),
    }
    let bench = std::env::current_exe().expect("a bench has a path");
    for nth in 0..=CASES.len() {
        Command::new(&bench)
            .env(CASE, nth.to_string())
            .status()
            .expect("a bench can be started again");
    }
}
