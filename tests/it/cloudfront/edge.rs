//! The distribution's own requests: what its secret opens, and for whom nothing changes.

use super::*;

const HEADER: &str = "x-tilekeep-origin-secret";

async fn get(server: &Running, path: &str, headers: &[(&str, &str)]) -> Answer {
    server.send(Method::GET, path, headers, "").await
}

/// `s-maxage` and `public` are for the distribution alone.
fn is_shared(answer: &Answer) -> bool {
    let control = answer.header("cache-control");
    control.starts_with("public, ") && control.contains("s-maxage=")
}

#[tokio::test]
async fn the_right_secret_is_answered_as_a_shared_cache_for_tiles() {
    let server = server().await;
    for secret in [SECRET, NEXT_SECRET] {
        let tile = get(&server, TILE, &[(HEADER, secret)]).await;
        assert_eq!(tile.status, StatusCode::OK);
        assert_eq!(&tile.body[..], b"tile of world");
        assert!(is_shared(&tile), "{tile:?}");
        assert!(!tile.headers.contains_key("set-cookie") && !tile.headers.contains_key("vary"));
    }
    let tile = get(&server, TILE, &[(HEADER, SECRET)]).await;
    let etag = tile.header("etag");
    let confirmed = get(&server, TILE, &[(HEADER, SECRET), ("if-none-match", etag)]).await;
    assert_eq!(confirmed.status, StatusCode::NOT_MODIFIED);
    assert_eq!(
        confirmed.header("cache-control"),
        tile.header("cache-control")
    );
    let version = get(&server, "/world/0/0/0.png?v=1", &[(HEADER, SECRET)]).await;
    assert_eq!(
        version.header("cache-control"),
        "public, max-age=4500, s-maxage=3600, immutable"
    );
    for absent in ["/world/1/0/0.png", "/world/9/0/0.png"] {
        let absent = get(&server, absent, &[(HEADER, SECRET)]).await;
        assert_eq!(absent.status, StatusCode::NOT_FOUND);
        assert_eq!(
            absent.header("cache-control"),
            "public, max-age=600, s-maxage=300"
        );
    }
    assert_eq!(
        metric(
            &server,
            "tilekeep_cloudfront_requests_total{secret=\"right\"}"
        )
        .await,
        "7"
    );
    server.stop().await;
}

#[tokio::test]
async fn it_opens_nothing_but_tiles_of_the_tilesets_that_go_through_it() {
    let server = server().await;
    for path in [
        // Under no signed cookie's path, though it is the same tile.
        "/0/0/0",
        "/hidden/0/0/0.png",
        "/nowhere/0/0/0.png",
        "/world/0/0/0/explain",
        "/world.json",
        "/session",
        "/",
        "/map",
    ] {
        let answer = get(&server, path, &[(HEADER, SECRET)]).await;
        let refused = answer.status == StatusCode::UNAUTHORIZED
            // A page for everybody shows what is public.
            || (matches!(path, "/" | "/map") && !answer.body.windows(10).any(|word| word == b"world.json"));
        assert!(refused, "{path}: {}", answer.status);
        assert!(!is_shared(&answer), "{path}");
    }
    let write = server
        .send(
            Method::POST,
            "/session/renew",
            &[(HEADER, SECRET), SAME],
            "",
        )
        .await;
    assert_eq!(write.status, StatusCode::UNAUTHORIZED);
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_secret_is_as_none_and_is_counted() {
    let server = server().await;
    let longer = format!("{SECRET}0");
    let wrong = [
        "",
        "x",
        &SECRET[1..],
        &longer,
        "0123456789ABCDEF0123456789ABCDEF",
    ];
    for secret in wrong {
        let answer = get(&server, TILE, &[(HEADER, secret)]).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{secret}");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    // Two are for two readers.
    let two = [(HEADER, SECRET), (HEADER, SECRET)];
    assert_eq!(
        get(&server, TILE, &two).await.status,
        StatusCode::UNAUTHORIZED
    );
    // With a session beside it, a wrong one changes nothing.
    let cookie = session_cookie(&support::claims());
    let own = get(&server, TILE, &[(HEADER, "x"), ("cookie", &cookie)]).await;
    assert_eq!(own.status, StatusCode::OK);
    assert!(own.header("cache-control").starts_with("private, "));
    assert_eq!(
        metric(
            &server,
            "tilekeep_cloudfront_requests_total{secret=\"wrong\"}"
        )
        .await,
        "7"
    );
    server.stop().await;

    // Where no secret is configured, none is right.
    let bare = server_with("ec", |config| {
        config.cloudfront.as_mut().unwrap().origin_secrets.clear();
    })
    .await;
    for secret in ["", SECRET] {
        let answer = get(&bare, TILE, &[(HEADER, secret)]).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    bare.stop().await;
    let without = server_with("ec", |config| config.cloudfront = None).await;
    let answer = get(&without, TILE, &[(HEADER, SECRET)]).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    without.stop().await;
}

#[tokio::test]
async fn nobody_else_is_ever_answered_as_a_shared_cache() {
    let server = server().await;
    let cookie = session_cookie(&support::claims());
    let logged_in = set_cookies(&log_in(&server).await).join("; ");
    for headers in [
        &[("cookie", cookie.as_str())][..],
        &[("cookie", logged_in.as_str())][..],
        &[
            ("cookie", cookie.as_str()),
            ("via", "1.1 x.cloudfront.net (CloudFront)"),
        ][..],
        &[
            ("cookie", cookie.as_str()),
            ("user-agent", "Amazon CloudFront"),
        ][..],
    ] {
        for path in [TILE, "/world/0/0/0.png?v=1", "/world/1/0/0.png", "/0/0/0"] {
            let answer = get(&server, path, headers).await;
            assert!(
                answer.header("cache-control").starts_with("private, "),
                "{path}"
            );
            assert!(!answer.header("cache-control").contains("s-maxage"));
        }
    }
    // A public tileset is as it always was.
    for headers in [&[][..], &[(HEADER, SECRET)][..]] {
        let open = get(&server, "/open/0/0/0.png", headers).await;
        let control = open.header("cache-control");
        assert!(control.starts_with("public, ") && !control.contains("s-maxage"));
    }
    server.stop().await;
}

#[tokio::test]
async fn what_viewers_sent_beside_it_changes_nothing_and_gets_no_cookie() {
    let server = server().await;
    let cookie = set_cookies(&log_in(&server).await)[0]
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    // Past half of its life: a tile answer of its own would renew it.
    server.clock.advance(Duration::from_hours(7));
    let counted = session_cookie(&Claims {
        quota: Some("counted".into()),
        maxzoom: Some(0),
        ..support::claims()
    });
    let ended = "__Host-tilekeep_session=rubbish";
    let alone = get(&server, TILE, &[(HEADER, SECRET)]).await;
    for cookie in [&cookie, &counted, ended] {
        let answer = get(&server, TILE, &[(HEADER, SECRET), ("cookie", cookie)]).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(!answer.headers.contains_key("set-cookie"));
        assert_eq!(
            answer.header("cache-control"),
            alone.header("cache-control")
        );
        let bearer = [(HEADER, SECRET), ("authorization", "Bearer rubbish")];
        assert_eq!(get(&server, TILE, &bearer).await.status, StatusCode::OK);
    }
    // No quota is spent: what a person asks of CloudFront is not counted here.
    let left = get(&server, "/session", &[("cookie", &counted)])
        .await
        .json();
    assert_eq!(left["distinct_tiles_left"], 100);
    server.stop().await;
}

#[tokio::test]
async fn cors_and_failures_are_for_the_distribution_as_for_anybody() {
    let app = "https://app.example.com";
    let server = server_with("ec", |config| {
        config.server.cors_origins = vec![WebOrigin::parse(app).unwrap()];
    })
    .await;
    let plain = get(&server, TILE, &[(HEADER, SECRET)]).await;
    assert_eq!(plain.header("vary"), "Origin");
    assert_eq!(plain.header("access-control-allow-origin"), "");
    let cross = get(&server, TILE, &[(HEADER, SECRET), ("origin", app)]).await;
    assert_eq!(cross.header("access-control-allow-origin"), app);
    let malformed = get(&server, "/world/00/0/0.png", &[(HEADER, SECRET)]).await;
    assert_eq!(malformed.status, StatusCode::BAD_REQUEST);
    assert!(!is_shared(&malformed));
    server.stop().await;
}
