//! Names and schemes that a request claims for this server.

use bytes::Bytes;
use http::{Method, Request, StatusCode, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tilekeep::config::{Config, WebOrigin};

use super::{cookie, log_in, server, server_with};
use crate::support::{Running, claims, token};

fn behind_a_proxy(config: &mut Config) {
    config.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
}

/// The first tile URL of the TileJSON that these headers get.
async fn tile_url(server: &Running, headers: &[(&str, &str)]) -> String {
    let answer = server.get_with("/world.json", headers).await;
    assert_eq!(
        answer.header("cache-control"),
        "no-store",
        "poisoned or not, nobody keeps it"
    );
    answer.json()["tiles"][0].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_host_header_poisons_no_tilejson() {
    let own = server().await;
    let here = format!("http://{}/", own.addresses.public);
    for headers in [
        &[("host", "evil.example")][..],
        &[("host", "127.0.0.1.evil.example")],
        &[("x-forwarded-host", "evil.example")],
        &[
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
        ],
        &[("forwarded", "host=evil.example;proto=https")],
        &[
            ("x-original-url", "/other.json"),
            ("x-rewrite-url", "/other.json"),
        ],
    ] {
        let url = tile_url(&own, headers).await;
        assert!(url.starts_with(&here), "{headers:?}: {url}");
        let list = own
            .get_with("/", &[&[("accept", "application/json")], headers].concat())
            .await;
        assert!(!String::from_utf8_lossy(&list.body).contains("evil"));
    }
    own.stop().await;

    let url = "https://tiles.example.com";
    let public = server_with(|config| {
        behind_a_proxy(config);
        config.server.public_url = Some(WebOrigin::parse(url).unwrap());
    })
    .await;
    let forged = [
        ("host", "evil.example"),
        ("x-forwarded-host", "evil.example"),
    ];
    assert!(
        tile_url(&public, &forged)
            .await
            .starts_with("https://tiles.example.com/")
    );
    public.stop().await;
}

#[tokio::test]
async fn behind_a_tls_proxy_on_loopback_the_cookie_is_secure() {
    let server = server_with(behind_a_proxy).await;
    let here = server.addresses.public.to_string();
    for chain in [
        &[("x-forwarded-proto", "https")][..],
        &[("x-forwarded-proto", "https, https")],
        &[
            ("x-forwarded-proto", "https, http"),
            ("x-forwarded-for", "203.0.113.9, 127.0.0.2"),
        ],
        &[(
            "forwarded",
            "for=203.0.113.9;proto=https;host=tiles.example.com",
        )],
        &[("host", "tiles.example.com")],
    ] {
        let answer = log_in(&server, "anna", "secret", chain).await;
        let set = answer.header("set-cookie");
        assert!(
            set.starts_with("__Host-tilekeep_session="),
            "{chain:?}: {set}"
        );
        assert!(set.contains("; Secure"), "{chain:?}: {set}");
        // What was set is what is read, by the same way in.
        let cookie = cookie(&answer);
        let with = [&[("cookie", cookie.as_str())], chain].concat();
        let tile = server.send(Method::GET, super::TILE, &with, "").await;
        assert_eq!(tile.status, StatusCode::OK, "{chain:?}");
    }
    // By http on this machine no browser would keep it.
    let plain = log_in(&server, "anna", "secret", &[("host", &here)]).await;
    assert!(plain.header("set-cookie").starts_with("tilekeep_session="));
    server.stop().await;
}

#[tokio::test]
async fn a_stranger_is_no_proxy() {
    let server = server().await;
    let forged = [
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "tiles.example.com"),
        ("forwarded", "proto=https;host=tiles.example.com"),
    ];
    let answer = log_in(&server, "anna", "secret", &forged).await;
    assert!(answer.header("set-cookie").starts_with("tilekeep_session="));
    // Nor does another address in front of one's own make a new guesser.
    let mut last = StatusCode::OK;
    for n in 0..8 {
        let other = format!("203.0.113.{n}");
        let forged = [("x-forwarded-for", other.as_str())];
        last = log_in(&server, "bert", "guess", &forged).await.status;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    server.stop().await;
}

#[tokio::test]
async fn a_guesser_behind_a_proxy_gets_no_new_address_by_writing_one() {
    let server = server_with(behind_a_proxy).await;
    let mut last = StatusCode::OK;
    for n in 0..8 {
        // The proxy appends whom it saw; what stands before is the guesser's own.
        let chain = format!("198.51.100.{n}, 203.0.113.9");
        last = log_in(&server, "anna", "guess", &[("x-forwarded-for", &chain)])
            .await
            .status;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    let neighbour = [("x-forwarded-for", "203.0.113.10")];
    let answer = log_in(&server, "anna", "secret", &neighbour).await;
    assert_eq!(
        answer.status,
        StatusCode::OK,
        "another address behind the same proxy"
    );
    server.stop().await;
}

#[tokio::test]
async fn over_http2_the_authority_is_the_host_and_two_of_them_are_refused() {
    let server = server().await;
    let stream = tokio::net::TcpStream::connect(server.addresses.public)
        .await
        .unwrap();
    let connected =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = connected.await.unwrap();
    let driver = tokio::spawn(connection);
    let bearer = format!("Bearer {}", token(&claims()));
    let mut ask = async |authority: &str, host: Option<&str>| {
        let mut request = Request::get(format!("http://{authority}/world.json"))
            .version(Version::HTTP_2)
            .header("authorization", &bearer);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    };
    let (status, body) = ask("evil.example", None).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        !body.contains("evil") && body.contains("http://127.0.0.1:"),
        "{body}"
    );
    let (_, body) = ask("localhost:81", Some("localhost:81")).await;
    assert!(body.contains("http://localhost:81/"), "{body}");
    for (authority, host) in [("localhost", Some("evil.example")), ("u:p@localhost", None)] {
        let (status, body) = ask(authority, host).await;
        assert_eq!(
            status,
            StatusCode::BAD_REQUEST,
            "{authority} {host:?} {body}"
        );
    }
    drop(sender);
    server.stop().await;
    let _ = driver.await;
}
