//! `/tilekeep.js`: what other people's pages include.

use http::{Method, StatusCode};
use tilekeep::config::WebOrigin;
use tilekeep::origin::failing::MemoryOrigin;
use tilekeep::tile::TileFormat;

use crate::support::{self, Answer, Running, config, spec};

async fn server() -> Running {
    let mut config = config([spec("world", TileFormat::Png)]);
    config.server.cors_origins = vec![WebOrigin::parse("https://app.example.com").unwrap()];
    support::start(config, std::sync::Arc::new(MemoryOrigin::new())).await
}

async fn get(server: &Running, headers: &[(&str, &str)]) -> Answer {
    server.send(Method::GET, "/tilekeep.js", headers, "").await
}

#[tokio::test]
async fn any_page_may_include_the_script_without_a_session() {
    let server = server().await;
    let cross_site = [
        ("origin", "https://elsewhere.example"),
        ("sec-fetch-site", "cross-site"),
    ];
    let plain = get(&server, &cross_site).await;
    assert_eq!(plain.status, StatusCode::OK);
    for (name, value) in [
        ("content-type", "text/javascript; charset=utf-8"),
        (
            "cache-control",
            "public, max-age=3600, stale-while-revalidate=86400",
        ),
        ("cross-origin-resource-policy", "cross-origin"),
        ("access-control-allow-origin", "*"),
        ("x-content-type-options", "nosniff"),
        ("content-encoding", ""),
        ("set-cookie", ""),
    ] {
        assert_eq!(plain.header(name), value, "{name}");
    }
    let vary: Vec<_> = plain.headers.get_all("vary").iter().collect();
    assert!(vary.iter().any(|v| v.to_str().unwrap().contains("ncoding")));
    assert!(plain.body.starts_with(b"// Tilekeep"));

    let listed = get(&server, &[("origin", "https://app.example.com")]).await;
    assert_eq!(
        listed.header("access-control-allow-origin"),
        "https://app.example.com"
    );
    server.stop().await;
}

#[tokio::test]
async fn the_script_comes_compressed_and_is_revalidated_without_its_bytes() {
    let server = server().await;
    let sent = get(&server, &[("accept-encoding", "gzip")]).await;
    assert_eq!(sent.header("content-encoding"), "gzip");
    assert!(sent.body.len() < 16_000, "{} bytes", sent.body.len());
    let etag = sent.header("etag");
    let again = get(
        &server,
        &[("accept-encoding", "gzip"), ("if-none-match", etag)],
    )
    .await;
    assert_eq!(again.status, StatusCode::NOT_MODIFIED);
    assert!(again.body.is_empty());
    for name in ["etag", "cache-control", "vary"] {
        assert_eq!(again.header(name), sent.header(name), "{name}");
    }
    server.stop().await;
}

/// The script learns from the log-in page how one signs in.
#[test]
fn the_script_looks_for_what_the_log_in_page_has() {
    let script = include_str!("../../web/static/tilekeep.js");
    let page = include_str!("../../web/templates/login.html");
    for id in [r#"id="login-form""#, r#"id="login-oidc""#] {
        assert!(script.contains(id), "{id} in tilekeep.js");
        assert!(page.contains(id), "{id} in login.html");
    }
}
