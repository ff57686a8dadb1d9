//! What a hit costs in this process, from the request's bytes to those of the answer's head: `plain::with_head` and
//! `App::handle_head`, memory tier, everything on. A thousand people's tokens and 21,845 tiles in turn, so that caches
//! are as cold as they are in life; one tile again and again for what is left when nothing is; and that tile for a
//! request that hyper read (`App::handle`), as over HTTP/2.
//!
//! The bound to reach for a hit when nothing is cold: 700 ns. The one to keep: no allocation that grows with the body or the number of headers.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on says where")]

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use divan::{AllocProfiler, Bencher, black_box};
use http::header::{COOKIE, HOST};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::Empty;
use mimalloc::MiMalloc;
use tilekeep::app::{App, Provided};
use tilekeep::auth::{Claims, KeyMaterial, KeyRing, KeySettings, Secret};
use tilekeep::config::{CacheConfig, Config, Server, TilesetConfig};
use tilekeep::http::handling::Handling;
use tilekeep::http::plain::with_head;
use tilekeep::http::reply::Reply;
use tilekeep::origin::failing::MemoryOrigin;
use tilekeep::tile::{
    Access, Bounds, BrowserCaching, Delivery, Scale, TileCoord, TileFormat, Tileset, TilesetSpec,
};

#[global_allocator]
static ALLOCATOR: AllocProfiler<MiMalloc> = AllocProfiler::new(MiMalloc);

const MAX_ZOOM: u8 = 7;
const PEOPLE: usize = 1000;
const BODY: u32 = 8700;

fn main() {
    divan::main();
}

/// A server that holds all its tiles in memory, and the requests for them.
struct Warm {
    app: App,
    requests: Vec<(Uri, HeaderValue, HeaderValue)>,
    next: AtomicUsize,
    /// What answers' heads are written to, as a connection does.
    lines: Mutex<Vec<u8>>,
    _runtime: tokio::runtime::Runtime,
}

impl Warm {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let tileset = tileset();
        let origin = MemoryOrigin::new();
        let places: Vec<_> = (0..=MAX_ZOOM)
            .flat_map(|z| (0..1u32 << z).flat_map(move |x| (0..1u32 << z).map(move |y| (z, x, y))))
            .collect();
        for &(z, x, y) in &places {
            let coord = TileCoord::new(z, x, y).unwrap();
            let body: Vec<u8> = (0..BODY)
                .map(|n| (n * 31 + x * 7 + y * 3 + u32::from(z)).to_le_bytes()[0])
                .chain(format!("{z}/{x}/{y}").into_bytes())
                .collect();
            origin.put(&tileset, coord, Scale::One, body, Some(1_700_000_000));
        }
        let tokens = tokens();
        let config = Config {
            server: Server {
                listen: "127.0.0.1:0".parse().unwrap(),
                admin_listen: "127.0.0.1:0".parse().unwrap(),
                ..Server::default()
            },
            cache: CacheConfig {
                memory: 512 << 20,
                ..CacheConfig::default()
            },
            tilesets: vec![TilesetConfig {
                tileset,
                assume_role: None,
            }],
            ..Config::default()
        };
        let provided = Provided {
            keys: Some(keys()),
            origin: Some(Arc::new(origin)),
            ..Provided::default()
        };
        let app = runtime.block_on(App::start(config, provided)).unwrap();
        let mut requests = Vec::new();
        for (n, &(z, x, y)) in places.iter().enumerate() {
            let uri: Uri = format!("/world/{z}/{x}/{y}.png").parse().unwrap();
            let cookie =
                HeaderValue::try_from(format!("tilekeep_session={}", tokens[n % PEOPLE])).unwrap();
            let filled = runtime.block_on(app.handle(peer(), request(&uri, &cookie)));
            let filled = filled.into_response();
            assert_eq!(filled.status(), StatusCode::OK, "{uri}");
            let etag = filled.headers()["etag"].clone();
            requests.push((uri, cookie, etag));
        }
        // In an order in which neither tiles nor people lie side by side.
        let count = requests.len();
        let requests = (0..count)
            .map(|n| requests[n * 7919 % count].clone())
            .collect();
        Self {
            app,
            requests,
            next: AtomicUsize::new(0),
            lines: Mutex::default(),
            _runtime: runtime,
        }
    }

    fn next(&self) -> &(Uri, HeaderValue, HeaderValue) {
        &self.requests[self.next.fetch_add(1, Ordering::Relaxed) % self.requests.len()]
    }

    fn answer(&self, bytes: &[u8]) -> StatusCode {
        let (handling, _) = with_head(bytes, |head| self.app.handle_head(peer(), head)).unwrap();
        self.write(handling)
    }

    /// A hit never waits: one poll is the whole of it.
    fn write(&self, handling: Handling) -> StatusCode {
        match pin!(handling).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Reply::Tile(head, body)) => {
                let mut lines = self.lines.lock().unwrap();
                lines.clear();
                head.put_lines(&mut lines);
                black_box((&*lines, body));
                head.status()
            }
            Poll::Ready(Reply::Whole(response)) => panic!("{response:?}"),
            Poll::Pending => panic!("a hit waited"),
        }
    }
}

#[divan::bench(sample_size = 1000)]
fn hit(bencher: Bencher) {
    let warm = Warm::new();
    bencher
        .with_inputs(|| {
            let (uri, cookie, _) = warm.next();
            as_sent(uri, cookie, None)
        })
        .bench_refs(|bytes| assert_eq!(warm.answer(bytes), StatusCode::OK));
}

#[divan::bench(sample_size = 1000)]
fn not_modified(bencher: Bencher) {
    let warm = Warm::new();
    bencher
        .with_inputs(|| {
            let (uri, cookie, etag) = warm.next();
            as_sent(uri, cookie, Some(etag))
        })
        .bench_refs(|bytes| assert_eq!(warm.answer(bytes), StatusCode::NOT_MODIFIED));
}

#[divan::bench(sample_size = 1000)]
fn hit_of_one_tile(bencher: Bencher) {
    let warm = Warm::new();
    let (uri, cookie, _) = warm.next();
    let bytes = as_sent(uri, cookie, None);
    bencher.bench_local(|| assert_eq!(warm.answer(&bytes), StatusCode::OK));
}

#[divan::bench(sample_size = 1000)]
fn hit_of_one_tile_by_hyper(bencher: Bencher) {
    let warm = Warm::new();
    let (uri, cookie, _) = warm.next();
    bencher
        .with_inputs(|| request(uri, cookie))
        .bench_values(|request| {
            let handling = warm.app.handle(peer(), request);
            assert_eq!(warm.write(handling), StatusCode::OK);
        });
}

/// The bytes of a request.
fn as_sent(uri: &Uri, cookie: &HeaderValue, etag: Option<&HeaderValue>) -> Vec<u8> {
    let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
    let condition = etag.map_or_else(String::new, |etag| {
        format!("If-None-Match: {}\r\n", text(etag))
    });
    let cookie = text(cookie);
    format!("GET {uri} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n{condition}\r\n")
        .into_bytes()
}

fn peer() -> SocketAddr {
    ([127, 0, 0, 1], 40_000).into()
}

fn request(uri: &Uri, cookie: &HeaderValue) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = uri.clone();
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_static("localhost"));
    headers.insert(COOKIE, cookie.clone());
    request
}

fn keys() -> KeyRing {
    KeyRing::new(vec![KeySettings {
        id: "bench".into(),
        material: KeyMaterial::Hs256 {
            secret: Secret::new(*b"a key for benches, of 32 bytes..."),
        },
    }])
    .unwrap()
}

fn tokens() -> Vec<String> {
    let keys = keys();
    (0..PEOPLE)
        .map(|person| {
            let claims: Claims = serde_json::from_value(serde_json::json!({
                "sub": format!("person-{person}@example.com"), "exp": 4_000_000_000_u64,
                "tilesets": ["world"],
            }))
            .unwrap();
            keys.mint(&claims).unwrap()
        })
        .collect()
}

fn tileset() -> Arc<Tileset> {
    Arc::new(
        Tileset::new(TilesetSpec {
            name: "world".into(),
            bucket: "bench".into(),
            key: "{z}/{x}/{y}.png".into(),
            format: TileFormat::Png,
            minzoom: 0,
            maxzoom: MAX_ZOOM,
            bounds: Bounds::WORLD,
            attribution: String::new(),
            version: None,
            missing: None,
            delivery: Delivery::Proxy,
            browser: BrowserCaching::default(),
            access: Access::Session,
            tilejson: serde_json::Map::new(),
        })
        .unwrap(),
    )
}
