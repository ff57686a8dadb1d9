use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderName, Request, Response};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

/// The request that these bytes begin with, if it is read here, and what follows.
fn taken(bytes: &[u8]) -> Option<(Request<()>, &[u8])> {
    let (request, length) = with_head(bytes, |head| head.to_request(()).unwrap())?;
    Some((request, &bytes[length..]))
}

#[test]
fn a_head_of_a_map_is_read_here_and_what_follows_stays() {
    let text = "GET /w/1/0/0.png?v=2 HTTP/1.1\r\nHost: x\r\nconnection: Keep-Alive\r\nCookie: a=b\r\nCookie: c=d\r\nX:\r\n\r\nGET";
    let (request, rest) = taken(text.as_bytes()).unwrap();
    assert_eq!(request.method(), Method::GET);
    assert_eq!(request.uri(), "/w/1/0/0.png?v=2");
    assert_eq!(request.headers()["host"], "x");
    assert_eq!(request.headers()["x"], "");
    let cookies: Vec<_> = request.headers().get_all("cookie").iter().collect();
    assert_eq!(cookies, ["a=b", "c=d"]);
    assert_eq!(rest, b"GET");
}

#[test]
fn what_could_be_read_in_two_ways_is_left_whole() {
    let get = |field: &str| format!("GET / HTTP/1.1\r\nHost: x\r\n{field}\r\n\r\nrest");
    let many = "X: y\r\n".repeat(FIELDS) + "X: y";
    let mut texts: Vec<String> = [
        "Content-Length: 0",
        "content-length: 4",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
        "Connection: close",
        "Connection: keep-alive, Upgrade",
        "Upgrade: h2c",
        "Expect: 100-continue",
        "TE: trailers",
        " folded: y",
        "X: a\nY: b",
        "X: \0",
        "X y: z",
        ": y",
        &many,
    ]
    .map(get)
    .to_vec();
    for text in [
        "",
        "GET / HTTP/1.1\r\nHost: x\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\nHost: x\n\nGET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\n\r\nX: y\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: x\r\n\r\n",
        "GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: x\r\n\r\n",
        "OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\u{16}\u{3}\u{1}\r\n\r\n",
    ] {
        texts.push(text.to_owned());
    }
    for text in texts {
        assert!(taken(text.as_bytes()).is_none(), "{text}");
    }
}

#[test]
fn an_answer_is_framed_as_its_status_and_method_have_it() {
    for (status, to_head, length, has_body, told) in [
        (StatusCode::OK, false, 5, true, Some(5)),
        (StatusCode::OK, false, 0, true, Some(0)),
        (StatusCode::OK, true, 0, false, None),
        (StatusCode::BAD_REQUEST, true, 5, false, Some(5)),
        (StatusCode::NOT_FOUND, false, 5, true, Some(5)),
        (StatusCode::NO_CONTENT, false, 0, false, None),
        (StatusCode::NOT_MODIFIED, false, 5, false, None),
        (StatusCode::NOT_MODIFIED, true, 0, false, None),
    ] {
        let framing = Framing::of(status, to_head, length);
        assert_eq!(framing.has_body, has_body, "{status} {to_head}");
        assert_eq!(framing.length, told, "{status} {to_head}");
    }
}

#[tokio::test]
async fn what_has_no_body_tells_no_length_even_where_the_answer_does() {
    let clock = Clock::manual(Timestamp::from_secs(784_111_777));
    let mut writing = Writing::new(&clock);
    let mut io = Sluggish(Vec::new());
    let response = Response::builder()
        .status(StatusCode::NOT_MODIFIED)
        .header("content-length", "0")
        .body(Body::from(Bytes::from_static(b"lost")))
        .unwrap();
    writing
        .write(&mut io, response.into(), false, false)
        .await
        .unwrap();
    assert_eq!(
        String::from_utf8(io.0).unwrap(),
        "HTTP/1.1 304 Not Modified\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"
    );
}

/// Takes a few bytes at a time.
struct Sluggish(Vec<u8>);

impl AsyncWrite for Sluggish {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = bytes.len().min(7);
        self.0.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn an_answer_is_written_whole_however_little_is_taken_at_a_time() {
    let clock = Clock::manual(Timestamp::from_secs(784_111_777));
    let mut writing = Writing::new(&clock);
    let mut io = Sluggish(Vec::new());
    for (last, expected) in [
        (
            false,
            "HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 12\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\na tile's pic",
        ),
        (
            true,
            "HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 12\r\nconnection: close\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\na tile's pic",
        ),
    ] {
        let body = Body::from(Bytes::from_static(b"a tile's pic"));
        let response = Response::builder().header("x", "y").body(body).unwrap();
        writing
            .write(&mut io, response.into(), false, last)
            .await
            .unwrap();
        assert_eq!(
            String::from_utf8(std::mem::take(&mut io.0)).unwrap(),
            expected
        );
    }
}

/// What hyper makes of the first request in these bytes.
fn by_hyper(bytes: &[u8]) -> Option<Request<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (mut peer, ours) = tokio::io::duplex(64 * 1024);
        let first = Arc::new(Mutex::new(None));
        let seen = first.clone();
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            seen.lock().unwrap().get_or_insert(request.map(drop));
            async { Ok::<_, Infallible>(Response::new(Body::empty())) }
        });
        peer.write_all(bytes).await.unwrap();
        peer.shutdown().await.unwrap();
        let _ = hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .serve_connection(TokioIo::new(ours), service)
            .await;
        first.lock().unwrap().take()
    })
}

/// Whether a head says the same where it lies as in `http`'s types.
fn agree(ours: &RequestHead<'_>, theirs: &RequestHead<'_>) {
    assert_eq!(ours.path(), theirs.path());
    assert_eq!(ours.query(), theirs.query());
    for name in ["host", "cookie", "connection", "x", "if-none-match"] {
        let name = HeaderName::from_static(name);
        let both = [ours, theirs].map(|head| head.fields.all(&name).collect::<Vec<_>>());
        assert_eq!(both[0], both[1]);
        assert_eq!(ours.fields.get(&name), both[0].first().copied());
        let mut backwards: Vec<_> = ours.fields.all(&name).rev().collect();
        backwards.reverse();
        assert_eq!(backwards, both[0]);
    }
}

/// Heads, nearly.
fn heads() -> impl Strategy<Value = Vec<u8>> {
    let method = select(vec!["GET", "GET", "GET", "HEAD", "get", "POST", "G T"]);
    let target = select(vec![
        "/w/1/0/0.png",
        "/",
        "/a?b=c",
        "/a?b=c?d",
        "/a?",
        "/?\"{}|",
        "/^`",
        "/%2e",
        "//x/y",
        "/#a",
        "/\u{e9}",
        "*",
        "http://x/",
    ]);
    let version = select(vec![
        "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0",
    ]);
    let name = select(vec![
        "Host",
        "cookie",
        "Connection",
        "Content-Length",
        "x",
        "X-\u{e9}",
        "a b",
        "",
        " ",
    ]);
    let value = select(vec![
        "x",
        "",
        " x ",
        "keep-alive",
        "close",
        "0",
        "\u{e9}",
        "a\tb",
        "a\rb",
        "a\0b",
    ]);
    let colon = select(vec![":", ": ", ": ", ":\t", " : "]);
    let end = select(vec![
        "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r\n ", " \r\n",
    ]);
    let field = (name, colon, value, end.clone())
        .prop_map(|(name, colon, value, end)| [name, colon, value, end].concat());
    let fields = proptest::collection::vec(field, 0..5);
    let flip = proptest::option::weighted(0.3, (any::<Index>(), any::<u8>()));
    (method, target, version, end, fields, flip).prop_map(
        |(method, target, version, end, fields, flip)| {
            let fields = fields.concat();
            let text = format!("{method} {target} {version}{end}{fields}\r\nrest");
            let mut bytes = text.into_bytes();
            if let Some((at, byte)) = flip {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn what_is_read_here_is_what_hyper_reads(bytes in heads()) {
        if let Some((ours, _)) = taken(&bytes) {
            let hyper = by_hyper(&bytes).expect("a request that hyper reads as well");
            prop_assert_eq!(ours.method(), hyper.method());
            prop_assert_eq!(ours.uri(), hyper.uri());
            prop_assert_eq!(ours.version(), hyper.version());
            prop_assert_eq!(ours.headers(), hyper.headers());
            with_head(&bytes, |head| agree(head, &RequestHead::of(&hyper)));
        }
    }
}
