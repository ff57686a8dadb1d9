//! Those who mean harm: a process of its own.

use std::env;
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};

use super::h2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, field,
    frame, request,
};

/// Hostile requests a second; each on a connection of its own, some of them many requests.
const A_SECOND: u64 = 500;
/// Connections that are held.
const SLOW: usize = 200;
/// Tells the child whom to harm: an address, a token and milliseconds.
const ROLE: &str = "TILEKEEP_BENCH_HOSTILE";
/// Nobody waits longer for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whom this process is to harm, if it is to.
pub fn role() -> Option<String> {
    env::var(ROLE).ok()
}

/// Starts the process.
pub fn start(address: SocketAddr, token: &str, lasting: Duration) -> Child {
    Command::new("nice")
        .args(["-n", "10"])
        .arg(env::current_exe().unwrap())
        .env(ROLE, format!("{address} {token} {}", lasting.as_millis()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What became of the hostile requests.
#[derive(Debug, Default)]
struct Told {
    sent: AtomicU64,
    refused: AtomicU64,
    closed: AtomicU64,
    other: AtomicU64,
    unanswered: AtomicU64,
}

/// Is that process.
pub fn run(role: &str) -> ExitCode {
    let mut words = role.split(' ');
    let mut word = || words.next().unwrap();
    let (address, token) = (word().parse().unwrap(), word().to_owned());
    let end = Instant::now() + Duration::from_millis(word().parse().unwrap());
    let told = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let slow: Vec<_> = (0..SLOW)
            .map(|nth| tokio::spawn(timeout_at(end, held(address, nth, token.clone()))))
            .collect();
        let told = Arc::new(Told::default());
        let shapes = Arc::new(shapes());
        let mut ticks = interval(Duration::from_secs(1) / u32::try_from(A_SECOND).unwrap());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut sent = Vec::new();
        for nth in 0_usize.. {
            ticks.tick().await;
            if Instant::now() >= end {
                break;
            }
            let (told, shapes) = (told.clone(), shapes.clone());
            sent.push(tokio::spawn(async move {
                attack(address, &shapes[nth % shapes.len()], &told).await;
            }));
        }
        for one in sent.into_iter().chain(slow.into_iter().map(|one| {
            tokio::spawn(async move {
                let _ = one.await;
            })
        })) {
            let _ = one.await;
        }
        told
    });
    println!(
        "        hostile: {} sent, {} refused (4xx), {} closed without an answer, {} answered otherwise, {} left waiting",
        told.sent.load(Relaxed),
        told.refused.load(Relaxed),
        told.closed.load(Relaxed),
        told.other.load(Relaxed),
        told.unanswered.load(Relaxed),
    );
    ExitCode::from(u8::from(told.other.load(Relaxed) > 0))
}

/// One attack: its bytes, and whether its sender waits for what is answered.
struct Shape {
    bytes: Vec<u8>,
    waits: bool,
}

fn shapes() -> Vec<Shape> {
    let tile = "GET /world/0/0/0.png HTTP/1.1\r\nHost: localhost\r\n";
    let post = "POST /session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let forged = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJldmUiLCJleHAiOjk5OTk5OTk5OTksInRpbGVzZXRzIjpbIioiXX0.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let log_in = r#"{"username":"demo","password":"guess"}"#;
    let http1 = [
        format!("{tile}\r\n"),
        format!("{tile}Authorization: Bearer {forged}\r\n\r\n"),
        format!(
            "{tile}Cookie: tilekeep_session={forged}; tilekeep_session=x; tilekeep_session=y\r\n\r\n"
        ),
        format!("{tile}Authorization: Bearer {}\r\n\r\n", "x".repeat(5_000)),
        "GET /world/..%2f..%2fetc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "GET /world/0/0/\u{663}.png HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        format!(
            "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "a/".repeat(40_000)
        ),
        format!("{tile}{}\r\n", "A: b\r\n".repeat(5_000)),
        format!("{tile}A: {}\r\n\r\n", "b".repeat(40_000)),
        format!("{post}Content-Length: {}\r\n\r\n{log_in}", log_in.len()),
        format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{tile}\r\n"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n"),
        format!(
            "{post}Content-Length: 99999999\r\n\r\n{}",
            "[".repeat(100_000)
        ),
        format!("{tile}A: b\r\n c\r\n\r\n"),
        format!("{tile}\r\n").repeat(50),
        "\0".repeat(1_000),
    ];
    let hello = [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &frame(SETTINGS, 0, 0, &[]),
        &frame(SETTINGS, ACK, 0, &[]),
    ]
    .concat();
    let block = request(
        "GET",
        "/world/0/0/0.png",
        &field("authorization", &format!("Bearer {forged}")),
    );
    let whole = END_HEADERS | END_STREAM;
    let resets = (1..=199).step_by(2).flat_map(|stream| {
        [
            frame(HEADERS, whole, stream, &block),
            frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]),
        ]
        .concat()
    });
    let http2 = [
        resets.collect(),
        frame(PING, 0, 0, b"12345678").repeat(500),
        frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1]).repeat(500),
        [
            frame(HEADERS, 0, 1, &block),
            frame(CONTINUATION, 0, 1, &[]).repeat(500),
        ]
        .concat(),
        [
            frame(HEADERS, END_HEADERS, 1, &block),
            frame(DATA, 0, 1, &[]).repeat(500),
        ]
        .concat(),
        frame(HEADERS, whole, 1, &[0xff; 100]),
    ];
    let one = |bytes: Vec<u8>, waits| Shape { bytes, waits };
    let mut shapes: Vec<Shape> = http1
        .iter()
        .map(|text| one(text.clone().into_bytes(), true))
        .collect();
    shapes.extend(
        http2
            .into_iter()
            .map(|frames: Vec<u8>| one([&hello[..], &frames].concat(), false)),
    );
    // Cut off in the middle, by a reset.
    shapes.push(one(http1[0].as_bytes()[..30].to_vec(), false));
    shapes
}

async fn attack(address: SocketAddr, shape: &Shape, told: &Told) {
    told.sent.fetch_add(1, Relaxed);
    let sent = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        // Who has heard enough may close while we still write.
        let _ = stream.write_all(&shape.bytes).await;
        if !shape.waits {
            socket2::SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .ok()?;
            sleep(Duration::from_millis(50)).await;
            return None;
        }
        let _ = stream.shutdown().await;
        let mut read = Vec::new();
        let _ = stream.read_to_end(&mut read).await;
        Some(read)
    };
    match timeout(PATIENCE, sent).await {
        Err(_) => told.unanswered.fetch_add(1, Relaxed),
        Ok(None) => told.closed.fetch_add(1, Relaxed),
        Ok(Some(read)) if read.is_empty() => told.closed.fetch_add(1, Relaxed),
        Ok(Some(read)) if all_refused(&read) => told.refused.fetch_add(1, Relaxed),
        Ok(Some(read)) => {
            let line = read.split(|byte| *byte == b'\r').next().unwrap_or_default();
            eprintln!("answered: {}", line.escape_ascii());
            told.other.fetch_add(1, Relaxed)
        }
    };
}

/// Whether every answer, and there is one, is 4xx.
fn all_refused(read: &[u8]) -> bool {
    let starts = |text: &[u8]| {
        read.windows(text.len())
            .filter(|part| *part == text)
            .count()
    };
    let all = starts(b"HTTP/1.1 ");
    all > 0 && all == starts(b"HTTP/1.1 4")
}

/// Holds a connection, and again one when it is given up.
async fn held(address: SocketAddr, nth: usize, token: String) {
    sleep(Duration::from_millis(10 * nth as u64)).await;
    loop {
        let _ = match nth % 4 {
            0 | 1 => slow_head(address).await,
            2 => slow_reader(address, &token).await,
            _ => closed_window(address, &token).await,
        };
        sleep(Duration::from_millis(100)).await;
    }
}

async fn slow_head(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    for byte in b"GET /world/0/0/0.png HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
        .iter()
        .cycle()
    {
        stream.write_all(&[*byte]).await?;
        sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// Asks for many tiles with a session, and reads a byte now and then.
async fn slow_reader(address: SocketAddr, token: &str) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    let mut stream = socket.connect(address).await?;
    let request = format!(
        "GET /world/0/0/0.png HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    let requests = request.repeat(500);
    let asking = timeout(
        Duration::from_secs(1),
        stream.write_all(requests.as_bytes()),
    );
    let _ = asking.await;
    loop {
        if stream.read(&mut [0; 16]).await? == 0 {
            return Ok(());
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Asks for as many tiles as it may at a time, over HTTP/2, and grants no window for their bodies.
async fn closed_window(address: SocketAddr, token: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    let block = request(
        "GET",
        "/world/0/0/0.png",
        &field("authorization", &format!("Bearer {token}")),
    );
    for number in (1..=399).step_by(2) {
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, number, &block));
    }
    stream.write_all(&bytes).await?;
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}
