//! A real S3 server that is killed in mid-load under the program itself, and comes back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tilekeep::auth::{KeyMaterial, KeyRing, KeySettings, Secret};
use tilekeep::clock::Clock;
use tokio::time::{Instant, sleep};

use crate::origin_contract::BUCKET;
use crate::peers::{PATIENCE, Seaweed};
use crate::serving::Serving;

const KEY: &str = "a key for tests, of 32 bytes or more";
/// All of zoom 3. The first half is looked at before the server dies.
const TILES: u32 = 64;

/// Large enough that a server dies in the middle of them.
fn body(n: u32) -> Vec<u8> {
    format!("tile {n} of a server that dies, ")
        .into_bytes()
        .repeat(10_000)
}

fn path(n: u32) -> String {
    format!("world/3/{}/{}.png", n % 8, n / 8)
}

/// Asks without a pause until it is told to stop, and keeps account.
struct Load {
    http: Client<HttpConnector, Empty<Bytes>>,
    server: std::net::SocketAddr,
    bearer: String,
    over: AtomicBool,
    /// How often a status came, for tiles that were seen before and for others.
    seen: Mutex<BTreeMap<(bool, u16), u32>>,
    wrong: Mutex<Vec<String>>,
}

impl Load {
    fn new(server: std::net::SocketAddr) -> Arc<Self> {
        let material = KeyMaterial::Hs256 {
            secret: Secret::new(KEY),
        };
        let keys = KeyRing::new(vec![KeySettings {
            id: "test".into(),
            material,
        }]);
        let claims = serde_json::json!({
            "sub": "anna", "exp": Clock::System.now().secs() + 3600, "tilesets": ["*"],
        });
        let token = keys.unwrap().mint(&serde_json::from_value(claims).unwrap());
        Arc::new(Self {
            http: Client::builder(TokioExecutor::new()).build_http(),
            server,
            bearer: format!("Bearer {}", token.unwrap()),
            over: AtomicBool::new(false),
            seen: Mutex::default(),
            wrong: Mutex::default(),
        })
    }

    async fn get(&self, n: u32) -> (u16, HeaderMap) {
        let request = Request::get(format!("http://{}/{}", self.server, path(n)));
        let request = request
            .header("authorization", &self.bearer)
            .body(Empty::new());
        let response = self.http.request(request.unwrap()).await.unwrap();
        let (parts, bytes) = response.into_parts();
        let bytes = bytes.collect().await.unwrap().to_bytes();
        let status = parts.status.as_u16();
        let right = match status {
            200 => bytes[..] == body(n)[..],
            502..=504 => parts.headers.contains_key("retry-after"),
            _ => false,
        };
        if !right {
            let wrong = format!(
                "{}: {status}, {} bytes, {:?}",
                path(n),
                bytes.len(),
                parts.headers
            );
            self.wrong.lock().unwrap().push(wrong);
        }
        *self
            .seen
            .lock()
            .unwrap()
            .entry((n < TILES / 2, status))
            .or_default() += 1;
        (status, parts.headers)
    }

    /// What was counted since the last time.
    fn take(&self) -> BTreeMap<(bool, u16), u32> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    async fn worker(self: Arc<Self>, first: u32) {
        let mut n = first;
        while !self.over.load(Ordering::Relaxed) {
            // A stride that meets every tile.
            n = (n + 13) % TILES;
            self.get(n).await;
            sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_mid_load_costs_only_tiles_that_nobody_had_seen_and_all_come_when_it_is_back()
 {
    let mut seaweed = Seaweed::start().await;
    let bodies: Vec<(String, Vec<u8>)> = (0..TILES).map(|n| (path(n), body(n))).collect();
    let objects: Vec<(&str, &[u8])> = bodies.iter().map(|(k, b)| (k.as_str(), &b[..])).collect();
    seaweed.bucket(BUCKET, &objects).await;
    let config = format!(
        "[origin]\ndeadline = \"2s\"\n\
         [cache]\nfresh = \"1s\"\nstale_while_revalidate = \"0s\"\n\
         [session]\nkeys = [{{ id = \"test\", secret = \"{KEY}\" }}]\n\
         [aws]\nregion = \"us-east-1\"\nendpoint_url = \"{}\"\npath_style = true\n\
         [tilesets.world]\nbucket = \"{BUCKET}\"\nkey = \"world/{{z}}/{{x}}/{{y}}.png\"\n",
        seaweed.endpoint()
    );
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let program = env!("CARGO_BIN_EXE_tilekeep").as_ref();
    let keys = seaweed.keys();
    let mut server = Serving::start(program, folder, &config, &keys, &log).await;
    let load = Load::new(server.public);
    for n in 0..TILES / 2 {
        assert_eq!(load.get(n).await.0, 200);
    }
    load.take();

    // Killed while the other half is asked for, eight at a time.
    let workers: Vec<_> = (0..8)
        .map(|n| tokio::spawn(Arc::clone(&load).worker(n * 8)))
        .collect();
    sleep(Duration::from_millis(60)).await;
    seaweed.kill();
    let before = load.take();
    sleep(Duration::from_secs(8)).await;
    let during = load.take();
    println!("until it died: {before:?}\nwhile it was gone: {during:?}");

    seaweed.run().await;
    let until = Instant::now() + PATIENCE;
    let mut waited = 0;
    loop {
        load.take();
        let mut all = true;
        for n in 0..TILES {
            all &= load.get(n).await.0 == 200;
        }
        if all {
            break;
        }
        assert!(
            Instant::now() < until,
            "not all tiles are back: {:?}",
            load.take()
        );
        waited += 1;
        sleep(Duration::from_millis(200)).await;
    }
    println!("all were back at round {waited}");
    // And of the bucket again, not what was held.
    loop {
        let (status, headers) = load.get(0).await;
        let how = headers["cache-status"].to_str().unwrap();
        if status == 200 && !how.contains("stale-if-error") {
            break;
        }
        assert!(Instant::now() < until, "{how}");
        sleep(Duration::from_millis(100)).await;
    }
    load.over.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }

    assert_eq!(*load.wrong.lock().unwrap(), Vec::<String>::new());
    let of = |known: bool, status: u16| during.get(&(known, status)).copied().unwrap_or(0);
    assert!(of(true, 200) > 50, "what was seen before is served stale");
    for status in [502, 503, 504] {
        assert_eq!(
            of(true, status),
            0,
            "a tile that was held failed with {status}"
        );
    }
    assert!(
        of(false, 502) + of(false, 503) + of(false, 504) > 10,
        "the others fail"
    );
    assert!(server.stop(PATIENCE).await);
}
