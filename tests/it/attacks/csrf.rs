//! Requests that a page of another site makes through its visitor's browser.

use std::net::SocketAddr;

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{APP, FORM, JSON, SAME, TILE, cookie, log_in, server};
use crate::support::Running;

/// What browsers say of a page elsewhere: new ones, old ones, a sandboxed frame, a sister domain.
const HOSTILE: [&[(&str, &str)]; 6] = [
    &[
        ("sec-fetch-site", "cross-site"),
        ("origin", "https://evil.example"),
    ],
    &[
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example.com"),
    ],
    &[("sec-fetch-site", "same-site")],
    &[("origin", "https://evil.example")],
    &[("origin", "null")],
    &[("origin", "https://app.example.com.evil.example")],
];

#[tokio::test]
async fn no_page_elsewhere_logs_anybody_in_whatever_form_it_sends() {
    let server = server().await;
    let form = "username=anna&password=secret";
    let json = r#"{"username":"anna","password":"secret"}"#;
    for hostile in HOSTILE {
        for (kind, body) in [
            (FORM, form),
            (JSON, json),
            (("content-type", "text/plain"), json),
        ] {
            let mut headers = vec![kind];
            headers.extend_from_slice(hostile);
            let answer = server.send(Method::POST, "/session", &headers, body).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{headers:?}");
            assert!(!answer.headers.contains_key("set-cookie"));
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn no_page_elsewhere_ends_or_renews_a_session() {
    let server = server().await;
    let cookie = cookie(&log_in(&server, "anna", "secret", &[]).await);
    for hostile in HOSTILE {
        for (method, path) in [
            (Method::DELETE, "/session"),
            (Method::POST, "/session/renew"),
        ] {
            let mut headers = vec![("cookie", cookie.as_str())];
            headers.extend_from_slice(hostile);
            let answer = server.send(method, path, &headers, "").await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path} {hostile:?}");
            assert!(!answer.headers.contains_key("set-cookie"));
            assert!(!answer.headers.contains_key("clear-site-data"));
        }
    }
    // Nor does it get what outlives its visit.
    for hostile in HOSTILE.into_iter().chain([&[][..]]) {
        for (path, body) in [
            ("/sign/world/0/0/0.png", ""),
            ("/credentials", r#"{"tileset":"world"}"#),
        ] {
            let mut headers = vec![("cookie", cookie.as_str())];
            headers.extend_from_slice(hostile);
            let answer = server.send(Method::POST, path, &headers, body).await;
            let said = String::from_utf8_lossy(&answer.body);
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path} {hostile:?}");
            assert!(said.contains("another site"), "{path} {hostile:?}: {said}");
        }
    }
    // A browser that says nothing of itself may not either, and a listed origin may.
    let silent = [("cookie", cookie.as_str())];
    let answer = server.send(Method::DELETE, "/session", &silent, "").await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    let listed = [
        ("cookie", cookie.as_str()),
        ("sec-fetch-site", "same-site"),
        ("origin", APP),
    ];
    let answer = server
        .send(Method::POST, "/session/renew", &listed, "")
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    server.stop().await;
}

#[tokio::test]
async fn a_preflight_promises_nothing_to_an_origin_that_is_not_listed() {
    let server = server().await;
    for origin in [
        "https://evil.example",
        "null",
        "https://APP.example.com",
        "http://app.example.com",
    ] {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type"),
            ("access-control-request-private-network", "true"),
        ];
        let sign = "/sign/world/0/0/0.png";
        for path in [
            "/session",
            "/session/renew",
            "/credentials",
            sign,
            TILE,
            "/",
        ] {
            let answer = server.send(Method::OPTIONS, path, &headers, "").await;
            assert_eq!(answer.status, StatusCode::NO_CONTENT);
            let allowed = answer
                .headers
                .keys()
                .find(|name| name.as_str().starts_with("access-control"));
            assert_eq!(allowed, None, "{origin} {path}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_method_cannot_be_changed_by_a_header_or_a_field() {
    let server = server().await;
    let cookie = cookie(&log_in(&server, "anna", "secret", &[]).await);
    let headers = [
        FORM,
        SAME,
        ("cookie", &cookie),
        ("x-http-method-override", "DELETE"),
    ];
    server
        .send(
            Method::POST,
            "/session?_method=DELETE",
            &headers,
            "_method=DELETE",
        )
        .await;
    let session = server
        .send(Method::GET, "/session", &[("cookie", &cookie)], "")
        .await;
    assert_eq!(session.status, StatusCode::OK);
    server.stop().await;
}

async fn purge(server: &Running, headers: &[(&str, &str)]) -> StatusCode {
    let body = r#"{"tileset":"world"}"#;
    let admin = server.addresses.admin;
    server
        .send_to(admin, Method::POST, "/purge", headers, body)
        .await
        .status
}

#[tokio::test]
async fn a_page_on_the_web_purges_nothing_and_reads_no_metrics() {
    let server = server().await;
    let port = server.addresses.admin.port();
    let zero = format!("0.0.0.0:{port}");
    for hostile in HOSTILE {
        assert_eq!(
            purge(&server, hostile).await,
            StatusCode::FORBIDDEN,
            "{hostile:?}"
        );
        // 0.0.0.0 is this machine too, and no browser's idea of loopback.
        let mut by_zero = vec![("host", zero.as_str())];
        by_zero.extend_from_slice(hostile);
        assert_eq!(
            purge(&server, &by_zero).await,
            StatusCode::FORBIDDEN,
            "{by_zero:?}"
        );
    }
    let image = [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "no-cors"),
    ];
    let admin = server.addresses.admin;
    for path in ["/metrics", "/readyz", "/healthz", "/"] {
        let answer = server.send_to(admin, Method::GET, path, &image, "").await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(purge(&server, &[]).await, StatusCode::OK, "a program may");
    server.stop().await;
}

#[tokio::test]
async fn a_name_that_was_rebound_to_loopback_does_not_open_the_admin_side() {
    let server = server().await;
    let port = server.addresses.admin.port();
    // For the browser the page and the port are one origin now; only the name tells.
    for name in [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.1",
        "tilekeep",
    ] {
        let host = format!("{name}:{port}");
        for host in [host.as_str(), name] {
            let rebound = [("host", host), SAME];
            assert_eq!(
                purge(&server, &rebound).await,
                StatusCode::BAD_REQUEST,
                "{host}"
            );
        }
    }
    for host in ["localhost", "127.0.0.1", "[::1]"] {
        let own = format!("{host}:{port}");
        assert_eq!(
            purge(&server, &[("host", &own)]).await,
            StatusCode::OK,
            "{own}"
        );
    }
    server.stop().await;
}

/// Sends raw text and reads the answer's first bytes.
async fn raw(to: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let patience = std::time::Duration::from_secs(10);
    let read = tokio::time::timeout(patience, stream.read(&mut answer)).await;
    let read = read.expect("an answer").unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

#[tokio::test]
async fn the_admin_side_is_named_once_and_refuses_before_it_reads() {
    let server = server().await;
    let admin = server.addresses.admin;
    let head = "Content-Type: application/json\r\nContent-Length: 4000000\r\n\r\n";
    for (name, start) in [
        (
            "two hosts",
            "POST /purge HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n",
        ),
        (
            "a target elsewhere",
            "POST http://evil.example/purge HTTP/1.1\r\nHost: localhost\r\n",
        ),
        (
            "a user",
            "POST /purge HTTP/1.1\r\nHost: localhost:1@evil.example\r\n",
        ),
        ("none", "POST /purge HTTP/1.0\r\n"),
        ("rebound", "POST /purge HTTP/1.1\r\nHost: evil.example\r\n"),
    ] {
        // Of four million bytes none is sent, and none is waited for.
        let answer = raw(admin, &format!("{start}{head}")).await;
        assert!(
            answer.starts_with("HTTP/1.") && answer.contains(" 400 "),
            "{name}: {answer}"
        );
    }
    server.stop().await;
}
