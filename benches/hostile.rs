//! What honest clients feel while others mean harm: 500 hostile requests a second and 200 slow connections.
//!
//! `cargo bench --bench hostile`, or with any other `tilekeep`: `TILEKEEP_BIN=… cargo bench --bench hostile`. The
//! server is `tilekeep demo`, a process of its own, warm; honest clients ask in an open loop, an eighth of them on new
//! connections, and their time counts from when they meant to ask. The hostile ones are a process that is nice to the
//! others, as if it were on another machine. Rounds alternate: quiet, beside. `HOSTILE_ROUNDS` (3) and
//! `HOSTILE_SECONDS` (10) say how much. Ends with 1 where an answer to them was none of 4xx, or a bar was missed.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on says where")]
#![allow(
    clippy::disallowed_methods,
    reason = "processes are waited for from outside: by asking again"
)]
#![allow(
    clippy::cast_precision_loss,
    reason = "small numbers, and figures for people"
)]

#[path = "shared/binary.rs"]
mod binary;
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../tests/it/hostile/h2.rs"]
mod h2;
#[path = "hostile/hostility.rs"]
mod hostility;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{env, fs, thread};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Honest requests a second: people at a few maps.
const HONEST: u64 = 200;
/// Tiles that they look at, all of them there.
const TILES: [&str; 5] = ["0/0/0", "1/0/0", "1/1/0", "1/0/1", "1/1/1"];
/// Memory is back where it was: so much more is what an allocator keeps for the next time.
const MOST_KEPT: f64 = 1.25;
/// After the first round, which is what grows once.
const MOST_KEPT_LATER: f64 = 1.10;

fn main() -> ExitCode {
    if let Some(target) = hostility::role() {
        return hostility::run(&target);
    }
    let number =
        |name: &str, otherwise: u64| env::var(name).map_or(otherwise, |n| n.parse().unwrap());
    let rounds = number("HOSTILE_ROUNDS", 3);
    let seconds = Duration::from_secs(number("HOSTILE_SECONDS", 10));
    let server = Server::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let token = runtime.block_on(server.log_in());
    let honest = || runtime.block_on(honest(server.address, &token, seconds));
    honest();
    let begun = server.settled(f64::INFINITY);
    println!(
        "{:>7} {:>9} {:>9} {:>9} {:>7} {:>9} {:>5} {:>8}",
        "", "median", "p99", "most", "failed", "memory", "fds", "threads"
    );
    let (mut ratios, mut right, mut first) = (Vec::new(), true, None);
    for _ in 0..rounds {
        let quiet = honest();
        tell("quiet", &quiet, server.uses());
        let harm = hostility::start(server.address, &token, seconds + Duration::from_secs(4));
        // What it takes to open the slow connections is not what it takes to have them.
        thread::sleep(Duration::from_secs(3));
        let beside = honest();
        tell("beside", &beside, server.uses());
        let harm = harm.wait_with_output().unwrap();
        print!("{}", String::from_utf8_lossy(&harm.stdout));
        let (than, most) = first.map_or((begun, MOST_KEPT), |first| (first, MOST_KEPT_LATER));
        let most = than.memory as f64 * most;
        let after = server.settled(most);
        println!(
            "{:>7} {:>37} {:>9} {:>5} {:>8}",
            "after",
            "",
            mib(after.memory),
            after.descriptors,
            after.threads
        );
        let ratio = beside.times.value_at_quantile(0.99) as f64
            / quiet.times.value_at_quantile(0.99) as f64;
        ratios.push(ratio);
        right &= harm.status.success() && quiet.failed + beside.failed == 0;
        right &= after.descriptors <= begun.descriptors + 2;
        right &= after.memory as f64 <= most;
        first = first.or(Some(after));
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    println!("p99 beside / quiet: {ratios:.2?}, median {median:.2}; the bar is 2");
    println!(
        "memory before {}, descriptors {}",
        mib(begun.memory),
        begun.descriptors
    );
    right &= median < 2.0;
    println!(
        "{}",
        if right {
            "all bars are held"
        } else {
            "A BAR IS MISSED"
        }
    );
    ExitCode::from(u8::from(!right))
}

fn tell(name: &str, seen: &Seen, uses: Uses) {
    let at = |quantile| {
        format!(
            "{:.2} ms",
            seen.times.value_at_quantile(quantile) as f64 / 1000.0
        )
    };
    println!(
        "{name:>7} {:>9} {:>9} {:>9} {:>7} {:>9} {:>5} {:>8}",
        at(0.5),
        at(0.99),
        at(1.0),
        seen.failed,
        mib(uses.memory),
        uses.descriptors,
        uses.threads
    );
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// What a process takes.
#[derive(Debug, Clone, Copy)]
struct Uses {
    memory: u64,
    descriptors: usize,
    threads: usize,
}

/// A running server, ended with this.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start() -> Self {
        let (address, admin) = (free(), free());
        let child = Command::new(binary::tilekeep())
            .arg("demo")
            .args(["--listen", &address.to_string()])
            .args(["--admin-listen", &admin.to_string()])
            .env("TILEKEEP_LOG", "error")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..200 {
            if TcpStream::connect(address).is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        Self { child, address }
    }

    /// The token of the demo's person.
    async fn log_in(&self) -> String {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let request = Request::post(format!("http://{}/session", self.address))
            .header("content-type", "application/json")
            .body(http_body_util::Full::<Bytes>::from(
                r#"{"username":"demo","password":"demo"}"#,
            ))
            .unwrap();
        let answer = client.request(request).await.unwrap();
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        let (_, token) = cookie.split(';').next().unwrap().split_once('=').unwrap();
        token.to_owned()
    }

    fn uses(&self) -> Uses {
        let process = format!("/proc/{}", self.child.id());
        let entries =
            |folder: &str| fs::read_dir(format!("{process}/{folder}")).map_or(0, Iterator::count);
        let status = fs::read_to_string(format!("{process}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes: u64 = resident
            .unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap();
        Uses {
            memory: kilobytes * 1024,
            descriptors: entries("fd"),
            threads: entries("task"),
        }
    }

    /// When what was open has been closed and memory given back, or a minute later: an allocator gives it back when it
    /// is next asked for some, so it is asked.
    fn settled(&self, most: f64) -> Uses {
        let mut last = self.uses();
        for _ in 0..60 {
            thread::sleep(Duration::from_secs(1));
            for _ in 0..100 {
                let _ = TcpStream::connect(self.address).map(|mut stream| {
                    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
                    let _ = stream.write_all(request);
                    let _ = stream.read_to_end(&mut Vec::new());
                });
            }
            let now = self.uses();
            if now.descriptors >= last.descriptors && now.memory as f64 <= most {
                return now;
            }
            last = now;
        }
        last
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// What honest clients have seen; times in microseconds.
struct Seen {
    times: Histogram<u64>,
    failed: u64,
}

async fn honest(address: SocketAddr, token: &str, lasting: Duration) -> Seen {
    let seen = Seen {
        times: Histogram::new(3).unwrap(),
        failed: 0,
    };
    let seen = Arc::new(Mutex::new(seen));
    let kept = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let once = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build_http::<Empty<Bytes>>();
    let mut ticks = interval(Duration::from_secs(1) / u32::try_from(HONEST).unwrap());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let begun = Instant::now();
    let mut asked = Vec::new();
    for nth in 0_usize.. {
        let meant = ticks.tick().await;
        if begun.elapsed() >= lasting {
            break;
        }
        let client = if nth.is_multiple_of(8) {
            once.clone()
        } else {
            kept.clone()
        };
        let request = Request::get(format!(
            "http://{address}/world/{}.png",
            TILES[nth % TILES.len()]
        ))
        .header("authorization", format!("Bearer {token}"))
        .body(Empty::new())
        .unwrap();
        let seen = seen.clone();
        asked.push(tokio::spawn(async move {
            let got = async {
                let answer = client.request(request).await.ok()?;
                let right = answer.status() == http::StatusCode::OK;
                answer.into_body().collect().await.ok()?;
                right.then_some(())
            };
            let got = tokio::time::timeout(Duration::from_secs(10), got).await;
            let took = u64::try_from(meant.elapsed().as_micros()).unwrap();
            let mut seen = seen.lock().unwrap();
            seen.times.record(took).unwrap();
            seen.failed += u64::from(!matches!(got, Ok(Some(()))));
        }));
    }
    for one in asked {
        let _ = one.await;
    }
    drop((kept, once));
    Arc::into_inner(seen).unwrap().into_inner().unwrap()
}
