//! Floods of HTTP/2 frames that cost the sender nothing.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, SETTINGS, WINDOW_UPDATE, Wire,
    bearer, field, frame, request, unread,
};
use super::{honest, server, unharmed};

const TILE: &str = "/world/0/0/0.png";

#[tokio::test]
async fn a_head_that_never_ends_ends_the_connection() {
    // CVE-2024-27316: frames of a head that is never whole. With something in them, and with nothing.
    let (server, origin) = server().await;
    let some = field("x-a", &"b".repeat(100));
    for (name, piece) in [("fields", some.as_slice()), ("nothing", &[])] {
        let mut wire = Wire::open(&server).await;
        wire.send(&frame(HEADERS, 0, 1, &request("GET", TILE, &[])))
            .await;
        let mut sent = 0;
        for _ in 0..1_000 {
            if !wire
                .send(&frame(CONTINUATION, 0, 1, piece).repeat(10))
                .await
            {
                break;
            }
            sent += 10;
        }
        wire.until_given_up(name).await;
        assert!(sent <= 10_000);
        honest(&server).await;
    }
    unharmed(server, &origin).await;
}

#[tokio::test]
async fn answers_to_floods_of_settings_and_pings_do_not_pile_up() {
    let (server, origin) = server().await;
    for (name, one) in [
        ("SETTINGS", frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])),
        ("PING", frame(PING, 0, 0, b"12345678")),
    ] {
        // Nobody reads the acknowledgements: the server has to halt, or to close, before it keeps them all.
        let mut stream = unread(&server).await;
        let block = one.repeat(5_000);
        let mut taken = 0_usize;
        for _ in 0..1_000 {
            match timeout(Duration::from_secs(2), stream.write_all(&block)).await {
                Ok(Ok(())) => taken += block.len(),
                Ok(Err(_)) | Err(_) => break,
            }
        }
        println!("{name}: {taken} bytes were taken");
        assert!(
            taken < 50 << 20,
            "{name}: {taken} bytes were taken and answered"
        );
        honest(&server).await;
        drop(stream);
    }
    unharmed(server, &origin).await;
}

#[tokio::test]
async fn floods_that_are_read_take_nothing_from_others() {
    let (server, origin) = server().await;
    let floods = [
        ("SETTINGS", frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])),
        ("empty SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("PING", frame(PING, 0, 0, b"12345678")),
        ("PING's answers", frame(PING, ACK, 0, b"12345678")),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
    ];
    for (name, one) in floods {
        let mut wire = Wire::open(&server).await;
        for _ in 0..20 {
            if !wire.send(&one.repeat(1_000)).await {
                break;
            }
            honest(&server).await;
        }
        // It was let be, and is served, or was given up.
        wire.send(&frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            1,
            &request("GET", TILE, &bearer()),
        ))
        .await;
        wire.until(name, |seen| {
            seen.count(HEADERS) > 0 || seen.farewell().is_some()
        })
        .await;
    }
    unharmed(server, &origin).await;
}

#[tokio::test]
async fn empty_frames_of_a_body_come_to_an_end() {
    let (server, origin) = server().await;
    let json = field("content-type", "application/json");
    for (name, flags, payload) in [
        ("empty", 0, &b""[..]),
        ("of a byte", 0, b"x"),
        ("of padding", 8, &[200; 201]),
    ] {
        let mut wire = Wire::open(&server).await;
        wire.send(&frame(
            HEADERS,
            END_HEADERS,
            1,
            &request("POST", "/session", &json),
        ))
        .await;
        for _ in 0..300 {
            if !wire.send(&frame(DATA, flags, 1, payload).repeat(200)).await {
                break;
            }
        }
        wire.until(name, |seen| {
            seen.count(HEADERS) > 0 || seen.farewell().is_some()
        })
        .await;
        wire.seen(|seen| assert!(!seen.statuses().contains(&200), "{name}"));
        honest(&server).await;
    }
    unharmed(server, &origin).await;
}
