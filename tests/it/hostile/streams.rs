//! HTTP/2 streams: opened and reset, held, malformed.

use super::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, PUSH_PROMISE,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, Wire, bearer, field, frame, length, request,
};
use super::{honest, server, unharmed};

const TILE: &str = "/world/0/0/0.png";
const WHOLE: u8 = END_HEADERS | END_STREAM;
/// `ENHANCE_YOUR_CALM` (RFC 9113 §7).
const CALM: u32 = 11;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// Numbers of streams that a client opens.
fn streams() -> impl Iterator<Item = u32> {
    (1..).step_by(2)
}

#[tokio::test]
async fn requests_that_are_reset_at_once_are_soon_heard_no_more() {
    // CVE-2023-44487. With a session and without.
    let (server, origin) = server().await;
    for more in [bearer(), Vec::new()] {
        let mut wire = Wire::open(&server).await;
        let block = request("GET", TILE, &more);
        'flood: for round in 0..200 {
            let mut bytes = Vec::new();
            for stream in streams().skip(round * 100).take(100) {
                bytes.extend(frame(HEADERS, WHOLE, stream, &block));
                bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL));
            }
            if !wire.send(&bytes).await || wire.seen(|seen| seen.ended) {
                break 'flood;
            }
        }
        wire.until_given_up("20,000 resets").await;
        wire.seen(|seen| assert!(seen.farewell().is_none_or(|reason| reason == CALM)));
        honest(&server).await;
    }
    unharmed(server, &origin).await;
}

#[tokio::test]
async fn requests_that_are_reset_one_by_one_cost_what_requests_cost() {
    // Slowly enough for each to be accepted, which no count of resets notices.
    let (server, origin) = server().await;
    let mut wire = Wire::open(&server).await;
    let block = request("GET", TILE, &bearer());
    for stream in streams().take(500) {
        wire.send(&frame(HEADERS, WHOLE, stream, &block)).await;
        tokio::task::yield_now().await;
        wire.send(&frame(RST_STREAM, 0, stream, &CANCEL)).await;
        if stream % 100 == 1 {
            honest(&server).await;
        }
    }
    drop(wire);
    unharmed(server, &origin).await;
}

#[tokio::test]
async fn no_more_streams_are_open_than_are_allowed() {
    let (server, origin) = server().await;
    let mut wire = Wire::open(&server).await;
    wire.until("settings", |seen| {
        seen.frames
            .iter()
            .any(|frame| frame.kind == SETTINGS && frame.flags & ACK == 0)
    })
    .await;
    // Bodies that never come: each holds a stream.
    let json = field("content-type", "application/json");
    let block = request("POST", "/session", &json);
    for stream in streams().take(600) {
        wire.send(&frame(HEADERS, END_HEADERS, stream, &block))
            .await;
    }
    let refused = |seen: &super::frames::Seen| {
        seen.count(RST_STREAM) + usize::from(seen.farewell().is_some()) * 400
    };
    wire.until("refused streams", |seen| refused(seen) >= 400)
        .await;
    honest(&server).await;
    drop(wire);
    unharmed(server, &origin).await;
}

#[tokio::test]
async fn a_window_that_never_opens_holds_its_own_answers_and_no_more() {
    let (server, origin) = server().await;
    let mut wire = Wire::open(&server).await;
    // SETTINGS_INITIAL_WINDOW_SIZE = 0: heads come, bodies cannot.
    wire.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await;
    let block = request("GET", TILE, &bearer());
    for stream in streams().take(150) {
        wire.send(&frame(HEADERS, WHOLE, stream, &block)).await;
    }
    wire.until("heads", |seen| seen.count(HEADERS) == 150).await;
    wire.seen(|seen| assert_eq!(seen.count(DATA), 0, "no window, no body"));
    honest(&server).await;
    // A byte each: four a tile.
    for stream in streams().take(150) {
        wire.send(&frame(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 1]))
            .await;
    }
    wire.until("bytes", |seen| seen.count(DATA) >= 150).await;
    honest(&server).await;
    drop(wire);
    unharmed(server, &origin).await;
}

#[tokio::test]
async fn windows_that_cannot_be_end_the_connection() {
    let (server, origin) = server().await;
    let largest = frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]);
    let shapes = [
        ("beyond 2^31", largest.repeat(2)),
        ("by nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("of three bytes", frame(WINDOW_UPDATE, 0, 0, &[0; 3])),
        (
            "of a stream that is none",
            frame(WINDOW_UPDATE, 0, 9, &[0, 0, 0, 1]),
        ),
        (
            "initial, beyond 2^31",
            frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
        ),
        (
            "a frame size of nothing",
            frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 0]),
        ),
    ];
    for (name, bytes) in shapes {
        let mut wire = Wire::open(&server).await;
        wire.send(&bytes).await;
        wire.until_given_up(name).await;
    }
    unharmed(server, &origin).await;
}

#[tokio::test]
async fn frames_that_cannot_be_end_the_connection() {
    let (server, origin) = server().await;
    let block = request("GET", TILE, &[]);
    let shapes = [
        ("DATA of no stream", frame(DATA, 0, 0, b"x")),
        ("DATA of an idle stream", frame(DATA, 0, 5, b"x")),
        ("HEADERS of no stream", frame(HEADERS, WHOLE, 0, &block)),
        (
            "HEADERS of the server's stream",
            frame(HEADERS, WHOLE, 2, &block),
        ),
        (
            "a stream that goes backwards",
            [
                frame(HEADERS, WHOLE, 5, &block),
                frame(HEADERS, WHOLE, 3, &block),
            ]
            .concat(),
        ),
        (
            "too long a frame",
            frame(HEADERS, WHOLE, 1, &vec![0; 1 << 15]),
        ),
        (
            "the longest frame",
            [
                &[0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1][..],
                &vec![0; 70_000],
            ]
            .concat(),
        ),
        (
            "CONTINUATION alone",
            frame(CONTINUATION, END_HEADERS, 1, &block),
        ),
        (
            "PING in the middle of a head",
            [frame(HEADERS, 0, 1, &block), frame(PING, 0, 0, &[0; 8])].concat(),
        ),
        ("PING of seven bytes", frame(PING, 0, 0, &[0; 7])),
        ("PING of a stream", frame(PING, 0, 1, &[0; 8])),
        ("SETTINGS of a stream", frame(SETTINGS, 0, 1, &[])),
        ("SETTINGS of five bytes", frame(SETTINGS, 0, 0, &[0; 5])),
        ("ACK with contents", frame(SETTINGS, ACK, 0, &[0; 6])),
        ("RST of no stream", frame(RST_STREAM, 0, 0, &CANCEL)),
        ("RST of an idle stream", frame(RST_STREAM, 0, 7, &CANCEL)),
        (
            "PUSH_PROMISE by a client",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82]),
        ),
        (
            "padding longer than the frame",
            frame(HEADERS, WHOLE | 8, 1, &[255, 0x82]),
        ),
        (
            "an index beyond all tables",
            frame(HEADERS, WHOLE, 1, &[0xff, 0xff, 0xff, 0x7f]),
        ),
        ("an index of nothing", frame(HEADERS, WHOLE, 1, &[0x80])),
        (
            "an integer without end",
            frame(HEADERS, WHOLE, 1, &[0xff; 100]),
        ),
        (
            "Huffman's end of text",
            frame(HEADERS, WHOLE, 1, &[0, 0x84, 0xff, 0xff, 0xff, 0xff, 0]),
        ),
        (
            "a table of 2^31",
            frame(HEADERS, WHOLE, 1, &[0x3f, 0xe1, 0xff, 0xff, 0xff, 0x07]),
        ),
    ];
    for (name, bytes) in shapes {
        let mut wire = Wire::open(&server).await;
        wire.send(&bytes).await;
        wire.until_given_up(name).await;
    }
    unharmed(server, &origin).await;
}

#[tokio::test]
async fn requests_that_http_2_does_not_have_are_refused() {
    let (server, origin) = server().await;
    let fields = |fields: &[(&str, &str)]| {
        let block = fields.iter().flat_map(|(name, value)| field(name, value));
        block.collect::<Vec<u8>>()
    };
    let lines = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "x"),
        (":path", TILE),
    ];
    let with = |more: &[(&str, &str)]| fields(&[&lines[..], more].concat());
    let mut first = fields(&[("a", "b")]);
    first.extend(fields(&lines));
    let shapes = [
        ("no path", fields(&lines[..3])),
        ("no method", fields(&lines[1..])),
        ("nothing", Vec::new()),
        ("two paths", with(&[(":path", "/")])),
        (
            "an empty path",
            fields(&[lines[0], lines[1], lines[2], (":path", "")]),
        ),
        ("a response's field", with(&[(":status", "200")])),
        ("an unknown pseudo-field", with(&[(":evil", "x")])),
        ("a pseudo-field behind", first),
        ("upper case", with(&[("Authorization", "Bearer x")])),
        ("a name with a line end", with(&[("a\r\nb", "c")])),
        ("a value with a line end", with(&[("a", "b\r\nHost: evil")])),
        ("a NUL", with(&[("a", "b\0c")])),
        ("connection", with(&[("connection", "close")])),
        (
            "transfer-encoding",
            with(&[("transfer-encoding", "chunked")]),
        ),
        ("a length of nothing", with(&[("content-length", "5")])),
        (
            "two lengths",
            with(&[("content-length", "0"), ("content-length", "5")]),
        ),
        (
            "an escape",
            fields(&[
                lines[0],
                lines[1],
                lines[2],
                (":path", "/world/..%2f0/0/0.png"),
            ]),
        ),
        (
            "a line end in the path",
            fields(&[
                lines[0],
                lines[1],
                lines[2],
                (":path", "/ HTTP/1.1\r\nA: b"),
            ]),
        ),
        ("another host", with(&[("host", "y")])),
    ];
    for (name, block) in shapes {
        let mut wire = Wire::open(&server).await;
        wire.send(&frame(HEADERS, WHOLE, 1, &block)).await;
        wire.until(name, |seen| {
            seen.count(HEADERS) + seen.count(RST_STREAM) > 0 || seen.farewell().is_some()
        })
        .await;
        wire.seen(|seen| {
            let statuses = seen.statuses();
            assert!(
                statuses.iter().all(|status| [0, 400, 404].contains(status)),
                "{name}: {statuses:?}"
            );
            assert_eq!(
                seen.count(DATA),
                statuses.len().min(seen.count(DATA)),
                "{name}"
            );
        });
    }
    honest(&server).await;
    unharmed(server, &origin).await;
}

#[tokio::test]
async fn header_lists_that_grow_out_of_little_are_refused() {
    let (server, origin) = server().await;
    // A field of 4,000 bytes goes into the table once, and then is named by one byte each time.
    let mut bomb = request("GET", TILE, &[]);
    bomb.push(0x40);
    length(&mut bomb, 0, 7, 1);
    bomb.push(b'a');
    length(&mut bomb, 0, 7, 3_900);
    bomb.extend(vec![b'b'; 3_900]);
    bomb.extend(vec![0xbe; 10_000]);
    let long = request("GET", TILE, &field("a", &"b".repeat(15_000)));
    let many: Vec<u8> = (0..400)
        .flat_map(|n| field(&format!("x-{n}"), "aaaaaaaaaaaaaaaaaaaaaaa"))
        .collect();
    for (name, block, times) in [
        ("a bomb", bomb, 20),
        ("long", long, 200),
        ("many", request("GET", TILE, &many), 200),
    ] {
        let mut wire = Wire::open(&server).await;
        for stream in streams().take(times) {
            if !wire.send(&frame(HEADERS, WHOLE, stream, &block)).await {
                break;
            }
        }
        let wanted =
            |seen: &super::frames::Seen| seen.count(HEADERS) + seen.count(RST_STREAM) >= times;
        wire.until(name, |seen| wanted(seen) || seen.farewell().is_some())
            .await;
        wire.seen(|seen| {
            assert!(
                !seen.statuses().contains(&200),
                "{name}: {:?}",
                seen.statuses()
            );
        });
        honest(&server).await;
    }
    unharmed(server, &origin).await;
}

#[tokio::test]
async fn priorities_are_read_over() {
    let (server, origin) = server().await;
    let mut wire = Wire::open(&server).await;
    let mut bytes = Vec::new();
    for stream in streams().take(20_000) {
        let on = (stream + 2).to_be_bytes();
        bytes.extend(frame(
            PRIORITY,
            0,
            stream,
            &[on[0] | 0x80, on[1], on[2], on[3], 255],
        ));
    }
    wire.send(&bytes).await;
    // One that depends on itself, and kinds that nobody knows.
    wire.send(&frame(PRIORITY, 0, 41, &[0, 0, 0, 41, 0])).await;
    wire.send(&frame(0xfa, 0xff, 43, &[0; 100]).repeat(1_000))
        .await;
    wire.send(&frame(
        HEADERS,
        WHOLE,
        50_001,
        &request("GET", TILE, &bearer()),
    ))
    .await;
    wire.until("an answer", |seen| {
        seen.count(HEADERS) > 0 || seen.farewell().is_some()
    })
    .await;
    honest(&server).await;
    drop(wire);
    unharmed(server, &origin).await;
}
