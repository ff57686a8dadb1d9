//! Logging in and out over HTTP, and who may do so.

use std::sync::Arc;

use http::{Method, StatusCode};
use tilekeep::config::WebOrigin;
use tilekeep::origin::failing::MemoryOrigin;
use tilekeep::tile::{Scale, TileCoord, TileFormat};

use crate::support::{self, Answer, Running, config, spec, tileset};

const SAME: (&str, &str) = ("sec-fetch-site", "same-origin");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const JSON: (&str, &str) = ("content-type", "application/json");
const APP: &str = "https://app.example.com";

async fn server() -> Running {
    let world = spec("world", TileFormat::Png);
    let memory = MemoryOrigin::new();
    memory.put(
        &tileset(world.clone()),
        TileCoord::new(0, 0, 0).unwrap(),
        Scale::One,
        "tile",
        None,
    );
    let mut config = config([world]);
    config.server.cors_origins = vec![WebOrigin::parse(APP).unwrap()];
    support::start(config, Arc::new(memory)).await
}

async fn log_in(server: &Running, user: &str, password: &str, headers: &[(&str, &str)]) -> Answer {
    let mut all = vec![JSON];
    all.extend_from_slice(headers);
    let body = serde_json::json!({ "username": user, "password": password }).to_string();
    server.send(Method::POST, "/session", &all, body).await
}

fn cookie(answer: &Answer) -> String {
    answer
        .header("set-cookie")
        .split(';')
        .next()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn a_log_in_gives_a_cookie_that_opens_tiles_until_the_log_out() {
    let server = server().await;
    let session = log_in(&server, "anna", "secret", &[]).await;
    assert_eq!(session.status, StatusCode::OK);
    assert_eq!(session.json()["sub"], "anna");
    let set = session.header("set-cookie");
    for part in [
        "tilekeep_session=",
        "; HttpOnly",
        "; SameSite=Lax",
        "; Path=/",
        "; Max-Age=43200",
    ] {
        assert!(set.contains(part), "{set}");
    }
    assert!(!set.contains("Secure"), "plain http on loopback: {set}");
    let cookie = cookie(&session);
    let with = |extra: &[(&'static str, &'static str)]| {
        let mut headers = vec![("cookie", cookie.as_str())];
        headers.extend_from_slice(extra);
        headers
    };
    let tile = server
        .send(Method::GET, "/world/0/0/0.png", &with(&[]), "")
        .await;
    assert_eq!(tile.status, StatusCode::OK);
    let shown = server.send(Method::GET, "/session", &with(&[]), "").await;
    assert_eq!(shown.json()["exp"], session.json()["exp"]);
    let ended = server
        .send(Method::DELETE, "/session", &with(&[SAME]), "")
        .await;
    assert_eq!(ended.status, StatusCode::NO_CONTENT);
    assert_eq!(ended.header("clear-site-data"), "\"cache\"");
    assert!(ended.header("set-cookie").contains("Max-Age=0"));
    for path in ["/world/0/0/0.png", "/session"] {
        let after = server.send(Method::GET, path, &with(&[]), "").await;
        assert_eq!(after.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_form_goes_on_to_where_it_came_from_but_never_elsewhere() {
    let server = server().await;
    for (next, place) in [
        ("%2Fmap%23x%3D1", "/map#x=1"),
        ("%2F%2Fevil.example", "/"),
        ("", "/"),
    ] {
        let body = format!("username=anna&password=secret&next={next}");
        let answer = server
            .send(Method::POST, "/session", &[FORM, SAME], body)
            .await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER);
        assert_eq!(answer.header("location"), place);
        assert!(answer.header("set-cookie").starts_with("tilekeep_session="));
    }
    let wrong = "username=anna%22%3E&password=no&next=%2Fmap";
    let refused = server
        .send(Method::POST, "/session", &[FORM, SAME], wrong)
        .await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    let page = String::from_utf8(refused.body.to_vec()).unwrap();
    assert!(page.contains("Name or password is wrong."));
    assert!(!page.contains("anna\">"), "what was typed is escaped");
    assert!(
        refused
            .header("content-security-policy")
            .contains("default-src 'none'")
    );
    server.stop().await;
}

#[tokio::test]
async fn a_page_of_another_site_can_neither_log_in_nor_out() {
    let server = server().await;
    let session = log_in(&server, "anna", "secret", &[]).await;
    let cookie = cookie(&session);
    let hostile: [&[(&str, &str)]; 4] = [
        &[
            ("sec-fetch-site", "cross-site"),
            ("origin", "https://evil.example"),
        ],
        // A sister domain is not this site.
        &[
            ("sec-fetch-site", "same-site"),
            ("origin", "https://evil.example.com"),
        ],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
    ];
    for headers in hostile {
        let answer = log_in(&server, "anna", "secret", headers).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{headers:?}");
        for (method, path) in [
            (Method::DELETE, "/session"),
            (Method::POST, "/session/renew"),
        ] {
            let mut all = vec![("cookie", cookie.as_str())];
            all.extend_from_slice(headers);
            let answer = server.send(method, path, &all, "").await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path} {headers:?}");
        }
    }
    // A form without either header, or JSON with a cookie: no browser of today, and no program.
    let body = "username=anna&password=secret";
    let form = server.send(Method::POST, "/session", &[FORM], body).await;
    assert_eq!(form.status, StatusCode::FORBIDDEN);
    let with_cookie = log_in(&server, "anna", "secret", &[("cookie", "a=b")]).await;
    assert_eq!(with_cookie.status, StatusCode::FORBIDDEN);
    // A listed origin may.
    let listed = [("sec-fetch-site", "same-site"), ("origin", APP)];
    assert_eq!(
        log_in(&server, "anna", "secret", &listed).await.status,
        StatusCode::OK
    );
    let shown = server
        .send(Method::GET, "/session", &[("cookie", &cookie)], "")
        .await;
    assert_eq!(shown.status, StatusCode::OK, "the session is still there");
    server.stop().await;
}

#[tokio::test]
async fn a_log_in_as_somebody_else_ends_the_first_and_clears_the_cache() {
    let server = server().await;
    let annas = cookie(&log_in(&server, "anna", "secret", &[]).await);
    let berts = log_in(&server, "bert", "other", &[SAME, ("cookie", &annas)]).await;
    assert_eq!(berts.header("clear-site-data"), "\"cache\"");
    let shown = server
        .send(Method::GET, "/session", &[("cookie", &annas)], "")
        .await;
    assert_eq!(shown.status, StatusCode::UNAUTHORIZED);
    server.stop().await;
}

#[tokio::test]
async fn guessing_is_slowed_down() {
    let server = server().await;
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(log_in(&server, "anna", "guess", &[]).await.status);
    }
    assert_eq!(statuses[0], StatusCode::UNAUTHORIZED);
    assert_eq!(statuses[7], StatusCode::TOO_MANY_REQUESTS);
    server.stop().await;
}

#[tokio::test]
async fn a_session_past_half_its_life_is_renewed_by_a_tile_that_its_cookie_opened() {
    let server = server().await;
    let session = log_in(&server, "anna", "secret", &[]).await;
    let cookie = cookie(&session);
    let headers = [("cookie", cookie.as_str())];
    let early = server
        .send(Method::GET, "/world/0/0/0.png", &headers, "")
        .await;
    assert!(!early.headers.contains_key("set-cookie"));
    server.clock.advance(std::time::Duration::from_hours(7));
    let missing = server
        .send(Method::GET, "/world/1/0/0.png", &headers, "")
        .await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert!(
        !missing.headers.contains_key("set-cookie"),
        "only 200 and 304 renew"
    );
    let late = server
        .send(Method::GET, "/world/0/0/0.png", &headers, "")
        .await;
    assert!(late.header("set-cookie").starts_with("tilekeep_session="));
    let again = server
        .send(Method::GET, "/world/0/0/0.png", &headers, "")
        .await;
    assert!(!again.headers.contains_key("set-cookie"), "once a minute");
    server.stop().await;
}

#[tokio::test]
async fn a_renewal_comes_back_the_way_the_session_came() {
    let server = server().await;
    let cookie = cookie(&log_in(&server, "anna", "secret", &[]).await);
    let token = cookie.split_once('=').unwrap().1;
    server.clock.advance(std::time::Duration::from_hours(1));
    let renew = async |headers: &[(&str, &str)]| {
        server
            .send(Method::POST, "/session/renew", headers, "")
            .await
    };
    let by_cookie = renew(&[("cookie", &cookie), SAME]).await;
    assert!(
        by_cookie
            .header("set-cookie")
            .starts_with("tilekeep_session=")
    );
    assert!(
        by_cookie.json().get("token").is_none(),
        "a page's script never sees it"
    );
    let bearer = format!("Bearer {token}");
    let by_bearer = renew(&[("authorization", &bearer)]).await;
    assert_eq!(by_bearer.status, StatusCode::OK);
    assert!(
        !by_bearer.headers.contains_key("set-cookie"),
        "nothing is planted"
    );
    assert!(by_bearer.json()["token"].as_str().unwrap().len() > 100);
    server.stop().await;
}

#[tokio::test]
async fn a_dead_cookie_is_taken_away_by_the_log_out() {
    let server = server().await;
    let dead = [("cookie", "tilekeep_session=dead"), SAME];
    let answer = server.send(Method::DELETE, "/session", &dead, "").await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(answer.header("set-cookie").contains("Max-Age=0"));
    assert_eq!(answer.header("clear-site-data"), "\"cache\"");
    let nobody = server.send(Method::DELETE, "/session", &[SAME], "").await;
    assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);
    server.stop().await;
}

#[tokio::test]
async fn the_admin_side_answers_to_itself_alone() {
    let server = server().await;
    let admin = server.addresses.admin;
    let get = async |path: &str, headers: &[(&str, &str)]| {
        server.send_to(admin, Method::GET, path, headers, "").await
    };
    server.get("/world/0/0/0.png").await;
    let metrics = get("/metrics", &[]).await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(
        text.contains("tilekeep_tiles_served_total{source=\"origin\"} 1"),
        "{text}"
    );
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(path, &[]).await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(
        get("/metrics", &[("host", "evil.example")]).await.status,
        StatusCode::BAD_REQUEST
    );
    let purge = server
        .send_to(
            admin,
            Method::POST,
            "/purge",
            &[],
            r#"{"tileset":"world","minzoom":0}"#,
        )
        .await;
    assert_eq!(purge.json(), serde_json::json!({ "memory": 1, "disk": 0 }));
    let typo = server
        .send_to(admin, Method::POST, "/purge", &[], r#"{"tileste":"world"}"#)
        .await;
    assert_eq!(typo.status, StatusCode::BAD_REQUEST);
    assert!(typo.json()["detail"].as_str().unwrap().contains("tileste"));
    assert_eq!(
        get("/metrics", &[("sec-fetch-site", "cross-site")])
            .await
            .status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        get("/metrics", &[("origin", "https://evil.example")])
            .await
            .status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        server.send(Method::GET, "/metrics", &[], "").await.status,
        StatusCode::NOT_FOUND
    );
    server.stop().await;
}
