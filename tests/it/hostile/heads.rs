//! Heads without end, and what is no HTTP at all.

use super::{honest, refused_or_closed, server, statuses, unharmed};
use crate::wire;
use tokio::io::AsyncWriteExt as _;

#[tokio::test]
async fn floods_of_headers_and_urls_are_refused() {
    let (server, origin) = server().await;
    let get = "GET /world/0/0/0.png HTTP/1.1\r\nHost: x\r\n";
    let flood = |line: &dyn Fn(usize) -> String, times: usize| {
        let lines: String = (0..times).map(line).collect();
        format!("{get}{lines}\r\n")
    };
    let shapes = [
        ("101 headers", flood(&|n| format!("X-{n}: a\r\n"), 101)),
        (
            "100,000 headers",
            flood(&|n| format!("X-{n}: a\r\n"), 100_000),
        ),
        ("the same one", flood(&|_| "A: b\r\n".into(), 50_000)),
        (
            "a megabyte",
            flood(&|_| format!("A: {}\r\n", "b".repeat(1 << 20)), 1),
        ),
        (
            "a long name",
            flood(&|_| format!("{}: b\r\n", "a".repeat(1 << 17)), 1),
        ),
        (
            "cookies",
            flood(&|n| format!("Cookie: tilekeep_session={n}\r\n"), 2_000),
        ),
        (
            "a long URL",
            format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1 << 20)),
        ),
        (
            "a long query",
            format!(
                "GET /?{} HTTP/1.1\r\nHost: x\r\n\r\n",
                "a=b&".repeat(1 << 16)
            ),
        ),
        (
            "many segments",
            format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", "/0".repeat(10_000)),
        ),
        (
            "a long method",
            format!("{} / HTTP/1.1\r\nHost: x\r\n\r\n", "A".repeat(1 << 17)),
        ),
        (
            "blank lines",
            format!("{}{get}\r\n", "\r\n".repeat(1 << 18)),
        ),
    ];
    for (name, request) in shapes {
        refused_or_closed(&server, name, request.as_bytes()).await;
        honest(&server).await;
    }
    unharmed(server, &origin).await;
}

#[tokio::test]
async fn what_is_no_http_is_refused_or_closed() {
    let (server, origin) = server().await;
    let shapes: [(&str, &[u8]); 18] = [
        ("nothing", b""),
        ("a NUL", b"\0"),
        ("zeros", &vec![0; 70_000]),
        ("ones", &vec![0xff; 70_000]),
        (
            "a TLS greeting",
            b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
        ),
        ("an SSH banner", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("SMTP", b"EHLO x\r\nMAIL FROM:<a@b>\r\n"),
        ("HTTP/0.9", b"GET /\r\n\r\n"),
        ("HTTP/1.2", b"GET / HTTP/1.2\r\nHost: x\r\n\r\n"),
        ("HTTP/9.9", b"GET / HTTP/9.9\r\nHost: x\r\n\r\n"),
        ("HTTP/11", b"GET / HTTP/11\r\nHost: x\r\n\r\n"),
        ("no version", b"GET / \r\nHost: x\r\n\r\n"),
        ("two spaces", b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("a tab", b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("half a preface", b"PRI * HTTP/2.0\r\n\r\nSM"),
        ("another preface", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"),
        (
            "a header without a colon",
            b"GET / HTTP/1.1\r\nHost: x\r\nnothing\r\n\r\n",
        ),
        (
            "a NUL in a value",
            b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
        ),
    ];
    for (name, bytes) in shapes {
        refused_or_closed(&server, name, bytes).await;
    }
    // An upgrade that nobody here makes is no reason to refuse, and is not made.
    for upgrade in ["h2c", "websocket", "TLS/1.3"] {
        let mut stream = wire::connect(&server).await;
        let request = format!(
            "GET /world/0/0/0.png HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let read = wire::read_until(&mut stream, "\r\n\r\n").await;
        assert_eq!(statuses(&read), [401], "{upgrade}: {read}");
    }
    unharmed(server, &origin).await;
}

#[tokio::test]
async fn line_ends_that_two_readers_see_differently_make_no_second_request() {
    let (server, origin) = server().await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    for (name, head) in [
        (
            "a bare CR",
            "GET / HTTP/1.1\rHost: x\r\rGET /a HTTP/1.1\r\n\r\n",
        ),
        (
            "CR in a value",
            "GET / HTTP/1.1\r\nHost: x\r\nA: b\rContent-Length: 35\r\n\r\n",
        ),
        (
            "obsolete folding",
            "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n\tContent-Length: 35\r\n\r\n",
        ),
        (
            "folding in front",
            "GET / HTTP/1.1\r\n Host: x\r\nHost: x\r\n\r\n",
        ),
        (
            "folding of a length",
            "POST /session HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n 35\r\n\r\n",
        ),
        (
            "a space before the colon",
            "POST /session HTTP/1.1\r\nHost: x\r\nContent-Length : 35\r\n\r\n",
        ),
        (
            "a tab before the colon",
            "POST /session HTTP/1.1\r\nHost: x\r\nTransfer-Encoding\t: chunked\r\n\r\n",
        ),
    ] {
        let mut stream = wire::connect(&server).await;
        let request = format!("{head}{smuggled}");
        let _ = stream.write_all(request.as_bytes()).await;
        let _ = stream.shutdown().await;
        let read = wire::read_until(&mut stream, "\u{0}never").await;
        let statuses = statuses(&read);
        assert!(statuses.len() <= 1, "{name}: {read}");
        assert!(
            statuses.iter().all(|status| *status == 400),
            "{name}: {read}"
        );
    }
    unharmed(server, &origin).await;
}
