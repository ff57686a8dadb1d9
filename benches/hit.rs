//! What a hit costs the server, end to end: CPU (`utime + stime`) a request, over HTTP/1.1 keep-alive,
//! with the session check, every header, metrics and both tiers on.
//!
//! `cargo bench --bench hit`. The server runs as a process of its own, so that its CPU can be told
//! from the generator's. Rounds alternate between the cases; what counts are the ratios within a round.
//!
//! * **memory**: memory tier on, everything in it;
//! * **disk**: memory tier off, everything on disk and in the page cache;
//! * **304**: memory tier on, each request with the tile's `ETag`.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on says where")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers, and figures for people"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use tilekeep::app::{App, Provided};
use tilekeep::auth::{Claims, KeyMaterial, KeyRing, KeySettings, Secret};
use tilekeep::config::{CacheConfig, Config, Server, TilesetConfig};
use tilekeep::origin::failing::MemoryOrigin;
use tilekeep::tile::{
    Access, Bounds, BrowserCaching, Delivery, Scale, TileCoord, TileFormat, Tileset, TilesetSpec,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Tells the child which server it is.
const ROLE: &str = "TILEKEEP_BENCH_ROLE";
const ROUNDS: usize = 12;
const CONNECTIONS: usize = 16;
const REQUESTS: u32 = 4000;
/// All tiles of zoom 5: 1,024.
const ZOOM: u8 = 5;
const BODY: usize = 8700;

fn main() {
    if let Ok(role) = std::env::var(ROLE) {
        return serve(&role);
    }
    let mut memory = Served::start("memory");
    let mut disk = Served::start("disk");
    // Every tile is asked for once, so that what is measured are hits.
    for server in [&mut memory, &mut disk] {
        server.round(false);
        server.round(false);
    }
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let hit = memory.round(false);
        let read = disk.round(false);
        let not_modified = memory.round(true);
        rounds.push((hit, read / hit, not_modified / hit));
    }
    println!(
        "{ROUNDS} rounds of {} requests, {BODY} bytes a tile",
        CONNECTIONS as u32 * REQUESTS
    );
    report("memory hit, µs of CPU", rounds.iter().map(|r| r.0));
    report("disk hit / memory hit", rounds.iter().map(|r| r.1));
    report("304 / memory hit", rounds.iter().map(|r| r.2));
}

fn report(name: &str, values: impl Iterator<Item = f64>) {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[(values.len() as f64 * share) as usize % values.len()];
    println!(
        "{name:<24} median {:6.2}   quartiles {:6.2} {:6.2}",
        at(0.5),
        at(0.25),
        at(0.75)
    );
}

/// A server in a process of its own.
struct Served {
    child: Child,
    address: SocketAddr,
    token: String,
    ticks: u64,
}

impl Served {
    fn start(role: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.next().unwrap().unwrap().parse().unwrap();
        let token = lines.next().unwrap().unwrap();
        Self {
            child,
            address,
            token,
            ticks: 0,
        }
    }

    /// µs of the server's CPU a request, over one round.
    fn round(&mut self, conditional: bool) -> f64 {
        self.ticks = self.cpu_ticks();
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|n| {
                let (address, token) = (self.address, self.token.clone());
                std::thread::spawn(move || client(address, &token, n as u32, conditional))
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        let ticks = self.cpu_ticks() - self.ticks;
        // 100 ticks a second, as Linux has had for ever.
        ticks as f64 * 10_000.0 / (CONNECTIONS as f64 * f64::from(REQUESTS))
    }

    fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // Behind the name in parentheses: state is the third field, utime and stime 14 and 15.
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Its standard input ends, and so does it.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn client(address: SocketAddr, token: &str, n: u32, conditional: bool) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let condition = if conditional {
        "If-None-Match: *\r\n"
    } else {
        ""
    };
    let mut buffer = vec![0; 64 * 1024];
    for request in 0..REQUESTS {
        let place = (n * 641 + request * 7) % (1 << (2 * u32::from(ZOOM)));
        let (x, y) = (place % 32, place / 32);
        let head = format!(
            "GET /bench/{ZOOM}/{x}/{y}.png HTTP/1.1\r\nHost: localhost\r\nCookie: tilekeep_session={token}\r\n{condition}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut read = 0;
        let end = loop {
            read += stream.read(&mut buffer[read..]).unwrap();
            if let Some(at) = buffer[..read]
                .windows(4)
                .position(|part| part == b"\r\n\r\n")
            {
                break at + 4;
            }
        };
        let status = &buffer[9..12];
        let body = if conditional { 0 } else { BODY };
        assert_eq!(status, if conditional { b"304" } else { b"200" });
        while read < end + body {
            read += stream.read(&mut buffer[read..]).unwrap();
        }
    }
}

/// The child: a whole server over tiles in memory, until its standard input ends.
fn serve(role: &str) {
    let tileset = Arc::new(
        Tileset::new(TilesetSpec {
            name: "bench".into(),
            bucket: "bench".into(),
            key: "{z}/{x}/{y}.png".into(),
            format: TileFormat::Png,
            minzoom: 0,
            maxzoom: ZOOM,
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
    );
    let origin = MemoryOrigin::new();
    for x in 0..32u32 {
        for y in 0..32u32 {
            let coord = TileCoord::new(ZOOM, x, y).unwrap();
            let body: Vec<u8> = (0..BODY as u32)
                .map(|n| (n * 31 + x * 7 + y) as u8)
                .collect();
            origin.put(&tileset, coord, Scale::One, body, Some(1_700_000_000));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        server: Server {
            listen: "127.0.0.1:0".parse().unwrap(),
            admin_listen: "127.0.0.1:0".parse().unwrap(),
            ..Server::default()
        },
        cache: CacheConfig {
            memory: if role == "memory" { 256 << 20 } else { 0 },
            disk: 256 << 20,
            disk_path: Some(folder.path().join("cache")),
            ..CacheConfig::default()
        },
        tilesets: vec![TilesetConfig {
            tileset,
            assume_role: None,
        }],
        ..Config::default()
    };
    let material = KeyMaterial::Hs256 {
        secret: Secret::new(*b"a key for benches, of 32 bytes..."),
    };
    let keys = || {
        let material = material.clone();
        KeyRing::new(vec![KeySettings {
            id: "bench".into(),
            material,
        }])
        .unwrap()
    };
    let claims: Claims = serde_json::from_value(serde_json::json!({
        "sub": "bench", "exp": 4_000_000_000_u64, "tilesets": ["bench"],
    }))
    .unwrap();
    let token = keys().mint(&claims).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let provided = Provided {
            keys: Some(keys()),
            origin: Some(Arc::new(origin)),
            ..Provided::default()
        };
        let app = App::start(config, provided).await.unwrap();
        println!("{}\n{token}", app.addresses().public);
        let trigger = app.trigger();
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            trigger.fire();
        });
        app.run().await.unwrap();
    });
}
