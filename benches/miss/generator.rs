//! Who asks the server: people of a thousand sessions over connections that stay, and one browser that opens a
//! map.

#![allow(
    clippy::disallowed_methods,
    reason = "a bench measures by the clock on the wall"
)]

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::{fixture, key};

/// Until its standard input ends.
pub fn serve(server: &str, concurrency: usize) {
    let tokens: Arc<[String]> = fixture::tokens().into();
    let streams: Vec<_> = (0..concurrency)
        .map(|_| TcpStream::connect(server).unwrap())
        .collect();
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let (from, count) = line.split_once(' ').unwrap();
        let (from, count): (usize, usize) = (from.parse().unwrap(), count.parse().unwrap());
        let next = AtomicUsize::new(from);
        thread::scope(|scope| {
            for mut stream in &streams {
                let (next, tokens) = (&next, &tokens);
                scope.spawn(move || {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= from + count {
                            break;
                        }
                        ask(&mut stream, number, &tokens[number % tokens.len()]);
                    }
                });
            }
        });
        println!("done");
        std::io::stdout().flush().unwrap();
    }
}

/// A tile that nobody had asked for.
fn ask(stream: &mut &TcpStream, number: usize, token: &str) {
    let path = key(number);
    let head = format!(
        "GET /{path} HTTP/1.1\r\nHost: localhost\r\nCookie: tilekeep_session={token}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let (mut answer, mut part) = (Vec::new(), [0; 16 * 1024]);
    let (head, body) = loop {
        let read = stream.read(&mut part).unwrap();
        assert!(read > 0, "the server hung up");
        answer.extend_from_slice(&part[..read]);
        if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
            break (head, end + 4);
        }
    };
    assert!(head.starts_with("http/1.1 200"), "{path}: {head}");
    assert!(head.contains("fwd=miss; stored"), "{path}: {head}");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap();
    let length: usize = length.parse().unwrap();
    while answer.len() < body + length {
        let read = stream.read(&mut part).unwrap();
        assert!(read > 0, "the server hung up");
        answer.extend_from_slice(&part[..read]);
    }
}

/// A browser with one connection of HTTP/2 to a server.
pub struct Browser {
    runtime: tokio::runtime::Runtime,
    sender: SendRequest<Empty<Bytes>>,
    token: String,
}

impl Browser {
    pub fn connect(server: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let sender = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(server).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let executor = TokioExecutor::new();
            let both = hyper::client::conn::http2::handshake(executor, TokioIo::new(stream));
            let (sender, connection) = both.await.unwrap();
            tokio::spawn(connection);
            sender
        });
        Self {
            runtime,
            sender,
            token: fixture::tokens().swap_remove(0),
        }
    }

    /// Asks for all of these at once; how long until the last one is there.
    pub fn view(&self, from: usize, count: usize) -> Duration {
        self.runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            let begun = Instant::now();
            for number in from..from + count {
                let request = http::Request::get(format!("http://localhost/{}", key(number)))
                    .header("cookie", format!("tilekeep_session={}", self.token))
                    .body(Empty::new())
                    .unwrap();
                let answer = self.sender.clone().send_request(request);
                tasks.spawn(async move {
                    let answer = answer.await.unwrap();
                    assert!(answer.status().is_success(), "{}", answer.status());
                    answer.into_body().collect().await.unwrap().to_bytes().len()
                });
            }
            while let Some(ended) = tasks.join_next().await {
                assert!(ended.unwrap() > 1000);
            }
            begun.elapsed()
        })
    }
}
