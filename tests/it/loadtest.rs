//! `tilekeep loadtest` and `tilekeep urls` against real servers, ours and ones that misbehave.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::Value;
use tilekeep::client::{Credential, Protocol};
use tilekeep::clock::Clock;
use tilekeep::loadtest::{self, Load, LogIn, Pace, Report, Screen, Settings};
use tilekeep::origin::failing::MemoryOrigin;
use tilekeep::shutdown;
use tilekeep::tile::{BrowserCaching, Scale, TileCoord, TileFormat};
use tokio::net::TcpListener;

use crate::support::{self, Running, claims, config, spec, tileset, token};

/// A server that remembers what it was asked: by whom (the token), and for which path.
#[derive(Clone)]
struct Double {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl Double {
    /// Answers tiles with a status; its TileJSON names tiles on `host`, or on itself.
    async fn start(
        status: impl Fn(usize) -> u16 + Send + Sync + 'static,
        host: Option<SocketAddr>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let double = Self {
            address,
            asked: Arc::default(),
        };
        let (asked, status) = (Arc::clone(&double.asked), Arc::new(status));
        let host = host.unwrap_or(address);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (asked, status) = (Arc::clone(&asked), Arc::clone(&status));
                let service = service_fn(move |request: Request<Incoming>| {
                    let answer = answer(&request, &asked, &*status, host);
                    async move { Ok::<_, std::convert::Infallible>(answer) }
                });
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    // A client that hangs up is no failure.
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        double
    }

    fn tiles(&self) -> Vec<(String, String)> {
        self.asked.lock().unwrap().clone()
    }

    fn of(&self, who: &str) -> Vec<String> {
        let asked = self.tiles().into_iter();
        asked
            .filter(|(by, _)| by == who)
            .map(|(_, path)| path)
            .collect()
    }
}

fn answer(
    request: &Request<Incoming>,
    asked: &Mutex<Vec<(String, String)>>,
    status: &dyn Fn(usize) -> u16,
    host: SocketAddr,
) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    if path == "/world.json" {
        let json = serde_json::json!({
            "tilejson": "3.0.0", "minzoom": 0, "maxzoom": 9,
            "tiles": [format!("http://{host}/world/{{z}}/{{x}}/{{y}}.png")],
        });
        return Response::new(Full::new(Bytes::from(json.to_string())));
    }
    let by = request.headers().get("authorization");
    let by = by.map_or("nobody", |value| value.to_str().unwrap());
    let mut asked = asked.lock().unwrap();
    asked.push((by.to_owned(), path));
    Response::builder()
        .status(status(asked.len()))
        .header("cache-control", "private, max-age=600")
        .header("cache-status", "tilekeep; hit; ttl=9; detail=memory")
        .body(Full::new(Bytes::from_static(&[7; 500])))
        .unwrap()
}

fn people(address: SocketAddr, users: u32, seed: u64, think: u64, seconds: u64) -> Settings {
    let credentials = (0..users).map(|user| Credential::token(&format!("u{user}")).unwrap());
    Settings {
        url: format!("http://{address}").parse().unwrap(),
        protocol: Protocol::Http1,
        log_in: LogIn::With(credentials.collect()),
        users,
        duration: Some(Duration::from_secs(seconds)),
        server_pid: None,
        load: Load::People {
            tilesets: vec!["world".into()],
            pause: Duration::from_millis(think),
            ramp: Duration::ZERO,
            seed,
            screen: Screen::default(),
            cache: 64 << 20,
        },
    }
}

async fn run(settings: Settings) -> Report {
    let (_trigger, stop) = shutdown::channel();
    let report = loadtest::run(settings, Clock::System, stop, |_| {})
        .await
        .unwrap();
    adds_up(&report);
    report
}

/// What holds for every report.
fn adds_up(report: &Report) {
    let (requests, views, cache) = (&report.requests, &report.views, &report.browser_cache);
    let good = requests.tiles + requests.not_modified + requests.absent + requests.redirected;
    assert_eq!(requests.total, good + requests.failed);
    let sources: u64 = report.cache_status.values().map(|part| part.count).sum();
    assert_eq!(sources, good);
    let shares: f64 = report.cache_status.values().map(|part| part.share).sum();
    assert!(good == 0 || (shares - 1.0).abs() < 1e-9, "{shares}");
    assert_eq!(
        views.total,
        views.at_hand + views.filled + views.with_failures + views.left
    );
    assert!(cache.fresh + cache.stale <= cache.wanted);
    let failures: u64 = report.errors.values().map(|failures| failures.count).sum();
    assert_eq!(failures, requests.failed);
    let counted = requests.total + requests.cancelled + requests.unfinished;
    assert_eq!(report.latency_ms.count, counted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_runs_with_one_seed_ask_for_the_same() {
    let mut asked = Vec::new();
    for (seed, protocol) in [
        (5, Protocol::Http1),
        (5, Protocol::Http2),
        (6, Protocol::Http1),
    ] {
        let server = Double::start(|_| 200, None).await;
        let settings = Settings {
            protocol,
            ..people(server.address, 3, seed, 400, 5)
        };
        let report = run(settings).await;
        assert_eq!(report.requests.failed, 0, "{:?}", report.errors);
        asked.push(server);
    }
    // The end cuts a view, and on a busy machine a view is left before all of it was sent.
    let share = |a: &Double, b: &Double, who: &str| {
        let (a, b) = (a.of(who), b.of(who));
        let known: HashSet<&String> = b.iter().collect();
        let first = &a[..a.len() * 2 / 3];
        assert!(first.len() > 10, "{} of {who}", first.len());
        first.iter().filter(|path| known.contains(path)).count() * 100 / first.len()
    };
    for who in ["Bearer u0", "Bearer u1", "Bearer u2"] {
        let (same, other) = (
            share(&asked[0], &asked[1], who),
            share(&asked[0], &asked[2], who),
        );
        assert!(same >= 90, "{who}: {same} %");
        assert!(other < 80, "{who}: {other} % with another seed");
    }
}

/// A whole server with a pyramid of 21 tiles.
async fn ours(max_age: u64) -> Running {
    let world = tilekeep::tile::TilesetSpec {
        maxzoom: 2,
        browser: BrowserCaching {
            max_age: Duration::from_secs(max_age),
            stale_while_revalidate: Duration::ZERO,
            ..BrowserCaching::default()
        },
        ..spec("world", TileFormat::Png)
    };
    let origin = MemoryOrigin::new();
    for z in 0..=2 {
        for (x, y) in (0..1 << z).flat_map(|x| (0..1 << z).map(move |y| (x, y))) {
            let tile = TileCoord::new(z, x, y).unwrap();
            let body = [b"\x89PNG\r\n\x1a\n".to_vec(), vec![z; 900]].concat();
            origin.put(&tileset(world.clone()), tile, Scale::One, body, None);
        }
    }
    support::start(config([world]), Arc::new(origin)).await
}

fn signed_in(server: &Running, users: u32, think: u64) -> Settings {
    let token = Credential::token(&token(&claims())).unwrap();
    Settings {
        log_in: LogIn::With(vec![token]),
        ..people(server.addresses.public, users, 1, think, 3)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_visit_within_max_age_asks_for_nothing() {
    let server = ours(3600).await;
    let report = run(signed_in(&server, 1, 60)).await;
    let (requests, cache) = (&report.requests, &report.browser_cache);
    assert!((1..=21).contains(&requests.tiles), "{requests:?}");
    assert_eq!((requests.not_modified, requests.failed), (0, 0));
    assert!(report.views.at_hand > 0 && cache.share > 0.5, "{cache:?}");
    assert!(cache.bytes_saved >= cache.fresh * 900);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_visit_past_max_age_is_a_304() {
    let server = ours(0).await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let settings = Settings {
            protocol,
            ..signed_in(&server, 1, 200)
        };
        let report = run(settings).await;
        let requests = &report.requests;
        assert!(requests.not_modified > 0, "{requests:?}");
        assert!(requests.tiles <= 21 && requests.failed == 0, "{requests:?}");
        assert_eq!(report.browser_cache.fresh, 0);
        assert!(report.browser_cache.bytes_saved >= requests.not_modified * 900);
        assert!(report.cache_status["memory"].count > 0);
        let most = if protocol == Protocol::Http1 { 6 } else { 1 };
        let given_up = requests.cancelled;
        assert!(
            report.connections <= most + given_up,
            "{}",
            report.connections
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_the_people_signs_in_before_the_start() {
    let server = ours(3600).await;
    let log_in = LogIn::Each {
        name: "anna".into(),
        password: "secret".into(),
    };
    let settings = Settings {
        log_in,
        ..signed_in(&server, 3, 200)
    };
    let report = run(settings).await;
    assert_eq!((report.log_in_ms.count, report.requests.failed), (3, 0));
    assert!(report.requests.tiles > 0);
    let text = report.to_json() + &report.to_string() + &report.to_html().unwrap();
    assert!(!text.contains("secret"), "{text}");
    let settings = Settings {
        log_in: LogIn::With(vec![]),
        ..signed_in(&server, 1, 200)
    };
    let (_trigger, stop) = shutdown::channel();
    let error = loadtest::run(settings, Clock::System, stop, |_| {}).await;
    let error = error.err().unwrap().to_string();
    assert!(
        error.contains("TILEKEEP_TOKEN") && error.contains("--username"),
        "{error}"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_is_reported_by_kind() {
    let status = |n: usize| [200, 429, 503, 401, 404][n % 5];
    let server = Double::start(status, None).await;
    let report = run(people(server.address, 2, 1, 300, 3)).await;
    for kind in ["429", "503", "401"] {
        let failures = &report.errors[kind];
        assert!(failures.count > 0 && failures.example.as_deref().unwrap().starts_with("/world/"));
    }
    assert!(report.requests.absent > 0 && report.has_failures());
    assert!(report.views.with_failures > 0);
    assert!(report.to_html().unwrap().contains("503"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_goes_to_no_other_server_than_the_one_that_was_named() {
    let other = Double::start(|_| 200, None).await;
    let named = Double::start(|_| 302, Some(other.address)).await;
    let report = run(people(named.address, 1, 1, 200, 2)).await;
    assert!(report.requests.redirected > 0 && !named.tiles().is_empty());
    assert!(other.tiles().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_replayed_in_its_order_and_to_one_host() {
    let server = Double::start(|_| 200, None).await;
    let log = "\
1.2.3.4 - - [22/Nov/2026:18:05:14 +0000] \"GET http://elsewhere.example/world/1/0/0.png HTTP/1.1\" 200 1
1.2.3.4 - - [22/Nov/2026:18:05:15 +0000] \"POST /session HTTP/1.1\" 200 1
1.2.3.4 - - [22/Nov/2026:18:05:16 +0000] \"GET /world/1/0/1.png HTTP/1.1\" 200 1
1.2.3.4 - - [22/Nov/2026:18:05:18 +0000] \"GET /world/1/1/1.png?v=2 HTTP/1.1\" 200 1
";
    let load = Load::Replay {
        name: "access.log".into(),
        log: Box::new(log.as_bytes()),
        pace: Pace::Logged(4.0),
    };
    let settings = Settings {
        duration: None,
        load,
        ..people(server.address, 2, 0, 1, 1)
    };
    let report = run(settings).await;
    assert_eq!((report.requests.tiles, report.skipped_lines), (3, 1));
    assert!((0.9..5.0).contains(&report.seconds), "{}", report.seconds);
    let paths: Vec<String> = server.tiles().into_iter().map(|(_, path)| path).collect();
    assert_eq!(
        paths,
        ["/world/1/0/0.png", "/world/1/0/1.png", "/world/1/1/1.png"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_test_reports_what_it_has() {
    let server = Double::start(|_| 200, None).await;
    let (trigger, stop) = shutdown::channel();
    let settings = people(server.address, 2, 1, 100, 600);
    let report = loadtest::run(settings, Clock::System, stop, |progress| {
        if let loadtest::Progress::Running(_, glance) = progress
            && glance.requests > 0
        {
            trigger.fire();
        }
    });
    let report = report.await.unwrap();
    adds_up(&report);
    assert!(report.requests.total > 0 && report.seconds < 300.0);
    assert!(report.to_string().contains("interrupted"));
}

/// Every member's path, `*` for names that are data.
fn members(value: &Value, path: &str, found: &mut BTreeMap<String, &'static str>) {
    let kind = match value {
        Value::Object(object) => {
            for (name, value) in object {
                let data = ["errors"].contains(&path.trim_matches('.'));
                let name = if data { "*" } else { name };
                members(value, &format!("{path}.{name}"), found);
            }
            return;
        }
        Value::Array(items) => {
            if let Some(first) = items.first() {
                members(first, &format!("{path}[]"), found);
            }
            return;
        }
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
    };
    found.insert(path.trim_start_matches('.').to_owned(), kind);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_jsons_members_keep_their_names() {
    let server = Double::start(|n| if n % 5 == 0 { 503 } else { 200 }, None).await;
    let report = run(people(server.address, 1, 1, 200, 2)).await;
    let json: Value = serde_json::from_str(&report.to_json()).unwrap();
    let mut found = BTreeMap::new();
    members(&json, "", &mut found);
    let found: Vec<String> = found.into_keys().collect();
    let percentiles = ["count", "max", "mean", "p50", "p90", "p95", "p99", "p999"];
    let mut expected: Vec<String> = "bytes.per_second bytes.received browser_cache.bytes_saved \
        browser_cache.fresh browser_cache.not_modified browser_cache.share browser_cache.stale \
        browser_cache.wanted connections curve[][] ended errors.*.count errors.*.example errors.*.reason \
        machine.debug_build machine.generator_cores machine.generator_cpu_us_per_request \
        machine.saturated machine.server_cores machine.server_cpu_us_per_request requests.absent \
        requests.cancelled requests.failed requests.not_modified requests.per_second \
        requests.redirected requests.tiles requests.total requests.unfinished schema seconds \
        series[].at_seconds series[].failures series[].p50_ms series[].p90_ms series[].p99_ms \
        series[].requests_per_second skipped_lines started step_seconds test.browser_cache_bytes \
        test.kind test.log test.protocol test.ramp_seconds test.screen test.seed test.session \
        test.think_seconds test.url test.users tilekeep tilesets[] views.at_hand views.filled \
        views.left views.total views.with_failures"
        .split_ascii_whitespace()
        .map(str::to_owned)
        .collect();
    for times in [
        "latency_ms",
        "log_in_ms",
        "machine.loop_lag_ms",
        "machine.view_lateness_ms",
        "service_ms",
        "views.fill_ms",
        "wait_ms",
    ] {
        expected.extend(percentiles.map(|part| format!("{times}.{part}")));
    }
    for source in [
        "memory",
        "disk",
        "stale_memory",
        "stale_disk",
        "origin",
        "collapsed",
        "revalidated",
        "stale_if_error",
        "none",
    ] {
        expected.extend(["count", "share"].map(|part| format!("cache_status.{source}.{part}")));
    }
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(json["schema"], 1);
}

async fn tilekeep(args: Vec<String>) -> Output {
    let run = move || {
        Command::new(env!("CARGO_BIN_EXE_tilekeep"))
            .args(args)
            .env("TILEKEEP_TOKEN", "u0")
            .output()
            .unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn args(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_ends_with_what_happened() {
    let good = Double::start(|_| 200, None).await.address;
    let bad = Double::start(|_| 500, None).await.address;
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    let common = "--tileset world --users 2 --duration 2s --ramp 0s --think 300ms";
    let mut with_page = args(&format!(
        "loadtest --url http://{good} {common} --json --html"
    ));
    with_page.push(page.display().to_string());
    let output = tilekeep(with_page).await;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["requests"]["tiles"].as_u64().unwrap() > 0);
    assert!(json["machine"]["generator_cpu_us_per_request"].is_number());
    let html = std::fs::read_to_string(page).unwrap();
    assert!(html.contains("<svg") && !html.contains("<script") && !html.contains("src="));
    let output = tilekeep(args(&format!("loadtest --url http://{bad} {common}"))).await;
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("requests failed"), "{errors}");
    for wrong in [
        format!("loadtest --url http://{good} --users 0"),
        format!("loadtest --url http://{good} --duration 1s --ramp 1m"),
        format!("loadtest --url http://{good} --replay /nowhere/access.log"),
        format!("loadtest --url http://{good} --tileset world --server-pid 4294967295"),
        format!("loadtest --url http://{good} --html /nowhere/report.html"),
        "loadtest --url http://anna:hunter2@127.0.0.1:1".to_owned(),
        "loadtest --username anna".to_owned(),
        "loadtest --screen 1x1".to_owned(),
        "loadtest --speed 2".to_owned(),
    ] {
        let output = tilekeep(args(&wrong)).await;
        assert_eq!(output.status.code(), Some(2), "{wrong}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("hunter2"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_urls_are_the_same_again_and_hold_no_token() {
    let server = Double::start(|_| 200, None).await.address;
    let list = async |more: &str| {
        let command = format!("urls --url http://{server} --tileset world {more}");
        let output = tilekeep(args(&command)).await;
        assert_eq!(output.status.code(), Some(0), "{more}");
        String::from_utf8(output.stdout).unwrap()
    };
    let first = list("--limit 300 --format wrk").await;
    assert_eq!(first.lines().count(), 300);
    assert!(first.lines().all(|line| line.starts_with("/world/")));
    assert_eq!(first, list("--limit 300 --format wrk").await);
    assert_ne!(first, list("--limit 300 --format wrk --seed 2").await);
    let area = list("--zoom 2-3 --bbox 5.9,45.8,10.5,47.8 --format vegeta").await;
    let url = format!("GET http://{server}/world/");
    assert!(
        area.contains(&format!("{url}3/4/2.png"))
            && area.lines().all(|line| line.starts_with(&url))
    );
    let json = list("--zoom 0-1 --format k6").await;
    assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap().len(), 5);
    assert!(!first.contains("u0") && !area.contains("Bearer"));
}
