//! What is left of the server when twice as many misses come as origin and server can bear.
//!
//! `cargo bench --bench overload [-- far] [-- near]`. The bars: offered misses at twice the peak (open loop), it
//! keeps 90 % of the peak, refuses the rest early (503 with `Retry-After`), and hits that come beside them, half
//! as many as it could answer, keep a 99th percentile under twice the quiet one.
//!
//! * **far**: the bucket takes 64 requests at a time and 40 ms for each, so the origin is what bounds;
//! * **near**: it takes 1 ms, so this machine's cores are.
//!
//! A round is: the peak of misses (closed loop, 192 connections, never the same tile twice), misses at twice that,
//! hits quiet, hits beside misses at twice the peak. Ratios are within a round; medians and quartiles of
//! `OVERLOAD_ROUNDS` (5) are told. Open loop: requests go out when they are due, on another connection if all are
//! busy, and their time counts from when they were due, so a server that stalls is not spared (`overload/load.rs`).
//!
//! **All share this machine's cores**: the bucket and those who ask for misses stand for other machines and are
//! nice to the server; who asks for hits is preferred where the system allows it (root), as what is measured is
//! the server's delay, not the clock's. What they use is missing to the server all the same: with two cores, `near`
//! says what is kept beside a generator that takes as much as the server does, and its share of the peak is lower
//! than it would be with the load from outside. Who asks for hits takes about as much as the server does to answer
//! them: with two cores, half of the capacity and the misses are more than there is, and `OVERLOAD_HITS=0.15` (0.5)
//! offers a share of it that leaves room. `TILEKEEP_BIN` measures another program.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on says where")]
#![allow(
    clippy::disallowed_methods,
    reason = "processes are waited for from outside, and time is what is measured"
)]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers, and figures for people"
)]

#[path = "shared/binary.rs"]
mod binary;
#[path = "overload/bucket.rs"]
mod bucket;
#[path = "overload/load.rs"]
mod load;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

use tilekeep::auth::{Claims, KeyMaterial, KeyRing, KeySettings, Secret};

use crate::load::{Done, Order, What};

/// Tells a child what it is.
const ROLE: &str = "TILEKEEP_OVERLOAD_ROLE";
const KEY: &str = "a key for benches, of 32 bytes...";
const PEOPLE: usize = 200;
/// `[origin] concurrency`, as it is by default, and what the bucket takes at once.
const AT_ONCE: usize = 64;
/// Three for each slot: the peak needs the slots full, and a few who wait.
const AT_PEAK: usize = 3 * AT_ONCE;
/// Of one measurement, after a second that does not count.
const SECONDS: u64 = 4;

fn main() {
    match env::var(ROLE).as_deref() {
        Ok("bucket") => return bucket::serve(),
        Ok("load") => return load::run(),
        _ => {}
    }
    let asked: Vec<String> = env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let rounds = env::var("OVERLOAD_ROUNDS").map_or(5, |n| n.parse().unwrap());
    for (name, latency) in [("far", 40), ("near", 1)] {
        if asked.is_empty() || asked.iter().any(|a| a == name) {
            case(name, Duration::from_millis(latency), rounds);
        }
    }
}

/// What one round has shown.
struct Round {
    peak: f64,
    /// Misses at twice the peak, alone and beside hits.
    over: [Done; 2],
    quiet: Done,
    beside: Done,
}

fn case(name: &str, latency: Duration, rounds: usize) {
    let bench = Bench::start(latency);
    bench.warm();
    // By the same open loop that asks for half of it: a closed one sends in bunches, which cost both sides less.
    let closed = Bench::load(&bench.hits(None)).per_second();
    let capacity = (0..3).map(|_| Bench::load(&bench.hits(Some(closed))).per_second());
    let capacity = middle(capacity.collect());
    println!(
        "\n{name}: a bucket of {AT_ONCE} x {latency:?}; hits answered at most: {capacity:.0}/s"
    );
    let hits = capacity * env::var("OVERLOAD_HITS").map_or(0.5, |share| share.parse().unwrap());
    let mut seen = Vec::new();
    for round in 0..rounds {
        let peak = Bench::load(&bench.misses(None)).per_second();
        let over = Bench::load(&bench.misses(Some(2.0 * peak)));
        let quiet = Bench::load(&bench.hits(Some(hits)));
        let (beside, over_beside) = thread::scope(|scope| {
            let misses = scope.spawn(|| Bench::load(&bench.misses(Some(2.0 * peak))));
            let hits = Bench::load(&bench.hits(Some(hits)));
            (hits, misses.join().unwrap())
        });
        let now = Round {
            peak,
            over: [over, over_beside],
            quiet,
            beside,
        };
        println!("  round {round}: peak {peak:.0}/s");
        for (what, done) in [
            ("misses x 2", &now.over[0]),
            ("hits quiet", &now.quiet),
            ("misses x 2, beside hits", &now.over[1]),
            ("hits beside", &now.beside),
        ] {
            println!("    {what:<24} {done}");
        }
        seen.push(now);
    }
    let row = |what: &str, bar: &str, figure: &dyn Fn(&Round) -> f64| {
        let mut all: Vec<f64> = seen.iter().map(figure).collect();
        all.sort_by(f64::total_cmp);
        let [low, mid, high] = [1, 2, 3].map(|quarter| all[(all.len() - 1) * quarter / 4]);
        println!("  {what:<52} {mid:>8.2} ({low:.2} to {high:.2})  {bar}");
    };
    row("share of the peak kept at twice the peak", "0.90", &|r| {
        r.over[0].per_second() / r.peak
    });
    row("  with hits beside", "", &|r| {
        r.over[1].per_second() / r.peak
    });
    row("share refused (503)", "", &|r| r.over[0].share_refused());
    row("503: 99th percentile, ms", "", &|r| {
        r.over[0].refused_ms.p99
    });
    row("  with hits beside", "", &|r| r.over[1].refused_ms.p99);
    row("neither a tile nor a 503 with Retry-After", "0", &|r| {
        (r.over[0].odd + r.over[1].odd) as f64
    });
    row("hits quiet: 99th percentile, ms", "", &|r| {
        r.quiet.ok_ms.p99
    });
    row("hits beside, over the quiet one", "2.00", &|r| {
        r.beside.ok_ms.p99 / r.quiet.ok_ms.p99
    });
    row("hits that were no 200", "0", &|r| {
        (r.quiet.others() + r.beside.others()) as f64
    });
}

/// A server, its bucket, and who they are asked by.
struct Bench {
    address: SocketAddr,
    folder: tempfile::TempDir,
    _children: [Ended; 2],
}

/// Ended with this, by its id.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

impl Bench {
    fn start(latency: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut bucket = this("bucket", 10)
            .args([&AT_ONCE.to_string(), &latency.as_millis().to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut endpoint = String::new();
        let said = bucket.stdout.take().unwrap();
        BufReader::new(said).read_line(&mut endpoint).unwrap();
        let (address, admin) = (free(), free());
        let config = folder.path().join("tilekeep.toml");
        let text = format!(
            "[server]\nlisten = \"{address}\"\nadmin_listen = \"{admin}\"\n\
             [origin]\nconcurrency = {AT_ONCE}\n\
             [cache]\nmemory = \"1GiB\"\ndisk = \"2GiB\"\ndisk_path = \"{}\"\n\
             [session]\nkeys = [{{ id = \"bench\", secret = \"{KEY}\" }}]\n\
             [[quotas]]\nname = \"viewer\"\nrequests_per_second = 1000000\n\
             [aws]\nregion = \"us-east-1\"\nendpoint_url = \"{}\"\npath_style = true\n\
             [tilesets.world]\nbucket = \"tiles\"\nkey = \"{{z}}/{{x}}/{{y}}.png\"\nformat = \"png\"\nmaxzoom = 20\n",
            folder.path().join("cache").display(),
            endpoint.trim(),
        );
        fs::write(&config, text).unwrap();
        fs::write(folder.path().join("tokens"), tokens().join("\n")).unwrap();
        let server = Command::new(binary::tilekeep())
            .args(["serve", "--config"])
            .arg(&config)
            .env("AWS_ACCESS_KEY_ID", "bench")
            .env("AWS_SECRET_ACCESS_KEY", "bench")
            .env("TILEKEEP_LOG", "error")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..200 {
            if TcpStream::connect(address).is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        Self {
            address,
            folder,
            _children: [Ended(server), Ended(bucket)],
        }
    }

    /// Every tile that hits will be asked for, twice: the second time it is a hit.
    fn warm(&self) {
        for _ in 0..2 {
            let order = Order {
                what: What::EachHitOnce,
                ..self.hits(None)
            };
            let done = Self::load(&order);
            assert_eq!(done.others(), 0, "{done}");
        }
    }

    fn hits(&self, rate: Option<f64>) -> Order {
        self.order(What::Hits, rate, 32)
    }

    fn misses(&self, rate: Option<f64>) -> Order {
        self.order(What::Misses, rate, AT_PEAK)
    }

    fn order(&self, what: What, rate: Option<f64>, connections: usize) -> Order {
        Order {
            address: self.address,
            tokens: self.folder.path().join("tokens"),
            what,
            rate,
            connections,
            seconds: SECONDS,
        }
    }

    fn load(order: &Order) -> Done {
        let nice = match order.what {
            What::Hits | What::EachHitOnce => -10,
            What::Misses => 5,
        };
        let mut child = this("load", nice)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        writeln!(stdin, "{}", order.to_line()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        Done::from_line(&String::from_utf8(output.stdout).unwrap())
    }
}

/// This program in another role. `nice` says so and goes on where it may not prefer one.
fn this(role: &str, nice: i32) -> Command {
    let mut command = Command::new("nice");
    command
        .args(["-n", &nice.to_string()])
        .arg(env::current_exe().unwrap())
        .env(ROLE, role)
        .stderr(Stdio::inherit());
    command
}

fn tokens() -> Vec<String> {
    let material = KeyMaterial::Hs256 {
        secret: Secret::new(KEY),
    };
    let id = "bench".into();
    let keys = KeyRing::new(vec![KeySettings { id, material }]).unwrap();
    let token = |person| {
        let claims: Claims = serde_json::from_value(serde_json::json!({
            "sub": format!("person-{person}@example.com"), "exp": 4_000_000_000_u64,
            "tilesets": ["world"],
        }))
        .unwrap();
        keys.mint(&claims).unwrap()
    };
    (0..PEOPLE).map(token).collect()
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}
