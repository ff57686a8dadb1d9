//! What a hit costs, counted: instructions and allocations from the request's bytes to those of the answer's head, by
//! callgrind, in the profile that tests have. It guards against a step back, on any machine and in any weather; how
//! fast a hit is, `--bench handle` and `--bench speed` tell.
//!
//! A child of this very program answers prepared requests under valgrind, which writes a profile for each kind.
//! Without valgrind nothing is counted, and that is said.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::pin::pin;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::header::{ACCEPT, COOKIE, HOST, IF_NONE_MATCH, USER_AGENT};
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri};
use http_body_util::Empty;
use tilekeep::app::{App, Provided};
use tilekeep::clock::Clock;
use tilekeep::http::plain::with_head;
use tilekeep::http::reply::Reply;
use tilekeep::origin::failing::MemoryOrigin;
use tilekeep::tile::{Scale, TileCoord, TileFormat};

use crate::support::{START, claims, config, keys, spec, token};

/// The bounds: instructions and allocations a request, unoptimised. **Lower them when the hot path gets shorter**; raise
/// them only for something that is worth it, and say so in the commit. Counts differ by a percent or two from one
/// compiler to the next, so the bound stands some five percent above what was counted.
const BOUNDS: [Bound; 2] = [
    Bound {
        kind: Kind::Hit,
        instructions: 47_700,
        allocations: 0.2,
    },
    Bound {
        kind: Kind::NotModified,
        instructions: 46_400,
        allocations: 0.2,
    },
];

/// How many more instructions a hit may cost whose body is a hundred times as long. Copying it takes 1,900, whatever
/// the machine does at a time.
const FOR_SIZE: u64 = 1000;

/// How many more one may cost whose request has [`MORE_FIELDS`]: they are read, and half a dozen look-ups walk over them.
const FOR_FIELDS: u64 = 21_300;
const MORE_FIELDS: u32 = 16;

struct Bound {
    kind: Kind,
    instructions: u64,
    allocations: f64,
}

/// Tells the child where to write.
const FOLDER: &str = "TILEKEEP_COUNT_HITS";
const REQUESTS: u32 = 200;
const SMALL: usize = 600;
const LARGE: usize = 60_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hit,
    /// A long body.
    Large,
    /// Many fields beside those that matter.
    Wordy,
    NotModified,
}

/// In the order in which the child goes through them.
const KINDS: [Kind; 4] = [Kind::Hit, Kind::Large, Kind::Wordy, Kind::NotModified];

#[test]
fn a_hit_costs_no_more_than_it_did_and_no_more_for_a_longer_body() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("NOT COUNTED: there is no valgrind here (apt-get install valgrind)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let counted = Command::new("valgrind")
        .args(["--tool=callgrind", "--dump-before=*hot_path*begins*"])
        .arg(format!(
            "--callgrind-out-file={}",
            folder.path().join("out").display()
        ))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "hot_path::answers_for_callgrind", "--ignored"])
        .arg("--test-threads=1")
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&counted.stderr);
    assert!(counted.status.success(), "{said}");
    let costs: Vec<Cost> = (0..KINDS.len())
        // The first profile is what came before the first kind began.
        .map(|nth| Cost::read(&folder.path().join(format!("out.{}", nth + 2))))
        .collect();
    for (kind, cost) in KINDS.iter().zip(&costs) {
        println!("{kind:?}: {cost:?}");
    }
    for bound in BOUNDS {
        let nth = KINDS.iter().position(|kind| *kind == bound.kind).unwrap();
        let cost = &costs[nth];
        assert!(
            cost.instructions <= bound.instructions && cost.allocations <= bound.allocations,
            "{:?} costs {cost:?}; at most {} instructions and {} allocations are allowed. What has become dearer? \
             `callgrind_annotate` tells; the bounds are in tests/it/hot_path.rs",
            bound.kind,
            bound.instructions,
            bound.allocations
        );
        if cost.instructions * 10 < bound.instructions * 9 {
            println!("{:?} costs less than it did: lower its bound", bound.kind);
        }
    }
    let small = &costs[0];
    for (more, allowed, cost) in [
        ("a long body", FOR_SIZE, &costs[1]),
        ("many fields", FOR_FIELDS, &costs[2]),
    ] {
        assert!(
            cost.instructions <= small.instructions + allowed,
            "{more} costs: {cost:?}, and {small:?} without"
        );
        // One more in each request would be one more in each; what the process does beside is one in hundreds.
        assert!(
            cost.allocations <= small.allocations + 0.1,
            "{more} allocates: {cost:?}, and {small:?} without"
        );
    }
}

/// Of one request.
#[derive(Debug)]
struct Cost {
    instructions: u64,
    allocations: f64,
}

impl Cost {
    /// Callgrind's format: `totals:` is all instructions; `cfn=` names who is called, `calls=` behind it how often.
    /// A name stands in full where it is first used, `(id) name`, and as `(id)` from then on.
    fn read(profile: &Path) -> Self {
        let text = fs::read_to_string(profile).unwrap();
        let (mut names, mut called) = (HashMap::new(), "");
        let (mut instructions, mut allocations) = (0, 0);
        for line in text.lines() {
            if let Some(all) = line.strip_prefix("totals: ") {
                instructions = all.parse::<u64>().unwrap();
            } else if let Some((what, function)) = line.split_once("fn=") {
                let (id, name) = function.split_once(')').unwrap();
                if !name.is_empty() {
                    names.insert(id, name.trim());
                }
                if what == "c" {
                    called = names[id];
                }
            } else if let Some(calls) = line.strip_prefix("calls=")
                && ["malloc", "calloc", "realloc", "posix_memalign"].contains(&called)
            {
                let times = calls.split(' ').next().unwrap();
                allocations += times.parse::<u32>().unwrap();
            }
        }
        assert!(instructions > 0, "{}: no totals", profile.display());
        Self {
            instructions: instructions / u64::from(REQUESTS),
            allocations: f64::from(allocations) / f64::from(REQUESTS),
        }
    }
}

/// Where a kind begins; callgrind knows it by its name.
#[inline(never)]
fn begins(kind: Kind) {
    std::hint::black_box(kind);
}

#[test]
#[ignore = "run under valgrind, by the test above"]
fn answers_for_callgrind() {
    assert!(std::env::var_os(FOLDER).is_some(), "run by the test above");
    // Nothing runs beside it: what a fill needs is over when it has been answered.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (app, cookie) = runtime.block_on(start());
    let get = |kind| {
        let uri = format!("/world/1/{}/0.png", u32::from(kind == Kind::Large));
        let uri: Uri = uri.parse().unwrap();
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        headers.insert(COOKIE, cookie.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("image/png,*/*"));
        headers.insert(USER_AGENT, HeaderValue::from_static("a browser"));
        let more = if kind == Kind::Wordy { MORE_FIELDS } else { 0 };
        for n in 0..more {
            let name = HeaderName::try_from(format!("sec-ch-{n}")).unwrap();
            headers.insert(name, HeaderValue::from_static("?0"));
        }
        request
    };
    let peer = ([127, 0, 0, 1], 40_000).into();
    let mut prepared = Vec::new();
    for kind in KINDS {
        let filled = runtime.block_on(app.handle(peer, get(kind)));
        let filled = filled.into_response();
        assert_eq!(filled.status(), StatusCode::OK);
        let mut request = get(kind);
        if kind == Kind::NotModified {
            let etag = filled.headers()["etag"].clone();
            request.headers_mut().insert(IF_NONE_MATCH, etag);
        }
        // The first hit finds things cold.
        let again = runtime.block_on(app.handle(peer, request.clone()));
        assert_ne!(again.status().is_success(), kind == Kind::NotModified);
        prepared.push((kind, request));
    }
    let context = &mut Context::from_waker(Waker::noop());
    let mut lines = Vec::new();
    for (kind, request) in prepared {
        let bytes = as_sent(&request);
        begins(kind);
        for _ in 0..REQUESTS {
            let handling = with_head(&bytes, |head| app.handle_head(peer, head));
            let (handling, _) = handling.expect("a head that is read without hyper");
            let Poll::Ready(Reply::Tile(head, body)) = pin!(handling).poll(context) else {
                panic!("a hit waited, or was no hit");
            };
            lines.clear();
            head.put_lines(&mut lines);
            std::hint::black_box((&lines, body));
        }
    }
    begins(Kind::Hit);
}

/// The bytes that a browser sends.
fn as_sent<B>(request: &Request<B>) -> Vec<u8> {
    let mut bytes = format!("GET {} HTTP/1.1\r\n", request.uri()).into_bytes();
    for (name, value) in request.headers() {
        bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend(b"\r\n");
    bytes
}

/// A server that holds two tiles, and the cookie of somebody who may see them.
async fn start() -> (App, HeaderValue) {
    let config = config([spec("world", TileFormat::Png)]);
    let origin = MemoryOrigin::new();
    for (x, length) in [(0, SMALL), (1, LARGE)] {
        let coord = TileCoord::new(1, x, 0).unwrap();
        let tileset = &config.tilesets[0].tileset;
        origin.put(
            tileset,
            coord,
            Scale::One,
            vec![0x5a; length],
            Some(1_700_000_000),
        );
    }
    let provided = Provided {
        keys: Some(keys()),
        origin: Some(Arc::new(origin)),
        clock: Clock::manual(START),
        ..Provided::default()
    };
    let app = App::start(config, provided).await.unwrap();
    let cookie = format!("tilekeep_session={}", token(&claims()));
    (app, HeaderValue::try_from(cookie).unwrap())
}
