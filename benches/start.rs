//! From `exec` to the first answer.
//!
//! `cargo bench --bench start [-- empty] [-- imds] [-- disk]`. The bars: the empty server answers within 50 ms; with
//! a million entries on disk the first hit from there comes within a second, none of it in the page cache.
//!
//! * **empty**: nothing cached, keys in the environment, a users file; `GET /healthz` and a tile without a session;
//! * **imds**: the same where credentials are looked for and IMDS never answers, as on a machine that is none of
//!   EC2's: nothing that needs no credentials may wait for them;
//! * **disk**: the first `detail=disk` for any of 64 tiles drawn at random, then for the tile that was written first,
//!   which tells when the whole index is back.
//!
//! The real binary, asked over a raw socket, again and again until it answers. `START_TIMES` (10) starts, medians and
//! quartiles; `START_ENTRIES` (1,000,000) tiles of 600 bytes, written by the library's own disk tier in a process of
//! its own (a minute, a gigabyte in the temporary folder). `TILEKEEP_BIN` measures another program.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on says where")]
#![allow(
    clippy::disallowed_methods,
    reason = "a process is waited for from outside, and time is what is measured"
)]

#[path = "shared/binary.rs"]
mod binary;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, thread};

use bytes::Bytes;
use tilekeep::auth::{Claims, KeyMaterial, KeyRing, KeySettings, Secret};
use tilekeep::cache::{ContentHash, DiskSettings, DiskTier, PutOutcome, Stored, StoredTile};
use tilekeep::clock::Timestamp;
use tilekeep::origin::{ContentEncoding, OriginValidator};
use tilekeep::tile::{KeySpace, Scale, TileCoord, TileKey};

/// Set for the process that only fills a folder.
const FOLDER: &str = "TILEKEEP_BENCH_FOLDER";
const KEY: &str = "a key for benches, of 32 bytes...";
const TILE: usize = 600;
/// Zoom 10 has 1,048,576 tiles.
const ZOOM: u8 = 10;
const LONG: Duration = Duration::from_mins(10);
/// Between two questions.
const PAUSE: Duration = Duration::from_micros(500);
/// For a server to answer at all.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() {
    let number = |name: &str, default: u32| env::var(name).map_or(default, |n| n.parse().unwrap());
    let (times, entries) = (
        number("START_TIMES", 10),
        number("START_ENTRIES", 1_000_000),
    );
    if let Some(folder) = env::var_os(FOLDER) {
        return fill(Path::new(&folder), entries);
    }
    let asked: Vec<String> = env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let wants = |name: &str| asked.is_empty() || asked.iter().any(|a| a == name);
    println!(
        "{:<52} {:>9} {:>19} {:>9}",
        "from exec to", "ms", "quartiles", "bar"
    );
    if wants("empty") {
        empty(
            "empty",
            times,
            &[
                ("AWS_ACCESS_KEY_ID", "bench"),
                ("AWS_SECRET_ACCESS_KEY", "bench"),
            ],
        );
    }
    if wants("imds") {
        // It takes connections, and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", silent.local_addr().unwrap());
        empty(
            "no answer from IMDS",
            times,
            &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint)],
        );
    }
    if wants("disk") {
        disk(times, entries);
    }
}

fn row(what: &str, mut seen: Vec<Duration>, bar: &str) {
    seen.sort();
    let [low, middle, high] =
        [1, 2, 3].map(|quarter| seen[(seen.len() - 1) * quarter / 4].as_secs_f64() * 1e3);
    println!(
        "{what:<52} {middle:>9.1} {:>19} {bar:>9}",
        format!("{low:.1} to {high:.1}")
    );
}

fn empty(name: &str, times: u32, environment: &[(&str, &str)]) {
    let (mut health, mut tile) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let folder = tempfile::tempdir().unwrap();
        // Each by a server that was asked nothing before, and ends before the next begins.
        let first = |path, status: &str| {
            let server = Server::start(folder.path(), "", environment);
            server.first(path, |answer| answer.starts_with(status))
        };
        health.push(first("/healthz", "HTTP/1.1 200"));
        tile.push(first("/world/1/0/0.png", "HTTP/1.1 401"));
    }
    row(&format!("{name}: /healthz"), health, "50");
    row(&format!("{name}: a tile, 401"), tile, "50");
}

fn disk(times: u32, entries: u32) {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let filled = Command::new(env::current_exe().unwrap())
        .env(FOLDER, &cache)
        .status();
    assert!(filled.unwrap().success());
    let config = format!(
        "disk = \"{}B\"\ndisk_path = \"{}\"\n",
        capacity(entries),
        cache.display()
    );
    let token = token();
    let (mut any, mut all) = (Vec::new(), Vec::new());
    for _ in 0..times {
        forget_pages(&cache);
        let server = Server::start(
            folder.path(),
            &config,
            &[
                ("AWS_ACCESS_KEY_ID", "bench"),
                ("AWS_SECRET_ACCESS_KEY", "bench"),
            ],
        );
        let mut random = 1_u64;
        let paths = (0..64).map(|_| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            path(u32::try_from((random >> 33) % u64::from(entries)).unwrap())
        });
        let paths: Vec<String> = paths.collect();
        any.push(server.first_of(&paths, &token, from_disk));
        all.push(server.first_of(&[path(0)], &token, from_disk));
    }
    row(
        &format!("{entries} entries, cold: first hit from disk"),
        any,
        "1000",
    );
    row("  the tile that was written first", all, "");
}

fn from_disk(answer: &str) -> bool {
    answer.contains("detail=disk")
}

/// A running server, ended with this.
struct Server {
    child: Child,
    address: SocketAddr,
    begun: Instant,
}

impl Server {
    /// `cache`: the keys of `[cache]`. Time counts from right before the process is made.
    fn start(folder: &Path, cache: &str, environment: &[(&str, &str)]) -> Self {
        let (address, admin) = (free(), free());
        let users = folder.path_of("users.toml");
        let text = format!(
            "[server]\nlisten = \"{address}\"\nadmin_listen = \"{admin}\"\n\
             [cache]\nmemory = \"512MiB\"\n{cache}\
             [session]\nkeys = [{{ id = \"bench\", secret = \"{KEY}\" }}]\n\
             [login]\nusers_file = \"{users}\"\n\
             [[quotas]]\nname = \"viewer\"\nrequests_per_second = 200\n\
             [aws]\nregion = \"us-east-1\"\nendpoint_url = \"http://127.0.0.1:9\"\npath_style = true\n\
             [tilesets.world]\nbucket = \"tiles\"\nkey = \"{{z}}/{{x}}/{{y}}.png\"\nformat = \"png\"\nmaxzoom = 12\n",
        );
        fs::write(&users, "").unwrap();
        let config = folder.path_of("tilekeep.toml");
        fs::write(&config, text).unwrap();
        let mut command = Command::new(binary::tilekeep());
        command
            .args(["serve", "--config", &config])
            .env("TILEKEEP_LOG", "error")
            .env_remove("AWS_PROFILE")
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .envs(environment.iter().copied())
            .stdout(Stdio::null());
        let begun = Instant::now();
        let child = command.spawn().unwrap();
        Self {
            child,
            address,
            begun,
        }
    }

    fn first(&self, path: &str, good: impl Fn(&str) -> bool) -> Duration {
        self.first_of(&[path.to_owned()], "", good)
    }

    /// Asks for these in turn until an answer is good; how long after `exec` it came.
    fn first_of(&self, paths: &[String], token: &str, good: impl Fn(&str) -> bool) -> Duration {
        let mut connection = None;
        for path in paths.iter().cycle() {
            let waited = self.begun.elapsed();
            assert!(waited < PATIENCE, "no good answer in {waited:?}");
            if connection.is_none() {
                connection = TcpStream::connect(self.address).ok();
            }
            let answer = connection
                .as_mut()
                .and_then(|stream| ask(stream, path, token));
            match answer {
                Some(answer) if good(&answer) => break,
                Some(_) => {}
                None => connection = None,
            }
            thread::sleep(PAUSE);
        }
        self.begun.elapsed()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // By its id; it seals the files of its disk tier.
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

/// An answer's head, once all of it is there.
fn ask(stream: &mut TcpStream, path: &str, token: &str) -> Option<String> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: tilekeep_session={token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        answer.extend_from_slice(&buffer[..read]);
        let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|n| n.parse().ok()).unwrap_or(0);
        if answer.len() >= end + 4 + length {
            return Some(String::from_utf8_lossy(&answer[..end]).into_owned());
        }
    }
}

trait PathOf {
    fn path_of(&self, name: &str) -> String;
}

impl PathOf for Path {
    fn path_of(&self, name: &str) -> String {
        self.join(name).display().to_string()
    }
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn capacity(entries: u32) -> u64 {
    u64::from(entries.max(100_000)) * 1000
}

fn place(n: u32) -> (u32, u32) {
    (n >> ZOOM, n & ((1 << ZOOM) - 1))
}

fn path(n: u32) -> String {
    let (x, y) = place(n);
    format!("/world/{ZOOM}/{x}/{y}.png")
}

fn fill(path: &Path, entries: u32) {
    let settings = DiskSettings {
        path: path.to_owned(),
        capacity: capacity(entries),
    };
    let tier = DiskTier::open(settings).unwrap();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    for n in 0..entries {
        let (x, y) = place(n);
        let coord = TileCoord::new(ZOOM, x, y).unwrap();
        let key = TileKey::new(KeySpace::new("world", None), coord, Scale::One);
        let mut body = b"\x89PNG\r\n\x1a\n".to_vec();
        body.extend_from_slice(&n.to_le_bytes());
        body.resize(TILE, 0x5a);
        // Made up: SHA-256 is not what is measured here.
        let hash = u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let stored = Arc::new(Stored::Tile(StoredTile {
            body: Bytes::from(body),
            content: ContentHash::from_bytes(hash.to_be_bytes()),
            encoding: ContentEncoding::Identity,
            validator: OriginValidator::new("\"0123456789abcdef0123456789abcdef\""),
            last_modified: Some(1_790_000_000),
            validated_at: Timestamp::from_secs(now),
        }));
        while tier.put(key, Arc::clone(&stored)) != PutOutcome::Queued {
            tier.wait_written(LONG);
        }
    }
    tier.wait_written(LONG);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    assert!(runtime.block_on(tier.close(LONG)));
}

/// Everything out of the page cache.
fn forget_pages(path: &Path) {
    for file in fs::read_dir(path).unwrap() {
        let file = fs::File::open(file.unwrap().path()).unwrap();
        file.sync_data().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}

fn token() -> String {
    let material = KeyMaterial::Hs256 {
        secret: Secret::new(KEY),
    };
    let id = "bench".into();
    let keys = KeyRing::new(vec![KeySettings { id, material }]).unwrap();
    let claims: Claims = serde_json::from_value(serde_json::json!({
        "sub": "bench", "exp": 4_000_000_000_u64, "tilesets": ["world"],
    }))
    .unwrap();
    keys.mint(&claims).unwrap()
}
