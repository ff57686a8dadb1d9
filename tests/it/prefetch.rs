//! `tilekeep prefetch`, as a program, against a real server.

mod export;
#[cfg(feature = "mbtiles")]
mod gdal;
mod stopped;

use std::num::NonZeroU32;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tilekeep::app::Provided;
use tilekeep::auth::Claims;
use tilekeep::clock::Clock;
use tilekeep::config::QuotaConfig;
use tilekeep::origin::failing::{FailingOrigin, Fault, MemoryOrigin};
use tilekeep::origin::{Origin, OriginErrorKind};
use tilekeep::tile::{Scale, TileCoord, TileFormat, TilesetSpec};

use crate::support::{self, Running, claims, config, spec, tileset, token};

type Faulty = Arc<FailingOrigin<MemoryOrigin>>;

/// Tiles of zooms 0 to 4 of `world`, but those of the last row of zoom 4.
const TILES: u64 = 341;
const ABSENT: u64 = 16;

fn origin_of(spec: TilesetSpec) -> Faulty {
    let tileset = tileset(spec);
    let origin = MemoryOrigin::new();
    for z in 0..=4u8 {
        for (x, y) in (0..1u32 << z).flat_map(|x| (0..1u32 << z).map(move |y| (x, y))) {
            if (z, y) != (4, 15) {
                let coord = TileCoord::new(z, x, y).unwrap();
                origin.put(&tileset, coord, Scale::One, format!("tile {coord}"), None);
            }
        }
    }
    Arc::new(FailingOrigin::new(origin))
}

fn world() -> TilesetSpec {
    TilesetSpec {
        maxzoom: 4,
        attribution: "© everybody".into(),
        ..spec("world", TileFormat::Png)
    }
}

async fn server(origin: &Faulty) -> Running {
    let origin: Arc<dyn Origin> = origin.clone();
    support::start(config([world()]), origin).await
}

/// How a command ended.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    json: Value,
    stderr: String,
}

fn begin(server: &Running, token: &str, args: &str) -> Child {
    let url = format!("http://{}", server.addresses.public);
    let given: &[&str] = if args.contains("--url") {
        &[]
    } else {
        &["--url", &url]
    };
    Command::new(env!("CARGO_BIN_EXE_tilekeep"))
        .args(["prefetch", "--tileset", "world", "--json"])
        .args(args.split_whitespace())
        .args(given)
        .env("TILEKEEP_TOKEN", token)
        .env("TILEKEEP_PASSWORD", "secret")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for the end without holding the server up.
async fn ended(child: Child) -> Said {
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap());
    let output = output.await.unwrap();
    Said {
        code: output.status.code(),
        json: serde_json::from_slice(&output.stdout).unwrap_or_default(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

async fn prefetch(server: &Running, args: &str) -> Said {
    ended(begin(server, &token(&claims()), args)).await
}

const WORLD: &str = "--bbox -180,-90,180,90 --zoom 0-4";

/// That these members of the report are these numbers.
fn counts(said: &Said, expected: &[(&str, u64)]) {
    for (member, count) in expected {
        assert_eq!(said.json[member], *count, "{member}: {said:?}");
    }
}

#[tokio::test]
async fn what_was_seeded_is_stored_and_an_absent_tile_is_a_success() {
    let origin = origin_of(world());
    let server = server(&origin).await;
    let first = prefetch(&server, WORLD).await;
    assert_eq!(first.code, Some(0), "{first:?}");
    let fetched = TILES - ABSENT;
    counts(
        &first,
        &[
            ("tiles", TILES),
            ("fetched", fetched),
            ("absent", ABSENT),
            ("failed", 0),
        ],
    );
    assert_eq!(first.json["complete"], true);
    assert_eq!(origin.calls() as u64, TILES);
    let second = prefetch(&server, &format!("{WORLD} --protocol http2")).await;
    counts(
        &second,
        &[("fetched", 0), ("stored", fetched), ("absent", ABSENT)],
    );
    assert_eq!(origin.calls() as u64, TILES, "the origin was asked once");
    server.stop().await;
}

#[tokio::test]
async fn what_the_server_does_not_have_is_not_asked_for() {
    let origin = origin_of(world());
    let server = server(&origin).await;
    let deep = prefetch(&server, "--bbox 0,0,10,10 --zoom 3-14 --dry-run --sample 0").await;
    assert_eq!(deep.code, Some(0), "{deep:?}");
    counts(&deep, &[("tiles", 2)]);
    assert!(deep.stderr.contains("zooms 0-4"), "{deep:?}");
    let fiji = prefetch(&server, "--bbox 176,-20,-178,-15 --zoom 4").await;
    counts(&fiji, &[("tiles", 2), ("fetched", 2)]);
    let columns: Vec<u32> = origin.seen().iter().map(|seen| seen.coord.x()).collect();
    assert!(columns == [0, 15] || columns == [15, 0], "{columns:?}");

    let nothing = prefetch(&server, "--bbox 0,0,10,10 --zoom 9").await;
    assert_eq!(nothing.code, Some(2));
    assert!(
        nothing.stderr.contains("world has zooms 0-4"),
        "{nothing:?}"
    );
    let unknown = prefetch(&server, "--bbox 0,0,10,10 --zoom 1 --tileset mars").await;
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.stderr.contains("mars") && unknown.stderr.contains("it has world"));
    let nobody = ended(begin(&server, "a.b.c", WORLD)).await;
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.stderr.contains("TILEKEEP_TOKEN") && !nobody.stderr.contains("a.b.c"));
    let password = prefetch(&server, &format!("{WORLD} --url http://anna:hunter2@h")).await;
    assert_eq!(password.code, Some(2));
    assert!(!password.stderr.contains("hunter2"), "{password:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_list_and_an_outline_have_their_tiles_and_faults_in_them_are_named() {
    let origin = origin_of(world());
    let server = server(&origin).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let list = file("list", "4/1/1\n0/0/0\n4/1/1\n4/1/15\n");
    let listed = prefetch(&server, &format!("--tiles {list}")).await;
    counts(&listed, &[("tiles", 3), ("fetched", 2), ("absent", 1)]);
    let ring = "[[0,0],[80,0],[80,60],[0,60],[0,0]]";
    let outline = file(
        "a.geojson",
        &format!(r#"{{"type":"Polygon","coordinates":[{ring}]}}"#),
    );
    let outlined = prefetch(&server, &format!("--area {outline} --zoom 2")).await;
    counts(&outlined, &[("tiles", 1)]);
    let crossed = "[[0,0],[8,8],[8,0],[0,8],[0,0]]";
    let crossed = file(
        "b.geojson",
        &format!(r#"{{"type":"Polygon","coordinates":[{crossed}]}}"#),
    );
    let refused = prefetch(&server, &format!("--area {crossed} --zoom 2")).await;
    assert_eq!(refused.code, Some(2));
    assert!(
        refused
            .stderr
            .contains("b.geojson: the polygon: the outline crosses itself near 4")
    );
    server.stop().await;
}

#[tokio::test]
async fn a_plan_is_estimated_from_a_sample() {
    let origin = origin_of(world());
    let server = server(&origin).await;
    let said = prefetch(&server, &format!("{WORLD} --dry-run --sample 10000")).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let estimate = &said.json["estimate"];
    assert_eq!(estimate["sampled"], TILES);
    assert_eq!(estimate["absent"], ABSENT);
    assert_eq!(estimate["s3_requests"], 341.0);
    assert_eq!(estimate["bytes_error"], 0.0);
    assert!((estimate["s3_cost_usd"].as_f64().unwrap() - 0.000_136_4).abs() < 1e-9);
    server.stop().await;
}

#[tokio::test]
async fn a_quota_slows_it_down_and_fails_nothing() {
    let mut config = config([world()]);
    config.quotas = vec![QuotaConfig {
        background: false,
        name: "job".into(),
        requests_per_second: NonZeroU32::new(100),
        burst: NonZeroU32::new(20),
        distinct_tiles_per_hour: None,
    }];
    let provided = Provided {
        origin: Some(origin_of(world())),
        keys: Some(support::keys()),
        clock: Clock::System,
        ..Provided::default()
    };
    let server = support::launch(config, provided).await;
    let token = token(&Claims {
        exp: Clock::System.now().secs() + 3600,
        ..claims()
    });
    let said = ended(begin(&server, &token, &format!("{WORLD} --concurrency 64"))).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    counts(&said, &[("failed", 0), ("absent", ABSENT)]);
    assert!(said.json["throttled"].as_u64().unwrap() > 0, "{said:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_budget_that_is_spent_for_long_ends_it_with_a_word() {
    let mut config = config([world()]);
    config.quotas = vec![QuotaConfig {
        background: false,
        name: "job".into(),
        requests_per_second: None,
        burst: None,
        distinct_tiles_per_hour: NonZeroU32::new(50),
    }];
    let origin: Arc<dyn Origin> = origin_of(world());
    let server = support::start(config, origin).await;
    let said = prefetch(&server, &format!("{WORLD} --patience 30s")).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("asks for a pause"), "{said:?}");
    counts(&said, &[("failed", 0)]);
    server.stop().await;
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_does_not_is_listed() {
    let origin = origin_of(world());
    let server = server(&origin).await;
    // The origin's own retries see to the first ones.
    origin.fail_next(3, Fault::error(OriginErrorKind::Server));
    let said = prefetch(&server, "--bbox 0,0,80,60 --zoom 0-1").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    counts(&said, &[("failed", 0), ("fetched", 2)]);

    origin.fail_always(Fault::error(OriginErrorKind::Denied));
    let folder = tempfile::tempdir().unwrap();
    let resume = folder.path().join("resume").display().to_string();
    let args = format!("--bbox 0,0,80,60 --zoom 2-4 --attempts 1 --resume {resume}");
    let failed = prefetch(&server, &args).await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    let many = failed.json["failed"].as_u64().unwrap();
    assert!(
        many > 0 && failed.json["reasons"]["server_error"] == many,
        "{failed:?}"
    );
    assert!(
        failed.json["failures"][0]["detail"]
            .as_str()
            .unwrap()
            .starts_with("502")
    );
    assert!(failed.stderr.contains("--resume"), "{failed:?}");

    origin.heal();
    server.clock.advance(Duration::from_mins(1));
    let healed = prefetch(&server, &args).await;
    assert_eq!(healed.code, Some(0), "{healed:?}");
    counts(&healed, &[("failed", 0)]);
    assert!(
        !folder.path().join("resume").exists(),
        "there is nothing left to resume"
    );
    server.stop().await;
}

#[tokio::test]
async fn only_what_is_stale_is_revalidated() {
    let origin = origin_of(world());
    let server = server(&origin).await;
    let seeded = prefetch(&server, "--bbox 0,0,80,60 --zoom 0-3").await;
    counts(&seeded, &[("failed", 0)]);
    let had = seeded.json["fetched"].as_u64().unwrap();
    let stale_only = format!("{WORLD} --stale-only --username anna");
    let fresh = prefetch(&server, &stale_only).await;
    assert_eq!(fresh.code, Some(0), "{fresh:?}");
    counts(
        &fresh,
        &[
            ("stored", had),
            ("not_stored", TILES - had),
            ("stale", 0),
            ("expiring", 0),
        ],
    );
    assert_eq!(origin.calls() as u64, had, "nothing was fetched");
    server.clock.advance(Duration::from_mins(55));
    let nearly = prefetch(&server, &stale_only).await;
    counts(&nearly, &[("stored", had), ("expiring", had), ("stale", 0)]);
    server.clock.advance(Duration::from_mins(10));
    let stale = prefetch(&server, &stale_only).await;
    counts(&stale, &[("stored", had), ("stale", had)]);
    crate::prefetch::until(|| origin.calls() as u64 == 2 * had).await;
    server.stop().await;
}

#[tokio::test]
async fn a_job_refreshes_what_goes_stale_before_long() {
    let mut config = config([world()]);
    config.quotas = vec![QuotaConfig {
        background: true,
        name: "job".into(),
        requests_per_second: None,
        burst: None,
        distinct_tiles_per_hour: None,
    }];
    let origin = origin_of(world());
    let server = support::start(config, origin.clone() as Arc<dyn Origin>).await;
    let seeded = prefetch(&server, "--bbox 0,0,80,60 --zoom 0-3").await;
    let had = seeded.json["fetched"].as_u64().unwrap();
    let asked = origin.calls();
    let stale_only = format!("{WORLD} --stale-only --username anna");
    server.clock.advance(Duration::from_mins(45));
    let early = prefetch(&server, &stale_only).await;
    counts(&early, &[("stored", had), ("expiring", 0)]);
    assert_eq!(origin.calls(), asked, "fresh for longer than that");
    server.clock.advance(Duration::from_mins(10));
    let ahead = prefetch(&server, &stale_only).await;
    counts(&ahead, &[("revalidated", had), ("expiring", 0)]);
    assert_eq!(origin.calls() as u64, asked as u64 + had);
    let again = prefetch(&server, &stale_only).await;
    counts(&again, &[("stored", had), ("expiring", 0), ("stale", 0)]);
    assert_eq!(origin.calls() as u64, asked as u64 + had);
    server.stop().await;
}

#[tokio::test]
async fn a_session_that_may_not_look_is_told_so_and_fetches_nothing() {
    let origin = origin_of(world());
    let server = server(&origin).await;
    // Its token has the scope `tiles` alone.
    let said = prefetch(&server, &format!("{WORLD} --stale-only")).await;
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(
        said.stderr.contains("lacks the scope `explain`"),
        "{said:?}"
    );
    assert_eq!(origin.calls(), 0);
    server.stop().await;
}

#[tokio::test]
async fn the_names_that_options_once_had_are_still_understood() {
    let origin = origin_of(world());
    let server = server(&origin).await;
    let said = prefetch(&server, "--bbox 0,0,80,60 --zoom 0-1 --http 2 --user anna").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    counts(&said, &[("failed", 0), ("fetched", 2)]);
    server.stop().await;
}

/// Waits for a condition.
async fn until(condition: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(tokio::time::Instant::now() < end, "it does not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
