//! The parts of a hit and of a fill, each alone.
//!
//! `cargo bench --bench micro [-- NAME]`. The bars: a known token under 300 ns; a disk get from the page cache at
//! most 1.3 × a memory hit, both with the answer (`cargo bench --bench speed -- disk` measures that end to end); at
//! most 120 bytes of memory for an entry on disk. The whole of a hit, `App::handle`, has a bench and a bar of its own
//! (`--bench handle`); tokens in other states have theirs (`--bench token`), and so has memory (`--bench memory`).
//!
//! * `route`: a path to a tile's address;
//! * `known_token`: a session seen before, among ten thousand;
//! * `memory_look_up`: of a hundred thousand tiles, far apart;
//! * `respond`: a hit of a public tileset, so all of `App::handle` but the session;
//! * `disk_get`: 8 KB out of the page cache, read, checked and made a response;
//! * `disk_put`: 8 KB into the queue of writes, and its share of the writing;
//! * and, as a line before the table, what an entry on disk takes in memory.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on says where")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use divan::{Bencher, black_box};
use http::header::HOST;
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::Empty;
use tilekeep::app::{App, Provided};
use tilekeep::auth::{
    Grants, KeyMaterial, KeyRing, KeySettings, Quotas, Secret, SessionSettings, Sessions,
};
use tilekeep::cache::{
    ContentHash, DiskSettings, DiskTier, MemoryTier, PutOutcome, Stored, StoredTile, TryGet,
};
use tilekeep::clock::Timestamp;
use tilekeep::config::{Config, Server, TilesetConfig};
use tilekeep::http::route::Route;
use tilekeep::origin::failing::MemoryOrigin;
use tilekeep::origin::{ContentEncoding, OriginValidator};
use tilekeep::tile::{
    Access, Bounds, BrowserCaching, Delivery, KeySpace, Scale, TileCoord, TileFormat, TileKey,
    Tileset, TilesetSpec,
};

/// As the server has it, and counted.
#[global_allocator]
static ALLOCATOR: cap::Cap<mimalloc::MiMalloc> = cap::Cap::new(mimalloc::MiMalloc, usize::MAX);

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const LONG: Duration = Duration::from_mins(10);
const TILE: usize = 8192;
const ON_DISK: u64 = 4096;
const IN_MEMORY: u64 = 100_000;

fn main() {
    index_memory();
    divan::main();
}

/// Entries without an equal, found again by their content: the dearest kind.
fn index_memory() {
    let folder = tempfile::tempdir().unwrap();
    let tier = disk(folder.path());
    // What the tier takes when it is in use, before there is much in it.
    put(&tier, 0, 600);
    tier.wait_written(LONG);
    let before = ALLOCATOR.allocated();
    for n in 1..=IN_MEMORY {
        put(&tier, n, 600);
    }
    tier.wait_written(LONG);
    let each = ALLOCATOR.allocated().saturating_sub(before) as f64 / IN_MEMORY as f64;
    println!("an entry on disk takes {each:.1} bytes of memory (bar: 120)");
}

#[divan::bench(sample_size = 1000)]
fn route(bencher: Bencher) {
    bencher.bench(|| Route::parse(black_box("/world/12/2144/1434@2x.png")).is_ok());
}

#[divan::bench(sample_size = 1000)]
fn known_token(bencher: Bencher) {
    let id = "2026-11".to_owned();
    let material = KeyMaterial::Hs256 {
        secret: Secret::new([7; 32]),
    };
    let settings = SessionSettings {
        keys: KeyRing::new(vec![KeySettings { id, material }]).unwrap(),
        ttl: Duration::from_hours(12),
        max_ttl: Duration::from_hours(720),
        revocations: None,
        known_tokens: 16_384,
        quotas: Arc::new(Quotas::new(Vec::new()).unwrap()),
    };
    let sessions = Sessions::open(settings, NOW).unwrap();
    let grants = Grants {
        tilesets: ["world"].map(str::to_owned).into(),
        scope: None,
        maxzoom: None,
        bounds: None,
        quota: None,
    };
    let known = || {
        let issued = sessions.begin("ada@example.com", &grants, NOW).unwrap();
        sessions.authorize(&issued.token, NOW).unwrap();
        issued.token
    };
    let tokens: Vec<_> = (0..10_000).map(|_| known()).collect();
    bencher.bench(|| sessions.authorize(black_box(&tokens[7]), NOW).is_ok());
}

#[divan::bench(sample_size = 1000)]
fn memory_look_up(bencher: Bencher) {
    let tier = MemoryTier::new(2 << 30);
    for n in 0..IN_MEMORY {
        tier.put(key(n), Stored::clone(&tile(n, 600)));
    }
    tier.settle();
    let next = AtomicU64::new(0);
    bencher
        .with_inputs(|| key(next.fetch_add(7919, Ordering::Relaxed) % IN_MEMORY))
        .bench_values(|key| assert!(tier.lookup(key).is_some()));
}

#[divan::bench(sample_size = 1000)]
fn respond(bencher: Bencher) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (app, uris) = runtime.block_on(warm());
    let next = AtomicU64::new(0);
    bencher
        .with_inputs(|| {
            let n = next.fetch_add(1, Ordering::Relaxed) % uris.len() as u64;
            request(&uris[usize::try_from(n).unwrap()])
        })
        .bench_values(|request| {
            let answer = pin!(app.handle(peer(), request));
            match answer.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(response) => assert_eq!(response.status(), StatusCode::OK),
                Poll::Pending => panic!("a hit waited"),
            }
        });
}

#[divan::bench(sample_size = 100)]
fn disk_get(bencher: Bencher) {
    let folder = tempfile::tempdir().unwrap();
    let tier = disk(folder.path());
    for n in 0..ON_DISK {
        put(&tier, n, TILE);
    }
    tier.wait_written(LONG);
    let next = AtomicU64::new(0);
    bencher
        .with_inputs(|| key(next.fetch_add(1597, Ordering::Relaxed) % ON_DISK))
        .bench_values(|key| assert!(matches!(tier.try_get(&key), TryGet::Hit(_))));
}

/// A sample is a thousand puts and the wait until all are written.
#[divan::bench(sample_size = 1, sample_count = 20)]
fn disk_put_of_a_thousand(bencher: Bencher) {
    let folder = tempfile::tempdir().unwrap();
    let tier = disk(folder.path());
    let next = AtomicU64::new(0);
    bencher
        .with_inputs(|| {
            let first = next.fetch_add(1000, Ordering::Relaxed);
            (first..first + 1000)
                .map(|n| (n, tile(n, TILE)))
                .collect::<Vec<_>>()
        })
        .bench_values(|tiles| {
            for (n, tile) in tiles {
                while tier.put(key(n), Arc::clone(&tile)) != PutOutcome::Queued {
                    tier.wait_written(LONG);
                }
            }
            tier.wait_written(LONG);
        });
}

fn disk(folder: &std::path::Path) -> DiskTier {
    DiskTier::open(DiskSettings {
        path: folder.to_owned(),
        capacity: 1 << 30,
    })
    .unwrap()
}

fn put(tier: &DiskTier, n: u64, len: usize) {
    let tile = tile(n, len);
    while tier.put(key(n), Arc::clone(&tile)) != PutOutcome::Queued {
        tier.wait_written(LONG);
    }
}

fn key(n: u64) -> TileKey {
    let coord = TileCoord::new(17, u32::try_from(n).unwrap(), 0).unwrap();
    TileKey::new(KeySpace::new("bench", None), coord, Scale::One)
}

/// A tile like no other; its hash is made up, as SHA-256 is not what is measured here.
fn tile(n: u64, len: usize) -> Arc<Stored> {
    let mut body = vec![0x5a; len];
    body[..8].copy_from_slice(&n.to_le_bytes());
    let hash = u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    Arc::new(Stored::Tile(StoredTile {
        body: Bytes::from(body),
        content: ContentHash::from_bytes(hash.to_be_bytes()),
        encoding: ContentEncoding::Identity,
        validator: OriginValidator::new("\"0123456789abcdef0123456789abcdef\""),
        last_modified: Some(1_790_000_000),
        validated_at: NOW,
    }))
}

fn peer() -> SocketAddr {
    ([127, 0, 0, 1], 40_000).into()
}

fn request(uri: &Uri) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = uri.clone();
    let host = HeaderValue::from_static("localhost");
    request.headers_mut().insert(HOST, host);
    request
}

/// A server with a public tileset, all of it in memory.
async fn warm() -> (App, Vec<Uri>) {
    let spec = TilesetSpec {
        name: "world".into(),
        bucket: "bench".into(),
        key: "{z}/{x}/{y}.png".into(),
        format: TileFormat::Png,
        minzoom: 0,
        maxzoom: 6,
        bounds: Bounds::WORLD,
        attribution: String::new(),
        version: None,
        missing: None,
        delivery: Delivery::Proxy,
        browser: BrowserCaching::default(),
        access: Access::Public,
        tilejson: serde_json::Map::new(),
    };
    let tileset = Arc::new(Tileset::new(spec).unwrap());
    let origin = MemoryOrigin::new();
    let places: Vec<_> = (0..64).flat_map(|x| (0..64).map(move |y| (x, y))).collect();
    for (x, y) in &places {
        let mut body = format!("{x}/{y}").into_bytes();
        body.resize(TILE, 0x5a);
        let coord = TileCoord::new(6, *x, *y).unwrap();
        origin.put(&tileset, coord, Scale::One, body, Some(1_790_000_000));
    }
    let config = Config {
        server: Server {
            listen: "127.0.0.1:0".parse().unwrap(),
            admin_listen: "127.0.0.1:0".parse().unwrap(),
            ..Server::default()
        },
        tilesets: vec![TilesetConfig {
            tileset,
            assume_role: None,
        }],
        ..Config::default()
    };
    let provided = Provided {
        origin: Some(Arc::new(origin)),
        ..Provided::default()
    };
    let app = App::start(config, provided).await.unwrap();
    let mut uris = Vec::new();
    for (x, y) in places {
        let uri: Uri = format!("/world/6/{x}/{y}.png").parse().unwrap();
        assert_eq!(
            app.handle(peer(), request(&uri)).await.status(),
            StatusCode::OK
        );
        uris.push(uri);
    }
    (app, uris)
}
