//! What people feel: beside a job that works at full speed (`jobs`), and with tiles fetched ahead (`ahead`).
//!
//! `cargo bench --bench people [-- jobs] [-- ahead]`. The server, `tilekeep loadtest`, `tilekeep prefetch` and
//! the bucket share this machine's cores; the job's own process is nice to the others, as it would be on another
//! machine. Ratios are to the quiet case of the same round; medians and quartiles are told. `PEOPLE_ROUNDS` (6)
//! says how many; one of `jobs` takes a minute, one of `ahead` three.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on says where")]
#![allow(
    clippy::disallowed_methods,
    reason = "processes are waited for from outside: by asking again"
)]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers, and figures for people"
)]

#[path = "shared/binary.rs"]
mod binary;
#[allow(dead_code, reason = "shared with another bench, which uses all of it")]
#[path = "speed/fixture.rs"]
mod fixture;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, fs, thread};

use serde_json::Value;
use tilekeep::embedded_s3::{Fault, Operation};

use crate::fixture::{BUCKET, Fixture, SESSION_KEY};

/// How far away the bucket is.
const NEAR: Duration = Duration::from_millis(20);
const FAR: Duration = Duration::from_millis(40);
/// Requests a second that people make, whatever becomes of them: hits, and tiles that nobody has asked for.
const HITS: u32 = 300;
const MISSES: u32 = 40;
/// Of one run.
const SECONDS: u32 = 8;
/// Guesses at once, of the 64 requests that a server has at once. None is another case.
const BUDGETS: [u32; 3] = [8, 16, 32];

fn main() {
    let chosen: Vec<String> = env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let wants = |name: &str| chosen.is_empty() || chosen.iter().any(|c| c == name);
    let rounds = env::var("PEOPLE_ROUNDS").map_or(6, |n| n.parse().unwrap());
    let fixture = Fixture::new();
    if wants("jobs") {
        jobs(&fixture, rounds);
    }
    if wants("ahead") {
        ahead(&fixture, rounds);
    }
}

/// A running server, ended with this.
struct Server {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
    folder: tempfile::TempDir,
}

impl Server {
    fn start(fixture: &Fixture, origin: &str) -> Self {
        let (address, admin) = (free(), free());
        let folder = tempfile::tempdir().unwrap();
        let tileset = |name: &str, maxzoom: u8| {
            format!(
                "[tilesets.{name}]\nbucket = \"{BUCKET}\"\nkey = \"world/{{z}}/{{x}}/{{y}}.png\"\nformat = \"png\"\nmaxzoom = {maxzoom}\n"
            )
        };
        let text = format!(
            "[server]\nlisten = \"{address}\"\nadmin_listen = \"{admin}\"\n\
             [origin]\n{origin}\
             [cache]\nmemory = \"1GiB\"\n\
             [session]\nkeys = [{{ id = \"bench\", secret = \"{SESSION_KEY}\" }}]\n\
             [[quotas]]\nname = \"viewer\"\nrequests_per_second = 100000\n\
             [[quotas]]\nname = \"job\"\nbackground = true\n\
             [aws]\nregion = \"us-east-1\"\nendpoint_url = \"{}\"\npath_style = true\n{}{}{}{}",
            fixture.endpoint(),
            tileset("world", 7),
            tileset("wanted", 7),
            tileset("seeded", 7),
            // Two zooms more than there are tiles, so that there is room to zoom: the bucket takes as long to say
            // that it has no such tile, and that is an answer like any other.
            tileset("deep", 9),
        );
        let config = folder.path().join("tilekeep.toml");
        fs::write(&config, text).unwrap();
        let child = Command::new(binary::tilekeep())
            .args(["serve", "--config"])
            .arg(&config)
            .env("AWS_ACCESS_KEY_ID", &fixture.keys().access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &fixture.keys().secret_access_key)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self {
            child,
            address,
            admin,
            folder,
        };
        for _ in 0..200 {
            if TcpStream::connect(address).is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        let tokens = server.folder.path().join("tokens");
        fs::write(tokens, fixture.tokens.join("\n")).unwrap();
        let paths = |tileset: &str| {
            let path = |request: &fixture::Request| {
                let path = fixture.tiles[request.tile].path();
                path.replacen("world", tileset, 1)
            };
            fixture
                .trace
                .iter()
                .map(path)
                .collect::<Vec<_>>()
                .join("\n")
        };
        fs::write(server.folder.path().join("hits"), paths("world")).unwrap();
        fs::write(server.folder.path().join("misses"), paths("wanted")).unwrap();
        server
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What people feel; the report of `tilekeep loadtest`.
    fn people(&self, more: &[&str]) -> Value {
        let done = Command::new(binary::tilekeep())
            .args(["loadtest", "--json", "--url", &self.url()])
            .args(["--server-pid", &self.child.id().to_string()])
            .arg("--token-file")
            .arg(self.folder.path().join("tokens"))
            .args(more)
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("loadtest: {said}"))
    }

    /// A job over everything of a tileset, once.
    fn job(&self, tileset: &str, class: &str) -> Command {
        let minted = Command::new(binary::tilekeep())
            .args([
                "token",
                "mint",
                "--sub",
                "job",
                "--tilesets",
                "*",
                "--quota",
                class,
            ])
            .args(["--ttl", "1h", "--config"])
            .arg(self.folder.path().join("tilekeep.toml"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&minted.stderr).into_owned();
        assert!(minted.status.success(), "token mint: {said}");
        let mut command = Command::new("nice");
        command
            .args(["-n", "10"])
            .arg(binary::tilekeep())
            .args(["prefetch", "--url", &self.url()])
            .args(["--tileset", tileset, "--zoom", "0-7", "--concurrency", "64"])
            .arg("--bbox=-180,-85.0511,180,85.0511")
            .env(
                "TILEKEEP_TOKEN",
                String::from_utf8(minted.stdout).unwrap().trim(),
            )
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        let host = self.admin;
        write!(
            stream,
            "GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    fn purge(&self, tileset: &str) {
        let admin = format!("http://{}", self.admin);
        let done = Command::new(binary::tilekeep())
            .args(["purge", "--admin", &admin, "--tileset", tileset])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "purge: {said}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // By its id.
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

/// Hits and misses of people, quiet, beside a job of a background class, and beside one of their own class.
fn jobs(fixture: &Fixture, rounds: usize) {
    fixture.s3().clear_faults();
    let server = Server::start(fixture, "");
    // Everything of `world` is at hand from here on.
    assert!(server.job("world", "viewer").status().unwrap().success());
    fixture
        .s3()
        .inject(Some(Operation::GetObject), usize::MAX, Fault::Delay(NEAR));
    let (hits, misses) = (HITS.to_string(), MISSES.to_string());
    let seconds = format!("{SECONDS}s");
    for (what, file, rate, tileset) in [
        ("hits", "hits", &hits, "world"),
        ("misses", "misses", &misses, "seeded"),
    ] {
        let cases = [
            ("quiet", None),
            ("background job", Some("job")),
            ("job as a person", Some("viewer")),
        ];
        let mut p99 = vec![Vec::new(); cases.len()];
        let mut p50 = vec![Vec::new(); cases.len()];
        for round in 0..rounds {
            let mut seen = [(0.0, 0.0); 3];
            for turn in 0..cases.len() {
                let case = (turn + round) % cases.len();
                server.purge("wanted");
                server.purge("seeded");
                let done = AtomicBool::new(false);
                let report = thread::scope(|scope| {
                    if let Some(class) = cases[case].1 {
                        let job = || server.job(tileset, class).spawn().unwrap();
                        let done = &done;
                        scope.spawn(move || {
                            let mut child = job();
                            while !done.load(Ordering::Relaxed) {
                                if child.try_wait().unwrap().is_some() {
                                    child = job();
                                }
                                thread::sleep(Duration::from_millis(20));
                            }
                            let _ = child.kill();
                            let _ = child.wait();
                        });
                        // It is at work when people come.
                        thread::sleep(Duration::from_millis(500));
                    }
                    let report =
                        server.people(&["--replay", file, "--rate", rate, "--duration", &seconds]);
                    done.store(true, Ordering::Relaxed);
                    report
                });
                let failed = report["requests"]["failed"].as_u64().unwrap();
                assert_eq!(failed, 0, "{}: {report}", cases[case].0);
                let ms = |name: &str| report["latency_ms"][name].as_f64().unwrap();
                seen[case] = (ms("p50"), ms("p99"));
            }
            for (case, (middle, high)) in seen.into_iter().enumerate() {
                p50[case].push(middle);
                p99[case].push(high / seen[0].1);
                println!(
                    "{what}, round {round}, {}: p50 {middle:.2} ms, p99 {high:.2} ms",
                    cases[case].0
                );
            }
        }
        println!("\n{what} at {rate}/s, p99 over the quiet one:");
        for (case, (name, _)) in cases.iter().enumerate() {
            let [low, middle, high] = quartiles(&mut p99[case]);
            let [_, p50, _] = quartiles(&mut p50[case]);
            println!("  {name:16} {middle:.2} ({low:.2} to {high:.2}), p50 {p50:.2} ms");
        }
        println!();
    }
}

/// What is guessed, and how much of it at once.
struct Ahead {
    name: &'static str,
    guess: &'static str,
    budget: u32,
}

/// Without guesses, and then each kind of them, and both, with each budget.
fn cases() -> Vec<Ahead> {
    let off = Ahead {
        name: "off",
        guess: "[\"ring\"]",
        budget: 0,
    };
    let kinds = [
        ("ring", "[\"ring\"]"),
        ("children", "[\"children\"]"),
        ("both", "[\"ring\", \"children\"]"),
    ];
    let on = BUDGETS.into_iter().flat_map(|budget| {
        kinds.map(|(name, guess)| Ahead {
            name,
            guess,
            budget,
        })
    });
    [off].into_iter().chain(on).collect()
}

/// One run: what people felt, and what it cost.
#[derive(Default, Clone, Copy)]
struct Felt {
    /// How long views that needed the server took to fill, in milliseconds.
    p50: f64,
    p90: f64,
    mean: f64,
    /// Requests to the bucket for a view.
    asked: f64,
    /// Guesses made, and of them those that came true: of the ring, of the children.
    made: [f64; 2],
    came_true: [f64; 2],
}

/// Views of people over a bucket that is far away, from an empty cache: without guesses, with the ring around what
/// is looked at, with the children of what is being zoomed, and with both.
fn ahead(fixture: &Fixture, rounds: usize) {
    fixture.s3().clear_faults();
    fixture
        .s3()
        .inject(Some(Operation::GetObject), usize::MAX, Fault::Delay(FAR));
    let cases = cases();
    let mut felt = vec![Vec::new(); cases.len()];
    for round in 0..rounds {
        for turn in 0..cases.len() {
            let case = (turn + round) % cases.len();
            let Ahead { name, budget, .. } = cases[case];
            let one = look_around(fixture, &cases[case], round);
            println!(
                "round {round}, {name} {budget}: fill p50 {:.1}, p90 {:.1}, mean {:.1} ms, {:.2} GetObject a view; \
                 guesses made and true: ring {} {}, children {} {}",
                one.p50,
                one.p90,
                one.mean,
                one.asked,
                one.made[0],
                one.came_true[0],
                one.made[1],
                one.came_true[1],
            );
            felt[case].push(one);
        }
    }
    println!("\nmedian (quartiles) of {rounds} rounds; x: over the same round without guesses");
    println!(
        "case, at once | fill p50 ms | p90 ms | mean x | GetObject a view | x | of guesses come true: ring, children"
    );
    for (case, Ahead { name, budget, .. }) in cases.iter().enumerate() {
        let figure = |of: &dyn Fn(&Felt) -> f64| told(felt[case].iter().map(of).collect());
        let ratio = |of: &dyn Fn(&Felt) -> f64| {
            let pairs = felt[case].iter().zip(&felt[0]);
            told(pairs.map(|(one, off)| of(one) / of(off)).collect())
        };
        let came_true = |kind: usize| {
            let shares = felt[case].iter().filter(|one| one.made[kind] > 0.0);
            told(
                shares
                    .map(|one| one.came_true[kind] / one.made[kind])
                    .collect(),
            )
        };
        println!(
            "{name:8} {budget:2} | {} | {} | {} | {} | {} | {}, {}",
            figure(&|one| one.p50),
            figure(&|one| one.p90),
            ratio(&|one| one.mean),
            figure(&|one| one.asked),
            ratio(&|one| one.asked),
            came_true(0),
            came_true(1),
        );
    }
}

/// One run of people with maps, against a server that has nothing yet. A round's people are the same in each case.
fn look_around(fixture: &Fixture, case: &Ahead, round: usize) -> Felt {
    let server = Server::start(
        fixture,
        &format!("speculative = {}\nguess = {}\n", case.budget, case.guess),
    );
    let before = fixture.s3().requests(Operation::GetObject);
    let seed = (round + 1).to_string();
    let report = server.people(&[
        "--tileset",
        "deep",
        "--users",
        "24",
        "--ramp",
        "2s",
        "--duration",
        "15s",
        "--think",
        "3s",
        "--seed",
        &seed,
    ]);
    let failed = report["requests"]["failed"].as_u64().unwrap();
    assert_eq!(failed, 0, "{}: {report}", case.name);
    let asked = fixture.s3().requests(Operation::GetObject) - before;
    let machine = &report["machine"];
    println!(
        "CPU a request: generator {} us, server {} us{}",
        machine["generator_cpu_us_per_request"],
        machine["server_cpu_us_per_request"],
        if machine["saturated"] == true {
            "; THE GENERATOR WAS SATURATED"
        } else {
            ""
        },
    );
    let fill = |name: &str| report["views"]["fill_ms"][name].as_f64().unwrap();
    let metrics = server.metrics();
    let guesses = |outcome: &str| {
        ["ring", "children"].map(|kind| {
            let name = format!("tilekeep_guesses_total{{kind=\"{kind}\",outcome=\"{outcome}\"}} ");
            let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
            line.expect("a counter for each pair of words")
                .parse()
                .unwrap()
        })
    };
    Felt {
        p50: fill("p50"),
        p90: fill("p90"),
        mean: fill("mean"),
        asked: asked as f64 / report["views"]["total"].as_f64().unwrap(),
        made: guesses("made"),
        came_true: guesses("came_true"),
    }
}

/// The median, with the quartiles behind it.
fn told(mut values: Vec<f64>) -> String {
    if values.is_empty() {
        return "-".to_owned();
    }
    let [low, middle, high] = quartiles(&mut values);
    format!("{middle:.2} ({low:.2} to {high:.2})")
}

/// Between two values in proportion, as of few rounds there are few.
fn quartiles(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [0.25, 0.5, 0.75].map(|quarter| {
        let place = (values.len() - 1) as f64 * quarter;
        let (below, above) = (
            values[place.floor() as usize],
            values[place.ceil() as usize],
        );
        below + (above - below) * place.fract()
    })
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}
