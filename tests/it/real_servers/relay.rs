//! A wire between the origin and a real server that can be cut: what no server does when asked to.
//!
//! Each connection carries one request, so that trouble begins and ends between two of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tilekeep::origin::OriginErrorKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A running relay; it ends with the test's runtime.
pub(super) struct Relay {
    address: SocketAddr,
    trouble: Arc<Mutex<Option<OriginErrorKind>>>,
}

impl Relay {
    /// To the server on this port.
    pub(super) async fn start(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let trouble = Arc::new(Mutex::new(None));
        let now = Arc::clone(&trouble);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let now = Arc::clone(&now);
                tokio::spawn(async move { one_request(stream, port, &now).await });
            }
        });
        Self { address, trouble }
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What the next requests meet.
    pub(super) fn set(&self, trouble: Option<OriginErrorKind>) {
        *self.trouble.lock().unwrap() = trouble;
    }
}

/// Its other side may go at any time: then there is nothing left to do.
async fn one_request(
    mut near: TcpStream,
    port: u16,
    trouble: &Mutex<Option<OriginErrorKind>>,
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(near.read_u8().await.ok()?);
    }
    let trouble = *trouble.lock().unwrap();
    let answer = match trouble {
        Some(OriginErrorKind::Throttled) => canned(503, "SlowDown"),
        Some(OriginErrorKind::Server) => canned(500, "InternalError"),
        Some(OriginErrorKind::Denied) => canned(403, "AccessDenied"),
        Some(OriginErrorKind::Deadline) => {
            // Until the other side has had enough.
            return near.read_u8().await.ok().map(|_| ());
        }
        _ => ask(port, &head).await?,
    };
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let cut = matches!(
        trouble,
        Some(OriginErrorKind::Truncated | OriginErrorKind::Unreachable)
    );
    let sent = if cut { body + 2 } else { answer.len() };
    near.write_all(answer.get(..sent)?).await.ok()?;
    if trouble == Some(OriginErrorKind::Unreachable) {
        // What was sent is to arrive before the reset.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let socket = socket2::SockRef::from(&near);
        socket.set_linger(Some(Duration::ZERO)).ok()?;
    }
    Some(())
}

/// The server's own answer, whole.
async fn ask(port: u16, head: &[u8]) -> Option<Vec<u8>> {
    let mut far = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
    far.write_all(&head[..head.len() - 2]).await.ok()?;
    far.write_all(b"Connection: close\r\n\r\n").await.ok()?;
    let mut answer = Vec::new();
    far.read_to_end(&mut answer).await.ok()?;
    Some(answer)
}

fn canned(status: u16, code: &str) -> Vec<u8> {
    let body = format!("<Error><Code>{code}</Code><Message>On purpose.</Message></Error>");
    let length = body.len();
    format!(
        "HTTP/1.1 {status} On Purpose\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}
