//! The disk tier's bars, measured: `cargo bench --bench disk -- [PART…] [--entries N] [--accesses N]`.
//!
//! Parts: restart, traces, amplification, identical, get. Without any, all run; with the defaults
//! that takes about a minute and a gigabyte in the temporary folder.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on says where")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "disk/trace.rs"]
mod trace;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tilekeep::cache::{
    ContentHash, DiskSettings, DiskTier, PutOutcome, Stored, StoredTile, TryGet,
};
use tilekeep::clock::Timestamp;
use tilekeep::origin::{ContentEncoding, OriginValidator};
use tilekeep::tile::TileKey;

use trace::Random;

/// Counts what is allocated.
#[global_allocator]
static ALLOCATOR: cap::Cap<mimalloc::MiMalloc> = cap::Cap::new(mimalloc::MiMalloc, usize::MAX);

const LONG: Duration = Duration::from_mins(10);
const TILE: usize = 8192;
/// Set for the process that only fills a folder.
const FOLDER: &str = "TILEKEEP_BENCH_FOLDER";

struct Wanted {
    parts: Vec<String>,
    entries: u64,
    accesses: usize,
}

impl Wanted {
    fn from_args() -> Self {
        let mut wanted = Self {
            parts: Vec::new(),
            entries: 1_000_000,
            accesses: 400_000,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut number = || args.next().and_then(|n| n.parse().ok());
            match arg.as_str() {
                "--entries" => wanted.entries = number().unwrap(),
                "--accesses" => wanted.accesses = usize::try_from(number().unwrap()).unwrap(),
                "--bench" => {} // cargo says so
                part => wanted.parts.push(part.to_owned()),
            }
        }
        wanted
    }

    fn has(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|wanted| wanted == part)
    }
}

fn main() {
    let wanted = Wanted::from_args();
    if let Some(folder) = std::env::var_os(FOLDER) {
        return fill(Path::new(&folder), wanted.entries);
    }
    println!("{:<58} {:>12} {:>10}", "figure", "measured", "bar");
    if wanted.has("restart") {
        restart(wanted.entries);
    }
    if wanted.has("amplification") {
        amplification(wanted.accesses);
    }
    if wanted.has("traces") {
        traces(wanted.accesses);
    }
    if wanted.has("identical") {
        identical();
    }
    if wanted.has("get") {
        get_cost();
    }
}

fn row(figure: &str, measured: &str, bar: &str) {
    println!("{figure:<58} {measured:>12} {bar:>10}");
}

fn open(path: &Path, capacity: u64) -> DiskTier {
    DiskTier::open(DiskSettings {
        path: path.to_owned(),
        capacity,
    })
    .unwrap()
}

fn key(n: u64) -> TileKey {
    TileKey::from_bytes((u128::from(n) << 64 | 7).to_le_bytes())
}

/// A tile of which only the beginning differs from others; its hash is made up, as SHA-256 is not
/// what is measured here.
fn tile(n: u64, len: usize) -> Arc<Stored> {
    let mut body = vec![0x5a; len];
    body[..8].copy_from_slice(&n.to_le_bytes());
    let hash = u128::from(Random(n).next()) << 64 | u128::from(n);
    Arc::new(Stored::Tile(StoredTile {
        body: Bytes::from(body),
        content: ContentHash::from_bytes(hash.to_be_bytes()),
        encoding: ContentEncoding::Identity,
        validator: OriginValidator::new("\"0123456789abcdef0123456789abcdef\""),
        last_modified: Some(1_790_000_000),
        validated_at: Timestamp::from_secs(1_790_000_000),
    }))
}

fn put(tier: &DiskTier, n: u64, stored: &Arc<Stored>) {
    while tier.put(key(n), Arc::clone(stored)) != PutOutcome::Queued {
        tier.wait_written(LONG);
    }
}

fn get(tier: &DiskTier, n: u64) -> bool {
    match tier.try_get(&key(n)) {
        TryGet::Hit(_) => true,
        TryGet::Miss => false,
        TryGet::WouldBlock(pending) => pending.read().is_some(),
    }
}

fn close(tier: &DiskTier) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    assert!(runtime.block_on(tier.close(LONG)));
}

fn on_disk(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = std::fs::read_dir(path).unwrap();
    let blocks = files.map(|file| file.unwrap().metadata().unwrap().blocks());
    blocks.sum::<u64>() * 512
}

/// The time that this process has had on a processor, in milliseconds.
fn processor() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let fields = after_name.split_whitespace().skip(11).take(2);
    fields.map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum()
}

/// Everything out of the page cache.
fn forget_pages(path: &Path) {
    for file in std::fs::read_dir(path).unwrap() {
        let file = std::fs::File::open(file.unwrap().path()).unwrap();
        file.sync_data().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}

/// Long enough to be found again by their content: the dearest kind of entry.
const SMALL_TILE: usize = 600;

fn fill(path: &Path, entries: u64) {
    let tier = open(path, entries * 1000);
    let start = Instant::now();
    for n in 0..entries {
        put(&tier, n, &tile(n, SMALL_TILE));
    }
    tier.wait_written(LONG);
    let rate = entries as f64 / start.elapsed().as_secs_f64();
    row("puts a second, 600-byte tiles", &format!("{rate:.0}"), "");
    close(&tier);
}

fn restart(entries: u64) {
    let dir = tempfile::tempdir().unwrap();
    let capacity = entries * 1000;
    // In a process of its own, as what it leaves in memory would be counted here.
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["fill", "--entries", &entries.to_string()]);
    assert!(child.env(FOLDER, dir.path()).status().unwrap().success());
    forget_pages(dir.path());
    let before = ALLOCATOR.allocated();
    let busy = processor();
    let start = Instant::now();
    let tier = open(dir.path(), capacity);
    let opened = start.elapsed();
    let mut probe = entries;
    while !get(&tier, probe) {
        probe = if probe == 0 { entries } else { probe - 1 };
    }
    let first = start.elapsed();
    assert!(tier.wait_recovered(LONG));
    let whole = start.elapsed();
    let busy = processor() - busy;
    let memory = ALLOCATOR.allocated() - before;
    let stats = tier.stats();
    assert_eq!(stats.entries, entries);
    let ms = |time: Duration| format!("{} ms", time.as_millis());
    row(
        &format!("restart with {entries} entries, cold: open returns"),
        &ms(opened),
        "",
    );
    row("  first disk hit", &ms(first), "1000 ms");
    row("  whole index", &ms(whole), "3000 ms");
    row("  processor time for that", &format!("{busy} ms"), "");
    let each = memory as f64 / entries as f64;
    row(
        "  allocated for an entry, content table included",
        &format!("{each:.1} B"),
        "120 B",
    );
    let start = Instant::now();
    let gone = tier.invalidate_matching(|key| key.to_bytes()[8] < 64);
    row(
        &format!("  purge of {gone} of them"),
        &ms(start.elapsed()),
        "",
    );
}

fn amplification(accesses: usize) {
    let dir = tempfile::tempdir().unwrap();
    let capacity = 64 << 20;
    let tiles = 4 * capacity / TILE;
    for exponent in [0.7, 0.9, 1.1] {
        let tier = open(&dir.path().join(exponent.to_string()), capacity as u64);
        let trace = trace::zipf(tiles, accesses, exponent, 1);
        let hits = replay(&tier, &trace);
        let stats = tier.stats();
        let amplification = stats.written_bytes as f64 / stats.written_payload_bytes as f64;
        row(
            &format!("Zipf {exponent}, 4x more tiles than fit: bytes written / put"),
            &format!("{amplification:.3}"),
            "1.300",
        );
        let lru = trace::lru(&trace, capacity as u64, TILE as u64);
        let ratio = |hits: usize| hits as f64 / trace.len() as f64;
        row(
            &format!("  hit ratio (plain LRU: {:.4})", ratio(lru)),
            &format!("{:.4}", ratio(hits)),
            "",
        );
    }
}

/// Look-up, and put on a miss. Never faster than the writer.
fn replay(tier: &DiskTier, trace: &[u64]) -> usize {
    let mut hits = 0;
    let mut puts = 0;
    for &n in trace {
        if get(tier, n) {
            hits += 1;
        } else {
            put(tier, n, &tile(n, TILE));
            puts += 1;
            if puts % 256 == 0 {
                tier.wait_written(LONG);
            }
        }
    }
    tier.wait_written(LONG);
    hits
}

fn traces(accesses: usize) {
    for seed in [1, 2] {
        let trace = trace::viewports(accesses, seed);
        let distinct = trace::distinct(&trace);
        let capacity = distinct as u64 / 10 * TILE as u64;
        let dir = tempfile::tempdir().unwrap();
        let tier = open(dir.path(), capacity);
        let hits = replay(&tier, &trace);
        let ratio = |hits: usize| format!("{:.4}", hits as f64 / trace.len() as f64);
        let lru = trace::lru(&trace, capacity, TILE as u64);
        let moka = trace::moka(&trace, capacity, TILE as u64);
        row(
            &format!("viewports {seed}, room for 10 % of {distinct} tiles: hit ratio"),
            &ratio(hits),
            &ratio(lru),
        );
        row("  moka, the same bytes in memory", &ratio(moka), "");
        let stats = tier.stats();
        let amplification = stats.written_bytes as f64 / stats.written_payload_bytes as f64;
        row(
            "  bytes written / put",
            &format!("{amplification:.3}"),
            "1.300",
        );
        row("  segments", &stats.segments.to_string(), "");
    }
}

fn identical() {
    for (percent, bar) in [(0, "1.050"), (35, "0.700")] {
        let dir = tempfile::tempdir().unwrap();
        let tier = open(dir.path(), 512 << 20);
        let tiles = 20_000;
        let sea = tile(u64::MAX, TILE);
        for n in 0..tiles {
            if n * 37 % 100 < percent {
                put(&tier, n, &sea);
            } else {
                put(&tier, n, &tile(n, TILE));
            }
        }
        tier.wait_written(LONG);
        assert_eq!(tier.stats().entries, tiles);
        close(&tier);
        let taken = on_disk(dir.path()) as f64 / (tiles as f64 * TILE as f64);
        row(
            &format!("8 KB tiles, {percent} % of them the same: on disk / payload"),
            &format!("{taken:.3}"),
            bar,
        );
    }
}

fn get_cost() {
    const TILES: u64 = 4096;
    let dir = tempfile::tempdir().unwrap();
    let tier = open(dir.path(), 512 << 20);
    let mut map: HashMap<TileKey, Arc<Stored>> = HashMap::new();
    for n in 0..TILES {
        let tile = tile(n, TILE);
        put(&tier, n, &tile);
        map.insert(key(n), tile);
    }
    tier.wait_written(LONG);
    let mut random = Random(3);
    let order: Vec<u64> = (0..200_000).map(|_| random.next() % TILES).collect();
    // Processor time, not the clock's: others may be at work here.
    let each = |look: &dyn Fn(u64) -> usize| {
        let before = processor();
        for _ in 0..5 {
            let bytes: usize = order.iter().map(|&n| look(n)).sum();
            assert_eq!(bytes, order.len() * TILE);
        }
        (processor() - before) as f64 * 1e6 / (5 * order.len()) as f64
    };
    let len = |stored: &Stored| match stored {
        Stored::Tile(tile) => tile.body.len(),
        Stored::Absence(_) => 0,
    };
    let from_disk = |n| match tier.try_get(&key(n)) {
        TryGet::Hit(stored) => len(&stored),
        _ => 0,
    };
    let from_map = |n| len(&Stored::clone(&map[&key(n)]));
    let files = std::fs::read_dir(dir.path()).unwrap();
    let files = files.map(|entry| std::fs::File::open(entry.unwrap().path()).unwrap());
    let longest = files.max_by_key(|file| file.metadata().unwrap().len());
    let segment = longest.unwrap();
    let buffer = std::cell::RefCell::new(vec![0; TILE]);
    let from_file = |n| {
        let mut buffer = buffer.borrow_mut();
        let mut buffers = [std::io::IoSliceMut::new(&mut buffer)];
        let flags = rustix::io::ReadWriteFlags::NOWAIT;
        // A segment of this capacity is 4 MiB long.
        rustix::io::preadv2(&segment, &mut buffers, n % 500 * TILE as u64, flags).unwrap()
    };
    let checksummed = |n| {
        let len = from_file(n);
        std::hint::black_box(twox_hash::XxHash3_64::oneshot(&buffer.borrow()));
        len
    };
    let (read, checked) = (each(&from_file), each(&checksummed));
    row("8 KB by preadv2 alone", &format!("{read:.0} ns"), "");
    row("  and XXH3 of it", &format!("{checked:.0} ns"), "");
    let (disk, memory) = (each(&from_disk), each(&from_map));
    row(
        "8 KB from the page cache by try_get",
        &format!("{disk:.0} ns"),
        "",
    );
    row(
        "8 KB by a clone from a HashMap",
        &format!("{memory:.0} ns"),
        "",
    );
}
