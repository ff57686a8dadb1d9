//! The same behind TLS: handshakes that never end, are cut or are none, and slow heads inside of whole ones.

use std::io::Write as _;
use std::sync::Arc;

use tilekeep::client::{Client, Credential, Protocol};
use tilekeep::config::Tls;
use tilekeep::tile::TileFormat;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection};

use super::{Origin, PATIENCE, until_open};
use crate::certificate::{certificate, trusting};
use crate::support::{self, Running, claims, config, spec, token};
use crate::wire;

/// A server with TLS and one tile, and what its honest clients trust.
struct Behind {
    server: Running,
    origin: Origin,
    trust: ClientConfig,
    _folder: tempfile::TempDir,
}

impl Behind {
    async fn tls() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = certificate(folder.path());
        let trust = trusting(&cert);
        let mut config = config([spec("world", TileFormat::Png)]);
        config.server.tls = Some(Tls { cert, key });
        let origin = wire::origin();
        let server = support::start(config, origin.clone()).await;
        let this = Self {
            server,
            origin,
            trust,
            _folder: folder,
        };
        this.honest().await;
        this
    }

    /// An honest client has its tile, by either protocol, beside whatever goes on.
    async fn honest(&self) {
        let port = self.server.addresses.public.port();
        let bearer = Credential::token(&token(&claims())).unwrap();
        let begun = Instant::now();
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let url = format!("https://localhost:{port}").parse().unwrap();
            let client = Client::with_tls(url, protocol, Some(self.trust.clone()));
            let mut connection = client.connect(PATIENCE).await.unwrap();
            let headers = http::HeaderMap::new();
            let asked = connection.get("/world/0/0/0.png", &bearer, &headers, PATIENCE);
            assert_eq!(asked.await.unwrap().status, http::StatusCode::OK);
        }
        assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
    }

    /// What a client says first.
    fn hello(&self) -> Vec<u8> {
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(Arc::new(self.trust.clone()), name).unwrap();
        let mut hello = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut hello).unwrap();
        }
        hello
    }

    async fn unharmed(self) {
        self.honest().await;
        until_open(&self.server, |open| open == 0).await;
        assert_eq!(self.origin.calls(), 1, "nobody but the honest client asked");
        self.server.stop().await;
    }
}

/// What the server says until it closes; nothing, where it resets.
async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut read)).await;
    // A reset is an end, too.
    let _ = end.expect("an end");
    read
}

#[tokio::test]
async fn handshakes_that_never_end_are_ended_and_take_nothing_from_honest_clients() {
    let behind = Behind::tls().await;
    let hello = behind.hello();
    let mut slow = Vec::new();
    for n in 0..200 {
        let mut stream = wire::connect(&behind.server).await;
        // Of some nothing, of some the whole first word, of most a part of it.
        let said = n * hello.len() / 199;
        stream.write_all(&hello[..said]).await.unwrap();
        slow.push(stream);
    }
    until_open(&behind.server, |open| open == 200).await;
    behind.honest().await;
    // Nobody hangs up: the server has to.
    until_open(&behind.server, |open| open == 0).await;
    drop(slow);
    behind.unharmed().await;
}

#[tokio::test]
async fn what_is_no_handshake_is_closed_without_an_answer_in_the_clear() {
    let behind = Behind::tls().await;
    let hello = behind.hello();
    let request = wire::tile_request("\r\n").into_bytes();
    let mut words = vec![
        request.clone(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".repeat(4000),
        // SSL 2's hello, a record longer than any may be, records without anything in them, an alert, a heartbeat.
        b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10".to_vec(),
        [b"\x16\x03\x01\xff\xff".as_slice(), &[0; 1 << 16]].concat(),
        b"\x16\x03\x01\x00\x00".repeat(20_000),
        b"\x15\x03\x01\x00\x02\x01\x00".repeat(10_000),
        b"\x18\x03\x02\x00\x03\x01\x40\x00".to_vec(),
        hello.repeat(50),
        // A request after the hello, which nobody has agreed to yet.
        [hello.as_slice(), request.as_slice()].concat(),
    ];
    for place in (0..hello.len()).step_by(9) {
        let mut other = hello.clone();
        other[place] ^= 0xff;
        words.push(other);
    }
    for word in words {
        let mut stream = wire::connect(&behind.server).await;
        let _ = timeout(PATIENCE, stream.write_all(&word)).await;
        let _ = stream.shutdown().await;
        let read = read_to_end(&mut stream).await;
        let start = String::from_utf8_lossy(&word[..word.len().min(20)]).into_owned();
        assert!(
            !read.windows(5).any(|five| five == b"HTTP/"),
            "{start:?}: {read:?}"
        );
        assert!(read.len() < 16 << 10, "{start:?}: {} bytes", read.len());
    }
    behind.unharmed().await;
}

#[tokio::test]
async fn slow_heads_inside_of_tls_take_nothing_either() {
    let behind = Behind::tls().await;
    let connector = TlsConnector::from(Arc::new(behind.trust.clone()));
    let request = wire::tile_request("\r\n");
    let mut slow = Vec::new();
    for _ in 0..200 {
        let stream = wire::connect(&behind.server).await;
        let name = ServerName::try_from("localhost").unwrap();
        slow.push(connector.connect(name, stream).await.unwrap());
    }
    for byte in &request.as_bytes()[..4] {
        for stream in &mut slow {
            stream.write_all(&[*byte]).await.unwrap();
            stream.flush().await.unwrap();
        }
        behind.honest().await;
    }
    // Some say good-bye, some are cut in the middle of a record, some are gone without a word.
    for (n, mut stream) in slow.into_iter().enumerate() {
        match n % 3 {
            0 => stream.shutdown().await.unwrap(),
            1 => {
                let (io, tls) = stream.get_mut();
                tls.writer().write_all(b"ET /").unwrap();
                let mut record = Vec::new();
                tls.write_tls(&mut record).unwrap();
                io.write_all(&record[..record.len() / 2]).await.unwrap();
            }
            _ => {}
        }
    }
    behind.unharmed().await;
}

#[tokio::test]
async fn the_end_of_a_connection_is_told_inside_of_tls() {
    let behind = Behind::tls().await;
    let connector = TlsConnector::from(Arc::new(behind.trust.clone()));
    let mut streams = Vec::new();
    for _ in 0..2 {
        let stream = wire::connect(&behind.server).await;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        let request = wire::tile_request("\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\ntile") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
        }
        streams.push(stream);
    }
    // Without the alert an end counts as somebody's cut: reading would fail.
    let mut rest = Vec::new();
    streams[0].shutdown().await.unwrap();
    streams[0].read_to_end(&mut rest).await.unwrap();
    behind.server.stop().await;
    streams[1].read_to_end(&mut rest).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&rest), "");
}
