//! What an answer lets a browser do: where it is sent, what it may run, what it takes for a header.

use http::{Method, StatusCode};

use super::{FORM, SAME, TILE, cookie, log_in, server};
use crate::support::Answer;

/// Places elsewhere, in the spellings that browsers have fallen for.
const ELSEWHERE: [&str; 14] = [
    "https://evil.example",
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "http:evil.example",
    "javascript:alert(1)",
    "data:text/html,x",
    "evil.example",
    "/%0d%0a\r\nSet-Cookie: a=b",
    "/\u{2028}/evil.example",
    " /evil",
];

/// Every byte escaped.
fn encode(text: &str) -> String {
    let escape = |text: String, byte: u8| text + &format!("%{byte:02X}");
    text.bytes().fold(String::new(), escape)
}

#[tokio::test]
async fn next_leads_nowhere_else_after_a_log_in_nor_on_the_page() {
    let server = server().await;
    for place in ELSEWHERE {
        let body = format!("username=anna&password=secret&next={}", encode(place));
        let answer = server
            .send(Method::POST, "/session", &[FORM, SAME], body)
            .await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER);
        assert_eq!(answer.header("location"), "/", "{place:?}");
        assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 1);
        let path = format!("/login?next={}", encode(place));
        let page = server.send(Method::GET, &path, &[], "").await;
        let page = String::from_utf8(page.body.to_vec()).unwrap();
        assert!(page.contains(r#"name="next" value="/""#), "{place:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_way_to_the_log_in_carries_the_place_escaped_and_never_a_host() {
    let server = server().await;
    let navigates = [("sec-fetch-mode", "navigate")];
    let to = async |path: &str| {
        let answer = server.send(Method::GET, path, &navigates, "").await;
        (answer.status, answer.header("location").to_owned())
    };
    let (status, place) = to("/world/0/0/0.png?a=//evil.example&b=%0d%0aX:y").await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let escaped = "/login?next=/world/0/0/0.png%3Fa%3D//evil.example%26b%3D%250d%250aX%3Ay";
    assert_eq!(place, escaped);
    for path in [
        "//evil.example",
        "//evil.example/world.json",
        "/\\evil.example/1",
    ] {
        let (status, place) = to(path).await;
        assert_eq!(
            (status, place.as_str()),
            (StatusCode::BAD_REQUEST, ""),
            "{path}"
        );
    }
    let long = format!("/world/0/0/0.png?{}", "x".repeat(20_000));
    assert_eq!(
        to(&long).await,
        (StatusCode::SEE_OTHER, "/login?next=/".to_owned())
    );
    server.stop().await;
}

#[tokio::test]
async fn nothing_that_is_sent_becomes_a_header_or_markup() {
    let server = server().await;
    let odd = "x\r\nSet-Cookie: a=b\r\n\r\n<script>alert(1)</script>\"'";
    let body = format!("username={}&password=p&next={}", encode(odd), encode(odd));
    let page = server
        .send(Method::POST, "/session", &[FORM, SAME], body)
        .await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    assert!(!page.headers.contains_key("set-cookie"));
    let text = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(!text.contains("<script>alert"), "{text}");
    let origin = [("origin", "https://evil.example")];
    let echoed = server.get_with(TILE, &origin).await;
    assert!(!echoed.headers.contains_key("access-control-allow-origin"));
    // Decoded nowhere, so no second reading of a path can differ from the first.
    for path in [
        "/world/0/0/0.png%0d%0aX-A:b",
        "/w%6frld/0/0/0.png",
        "/world%2f0%2f0%2f0.png",
        "/world/0/0/%2e%2e/0.png",
        "/open/../world/0/0/0.png",
        "/open/..%2fworld/0/0/0.png",
        "/world;a=b/0/0/0.png",
        "/world/0/0/0.png/",
        "/world/0/0/0.png%00",
        "/world.json%23",
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
        assert!(!answer.headers.contains_key("x-a"));
    }
    server.stop().await;
}

/// Every answer has these, whoever made it; a page has a policy of its own.
fn assert_shielded(what: &str, answer: &Answer) {
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("x-frame-options", "DENY"),
    ] {
        assert_eq!(answer.header(name), value, "{what} {}", answer.status);
    }
    assert!(
        answer.header("permissions-policy").contains("camera=()"),
        "{what}"
    );
    let policy = answer.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'"), "{what}: {policy}");
    assert!(
        policy.contains("frame-ancestors 'none'"),
        "{what}: {policy}"
    );
    assert!(policy.contains("base-uri 'none'"), "{what}: {policy}");
    for hole in ["unsafe", "http:", "https:", " * ", "*;"] {
        assert!(!policy.contains(hole), "{what}: {policy}");
    }
    assert_eq!(answer.header("cache-control"), "no-store", "{what}");
}

#[tokio::test]
async fn every_page_error_and_session_is_shielded_on_both_sides() {
    let server = server().await;
    let session = log_in(&server, "anna", "secret", &[]).await;
    assert_shielded("log-in", &session);
    assert_eq!(
        session.header("cross-origin-resource-policy"),
        "same-origin"
    );
    let cookie = cookie(&session);
    let html = [("cookie", cookie.as_str()), ("accept", "text/html")];
    for path in [
        "/",
        "/map",
        "/login",
        "/session",
        "/world.json",
        "/healthz",
        "/nothing",
        "/world/0/0/0/explain",
    ] {
        let answer = server.send(Method::GET, path, &html, "").await;
        assert_shielded(path, &answer);
        if answer.header("content-type").starts_with("text/html") {
            let policy = answer.header("content-security-policy");
            assert!(policy.contains("script-src 'self'") && policy.contains("form-action 'self'"));
            assert_eq!(answer.header("cross-origin-resource-policy"), "same-origin");
        }
    }
    let page = server
        .send(
            Method::POST,
            "/session",
            &[FORM, SAME],
            "username=a&password=b",
        )
        .await;
    assert!(page.header("content-type").starts_with("text/html"));
    assert_shielded("a refused log-in", &page);
    let large = server
        .send(Method::POST, "/session", &[FORM, SAME], "x".repeat(20_000))
        .await;
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_shielded("too large", &large);
    for (method, path) in [
        (Method::GET, TILE),
        (Method::GET, "/w%20/0/0/0"),
        (Method::POST, TILE),
        (Method::PUT, "/session"),
        (Method::DELETE, "/session"),
    ] {
        let answer = server.send(method.clone(), path, &[], "").await;
        assert_eq!(
            answer.header("content-type"),
            "application/problem+json",
            "{method} {path}"
        );
        assert_shielded(path, &answer);
    }
    let admin = server.addresses.admin;
    for path in ["/metrics", "/healthz", "/readyz", "/nothing", "/"] {
        let answer = server.send_to(admin, Method::GET, path, &[], "").await;
        assert_shielded(path, &answer);
    }
    let rebound = [("host", "evil.example")];
    let refused = server
        .send_to(admin, Method::GET, "/metrics", &rebound, "")
        .await;
    assert_shielded("rebound", &refused);
    let purge = server
        .send_to(admin, Method::POST, "/purge", &[], "{}")
        .await;
    assert_shielded("purge", &purge);
    server.stop().await;
}

#[tokio::test]
async fn a_tile_is_taken_for_nothing_else_and_embedded_by_no_other_site() {
    let server = server().await;
    for (path, embedders) in [(TILE, "same-site"), ("/open/0/0/0.png", "cross-origin")] {
        let tile = server.get(path).await;
        assert_eq!(tile.status, StatusCode::OK);
        assert_eq!(tile.header("x-content-type-options"), "nosniff");
        assert_eq!(tile.header("cross-origin-resource-policy"), embedders);
        assert_eq!(tile.header("content-type"), "image/png");
    }
    let missing = server.get("/world/1/0/0.png").await;
    assert_eq!(missing.header("x-content-type-options"), "nosniff");
    server.stop().await;
}
