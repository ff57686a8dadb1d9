//! HTTP/2 frames written by hand (RFC 9113), so that they can be wrong.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::PATIENCE;
use crate::support::Running;
use crate::wire;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A frame as it was read.
#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub payload: Vec<u8>,
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A field, literally, in no table (RFC 7541 §6.2.2).
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        length(&mut bytes, 0, 7, text.len());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// An integer behind `bits` bits of a byte (RFC 7541 §5.1).
pub fn length(bytes: &mut Vec<u8>, first: u8, bits: u32, value: usize) {
    let most = (1 << bits) - 1;
    if value < most {
        bytes.push(first | u8::try_from(value).unwrap());
        return;
    }
    bytes.push(first | u8::try_from(most).unwrap());
    let mut rest = value - most;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
}

/// A request's header block; `more` is whole fields.
pub fn request(method: &str, path: &str, more: &[u8]) -> Vec<u8> {
    let mut block = field(":method", method);
    block.extend(field(":scheme", "http"));
    block.extend(field(":authority", "x"));
    block.extend(field(":path", path));
    block.extend_from_slice(more);
    block
}

/// The field that lets in.
pub fn bearer() -> Vec<u8> {
    let token = crate::support::token(&crate::support::claims());
    field("authorization", &format!("Bearer {token}"))
}

/// A connection whose peer's frames are read as they come.
pub struct Wire {
    write: OwnedWriteHalf,
    seen: Arc<Mutex<Seen>>,
    reading: JoinHandle<()>,
}

/// What the server has sent.
#[derive(Debug, Default)]
pub struct Seen {
    /// All but the contents of DATA.
    pub frames: Vec<Frame>,
    pub ended: bool,
}

impl Seen {
    /// Frames of a kind.
    pub fn count(&self, kind: u8) -> usize {
        self.frames
            .iter()
            .filter(|frame| frame.kind == kind)
            .count()
    }

    /// The status codes, as far as they are in HPACK's static table or written plainly; 0 for another one.
    pub fn statuses(&self) -> Vec<u16> {
        let heads = self.frames.iter().filter(|frame| frame.kind == HEADERS);
        heads.map(|frame| status(&frame.payload)).collect()
    }

    /// The reason of the last GOAWAY that gives one.
    pub fn farewell(&self) -> Option<u32> {
        let mut all = self
            .frames
            .iter()
            .rev()
            .filter(|frame| frame.kind == GOAWAY);
        let reason = |frame: &Frame| {
            frame
                .payload
                .get(4..8)?
                .try_into()
                .ok()
                .map(u32::from_be_bytes)
        };
        all.find_map(reason)
    }
}

/// `:status` comes first; a size update of the table may stand before it.
fn status(block: &[u8]) -> u16 {
    let skipped = block
        .iter()
        .take_while(|byte| **byte & 0xe0 == 0x20)
        .count();
    match block.get(skipped) {
        Some(0x88) => 200,
        Some(0x89) => 204,
        Some(0x8a) => 206,
        Some(0x8b) => 304,
        Some(0x8c) => 400,
        Some(0x8d) => 404,
        Some(0x8e) => 500,
        // Others are literals with an indexed name; Huffman's code for digits is five or six bits long.
        _ => 0,
    }
}

impl Wire {
    /// Connects, and says what a client says first.
    pub async fn open(server: &Running) -> Self {
        let mut wire = Self::silent(server).await;
        wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        wire.send(&frame(SETTINGS, 0, 0, &[])).await;
        wire.send(&frame(SETTINGS, ACK, 0, &[])).await;
        wire
    }

    /// Connects and says nothing.
    pub async fn silent(server: &Running) -> Self {
        let (mut read, write) = wire::connect(server).await.into_split();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let noted = seen.clone();
        let reading = tokio::spawn(async move {
            let mut head = [0; 9];
            while read.read_exact(&mut head).await.is_ok() {
                let [a, b, c, kind, flags, ..] = head;
                let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
                if read.read_exact(&mut payload).await.is_err() {
                    break;
                }
                if kind == DATA {
                    payload.clear();
                }
                let frame = Frame {
                    kind,
                    flags,
                    payload,
                };
                noted.lock().unwrap().frames.push(frame);
            }
            noted.lock().unwrap().ended = true;
        });
        Self {
            write,
            seen,
            reading,
        }
    }

    /// Writes; whether all of it was taken in time.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        matches!(
            timeout(PATIENCE, self.write.write_all(bytes)).await,
            Ok(Ok(()))
        )
    }

    /// What the server has sent so far.
    pub fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap())
    }

    /// Waits until the server has sent that, or has closed.
    pub async fn until(&self, what: &str, is_it: impl Fn(&Seen) -> bool) {
        let begun = Instant::now();
        while !self.seen(|seen| seen.ended || is_it(seen)) {
            let frames = self
                .seen(|seen| format!("{:?}", seen.frames.iter().rev().take(5).collect::<Vec<_>>()));
            assert!(begun.elapsed() < PATIENCE, "{what}: {frames}");
            sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Waits until the server has given this connection up: by GOAWAY or by closing it.
    pub async fn until_given_up(&self, what: &str) {
        self.until(what, |seen| seen.farewell().is_some()).await;
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// A connection of which nothing is read: what the server wants to say piles up, or halts it.
pub async fn unread(server: &Running) -> TcpStream {
    let mut stream = wire::connect(server).await;
    let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    hello.extend(frame(SETTINGS, 0, 0, &[]));
    stream.write_all(&hello).await.unwrap();
    stream
}
