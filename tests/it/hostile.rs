//! Clients that mean harm, on raw sockets.
//!
//! | what | where |
//! | --- | --- |
//! | handshakes that are none, slow ones, slow heads behind TLS | `handshakes` |
//! | slow heads, slow reading, half-closed and reset connections, pipelining | `connections` |
//! | floods of headers and URLs, what is no HTTP | `heads` |
//! | bodies that two readers would end in two places | `bodies`, and `wire` |
//! | paths that mean another path to somebody | `paths` |
//! | HTTP/2: rapid reset, floods of frames, windows, header lists | `streams`, `floods`, by `frames` |
//!
//! After each of them an honest client has its tile at once, and every connection's place is given back.

use std::sync::Arc;
use std::time::Duration;

use tilekeep::origin::failing::{FailingOrigin, MemoryOrigin};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep, timeout};

use crate::support::Running;
use crate::wire;

mod bodies;
mod connections;
mod floods;
mod frames;
mod h2;
mod handshakes;
mod heads;
mod paths;
mod streams;

/// What nobody waits for longer, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

type Origin = Arc<FailingOrigin<MemoryOrigin>>;

/// A server with one tile, that an honest client has had already.
async fn server() -> (Running, Origin) {
    let (server, origin) = wire::server().await;
    honest(&server).await;
    (server, origin)
}

/// An honest client has its tile, beside whatever goes on.
async fn honest(server: &Running) {
    let ask = async {
        let mut stream = wire::connect(server).await;
        let request = wire::tile_request("\r\n").replacen("\r\n", "\r\nConnection: close\r\n", 1);
        stream.write_all(request.as_bytes()).await.unwrap();
        wire::read_until(&mut stream, "\r\n\r\ntile").await
    };
    let begun = Instant::now();
    let answer = timeout(PATIENCE, ask).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // 'At once' is a thousandth of this; a machine may be busy.
    assert!(begun.elapsed() < PATIENCE / 4, "{:?}", begun.elapsed());
}

/// How many connections have a place, as the admin side tells it.
async fn open_connections(server: &Running) -> u64 {
    let admin = server.addresses.admin;
    let metrics = server.send_to(admin, http::Method::GET, "/metrics", &[], "");
    let text = String::from_utf8(metrics.await.body.to_vec()).unwrap();
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix("tilekeep_connections "));
    line.unwrap().parse().unwrap()
}

/// Waits until so many connections have a place.
async fn until_open(server: &Running, wanted: impl Fn(u64) -> bool) {
    let begun = Instant::now();
    loop {
        let open = open_connections(server).await;
        if wanted(open) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{open} connections are open");
        sleep(Duration::from_millis(20)).await;
    }
}

/// What has to hold when the harm is done: an honest client is served, and every place is free again.
async fn unharmed(server: Running, origin: &Origin) {
    honest(&server).await;
    until_open(&server, |open| open == 0).await;
    assert_eq!(origin.calls(), 1, "nobody but the honest client asked");
    server.stop().await;
}

/// The status codes of all answers in what was read.
fn statuses(read: &str) -> Vec<u16> {
    let after = |line: &str| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok();
    read.lines().filter_map(after).collect()
}

/// Sends bytes, and reads to the connection's end: at most one answer, and that a refusal.
async fn refused_or_closed(server: &Running, name: &str, bytes: &[u8]) {
    let mut stream = wire::connect(server).await;
    // A peer that has heard enough may close while we still write.
    let _ = timeout(PATIENCE, stream.write_all(bytes)).await;
    let _ = stream.shutdown().await;
    let read = wire::read_until(&mut stream, "\u{0}never").await;
    let statuses = statuses(&read);
    assert!(statuses.len() <= 1, "{name}: {read}");
    let refused = statuses.iter().all(|status| (400..500).contains(status));
    assert!(refused, "{name}: {read}");
}
