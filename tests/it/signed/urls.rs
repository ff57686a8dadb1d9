//! `POST /sign`: who gets a URL, which one, and for how long.

use std::time::Duration;

use http::{Method, StatusCode};
use tilekeep::auth::Claims;
use tilekeep::clock::Timestamp;
use tilekeep::embedded_s3::{Fault, Operation};

use super::{World, anna, class, is, parameter, role, seconds};
use crate::support::token;

#[tokio::test]
async fn a_signed_url_opens_its_tile_and_nothing_else() {
    let world = World::start(|_| {}).await;
    let answer = world.post(&anna(), "/sign/world/0/0/0.png", "").await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("content-type"), "application/json");
    let url = answer.json()["url"].as_str().unwrap().to_owned();
    let tile = world.fetch(Method::GET, &url).await;
    assert_eq!(tile.status, StatusCode::OK, "{tile:?}");
    assert_eq!(&tile.body[..], b"world/0/0/0.png");
    assert_eq!(tile.header("content-type"), "image/png");
    assert_eq!(tile.header("cache-control"), "private, max-age=300");
    let signature = parameter(&url, "X-Amz-Signature");
    let other = format!("{}{}", &signature[1..], &signature[..1]);
    for tampered in [
        url.replace("/0/0/0.png", "/1/1/0.png"),
        url.replace("X-Amz-Expires=300", "X-Amz-Expires=3000"),
        url.replace("max-age%3D300", "max-age%3D301"),
        url.replace(signature, &other),
        url.split('?').next().unwrap().to_owned(),
    ] {
        assert_ne!(tampered, url);
        let refused = world.fetch(Method::GET, &tampered).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{tampered}");
    }
    let as_put = world.fetch(Method::PUT, &url).await;
    assert_eq!(as_put.status, StatusCode::FORBIDDEN);
    assert_eq!(world.s3.requests(Operation::GetObject), 6, "none is ours");
    assert_eq!(
        world
            .metric("tilekeep_signed_urls_total{outcome=\"signed\"}")
            .await,
        1
    );
}

#[tokio::test]
async fn all_who_ask_within_a_window_get_one_url_and_its_end_is_told() {
    let world = World::start(|_| {}).await;
    let start = world.clock.now().secs().next_multiple_of(300);
    world.clock.set(Timestamp::from_secs(start));
    let body = r#"{"expires_in": 600}"#;
    let first = world
        .post(&anna(), "/sign/world/1/0/0.png", body)
        .await
        .json();
    assert_eq!(seconds(first["expires_at"].as_str().unwrap()), start + 600);
    world.clock.advance(Duration::from_secs(299));
    let bert = Claims {
        sub: "bert".into(),
        ..anna()
    };
    for path in ["/sign/world/1/0/0", "/sign/1/0/0.png", "/sign/1/0/0"] {
        assert_eq!(world.post(&bert, path, body).await.json(), first, "{path}");
    }
    let dense = world
        .post(&bert, "/sign/world/1/0/0@2x.png", body)
        .await
        .json();
    let dense = dense["url"].as_str().unwrap();
    assert!(dense.contains("/bucket/world/1/0/0%402x.png?"), "{dense}");
    world.clock.advance(Duration::from_secs(1));
    let next = world.post(&bert, "/sign/world/1/0/0", body).await.json();
    assert_ne!(next["url"], first["url"]);
    assert_eq!(seconds(next["expires_at"].as_str().unwrap()), start + 900);
}

#[tokio::test]
async fn s3_refuses_a_url_whose_time_is_over() {
    let world = World::start(|_| {}).await;
    let now = world.clock.now();
    world.clock.set(Timestamp::from_secs(now.secs() - 601));
    let url = world
        .post(&anna(), "/sign/world/0/0/0.png", "")
        .await
        .json();
    let refused = world.fetch(Method::GET, url["url"].as_str().unwrap()).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{refused:?}");
}

#[tokio::test]
async fn a_url_ends_with_the_keys_and_says_so() {
    let world = World::start(|config| config.aws.assume_role = Some(role())).await;
    let end = world.clock.now().secs() + 3600;
    let week = r#"{"expires_in": 604800}"#;
    let signed = world
        .post(&anna(), "/sign/world/0/0/0.png", week)
        .await
        .json();
    assert_eq!(seconds(signed["expires_at"].as_str().unwrap()), end);
    let url = signed["url"].as_str().unwrap();
    assert!(!parameter(url, "X-Amz-Security-Token").is_empty());
    // Dated back by days, and yet no longer than the keys.
    let life: u64 = parameter(url, "X-Amz-Expires").parse().unwrap();
    let starts = world.clock.now().secs() / 302_400 * 302_400;
    assert_eq!(starts + life, end);
    let tile = world.fetch(Method::GET, url).await;
    assert_eq!(tile.status, StatusCode::OK, "{tile:?}");

    // With STS gone the keys come to their end: better no URL than one that is dead on arrival.
    world
        .s3
        .inject(Some(Operation::Sts), usize::MAX, Fault::NeverAnswer);
    let almost = Duration::from_secs(3600 - 31);
    world.clock.advance(almost);
    let short = world.post(&anna(), "/sign/world/0/0/0.png", "").await;
    assert_eq!(seconds(short.json()["expires_at"].as_str().unwrap()), end);
    world.clock.advance(Duration::from_secs(2));
    let refused = world.post(&anna(), "/sign/world/0/0/0.png", "").await;
    let why = is(&refused, StatusCode::SERVICE_UNAVAILABLE);
    assert!(why.contains("credentials end in a moment"), "{why}");
    assert_eq!(refused.header("retry-after"), "5");
    world.clock.advance(Duration::from_secs(40));
    let refused = world.post(&anna(), "/sign/world/0/0/0.png", "").await;
    let why = is(&refused, StatusCode::SERVICE_UNAVAILABLE);
    assert!(why.contains("no AWS credentials"), "{why}");
    for outcome in ["keys_end_soon", "no_keys"] {
        let series = format!("tilekeep_signed_urls_total{{outcome=\"{outcome}\"}}");
        assert_eq!(world.metric(&series).await, 1);
    }
}

#[tokio::test]
async fn refusals_come_in_the_contracts_order() {
    let world = World::start(|config| config.quotas = vec![class("viewer", 1)]).await;
    let anna = anna();
    let nobody: &[(&str, &str)] = &[];
    let get = world
        .server
        .send(Method::GET, "/sign/world/0/0/0.png", nobody, "")
        .await;
    is(&get, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(get.header("allow"), "POST, OPTIONS");
    let options = world
        .server
        .send(Method::OPTIONS, "/sign/world/0/0/0.png", nobody, "")
        .await;
    assert_eq!(options.status, StatusCode::NO_CONTENT);
    assert_eq!(options.header("allow"), "POST, OPTIONS");
    let send = async |path: &str, body: &'static str| {
        world.server.send(Method::POST, path, nobody, body).await
    };
    for (path, body, status) in [
        ("/sign/world/0/0/x", "", 400),
        ("/sign/world/0/0/0.png", "{\"expires_in\": 59}", 400),
        ("/sign/world/0/0/0.png", "", 401),
        ("/sign/nowhere/0/0/0.png", "", 401),
    ] {
        let answer = send(path, body).await;
        assert_eq!(answer.status, status, "{path} {body}");
    }
    // A person who navigates there is not led through a log-in to a GET that there is not.
    let navigates = [("sec-fetch-mode", "navigate")];
    let answer = world
        .server
        .send(Method::POST, "/sign/world/0/0/0.png", &navigates, "")
        .await;
    is(&answer, StatusCode::UNAUTHORIZED);

    let narrow = Claims {
        tilesets: vec!["world".into(), "north".into()],
        maxzoom: Some(3),
        scope: Some("tiles".into()),
        ..anna.clone()
    };
    let wide = Claims {
        scope: Some("sign".into()),
        ..narrow.clone()
    };
    for (who, path, status, words) in [
        (&narrow, "/sign/nowhere/4/0/0.png", 404, "no such tileset"),
        (&narrow, "/sign/moved/4/0/0.png", 404, "no such tileset"),
        (&narrow, "/sign/world/4/0/0.png", 403, "zoom or area"),
        (&narrow, "/sign/world/0/0/0.png", 403, "scope `sign`"),
        (&wide, "/sign/world/0/0/0.jpg", 404, ".png"),
        (&wide, "/sign/north/1/0/1.png", 404, "area"),
        (&wide, "/sign/north/1/0/0@2x.png", 404, "@2x"),
        (&wide, "/sign/world/0/1/0.png", 404, "2^z"),
        (&wide, "/sign/world/1/0/0.png", 200, ""),
        (&wide, "/sign/world/1/1/0.png", 429, "different tiles"),
    ] {
        let answer = world.post(who, path, "").await;
        assert_eq!(answer.status, status, "{path} {answer:?}");
        let said = String::from_utf8_lossy(&answer.body);
        assert!(said.contains(words), "{path}: {said}");
    }
}

#[tokio::test]
async fn a_url_and_its_tile_are_one_tile_of_the_quota() {
    let world = World::start(|config| config.quotas = vec![class("viewer", 2)]).await;
    let anna = anna();
    let left = async || {
        let session = world.server.get_as(&anna, "/session").await;
        session.json()["distinct_tiles_left"].clone()
    };
    for path in [
        "/sign/world/0/0/0.png",
        "/sign/0/0/0",
        "/sign/world/0/0/0@2x.png",
    ] {
        let answer = world.post(&anna, path, "").await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(left().await, 1, "{path}");
    }
    world.server.get_as(&anna, "/world/0/0/0.png").await;
    // What cannot be understood spends nothing.
    let wrong = world.post(&anna, "/sign/world/1/0/0.png", "{").await;
    is(&wrong, StatusCode::BAD_REQUEST);
    assert_eq!(left().await, 1);
    let moved = world.server.get_as(&anna, "/moved/1/0/0.png").await;
    assert_eq!((moved.status, left().await), (StatusCode::FOUND, 0.into()));
    let again = world.server.get_as(&anna, "/moved/1/0/0.png").await;
    assert_eq!(again.status, StatusCode::FOUND);
    let over = world.server.get_as(&anna, "/moved/1/1/0.png").await;
    assert_eq!(over.status, StatusCode::TOO_MANY_REQUESTS);
    let over = world.post(&anna, "/sign/moved/1/1/0.png", "").await;
    is(&over, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_page_elsewhere_signs_nothing_with_its_visitors_cookie() {
    let world = World::start(|_| {}).await;
    let cookie = format!("tilekeep_session={}", token(&anna()));
    let sign = async |more: &[(&str, &str)]| {
        let mut headers = vec![("cookie", cookie.as_str())];
        headers.extend_from_slice(more);
        world
            .server
            .send(Method::POST, "/sign/world/0/0/0.png", &headers, "")
            .await
    };
    for hostile in [
        &[("sec-fetch-site", "cross-site")][..],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "https://evil.example")],
        &[],
    ] {
        is(&sign(hostile).await, StatusCode::FORBIDDEN);
    }
    let own = sign(&[("sec-fetch-site", "same-origin")]).await;
    assert_eq!(own.status, StatusCode::OK);
}
