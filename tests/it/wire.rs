//! What no well-behaved client sends: raw bytes on a socket.

use std::sync::Arc;
use std::time::Duration;

use tilekeep::http::body::Body;
use tilekeep::http::handling::Handling;
use tilekeep::http::places::{ConnectionLimits, Places};
use tilekeep::http::server::Server;
use tilekeep::origin::failing::{FailingOrigin, Fault, MemoryOrigin};
use tilekeep::tile::{Scale, TileCoord, TileFormat};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{self, Running, claims, config, spec, tileset, token};

const PATIENCE: Duration = Duration::from_secs(10);

pub async fn server() -> (Running, Arc<FailingOrigin<MemoryOrigin>>) {
    let (origin, config) = (origin(), config([spec("world", TileFormat::Png)]));
    (support::start(config, origin.clone()).await, origin)
}

/// A bucket with one tile.
pub fn origin() -> Arc<FailingOrigin<MemoryOrigin>> {
    let tileset = tileset(spec("world", TileFormat::Png));
    let memory = MemoryOrigin::new();
    let coord = TileCoord::new(0, 0, 0).unwrap();
    memory.put(&tileset, coord, Scale::One, "tile", None);
    Arc::new(FailingOrigin::new(memory))
}

pub fn tile_request(line_end: &str) -> String {
    let token = token(&claims());
    [
        "GET /world/0/0/0.png HTTP/1.1",
        "Host: x",
        &format!("Authorization: Bearer {token}"),
        "",
        "",
    ]
    .join(line_end)
}

pub async fn connect(server: &Running) -> TcpStream {
    TcpStream::connect(server.addresses.public).await.unwrap()
}

/// Reads until the text is there, or the connection's end.
pub async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    let reading = async {
        while !String::from_utf8_lossy(&read).contains(text) {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(n) => read.extend_from_slice(&buffer[..n]),
            }
        }
    };
    timeout(PATIENCE, reading)
        .await
        .expect("an answer or an end");
    String::from_utf8_lossy(&read).into_owned()
}

#[tokio::test]
async fn an_answer_does_not_wait_for_the_rest_of_the_next_request() {
    let (server, _) = server().await;
    for next in ["GE", "\r\nGET /he"] {
        let mut stream = connect(&server).await;
        stream
            .write_all((tile_request("\r\n") + next).as_bytes())
            .await
            .unwrap();
        let answer = read_until(&mut stream, "\r\n\r\ntile").await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("tile"),
            "{answer}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn who_stops_sending_still_gets_the_answer() {
    let (server, origin) = server().await;
    origin.fail_next(1, Fault::Delay(Duration::from_millis(200)));
    let mut stream = connect(&server).await;
    stream
        .write_all(tile_request("\r\n").as_bytes())
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    let answer = read_until(&mut stream, "\r\n\r\ntile").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn malformed_heads_are_answered_4xx_and_reach_nothing() {
    let (server, origin) = server().await;
    let get = "GET /world/0/0/0.png HTTP/1.1\r\n";
    let shapes = [
        (
            "both lengths",
            format!("{get}Host: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
        ),
        (
            "a folded header",
            format!("{get}Host: x\r\nX-A: b\r\n c\r\n\r\n"),
        ),
        (
            "a space in a name",
            format!("{get}Host: x\r\nX A: b\r\n\r\n"),
        ),
        ("no host", format!("{get}\r\n")),
        ("two hosts", format!("{get}Host: x\r\nHost: y\r\n\r\n")),
        (
            "many headers",
            format!("{get}Host: x\r\n{}\r\n", "A: b\r\n".repeat(1000)),
        ),
        (
            "a huge header",
            format!("{get}Host: x\r\nA: {}\r\n\r\n", "b".repeat(100_000)),
        ),
        (
            "an odd length",
            format!("{get}Host: x\r\nContent-Length: +5\r\n\r\nabcde"),
        ),
        (
            "an escape",
            "GET /world/0/0/%30.png HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        ),
        (
            "a NUL",
            "GET /wor\0ld HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        ),
    ];
    for (name, request) in shapes {
        let mut stream = connect(&server).await;
        // A peer that has heard enough may close while we still write.
        let _ = stream.write_all(request.as_bytes()).await;
        let answer = read_until(&mut stream, "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{name}: {answer:?}");
    }
    assert_eq!(origin.calls(), 0);
    server.stop().await;
}

#[tokio::test]
async fn a_request_with_two_lengths_is_the_last_of_its_connection() {
    let (server, origin) = server().await;
    let post = "POST /session HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let (length, chunked) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    let smuggled = tile_request("\r\n");
    // What one reader takes for the body's end is for another the next request (RFC 9112 §6.1).
    for head in [
        format!("{length}{chunked}"),
        format!("{chunked}{length}"),
        format!("{chunked}Transfer-Encoding: identity\r\n"),
        "Transfer-Encoding: xchunked\r\n".to_owned(),
        "Transfer-Encoding: chunked, identity\r\n".to_owned(),
        "Transfer-Encoding:\x0bchunked\r\nContent-Length: 5\r\n".to_owned(),
        "Content-Length: 0\r\nContent-Length: 5\r\n".to_owned(),
        "Content-Length: 5, 5\r\n".to_owned(),
        "Content-Length: 0x5\r\n".to_owned(),
    ] {
        let mut stream = connect(&server).await;
        let request = format!("{post}{head}\r\n0\r\n\r\n{smuggled}");
        let _ = stream.write_all(request.as_bytes()).await;
        let answer = read_until(&mut stream, "\u{0}never").await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{head}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{head}: {answer}");
    }
    assert_eq!(origin.calls(), 0, "no second request was seen");
    server.stop().await;
}

#[tokio::test]
async fn odd_targets_are_refused_or_read_as_what_they_name() {
    let (server, origin) = server().await;
    let token = token(&claims());
    for (target, host, status) in [
        ("http://x/world/0/0/0.png", "x", "200"),
        ("http://y/world/0/0/0.png", "x", "400"),
        ("http://u:p@x/world/0/0/0.png", "x", "400"),
        ("/world/0/0/0.png", "u@x", "400"),
        ("/world/0/0/0.png", "x/y", "400"),
        ("*", "x", "400"),
        ("//x/world/0/0/0.png", "x", "400"),
        ("/world/0/0/0.png?%00", "x", "200"),
        ("/world/0/0/0.png#x", "x", "200"),
        (&format!("/{}", "a".repeat(20_000)), "x", "404"),
        (&format!("/world/0/0/{}", "0/".repeat(5_000)), "x", "400"),
        (&format!("/{}", "a".repeat(70_000)), "x", "4"),
    ] {
        let mut stream = connect(&server).await;
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        let _ = stream.write_all(request.as_bytes()).await;
        let answer = read_until(&mut stream, "\r\n\r\n").await;
        let short = &target[..60.min(target.len())];
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{short} {host}: {answer}"
        );
    }
    for method in ["CONNECT x:443", "CONNECT x", "TRACE /", "OPTIONS *"] {
        let mut stream = connect(&server).await;
        let request = format!("{method} HTTP/1.1\r\nHost: x\r\nX-Secret: echoed\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = read_until(&mut stream, "\r\n\r\n").await;
        let refused = answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 204");
        assert!(refused && !answer.contains("echoed"), "{method}: {answer}");
    }
    assert_eq!(origin.calls(), 1);
    server.stop().await;
}

#[tokio::test]
async fn one_address_takes_no_more_than_its_share_of_connections() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (trigger, shutdown) = tilekeep::shutdown::channel();
    let metrics = Arc::new(tilekeep::metrics::Metrics::new());
    let server = Server {
        tls: None,
        shutdown,
        grace: PATIENCE,
        places: Places::new(ConnectionLimits {
            connections: 10,
            per_address: 2,
            exempt: Vec::new(),
        }),
        metrics: Some(metrics.clone()),
        clock: tilekeep::clock::Clock::default(),
    };
    let listener = listener.into_std().unwrap();
    let service = |_, _| Handling::now(http::Response::new(Body::empty()));
    let serving = tokio::spawn(server.run(listener, service));
    let ask = async |stream: &mut TcpStream| {
        let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        match asked {
            Ok(()) => read_until(stream, "\r\n\r\n").await,
            Err(_) => String::new(),
        }
    };
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200"));
        held.push(stream);
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    assert_eq!(ask(&mut third).await, "");
    assert_eq!(metrics.connections_refused.get(), 1);
    assert_eq!(metrics.connections.get(), 2);
    // A place that is given back is given again.
    held.pop();
    let mut answer = String::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        answer = ask(&mut stream).await;
        if !answer.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(held);
    trigger.fire();
    serving.await.unwrap();
}

#[tokio::test]
async fn bare_line_feeds_hide_no_second_request() {
    let (server, _) = server().await;
    let mut stream = connect(&server).await;
    stream
        .write_all(tile_request("\n").as_bytes())
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    let answer = read_until(&mut stream, "\u{0}never").await;
    // Read as line ends or refused, but one request is one answer.
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    server.stop().await;
}
