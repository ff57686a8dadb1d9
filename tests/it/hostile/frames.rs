//! A client's side of an HTTP/2 connection that can be wrong in every frame.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::PATIENCE;
pub use super::h2::*;
use crate::support::Running;
use crate::wire;

/// A frame as it was read.
#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub payload: Vec<u8>,
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
        let mut wire = Self {
            write,
            seen,
            reading,
        };
        wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        wire.send(&frame(SETTINGS, 0, 0, &[])).await;
        wire.send(&frame(SETTINGS, ACK, 0, &[])).await;
        wire
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
