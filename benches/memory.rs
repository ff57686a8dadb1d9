//! What the memory tier costs: resident bytes over payload, and a look-up's time.
//!
//! `cargo bench --bench memory`. The figure is the process's resident size, the allocator's own
//! overhead included, over the bytes of the tiles' bodies.

#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use tilekeep::cache::{MemoryTier, Stored, StoredTile};
use tilekeep::clock::Timestamp;
use tilekeep::origin::{ContentEncoding, OriginTile, OriginValidator};
use tilekeep::tile::{KeySpace, Scale, TileCoord, TileKey};

// As the server has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TILES: u32 = 100_000;
const BODY: usize = 8192;

fn key(n: u32) -> TileKey {
    let coord = TileCoord::new(17, n, 0).expect("fewer tiles than columns at zoom 17");
    TileKey::new(KeySpace::new("bench", None), coord, Scale::One)
}

/// A tile of its own, or the one that many share.
fn tile(n: u32, shared: bool) -> Stored {
    let seed = if shared { u32::MAX } else { n };
    let body: Vec<u8> = seed.to_le_bytes().into_iter().cycle().take(BODY).collect();
    let origin = OriginTile {
        body: Bytes::from(body),
        encoding: ContentEncoding::Identity,
        validator: OriginValidator::new("\"0123456789abcdef0123456789abcdef\""),
        last_modified: Some(1_700_000_000),
    };
    Stored::Tile(StoredTile::from_origin(
        origin,
        Timestamp::from_secs(1_800_000_000),
    ))
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

fn fill(name: &str, shared_percent: u32) -> MemoryTier {
    let tier = MemoryTier::new(8 << 30);
    let before = resident();
    for n in 0..TILES {
        tier.put(key(n), tile(n, n % 100 < shared_percent));
    }
    tier.settle();
    let payload = u64::from(TILES) * BODY as u64;
    let percent = |bytes: u64| bytes as f64 * 100.0 / payload as f64;
    println!(
        "{name:<28} resident {:6.1} % of payload, accounted {:6.1} %",
        percent(resident().saturating_sub(before)),
        percent(tier.weighted_bytes()),
    );
    tier
}

fn main() {
    println!("{TILES} tiles of {BODY} bytes");
    let unique = fill("all different", 0);
    time("look-up, body in place", &unique, |n| n * 7919 % TILES);
    drop(unique);
    let shared = fill("35 % the same one", 35);
    time("look-up, body shared", &shared, |n| {
        n * 7919 % TILES / 100 * 100
    });
}

fn time(name: &str, tier: &MemoryTier, place: impl Fn(u32) -> u32) {
    const LOOKUPS: u32 = 500_000;
    let begun = Instant::now();
    for n in 0..LOOKUPS {
        black_box(tier.lookup(key(place(n))));
    }
    println!(
        "{name:<28} {:6.0} ns",
        begun.elapsed().as_secs_f64() * 1e9 / f64::from(LOOKUPS)
    );
}
