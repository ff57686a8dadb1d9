//! Bodies whose end is not where it is said to be.

use tokio::io::AsyncWriteExt as _;
use tokio::time::{Duration, sleep};

use super::{honest, refused_or_closed, server, statuses, unharmed};
use crate::wire;

const POST: &str = "POST /session HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n\r\n";

#[tokio::test]
async fn odd_chunks_end_the_connection_with_one_answer() {
    let (server, origin) = server().await;
    let tile = wire::tile_request("\r\n");
    for chunks in [
        "5\nabcde\n0\n\n",
        "5\r\nabcde0\r\n\r\n",
        "5 \r\nabcdefg\r\n0\r\n\r\n",
        "-5\r\nabcde\r\n0\r\n\r\n",
        "+5\r\nabcde\r\n0\r\n\r\n",
        "0x5\r\nabcde\r\n0\r\n\r\n",
        "G\r\nabcde\r\n0\r\n\r\n",
        "\r\n5\r\nabcde\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nabcde\r\n0\r\n\r\n",
        "10000000000000005\r\nabcde\r\n0\r\n\r\n",
        "7fffffffffffffff\r\nabcde\r\n",
        "5;a\nb\r\nabcde\r\n0\r\n\r\n",
        "5;\r\rabcde\r\n0\r\n\r\n",
        "5\r\nabcde\r\n0\r\nContent-Length: 5\nX: y\r\n",
        "5\r\nabcde\r\n0\r\nno colon\r\n\r\n",
    ] {
        refused_or_closed(
            &server,
            chunks,
            format!("{POST}{CHUNKED}{chunks}{tile}").as_bytes(),
        )
        .await;
    }
    honest(&server).await;
    let long = "a".repeat(1 << 18);
    for (name, body) in [
        (
            "a long extension",
            format!("5;{long}\r\nabcde\r\n0\r\n\r\n"),
        ),
        ("many extensions", "1;a=b\r\nx\r\n".repeat(50_000)),
        ("a long trailer", format!("0\r\nA: {long}\r\n\r\n")),
        (
            "many trailers",
            format!("0\r\n{}\r\n", "A: b\r\n".repeat(50_000)),
        ),
        ("chunks of a byte", "1\r\nx\r\n".repeat(200_000)),
        (
            "leading zeros",
            format!("{}5\r\nabcde\r\n0\r\n\r\n", "0".repeat(1 << 17)),
        ),
    ] {
        refused_or_closed(&server, name, format!("{POST}{CHUNKED}{body}").as_bytes()).await;
    }
    unharmed(server, &origin).await;
}

#[tokio::test]
async fn what_a_trailer_says_is_not_believed() {
    let (server, origin) = server().await;
    let token = wire::tile_request("\r\n");
    let authorization = token.lines().find(|line| line.starts_with("Auth")).unwrap();
    let head = "GET /world/0/0/0.png HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let mut stream = wire::connect(&server).await;
    let request = format!("{head}Trailer: Authorization\r\n{CHUNKED}0\r\n{authorization}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let read = wire::read_until(&mut stream, "\u{0}never").await;
    assert_eq!(statuses(&read), [401], "{read}");
    unharmed(server, &origin).await;
}

#[tokio::test]
async fn a_body_that_nobody_asked_for_is_not_read_as_the_next_request() {
    let (server, origin) = server().await;
    let tile = wire::tile_request("\r\n");
    for body in [format!("Content-Length: {}\r\n\r\n{tile}", tile.len()), {
        format!("{CHUNKED}{:x}\r\n{tile}\r\n0\r\n\r\n", tile.len())
    }] {
        let mut stream = wire::connect(&server).await;
        let request = format!("GET /nothing/0/0/0 HTTP/1.1\r\nHost: x\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let read = wire::read_until(&mut stream, "\u{0}never").await;
        assert_eq!(statuses(&read), [401], "{read}");
    }
    unharmed(server, &origin).await;
}

#[tokio::test]
async fn bodies_without_end_are_not_kept() {
    let (server, origin) = server().await;
    for head in [
        format!("{POST}Content-Length: 99999999999\r\n\r\n"),
        format!("{POST}Content-Length: 18446744073709551615\r\n\r\n"),
        format!("{POST}{CHUNKED}fffffff\r\n"),
        "PUT /world/0/0/0.png HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"
            .to_owned(),
        format!("{POST}Expect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n"),
    ] {
        let mut stream = wire::connect(&server).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        // As much as the server takes; it must come to an end.
        let block = vec![b'x'; 1 << 16];
        let mut taken = 0_usize;
        for _ in 0..1_000 {
            let write = stream.write_all(&block);
            match tokio::time::timeout(Duration::from_millis(500), write).await {
                Ok(Ok(())) => taken += block.len(),
                Ok(Err(_)) | Err(_) => break,
            }
        }
        println!("{head}: {taken} bytes were taken");
        // What lies in the sockets' buffers is the kernel's.
        assert!(taken < 32 << 20, "{head}: {taken} bytes were taken");
        let read = wire::read_until(&mut stream, "\r\n\r\n").await;
        let first = statuses(&read).into_iter().find(|status| *status != 100);
        assert!(
            first.is_none_or(|status| (400..500).contains(&status)),
            "{head}: {read}"
        );
        honest(&server).await;
    }
    sleep(Duration::from_millis(1)).await;
    unharmed(server, &origin).await;
}
