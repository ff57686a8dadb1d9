//! HTTP/1.1 requests that are nothing but a head: what a map asks for.
//!
//! hyper carries a state for bodies, upgrades and trailers, in both directions, through every request. Around a tile
//! that lies in memory that took as long as finding it, so such a request is read, handled and answered here: one
//! read, one write, and between two requests nothing but a buffer.
//!
//! Invariants:
//! * What is read here can be read in one way only: a whole head with CRLF line ends that came in one piece, GET or
//!   HEAD, no field that frames a body or wishes something of the connection. Whatever else comes is hyper's, from its
//!   first byte on, and so is the connection then.
//! * One request at a time, in their order: what is sent ahead waits in the buffer, in the socket, and at the peer.
//! * Bytes become fields by httparse, with hyper's own settings; what `http` would not take is hyper's to refuse.
//!
//! Deadlines are those of `timed_io.rs`, as they are for hyper.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;

use bytes::{Buf, BytesMut};
use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderMap, Method, StatusCode, Version};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::body::{Body, Chunk};
use super::handling::Handling;
use super::header_text::{Text as _, http_date};
use super::reply::Reply;
use super::request_head::{Fields, RequestHead};
use super::tile_head::{put_field, put_status};
use super::timed_io::TimedIo;
use crate::clock::{Clock, Timestamp};
use crate::shutdown::Shutdown;

/// What one read takes in: a browser's head is a quarter of it.
const BUFFER: usize = 8 * 1024;
/// Fields of a head. Browsers send a dozen; with more it is hyper's.
const FIELDS: usize = 48;
/// What an answer's head takes, nearly always.
const ANSWER: usize = 1024;

/// How a connection was left.
pub(super) enum Left<I> {
    /// It has ended.
    Ended(io::Result<()>),
    /// What comes next, given back unread, is hyper's.
    ToHyper(TimedIo<I>),
}

/// Answers what can be answered here.
///
/// `ending` is the shutdown, as a future that is done when it is asked for; nothing is waited for then but the
/// request that is being answered.
pub(super) async fn serve<I, A, E>(
    mut io: TimedIo<I>,
    answer: A,
    mut ending: Pin<&mut E>,
    shutdown: &Shutdown,
    clock: &Clock,
) -> Left<I>
where
    I: AsyncRead + AsyncWrite + Unpin,
    A: Fn(&RequestHead<'_>) -> Handling,
    E: Future<Output = ()>,
{
    let mut buffer = BytesMut::with_capacity(BUFFER);
    let mut writing = Writing::new(clock);
    loop {
        if buffer.is_empty() {
            buffer.reserve(BUFFER);
            let read = tokio::select! {
                biased;
                read = io.read_buf(&mut buffer) => read,
                () = ending.as_mut() => Ok(0),
            };
            match read {
                Ok(0) => return Left::Ended(io.shutdown().await),
                Ok(_) => {}
                Err(error) => {
                    // One that idled may still be there: TLS tells it that this is the end.
                    if error.kind() == io::ErrorKind::TimedOut {
                        let _ = io.shutdown().await;
                    }
                    return Left::Ended(Err(error));
                }
            }
        }
        let read = with_head(&buffer, |head| (answer(head), *head.method == Method::HEAD));
        let Some(((handling, to_head), length)) = read else {
            io.unread(buffer.freeze());
            return Left::ToHyper(io);
        };
        buffer.advance(length);
        let reply = handling.await;
        let last = shutdown.is_asked();
        if let Err(error) = writing.write(&mut io, reply, to_head, last).await {
            return Left::Ended(Err(error));
        }
        if last {
            return Left::Ended(io.shutdown().await);
        }
    }
}

/// Where a head ends that begins at once, and all of whose lines end with CRLF.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let mut line = 0;
    for end in memchr::memchr_iter(b'\n', bytes) {
        if !bytes[line..end].ends_with(b"\r") {
            return None;
        }
        if end == line + 1 {
            return (line > 0).then_some(end + 1);
        }
        line = end + 1;
    }
    None
}

/// Reads the head that the bytes begin with, and its length, if it is one for here.
pub fn with_head<T>(bytes: &[u8], read: impl FnOnce(&RequestHead<'_>) -> T) -> Option<(T, usize)> {
    let bytes = &bytes[..end_of_head(bytes)?];
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let Ok(httparse::Status::Complete(length)) =
        parsed.parse_with_uninit_headers(bytes, &mut fields)
    else {
        return None;
    };
    if length != bytes.len() || parsed.version != Some(1) {
        return None;
    }
    let method = match parsed.method? {
        "GET" => &Method::GET,
        "HEAD" => &Method::HEAD,
        _ => return None,
    };
    let place = parsed.path.filter(|place| is_place(place))?;
    if !parsed.headers.iter().all(is_harmless) {
        return None;
    }
    let head = RequestHead {
        method,
        version: Version::HTTP_11,
        authority: None,
        place,
        fields: Fields::Lines(parsed.headers),
    };
    Some((read(&head), length))
}

/// Whether a target is a path, and maybe a query, of no other characters than may stand there (RFC 3986 §3.3, §3.4).
fn is_place(target: &str) -> bool {
    let may_stand =
        |byte| matches!(byte, b'!' | b'$'..=b';' | b'=' | b'?'..=b'Z' | b'_' | b'a'..=b'z' | b'~');
    target.starts_with('/') && target.bytes().all(may_stand)
}

/// Whether a field says nothing of a body, and of the connection no more than that it may stay.
fn is_harmless(field: &httparse::Header<'_>) -> bool {
    let is = |name: &str| field.name.eq_ignore_ascii_case(name);
    // By length: nearly all fields are of none of these.
    match field.name.len() {
        2 => !is("te"),
        6 => !is("expect"),
        7 => !is("upgrade"),
        10 => !is("connection") || field.value.eq_ignore_ascii_case(b"keep-alive"),
        14 => !is("content-length"),
        17 => !is("transfer-encoding"),
        _ => true,
    }
}

/// What answers are written with.
struct Writing<'c> {
    head: Vec<u8>,
    clock: &'c Clock,
    /// The date's text, and the second that it is of.
    date: (u64, Option<[u8; 29]>),
}

impl<'c> Writing<'c> {
    fn new(clock: &'c Clock) -> Self {
        Self {
            head: Vec::new(),
            clock,
            date: (0, http_date(0)),
        }
    }

    async fn write<I>(
        &mut self,
        io: &mut I,
        reply: Reply,
        to_head: bool,
        last: bool,
    ) -> io::Result<()>
    where
        I: AsyncWrite + Unpin,
    {
        let mut body = match reply {
            Reply::Tile(head, body) => {
                let framing = Framing::of(head.status(), to_head, length(body.as_ref()));
                self.begin();
                head.put_lines(&mut self.head);
                self.end(framing.length, Some(head.answered_at()), last);
                body.filter(|_| framing.has_body)
            }
            Reply::Whole(response) => {
                let (parts, body) = response.into_parts();
                let body = match body {
                    Body::Full(chunk) => chunk,
                    Body::Router(body) => {
                        // A page's, which lies whole in memory.
                        let whole = body.collect().await.map_err(io::Error::other)?;
                        Some(Chunk::Bytes(whole.to_bytes()))
                    }
                };
                let framing = Framing::of(parts.status, to_head, length(body.as_ref()));
                self.begin();
                put_status(&mut self.head, parts.status);
                self.put_fields(&parts.headers, &framing, last);
                body.filter(|_| framing.has_body)
            }
        };
        let mut head = &self.head[..];
        loop {
            let left = body.as_ref().map_or(&[][..], |body| body.chunk());
            if head.is_empty() && left.is_empty() {
                return io.flush().await;
            }
            let writing = poll_fn(|context| {
                let io = Pin::new(&mut *io);
                match (head, left) {
                    // One piece needs no list of pieces, which the kernel would have to read.
                    (one, []) | ([], one) => io.poll_write(context, one),
                    _ => {
                        let both = [IoSlice::new(head), IoSlice::new(left)];
                        io.poll_write_vectored(context, &both)
                    }
                }
            });
            let written = writing.await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let of_head = written.min(head.len());
            head = &head[of_head..];
            if let Some(body) = &mut body
                && written > of_head
            {
                body.advance(written - of_head);
            }
        }
    }

    fn begin(&mut self) {
        self.head.clear();
        self.head.reserve(ANSWER);
    }

    fn put_fields(&mut self, headers: &HeaderMap, framing: &Framing, last: bool) {
        let (mut length, mut date) = (framing.length, Some(self.clock.now()));
        for (name, value) in headers {
            match *name {
                CONTENT_LENGTH if !framing.may_tell_length => continue,
                CONTENT_LENGTH => length = None,
                DATE => date = None,
                _ => {}
            }
            put_field(&mut self.head, name, value);
        }
        self.end(length, date, last);
    }

    /// What an answer's own fields have not said, and the end.
    fn end(&mut self, length: Option<usize>, now: Option<Timestamp>, last: bool) {
        let head = &mut self.head;
        if let Some(length) = length {
            head.put(b"\r\ncontent-length: ");
            head.put_number(length);
        }
        if last {
            head.put(b"\r\nconnection: close");
        }
        if let Some(now) = now {
            if now.secs() != self.date.0 {
                self.date = (now.secs(), http_date(now.secs()));
            }
            if let Some(date) = &self.date.1 {
                head.put(b"\r\ndate: ");
                head.put(date);
            }
        }
        head.put(b"\r\n\r\n");
    }
}

fn length(body: Option<&Chunk>) -> usize {
    body.map_or(0, Buf::remaining)
}

/// What frames an answer's body (RFC 9110 §6.4.1, §8.6).
#[derive(Debug, PartialEq, Eq)]
struct Framing {
    has_body: bool,
    may_tell_length: bool,
    /// Told where the answer brings none of its own.
    length: Option<usize>,
}

impl Framing {
    fn of(status: StatusCode, to_head: bool, length: usize) -> Self {
        let bodiless = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
        Self {
            has_body: !bodiless && !to_head,
            may_tell_length: !bodiless,
            // How long the body would be that HEAD does not get, only an answer that has one can say.
            length: (!bodiless && (length > 0 || !to_head)).then_some(length),
        }
    }
}

#[cfg(test)]
mod tests;
