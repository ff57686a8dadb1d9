//! Connections that are held, cut, and never read.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{honest, server, statuses, unharmed, until_open};
use crate::wire;

/// Ends a connection with a reset instead of a good-bye.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
}

#[tokio::test]
async fn slow_heads_take_nothing_from_honest_clients() {
    let (server, origin) = server().await;
    let request = wire::tile_request("\r\n");
    let mut slow = Vec::new();
    for _ in 0..200 {
        slow.push(wire::connect(&server).await);
    }
    until_open(&server, |open| open == 200).await;
    for byte in &request.as_bytes()[..12] {
        for stream in &mut slow {
            stream.write_all(&[*byte]).await.unwrap();
        }
        honest(&server).await;
    }
    // Half of them say good-bye, half do not.
    while let Some(stream) = slow.pop() {
        if slow.len() % 2 == 0 {
            reset(stream);
        }
    }
    unharmed(server, &origin).await;
}

#[tokio::test]
async fn who_does_not_read_is_not_answered_without_end() {
    let (server, origin) = server().await;
    let mut stream = wire::connect(&server).await;
    let request = wire::tile_request("\r\n").repeat(200);
    let mut asked = 0_usize;
    // Some 60 MB of requests: they must come to a halt long before, for their answers are not read.
    let halted = loop {
        match timeout(Duration::from_secs(2), stream.write_all(request.as_bytes())).await {
            Ok(Ok(())) => asked += request.len(),
            Ok(Err(error)) => panic!("closed: {error}"),
            Err(_) => break true,
        }
        if asked > 60 << 20 {
            break false;
        }
    };
    println!("{asked} bytes of requests were taken");
    assert!(
        halted,
        "{asked} bytes of requests were taken, and their answers kept"
    );
    honest(&server).await;
    // A byte now and then is reading too slowly for anybody to wait for, and harms nobody.
    let mut byte = [0];
    for _ in 0..20 {
        stream.read_exact(&mut byte).await.unwrap();
        honest(&server).await;
    }
    reset(stream);
    unharmed(server, &origin).await;
}

#[tokio::test]
async fn connections_that_are_cut_anywhere_give_their_places_back() {
    let (server, origin) = server().await;
    let request = wire::tile_request("\r\n");
    let post = "POST /session HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    for text in [request.as_str(), post] {
        for cut in (0..=text.len()).step_by(7).chain([text.len()]) {
            for polite in [false, true] {
                let mut stream = wire::connect(&server).await;
                stream.write_all(&text.as_bytes()[..cut]).await.unwrap();
                if polite {
                    // Half-closed: nothing more comes, and an answer is still read.
                    stream.shutdown().await.unwrap();
                    let read = wire::read_until(&mut stream, "\u{0}never").await;
                    let statuses = statuses(&read);
                    let whole = cut == text.len() && text == request;
                    let right = if whole {
                        statuses == [200]
                    } else {
                        statuses.iter().all(|status| (400..500).contains(status))
                    };
                    assert!(right, "cut at {cut}: {read}");
                } else {
                    reset(stream);
                }
            }
        }
    }
    unharmed(server, &origin).await;
}

#[tokio::test]
async fn a_connection_a_request_leaves_nothing_behind() {
    let (server, origin) = server().await;
    for n in 0..1_000 {
        let mut stream = wire::connect(&server).await;
        if n % 3 > 0 {
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        }
        if n % 2 > 0 {
            reset(stream);
        }
    }
    unharmed(server, &origin).await;
}

#[tokio::test]
async fn what_is_pipelined_is_answered_in_order_up_to_the_first_nonsense() {
    let (server, origin) = server().await;
    let tile = wire::tile_request("\r\n");
    let stranger = "GET /world/0/0/0.png HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut stream = wire::connect(&server).await;
    let round = format!("{tile}{stranger}");
    let text = round.repeat(100) + "GET /\0 HTTP/1.1\r\n\r\n" + &round.repeat(100);
    let (mut reading, mut writing) = stream.split();
    let write = async {
        let _ = writing.write_all(text.as_bytes()).await;
        let _ = writing.shutdown().await;
    };
    let mut read = Vec::new();
    let mut buffer = [0; 1 << 13];
    let read_all = async {
        while let Ok(n) = reading.read(&mut buffer).await {
            if n == 0 {
                break;
            }
            read.extend_from_slice(&buffer[..n]);
        }
    };
    timeout(super::PATIENCE, async { tokio::join!(write, read_all) })
        .await
        .expect("an end");
    let read = String::from_utf8_lossy(&read)
        .replace("tileHTTP", "tile\nHTTP")
        .replace("}HTTP", "}\nHTTP");
    let statuses = statuses(&read);
    assert!(statuses.len() <= 201, "{}", statuses.len());
    // A reset may overtake the last answers.
    for (nth, status) in statuses.iter().enumerate() {
        let expected = [200, 401][nth % 2];
        assert!(
            *status == expected || (nth == 200 && *status == 400),
            "{nth}: {status}"
        );
    }
    sleep(Duration::from_millis(1)).await;
    unharmed(server, &origin).await;
}
