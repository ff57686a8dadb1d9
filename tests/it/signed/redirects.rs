//! `delivery = "redirect"`: the stable address leads to S3.

use std::time::Duration;

use http::{Method, StatusCode};
use tilekeep::auth::Claims;
use tilekeep::clock::Timestamp;
use tilekeep::config::WebOrigin;
use tilekeep::embedded_s3::Operation;

use super::{World, anna, is};
use crate::support::{Answer, token};

const TILE: &str = "/moved/0/0/0.png";

fn max_age(answer: &Answer) -> u64 {
    let (_, age) = answer
        .header("cache-control")
        .split_once("max-age=")
        .unwrap();
    age.parse().unwrap()
}

#[tokio::test]
async fn the_stable_address_leads_to_s3_and_the_browser_may_keep_it() {
    let world = World::start(|config| {
        config.server.cors_origins = vec![WebOrigin::parse("https://app.example.com").unwrap()];
    })
    .await;
    let hour = world.clock.now().secs().next_multiple_of(3600);
    let now = Clock::now_secs();
    // The start of a window, which the endpoint's own clock has not reached: it would not take the URL.
    world.clock.set(Timestamp::from_secs(hour));
    let first = world.server.get_as(&anna(), TILE).await;
    assert_eq!(first.status, StatusCode::FOUND);
    assert_eq!(first.header("cache-control"), "private, max-age=3600");
    assert_eq!(
        first.header("cache-status"),
        "tilekeep; fwd=bypass; detail=redirect"
    );
    assert_eq!(first.header("vary"), "Origin");
    assert!(first.body.is_empty());
    // The map keeps still: the same URL for the whole window, and kept for no longer than it lives.
    world.clock.advance(Duration::from_secs(3599));
    let bert = Claims {
        sub: "bert".into(),
        ..anna()
    };
    let same = world.server.get_as(&bert, TILE).await;
    assert_eq!(same.header("location"), first.header("location"));
    assert_eq!(max_age(&same), 3591);
    world.clock.advance(Duration::from_secs(1));
    let next = world.server.get_as(&bert, TILE).await;
    assert_ne!(next.header("location"), first.header("location"));

    world.clock.set(Timestamp::from_secs(now));
    let bearer = format!("Bearer {}", token(&anna()));
    let headers = [
        ("authorization", bearer.as_str()),
        ("if-none-match", "*"),
        ("if-modified-since", "Sun, 22 Nov 2037 00:00:00 GMT"),
        ("range", "bytes=0-1"),
    ];
    let got = world.server.send(Method::GET, TILE, &headers, "").await;
    assert_eq!(got.status, StatusCode::FOUND, "there is nothing to compare");
    let tile = world.fetch(Method::GET, got.header("location")).await;
    assert_eq!(&tile.body[..], b"moved/0/0/0.png");
    assert_eq!(tile.header("cache-control"), "private, max-age=3600");
    // A URL is for one method, and HEAD has its own.
    let head = world.server.send(Method::HEAD, TILE, &headers, "").await;
    assert_eq!(head.status, StatusCode::FOUND);
    let answer = world.fetch(Method::HEAD, head.header("location")).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");

    assert_eq!(world.s3.requests(Operation::GetObject), 1, "the browser's");
    let explained = world.metric("tilekeep_memory_entries").await;
    assert_eq!(explained, 0, "nothing is cached");
    let series = "tilekeep_http_answers_total{answer=\"redirect\"}";
    assert_eq!(world.metric(series).await, 5);
}

#[tokio::test]
async fn a_redirect_is_kept_for_no_longer_than_the_session() {
    let world = World::start(|_| {}).await;
    let short = Claims {
        exp: world.clock.now().secs() + 77,
        ..anna()
    };
    let answer = world.server.get_as(&short, TILE).await;
    assert_eq!(answer.header("cache-control"), "private, max-age=77");
    let nobody = world.server.send(Method::GET, TILE, &[], "").await;
    is(&nobody, StatusCode::UNAUTHORIZED);
    let elsewhere = Claims {
        tilesets: vec!["world".into()],
        ..anna()
    };
    is(
        &world.server.get_as(&elsewhere, TILE).await,
        StatusCode::NOT_FOUND,
    );
}

#[tokio::test]
async fn a_public_tileset_leads_everybody_to_s3() {
    let world = World::start(|_| {}).await;
    let answer = world
        .server
        .send(Method::GET, "/open/0/0/0.png", &[], "")
        .await;
    assert_eq!(answer.status, StatusCode::FOUND);
    assert!(
        answer
            .header("cache-control")
            .starts_with("public, max-age=")
    );
    let tile = world.fetch(Method::GET, answer.header("location")).await;
    assert_eq!(&tile.body[..], b"open/0/0/0.png");
    assert_eq!(tile.header("cache-control"), "public, max-age=3600");
    // Signing is for those who have the scope, whatever the tileset.
    let sign = world
        .server
        .send(Method::POST, "/sign/open/0/0/0.png", &[], "")
        .await;
    is(&sign, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_missing_tile_is_s3s_to_tell_and_a_place_outside_is_ours() {
    let world = World::start(|_| {}).await;
    let missing = world.server.get_as(&anna(), "/moved/2/3/3.png").await;
    assert_eq!(missing.status, StatusCode::FOUND);
    let answer = world.fetch(Method::GET, missing.header("location")).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let outside = world.server.get_as(&anna(), "/moved/9/3/3.png").await;
    assert_eq!(outside.status, StatusCode::NOT_FOUND);
    // The pages may load what comes from there.
    let s3 = world.s3.endpoint_url();
    for page in ["/", "/map"] {
        let page = world.server.get_as(&anna(), page).await;
        let policy = page.header("content-security-policy");
        for own in ["connect-src 'self'", "img-src 'self'"] {
            assert!(policy.contains(&format!("{own} {s3}")), "{policy}");
        }
    }
    // What describes it leads to the stable addresses.
    let json = world.server.get_as(&anna(), "/moved.json").await.json();
    let tiles = json["tiles"][0].as_str().unwrap();
    assert!(tiles.ends_with("/moved/{z}/{x}/{y}.png"), "{tiles}");
}

struct Clock;

impl Clock {
    fn now_secs() -> u64 {
        tilekeep::clock::Clock::System.now().secs()
    }
}
