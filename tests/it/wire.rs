//! What no well-behaved client sends: raw bytes on a socket.

use std::sync::Arc;
use std::time::Duration;

use tilekeep::origin::failing::{FailingOrigin, Fault, MemoryOrigin};
use tilekeep::tile::{Scale, TileCoord, TileFormat};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{self, Running, claims, config, spec, tileset, token};

const PATIENCE: Duration = Duration::from_secs(10);

async fn server() -> (Running, Arc<FailingOrigin<MemoryOrigin>>) {
    let world = spec("world", TileFormat::Png);
    let memory = MemoryOrigin::new();
    memory.put(
        &tileset(world.clone()),
        TileCoord::new(0, 0, 0).unwrap(),
        Scale::One,
        "tile",
        None,
    );
    let origin = Arc::new(FailingOrigin::new(memory));
    (
        support::start(config([world]), origin.clone()).await,
        origin,
    )
}

fn tile_request(line_end: &str) -> String {
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

async fn connect(server: &Running) -> TcpStream {
    TcpStream::connect(server.addresses.public).await.unwrap()
}

/// Reads until the text is there, or the connection's end.
async fn read_until(stream: &mut TcpStream, text: &str) -> String {
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
