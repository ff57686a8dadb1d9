//! Quotas over HTTP: what counts as one tile, who spends together, and what a refusal says.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use tilekeep::auth::Claims;
use tilekeep::config::QuotaConfig;
use tilekeep::origin::failing::MemoryOrigin;
use tilekeep::tile::{Access, Scale, TileCoord, TileFormat, TilesetSpec};

use crate::support::{self, Answer, Running, claims, config, spec, tileset, token};

fn class(name: &str, per_second: u32, tiles: u32) -> QuotaConfig {
    QuotaConfig {
        name: name.into(),
        requests_per_second: NonZeroU32::new(per_second),
        burst: None,
        distinct_tiles_per_hour: NonZeroU32::new(tiles),
        background: false,
    }
}

/// `world` (with @2x and a version), `other` and the public `open`; classes `viewer` (3 tiles), `batch`
/// (one request a second, five at once) and `free`.
async fn server() -> Running {
    let world = TilesetSpec {
        key: "world/{version}/{z}/{x}/{y}{r}.png".into(),
        version: Some("1".into()),
        ..spec("world", TileFormat::Png)
    };
    let open = TilesetSpec {
        access: Access::Public,
        ..spec("open", TileFormat::Png)
    };
    let tilesets = [world, spec("other", TileFormat::Png), open];
    let origin = MemoryOrigin::new();
    for spec in &tilesets {
        for x in 0..8 {
            let coord = TileCoord::new(3, x, 0).unwrap();
            for scale in [Scale::One, Scale::Two] {
                origin.put(&tileset(spec.clone()), coord, scale, "tile", None);
            }
        }
    }
    let mut config = config(tilesets);
    config.quotas = vec![
        class("viewer", 0, 3),
        class("batch", 1, 0),
        class("free", 0, 0),
    ];
    support::start(config, Arc::new(origin)).await
}

fn person(sub: &str, quota: Option<&str>) -> Claims {
    Claims {
        sub: sub.into(),
        quota: quota.map(str::to_owned),
        scope: Some("tiles explain".into()),
        ..claims()
    }
}

async fn metrics(server: &Running) -> String {
    let to = server.addresses.admin;
    let answer = server.send_to(to, Method::GET, "/metrics", &[], "").await;
    String::from_utf8(answer.body.to_vec()).unwrap()
}

async fn left(server: &Running, who: &Claims) -> serde_json::Value {
    server.get_as(who, "/session").await.json()["distinct_tiles_left"].clone()
}

fn is_over_quota(answer: &Answer) -> bool {
    answer.status == StatusCode::TOO_MANY_REQUESTS
}

#[tokio::test]
async fn every_way_to_ask_for_a_tile_spends_the_same_tile() {
    let server = server().await;
    let anna = person("anna", None);
    let bearer = format!("Bearer {}", token(&anna));
    let first = server.get_as(&anna, "/world/3/0/0.png").await;
    let etag = first.header("etag").to_owned();
    for path in [
        "/world/3/0/0",
        "/3/0/0",
        "/3/0/0.png",
        "/world/3/0/0@2x.png",
        "/3/0/0@2x",
        "/world/3/0/0.png?v=1",
        "/world/3/0/0.png?v=2&x=y",
    ] {
        for method in [Method::GET, Method::HEAD] {
            let headers = [("authorization", bearer.as_str())];
            let answer = server.send(method, path, &headers, "").await;
            assert_eq!(answer.status, StatusCode::OK, "{path}");
        }
    }
    let again = [("authorization", bearer.as_str()), ("if-none-match", &etag)];
    let again = server.send(Method::GET, "/3/0/0", &again, "").await;
    assert_eq!(again.status, StatusCode::NOT_MODIFIED);
    assert_eq!(left(&server, &anna).await, 2);
    // HEAD and 304 spend a new one as GET does; another tileset's is another tile.
    let headers = [("authorization", bearer.as_str())];
    let head = server.send(Method::HEAD, "/3/1/0", &headers, "").await;
    assert_eq!(
        (head.status, left(&server, &anna).await),
        (StatusCode::OK, 1.into())
    );
    let other = [("authorization", bearer.as_str()), ("if-none-match", "*")];
    let other = server
        .send(Method::GET, "/other/3/0/0.png", &other, "")
        .await;
    assert_eq!(other.status, StatusCode::NOT_MODIFIED);
    assert_eq!(left(&server, &anna).await, 0);
    for (method, path) in [
        (Method::GET, "/world/3/2/0.png"),
        (Method::HEAD, "/3/2/0"),
        (Method::GET, "/world/3/2/0@2x.png?v=1"),
        (Method::GET, "/other/3/1/0"),
    ] {
        let answer = server.send(method, path, &headers, "").await;
        assert!(is_over_quota(&answer), "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn over_the_budget_new_tiles_wait_and_seen_ones_are_served() {
    let server = server().await;
    let anna = person("anna", None);
    for x in 0..3 {
        let answer = server.get_as(&anna, &format!("/world/3/{x}/0.png")).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    let refused = server.get_as(&anna, "/world/3/5/0.png").await;
    assert!(is_over_quota(&refused));
    assert_eq!(refused.header("content-type"), "application/problem+json");
    assert_eq!(refused.header("cache-control"), "no-store");
    assert_eq!(refused.header("retry-after"), "3660");
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.starts_with("Too many different tiles within an hour."),
        "{detail}"
    );
    assert!(detail.contains("still served"), "{detail}");
    let seen = server.get_as(&anna, "/world/3/1/0.png").await;
    assert_eq!(seen.status, StatusCode::OK);
    // Nobody else is touched, and what needs no session has no quota.
    let bert = server
        .get_as(&person("bert", None), "/world/3/5/0.png")
        .await;
    assert_eq!(bert.status, StatusCode::OK);
    for x in 0..8 {
        let open = server.get_as(&anna, &format!("/open/3/{x}/0.png")).await;
        assert_eq!(open.status, StatusCode::OK);
    }
    let text = metrics(&server).await;
    for line in [
        "tilekeep_quota_refusals_total{class=\"viewer\",limit=\"distinct_tiles\"} 1",
        "tilekeep_quota_refusals_total{class=\"viewer\",limit=\"rate\"} 0",
        "tilekeep_quota_refusals_total{class=\"batch\",limit=\"rate\"} 0",
        "tilekeep_http_answers_total{answer=\"over_quota\"} 1",
        "tilekeep_quota_people 2",
        "tilekeep_quota_forgotten_total 0",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    // A wall clock that is set frees nobody; an hour does.
    server
        .clock
        .set(server.clock.now() + Duration::from_hours(5));
    assert!(is_over_quota(
        &server.get_as(&anna, "/world/3/5/0.png").await
    ));
    server.clock.advance(Duration::from_mins(61));
    let later = server.get_as(&anna, "/world/3/5/0.png").await;
    assert_eq!(later.status, StatusCode::OK);
    server.stop().await;
}

#[tokio::test]
async fn a_persons_tokens_spend_one_budget() {
    let server = server().await;
    let named = |jti: &str| Claims {
        jti: Some(jti.into()),
        ..person("anna", Some("viewer"))
    };
    let (one, two) = (named("1"), named("2"));
    for (who, x) in [(&one, 0), (&two, 1), (&person("anna", None), 2)] {
        let answer = server.get_as(who, &format!("/world/3/{x}/0.png")).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    for who in [&one, &two, &named("3")] {
        assert!(is_over_quota(&server.get_as(who, "/world/3/7/0.png").await));
    }
    // A session of the log-in page, and the next one, are the same person's.
    for _ in 0..2 {
        let json = [("content-type", "application/json")];
        let body = r#"{"username":"anna","password":"secret"}"#;
        let session = server.send(Method::POST, "/session", &json, body).await;
        let cookie = session.header("set-cookie").split(';').next().unwrap();
        let headers = [("cookie", cookie), ("sec-fetch-site", "same-origin")];
        let answer = server
            .send(Method::GET, "/world/3/7/0.png", &headers, "")
            .await;
        assert!(is_over_quota(&answer));
        server.send(Method::DELETE, "/session", &headers, "").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn who_asks_too_fast_waits_for_as_long_as_they_are_told() {
    let server = server().await;
    let job = person("job", Some("batch"));
    // Every request counts, also for what there is not.
    for path in [
        "/world/3/0/0.png",
        "/3/0/0",
        "/3/7/0",
        "/world/9/0/0",
        "/world/3/0/0/explain",
    ] {
        assert!(!is_over_quota(&server.get_as(&job, path).await), "{path}");
    }
    let refused = server.get_as(&job, "/world/3/0/0.png").await;
    assert!(is_over_quota(&refused));
    assert_eq!(refused.header("retry-after"), "1");
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.starts_with("Too many requests at once"), "{detail}");
    assert!(is_over_quota(
        &server.get_as(&job, "/world/3/0/0/explain").await
    ));
    let text = metrics(&server).await;
    let line = "tilekeep_quota_refusals_total{class=\"batch\",limit=\"rate\"} 2";
    assert!(text.contains(line), "{text}");
    server.clock.advance(Duration::from_secs(1));
    let later = server.get_as(&job, "/world/3/0/0.png").await;
    assert_eq!(later.status, StatusCode::OK);
    server.stop().await;
}

#[tokio::test]
async fn a_quota_is_refused_after_rights_and_before_places() {
    let server = server().await;
    let job = Claims {
        tilesets: vec!["world".into()],
        maxzoom: Some(5),
        ..person("job", Some("batch"))
    };
    for _ in 0..5 {
        server.get_as(&job, "/world/3/0/0.png").await;
    }
    for (path, status) in [
        ("/world/03/0/0.png", StatusCode::BAD_REQUEST),
        ("/nowhere/3/0/0.png", StatusCode::NOT_FOUND),
        ("/other/3/0/0.png", StatusCode::NOT_FOUND),
        ("/world/6/0/0.png", StatusCode::FORBIDDEN),
        ("/world/3/0/0.png", StatusCode::TOO_MANY_REQUESTS),
        ("/world/3/0/0.jpg", StatusCode::TOO_MANY_REQUESTS),
        ("/world/3/8/0.png", StatusCode::TOO_MANY_REQUESTS),
    ] {
        assert_eq!(server.get_as(&job, path).await.status, status, "{path}");
    }
    // Places that a tileset cannot have cost no tile, those that it only does not have do.
    let anna = person("anna", None);
    for path in ["/world/6/0/0.png", "/world/3/9/0.png", "/world/3/0/0.jpg"] {
        assert_eq!(
            server.get_as(&anna, path).await.status,
            StatusCode::NOT_FOUND
        );
    }
    assert_eq!(left(&server, &anna).await, 3);
    let missing = server.get_as(&anna, "/world/3/0/7.png").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert_eq!(left(&server, &anna).await, 2);
    server.stop().await;
}

#[tokio::test]
async fn an_unknown_class_is_no_session_and_an_unlimited_one_no_limit() {
    let server = server().await;
    let vip = server
        .get_as(&person("anna", Some("vip")), "/world/3/0/0.png")
        .await;
    assert_eq!(vip.status, StatusCode::UNAUTHORIZED);
    let detail = vip.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("quota class is not one of this server's"),
        "{detail}"
    );
    let free = person("anna", Some("free"));
    for x in 0..8 {
        let answer = server.get_as(&free, &format!("/world/3/{x}/0.png")).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    assert_eq!(left(&server, &free).await, serde_json::Value::Null);
    server.stop().await;
}

#[tokio::test]
async fn without_classes_every_name_is_good_and_nothing_is_limited() {
    let server = support::start(
        config([spec("world", TileFormat::Png)]),
        Arc::new(MemoryOrigin::new()),
    )
    .await;
    let vip = person("anna", Some("vip"));
    for x in 0..8 {
        let answer = server.get_as(&vip, &format!("/world/3/{x}/0.png")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
    }
    let text = metrics(&server).await;
    assert!(!text.contains("tilekeep_quota_refusals_total{"));
    server.stop().await;
}
