//! Requests that are nothing but a head are answered without hyper (`src/http/plain.rs`): nobody can tell.

use std::net::SocketAddr;

use http::Method;
use tilekeep::tile::TileFormat;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::{self, claims, config, spec, token};
use crate::wire;

/// With it a request is hyper's, and means the same.
const TO_HYPER: &str = "TE: trailers\r\n";

/// An answer's lines and body, but for what the moment makes of it.
fn lasting(answer: &str) -> (Vec<String>, String) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let mut lines: Vec<_> = head
        .lines()
        .map(str::to_ascii_lowercase)
        .filter(|line| !line.starts_with("date: "))
        .collect();
    lines[1..].sort_unstable();
    (lines, body.to_owned())
}

/// How a request is answered, by whoever reads it, and that the next on its connection is answered too.
async fn answered(address: SocketAddr, request: &str) -> (Vec<String>, String) {
    const NEXT: &str = "DELETE /next HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all((request.to_owned() + NEXT).as_bytes())
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    let both = wire::read_until(&mut stream, "\0never").await;
    let (first, next) = both.rsplit_once("HTTP/1.1 ").expect("an answer");
    assert!(next.starts_with('4'), "{request}{both}");
    lasting(first)
}

/// Whether plain.rs and hyper answer alike.
async fn assert_alike(address: SocketAddr, method: &str, path: &str, fields: &str) {
    let mut answers = Vec::new();
    // The first of three fills what the others find.
    for more in [TO_HYPER, "", TO_HYPER] {
        let request = format!("{method} {path} HTTP/1.1\r\n{fields}{more}\r\n");
        answers.push(answered(address, &request).await);
    }
    assert_eq!(answers[1], answers[2], "{method} {path} {fields}");
}

#[tokio::test]
async fn whoever_reads_a_request_answers_the_same() {
    let config = config([spec("world", TileFormat::Png), spec("mvt", TileFormat::Mvt)]);
    let server = support::start(config, wire::origin()).await;
    let (public, admin) = (server.addresses.public, server.addresses.admin);
    let bearer = format!("Host: x\r\nAuthorization: Bearer {}\r\n", token(&claims()));
    let cookie = format!(
        "Host: x\r\nCookie: tilekeep_session={}\r\n",
        token(&claims())
    );
    let tile = server.get_as(&claims(), "/world/0/0/0.png").await;
    let held = format!("{cookie}If-None-Match: {}\r\n", tile.header("etag"));
    let origin = format!("{cookie}Origin: https://app.example.com\r\n");
    for path in [
        "/world/0/0/0.png",
        "/world/0/0/0.jpg",
        "/world/1/0/0.png",
        "/world/9/0/0.png",
        "/mvt/1/0/0.mvt",
        "/world/01/0/0.png",
        "/nowhere/0/0/0.png",
        "/world.json",
        "/healthz",
        "/",
        "/login",
        "/map",
        "/tilekeep.js",
        "/session",
        "/no/such/page",
        "/%2e%2e/",
        "//",
        "/world/0/0/0.png/explain",
    ] {
        for method in ["GET", "HEAD"] {
            for fields in [
                "",
                "Host: x\r\n",
                "Host: x\r\nAccept: text/html\r\n",
                "Host: x\r\nHost: y\r\n",
                "Host: u@x\r\n",
                &bearer,
                &cookie,
                &held,
                &origin,
            ] {
                assert_alike(public, method, path, fields).await;
            }
        }
    }
    for path in ["/", "/healthz", "/readyz", "/cached", "/no/such/page"] {
        for method in ["GET", "HEAD"] {
            for fields in ["", "Host: localhost\r\n", "Host: x\r\nHost: y\r\n"] {
                assert_alike(admin, method, path, fields).await;
            }
        }
    }
    let script = server.send(Method::GET, "/tilekeep.js", &[], "").await;
    let held = format!("Host: x\r\nIf-None-Match: {}\r\n", script.header("etag"));
    assert_alike(public, "GET", "/tilekeep.js", &held).await;
    let (unchanged, _) =
        answered(public, &format!("GET /tilekeep.js HTTP/1.1\r\n{held}\r\n")).await;
    assert_eq!(unchanged[0], "http/1.1 304 not modified");
    server.stop().await;
}

#[tokio::test]
async fn a_connection_that_spoke_http_1_does_not_begin_with_http_2() {
    let (server, _) = wire::server().await;
    let mut stream = wire::connect(&server).await;
    let tile = wire::tile_request("\r\n");
    stream.write_all(tile.as_bytes()).await.unwrap();
    wire::read_until(&mut stream, "\r\n\r\ntile").await;
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let answer = wire::read_until(&mut stream, "\0never").await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
        "{answer:?}"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_connection_goes_on_whoever_reads_it() {
    let (server, _) = wire::server().await;
    let tile = wire::tile_request("\r\n");
    let hyper = tile.replacen("\r\n\r\n", &format!("\r\n{TO_HYPER}\r\n"), 1);
    let log_in = "POST /session HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    let mut stream = wire::connect(&server).await;
    for (request, until) in [
        (&*tile, "\r\n\r\ntile"),
        (&tile, "\r\n\r\ntile"),
        (log_in, "}"),
        (&tile, "\r\n\r\ntile"),
        (&hyper, "\r\n\r\ntile"),
    ] {
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = wire::read_until(&mut stream, until).await;
        assert!(
            answer.starts_with("HTTP/1.1 ") && answer.ends_with(until),
            "{answer}"
        );
    }
    // All at once: in their order.
    let all = [&*tile, &hyper, log_in, &tile].concat();
    let mut stream = wire::connect(&server).await;
    stream.write_all(all.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let read = wire::read_until(&mut stream, "\0never").await;
    assert_eq!(read.matches("\r\n\r\ntile").count(), 3, "{read}");
    assert_eq!(read.matches("HTTP/1.1 ").count(), 4, "{read}");
    server.stop().await;
}

#[tokio::test]
async fn a_head_in_pieces_is_as_good_as_a_whole_one() {
    let (server, _) = wire::server().await;
    let tile = wire::tile_request("\r\n");
    for cut in (1..tile.len()).step_by(11) {
        let mut stream = wire::connect(&server).await;
        for part in [&tile[..cut], &tile[cut..]] {
            stream.write_all(part.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            tokio::task::yield_now().await;
        }
        let answer = wire::read_until(&mut stream, "\r\n\r\ntile").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{cut}: {answer}");
    }
    server.stop().await;
}
