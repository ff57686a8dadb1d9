//! The table of situations: what a tile request is answered with.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use tilekeep::auth::Claims;
use tilekeep::config::WebOrigin;
use tilekeep::origin::failing::{FailingOrigin, Fault, MemoryOrigin};
use tilekeep::origin::{OriginError, OriginErrorKind};
use tilekeep::tile::{Access, Bounds, MissingAnswer, Scale, TileCoord, TileFormat, TilesetSpec};

use crate::support::{self, Running, START, claims, config, spec, tileset, token};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n of a kind";
const ORIGIN: &str = "https://app.example.com";

fn at(z: u8, x: u32, y: u32) -> TileCoord {
    TileCoord::new(z, x, y).unwrap()
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn world() -> TilesetSpec {
    spec("world", TileFormat::Png)
}

/// `world` (PNG), `roads` (gzipped MVT) and `open` (public), each with the tile 3/1/2.
async fn server() -> (Running, Arc<FailingOrigin<MemoryOrigin>>) {
    server_with(|_| {}).await
}

async fn server_with(
    change: impl FnOnce(&mut tilekeep::config::Config),
) -> (Running, Arc<FailingOrigin<MemoryOrigin>>) {
    let open = TilesetSpec {
        access: Access::Public,
        ..spec("open", TileFormat::Png)
    };
    let roads = spec("roads", TileFormat::Mvt);
    let memory = MemoryOrigin::new();
    let modified = Some(1_700_000_000);
    memory.put(&tileset(world()), at(3, 1, 2), Scale::One, PNG, modified);
    memory.put(
        &tileset(roads.clone()),
        at(3, 1, 2),
        Scale::One,
        gzip(b"roads"),
        modified,
    );
    memory.put(&tileset(open.clone()), at(3, 1, 2), Scale::One, PNG, None);
    let origin = Arc::new(FailingOrigin::new(memory));
    let mut config = config([world(), roads, open]);
    config.server.cors_origins = vec![WebOrigin::parse(ORIGIN).unwrap()];
    change(&mut config);
    (support::start(config, origin.clone()).await, origin)
}

#[tokio::test]
async fn a_tile_has_all_its_headers_and_no_others_that_matter() {
    let (server, _) = server().await;
    let first = server.get("/world/3/1/2.png").await;
    assert_eq!(first.status, StatusCode::OK);
    assert_eq!(first.body, PNG);
    assert_eq!(first.header("content-type"), "image/png");
    assert_eq!(first.header("content-length"), PNG.len().to_string());
    assert_eq!(
        first.header("cache-status"),
        "tilekeep; fwd=miss; stored; detail=origin"
    );
    assert_eq!(
        first.header("last-modified"),
        "Tue, 14 Nov 2023 22:13:20 GMT"
    );
    assert_eq!(first.header("x-content-type-options"), "nosniff");
    assert_eq!(first.header("cross-origin-resource-policy"), "same-site");
    assert_eq!(first.header("vary"), "Origin");
    let control = first.header("cache-control");
    assert!(control.starts_with("private, max-age=") && control.contains("stale-if-error="));
    let etag = first.header("etag");
    assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag}");
    for absent in ["age", "expires", "content-encoding", "set-cookie"] {
        assert!(!first.headers.contains_key(absent), "{absent}");
    }
    let again = server.get("/world/3/1/2.png").await;
    assert_eq!(
        again.header("cache-status"),
        "tilekeep; hit; ttl=3600; detail=memory"
    );
    assert_eq!(
        (again.header("etag"), again.header("cache-control")),
        (etag, control)
    );
    server.stop().await;
}

#[tokio::test]
async fn aliases_are_the_same_entry() {
    let (server, origin) = server().await;
    for path in [
        "/world/3/1/2.png",
        "/world/3/1/2",
        "/3/1/2",
        "/3/1/2.png",
        "/world/3/1/2.png?x=1",
    ] {
        assert_eq!(server.get(path).await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(server.get("/roads/3/1/2.pbf").await.status, StatusCode::OK);
    assert_eq!(server.get("/roads/3/1/2.mvt").await.status, StatusCode::OK);
    assert_eq!(origin.calls(), 2);
    server.stop().await;
}

#[tokio::test]
async fn refusals_come_in_the_order_of_the_contract() {
    let (server, origin) = server().await;
    let nobody = async |method: Method, path: &str| server.send(method, path, &[], "").await;
    // Method before everything.
    let put = nobody(Method::PUT, "/world/3/1/2.png").await;
    assert_eq!(
        (put.status, put.header("allow")),
        (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD, OPTIONS")
    );
    assert_eq!(
        nobody(Method::PUT, "/w/03/1/2").await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
    assert_eq!(
        nobody(Method::OPTIONS, "/w/03/1/2").await.status,
        StatusCode::NO_CONTENT
    );
    // Malformed before the session.
    for path in [
        "/world/03/1/2",
        "/world/3/1/x.png",
        "/world/3/1/2@3x.png",
        "/world/3/1/-2",
        "//",
        "/%2e%2e/x",
    ] {
        assert_eq!(
            nobody(Method::GET, path).await.status,
            StatusCode::BAD_REQUEST,
            "{path}"
        );
    }
    // The session before whether the tileset exists.
    for path in [
        "/world/3/1/2.png",
        "/nowhere/3/1/2.png",
        "/world/9/1/2.png",
        "/world.json",
    ] {
        let answer = nobody(Method::GET, path).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    let narrow: Claims = serde_json::from_value(serde_json::json!({
        "sub": "b", "exp": START.secs() + 999, "tilesets": ["world"], "maxzoom": 3,
        "bounds": [-180.0, 0.0, 0.0, 85.0],
    }))
    .unwrap();
    let status = async |path: &str| server.get_as(&narrow, path).await.status;
    assert_eq!(status("/world/3/1/2.png").await, StatusCode::OK);
    assert_eq!(status("/roads/3/1/2.mvt").await, StatusCode::NOT_FOUND);
    assert_eq!(status("/nowhere/3/1/2.png").await, StatusCode::NOT_FOUND);
    assert_eq!(status("/world/4/1/2.png").await, StatusCode::FORBIDDEN);
    assert_eq!(status("/world/3/7/2.png").await, StatusCode::FORBIDDEN);
    let signer = Claims {
        scope: Some("sign".into()),
        ..claims()
    };
    assert_eq!(
        server.get_as(&signer, "/world/3/1/2.png").await.status,
        StatusCode::FORBIDDEN
    );
    // Then what the tileset cannot have, asking no origin.
    let calls = origin.calls();
    for path in [
        "/world/6/1/2.png",
        "/world/3/8/2.png",
        "/world/3/1/2.jpg",
        "/world/3/1/2@2x.png",
        "/world/99/0/0",
    ] {
        assert_eq!(
            server.get(path).await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    assert_eq!(origin.calls(), calls);
    server.stop().await;
}

#[tokio::test]
async fn only_page_navigations_are_sent_to_the_log_in() {
    let (server, _) = server().await;
    let with = async |headers: &[(&str, &str)]| {
        server
            .send(Method::GET, "/world/3/1/2.png?x=1", headers, "")
            .await
    };
    let navigation = with(&[("sec-fetch-mode", "navigate")]).await;
    assert_eq!(navigation.status, StatusCode::SEE_OTHER);
    assert_eq!(
        navigation.header("location"),
        "/login?next=/world/3/1/2.png%3Fx%3D1"
    );
    let old_browser = with(&[("accept", "text/html,application/xhtml+xml")]).await;
    assert_eq!(old_browser.status, StatusCode::SEE_OTHER);
    for headers in [
        [("sec-fetch-mode", "no-cors"), ("accept", "image/avif,*/*")],
        [("sec-fetch-mode", "cors"), ("accept", "text/html")],
    ] {
        assert_eq!(with(&headers).await.status, StatusCode::UNAUTHORIZED);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_conditional_request_is_answered_304_with_the_200s_headers() {
    let (server, _) = server().await;
    let full = server.get("/world/3/1/2.png").await;
    let etag = full.header("etag");
    let weak = format!("W/{etag}");
    let list = format!("\"x\", {etag}");
    for (name, value) in [
        ("if-none-match", etag),
        ("if-none-match", &weak),
        ("if-none-match", &list),
        ("if-none-match", "*"),
        ("if-modified-since", "Tue, 14 Nov 2023 22:13:20 GMT"),
    ] {
        let answer = server.get_with("/world/3/1/2.png", &[(name, value)]).await;
        assert_eq!(answer.status, StatusCode::NOT_MODIFIED, "{value}");
        for same in ["etag", "cache-control", "vary"] {
            assert_eq!(answer.header(same), full.header(same), "{same}");
        }
        assert!(answer.body.is_empty() && !answer.headers.contains_key("content-length"));
    }
    for (name, value) in [
        ("if-none-match", "\"x\""),
        ("if-modified-since", "Tue, 14 Nov 2023 22:13:19 GMT"),
        ("cache-control", "no-cache"),
        ("range", "bytes=0-3"),
    ] {
        let answer = server.get_with("/world/3/1/2.png", &[(name, value)]).await;
        assert_eq!(
            (answer.status, &answer.body[..]),
            (StatusCode::OK, PNG),
            "{value}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let (server, _) = server().await;
    let bearer = format!("Bearer {}", token(&claims()));
    let headers = [("authorization", bearer.as_str())];
    let get = server.get("/world/3/1/2.png").await;
    let head = server
        .send(Method::HEAD, "/world/3/1/2.png", &headers, "")
        .await;
    assert_eq!(head.status, StatusCode::OK);
    assert!(head.body.is_empty());
    for same in ["content-length", "content-type", "etag", "cache-control"] {
        assert_eq!(head.header(same), get.header(same), "{same}");
    }
    server.stop().await;
}

#[tokio::test]
async fn an_encoded_tile_is_declared_or_decoded() {
    let (server, _) = server().await;
    let encoded = server
        .get_with("/roads/3/1/2.mvt", &[("accept-encoding", "br, gzip")])
        .await;
    assert_eq!(encoded.header("content-encoding"), "gzip");
    assert_eq!(
        encoded.header("content-type"),
        "application/vnd.mapbox-vector-tile"
    );
    assert_eq!(encoded.header("vary"), "Accept-Encoding, Origin");
    assert_eq!(encoded.body, gzip(b"roads"));
    let plain = server.get("/roads/3/1/2.mvt").await;
    assert_eq!(&plain.body[..], b"roads");
    assert!(!plain.headers.contains_key("content-encoding"));
    assert_eq!(plain.header("vary"), "Accept-Encoding, Origin");
    assert_ne!(plain.header("etag"), encoded.header("etag"));
    let tag = plain.header("etag");
    let again = server
        .get_with("/roads/3/1/2.mvt", &[("if-none-match", tag)])
        .await;
    assert_eq!(again.status, StatusCode::NOT_MODIFIED);
    let other = [("if-none-match", tag), ("accept-encoding", "gzip")];
    assert_eq!(
        server.get_with("/roads/3/1/2.mvt", &other).await.status,
        StatusCode::OK
    );
    server.stop().await;
}

#[tokio::test]
async fn a_missing_tile_is_answered_as_its_tileset_says() {
    let kinds = [
        ("a", TileFormat::Png, None, StatusCode::NOT_FOUND),
        ("b", TileFormat::Mvt, None, StatusCode::NO_CONTENT),
        (
            "c",
            TileFormat::Mvt,
            Some(MissingAnswer::Gone),
            StatusCode::GONE,
        ),
        (
            "d",
            TileFormat::Png,
            Some(MissingAnswer::NoContent),
            StatusCode::NO_CONTENT,
        ),
        (
            "e",
            TileFormat::Jpg,
            Some(MissingAnswer::Blank),
            StatusCode::OK,
        ),
        (
            "f",
            TileFormat::Mvt,
            Some(MissingAnswer::Blank),
            StatusCode::OK,
        ),
    ];
    let specs = kinds.map(|(name, format, missing, _)| TilesetSpec {
        missing,
        ..spec(name, format)
    });
    let server = support::start(config(specs), Arc::new(MemoryOrigin::new())).await;
    for (name, _, _, status) in kinds {
        let answer = server.get(&format!("/{name}/1/0/0")).await;
        assert_eq!(answer.status, status, "{name}");
        assert_eq!(
            answer.header("cache-control"),
            "private, max-age=300",
            "{name}"
        );
        assert_eq!(
            answer.header("cache-status"),
            "tilekeep; fwd=miss; stored; detail=origin"
        );
        let again = server.get(&format!("/{name}/1/0/0")).await;
        assert_eq!(
            again.header("cache-status"),
            "tilekeep; hit; ttl=300; detail=memory"
        );
    }
    let blank = server.get("/e/1/0/0").await;
    assert_eq!(blank.header("content-type"), "image/png");
    assert!(blank.body.starts_with(b"\x89PNG"));
    assert_eq!(server.get("/f/1/0/0").await.body.len(), 0);
    server.stop().await;
}

#[tokio::test]
async fn the_origins_failures_keep_their_meaning() {
    use OriginErrorKind as Kind;
    for (kind, status) in [
        (Kind::Denied, StatusCode::BAD_GATEWAY),
        (Kind::Server, StatusCode::BAD_GATEWAY),
        (Kind::Truncated, StatusCode::BAD_GATEWAY),
        (Kind::Unreachable, StatusCode::BAD_GATEWAY),
        (Kind::Throttled, StatusCode::SERVICE_UNAVAILABLE),
        (Kind::HeldBack, StatusCode::SERVICE_UNAVAILABLE),
        (Kind::Deadline, StatusCode::GATEWAY_TIMEOUT),
    ] {
        let (server, origin) = server().await;
        let secret = "bucket acme-tiles, key world/3/1/2.png, AKIAEXAMPLE";
        origin.fail_next(1, Fault::Error(OriginError::new(kind, secret)));
        let failed = server.get("/world/3/1/2.png").await;
        assert_eq!(failed.status, status, "{kind:?}");
        assert_eq!(failed.header("cache-control"), "no-store");
        assert!(failed.header("retry-after").parse::<u32>().unwrap() >= 1);
        let text = String::from_utf8(failed.body.to_vec()).unwrap();
        assert!(!text.contains("acme") && !text.contains("AKIA"), "{text}");
        // And nothing of it was kept.
        assert_eq!(server.get("/world/3/1/2.png").await.status, StatusCode::OK);
        server.stop().await;
    }
}

#[tokio::test]
async fn cors_is_on_every_answer_for_a_listed_origin_alone() {
    let (server, origin) = server().await;
    let tag = server
        .get("/world/3/1/2.png")
        .await
        .header("etag")
        .to_owned();
    origin.fail_next(1, Fault::error(OriginErrorKind::Server));
    let bearer = format!("Bearer {}", token(&claims()));
    let auth = ("authorization", bearer.as_str());
    for (headers, path, status) in [
        (vec![auth], "/world/2/0/0.png", 502),
        (vec![auth], "/world/3/1/2.png", 200),
        (vec![auth, ("if-none-match", &tag)], "/world/3/1/2.png", 304),
        (vec![auth], "/world/3/3/3.png", 404),
        (vec![auth], "/world/x/3/3.png", 400),
        (vec![], "/world/3/1/2.png", 401),
        (vec![auth], "/world.json", 200),
        (vec![], "/login", 200),
    ] {
        let mut ours = headers.clone();
        ours.push(("origin", ORIGIN));
        let answer = server.send(Method::GET, path, &ours, "").await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert_eq!(
            answer.header("access-control-allow-origin"),
            ORIGIN,
            "{path}"
        );
        assert_eq!(answer.header("access-control-allow-credentials"), "true");
        assert_eq!(
            answer.header("access-control-expose-headers"),
            "Cache-Status, ETag, Retry-After"
        );
        assert!(answer.header("vary").contains("Origin"));
        let mut theirs = headers;
        theirs.push(("origin", "https://evil.example"));
        let answer = server.send(Method::GET, path, &theirs, "").await;
        assert!(
            !answer.headers.contains_key("access-control-allow-origin"),
            "{path}"
        );
        assert!(answer.header("vary").contains("Origin"));
    }
    let preflight = server
        .send(
            Method::OPTIONS,
            "/world/3/1/2.png",
            &[("origin", ORIGIN)],
            "",
        )
        .await;
    assert_eq!(preflight.status, StatusCode::NO_CONTENT);
    assert_eq!(
        preflight.header("access-control-allow-methods"),
        "GET, HEAD, OPTIONS"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_version_in_the_url_makes_the_answer_immutable_within_the_session() {
    let versioned = TilesetSpec {
        version: Some("2026-11".into()),
        ..world()
    };
    let memory = MemoryOrigin::new();
    memory.put(
        &tileset(versioned.clone()),
        at(3, 1, 2),
        Scale::One,
        PNG,
        None,
    );
    let server = support::start(config([versioned]), Arc::new(memory)).await;
    let control = async |path: &str| server.get(path).await.header("cache-control").to_owned();
    assert_eq!(
        control("/world/3/1/2.png?v=2026-11").await,
        "private, max-age=86400, immutable"
    );
    assert!(
        control("/world/3/1/2.png?v=2026-10")
            .await
            .contains("stale-while-revalidate")
    );
    let json = server.get("/world.json").await.json();
    let template = json["tiles"][0].as_str().unwrap();
    assert!(
        template.ends_with("/world/{z}/{x}/{y}.png?v=2026-11"),
        "{template}"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_public_tileset_needs_no_session_and_the_others_do() {
    let (server, _) = server().await;
    let open = server.send(Method::GET, "/open/3/1/2.png", &[], "").await;
    assert_eq!(open.status, StatusCode::OK);
    assert!(open.header("cache-control").starts_with("public, max-age="));
    assert_eq!(open.header("cross-origin-resource-policy"), "cross-origin");
    let list = server
        .send(Method::GET, "/", &[("accept", "application/json")], "")
        .await;
    assert_eq!(list.json().as_array().unwrap().len(), 1);
    assert_eq!(list.json()[0]["name"], "open");
    server.stop().await;
}

#[tokio::test]
async fn bounds_and_tilejson_are_those_of_the_tileset() {
    let fiji = TilesetSpec {
        bounds: Bounds::new([176.0, -20.0, -178.0, -15.0]).unwrap(),
        attribution: "Survey".into(),
        ..world()
    };
    let memory = MemoryOrigin::new();
    memory.put(&tileset(fiji.clone()), at(4, 15, 8), Scale::One, PNG, None);
    let server = support::start(config([fiji]), Arc::new(memory)).await;
    assert_eq!(server.get("/world/4/15/8.png").await.status, StatusCode::OK);
    let outside = server.get("/world/4/8/8.png").await;
    assert_eq!(outside.status, StatusCode::NOT_FOUND);
    assert_eq!(outside.header("cache-control"), "private, max-age=300");
    assert!(
        !outside.headers.contains_key("cache-status"),
        "no cache was asked"
    );
    let json = server.get("/world.json").await.json();
    let base = format!("http://{}", server.addresses.public);
    assert_eq!(json["tilejson"], "3.0.0");
    assert_eq!(
        json["tiles"][0],
        format!("{base}/world/{{z}}/{{x}}/{{y}}.png")
    );
    assert_eq!(
        json["bounds"],
        serde_json::json!([176.0, -20.0, -178.0, -15.0])
    );
    assert_eq!(json["attribution"], "Survey");
    server.stop().await;
}

#[tokio::test]
async fn tilejson_says_what_the_session_may_see() {
    let (server, _) = server().await;
    let confined = Claims {
        maxzoom: Some(3),
        bounds: Some([5.0, 44.0, 12.0, 48.0]),
        ..claims()
    };
    let json = server.get_as(&confined, "/world.json").await.json();
    assert_eq!(json["maxzoom"], 3);
    assert_eq!(json["bounds"], serde_json::json!([5.0, 44.0, 12.0, 48.0]));
    let deepest = server.get_as(&confined, "/world/3/4/2.png").await.status;
    assert_ne!(deepest, StatusCode::FORBIDDEN);
    let beyond = server.get_as(&confined, "/world/4/8/5.png").await.status;
    assert_eq!(beyond, StatusCode::FORBIDDEN);
    let open = server.get_as(&confined, "/open.json").await.json();
    let whole = server.get("/open.json").await.json();
    assert_eq!(open, whole, "everybody sees all of a public tileset");
    server.stop().await;
}

#[tokio::test]
async fn explain_needs_its_scope_and_tells_where_a_tile_is() {
    let (server, _) = server().await;
    let explainer = Claims {
        scope: Some("tiles explain".into()),
        ..claims()
    };
    let path = "/world/3/1/2/explain";
    assert_eq!(server.get(path).await.status, StatusCode::FORBIDDEN);
    let before = server.get_as(&explainer, path).await.json();
    assert!(before["memory"].is_null());
    server.get("/world/3/1/2.png").await;
    server.clock.advance(Duration::from_secs(100));
    let after = server.get_as(&explainer, path).await.json();
    assert_eq!(after["memory"]["freshness"], "fresh");
    assert_eq!(after["memory"]["ttl_seconds"], 3500);
    server.stop().await;
}
