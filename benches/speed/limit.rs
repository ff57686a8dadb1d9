//! The limit: the least that a hyper server can do and still check who asks. One hash map, four
//! headers, one HMAC over the cookie; no quotas, no metrics, no tiers, no errors worth the name.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::{env, fs, thread};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, COOKIE, ETAG, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;

use crate::fixture::SESSION_KEY;

/// Tells the child that it is this server: the files' folder.
pub const ROLE: &str = "TILEKEEP_BENCH_LIMIT";
/// And where to listen.
pub const LISTEN: &str = "TILEKEEP_BENCH_LISTEN";

struct Tiles {
    by_path: HashMap<String, (Bytes, HeaderValue)>,
    key: hmac::Key,
}

/// Serves a folder until it is killed: a runtime a core, each with a socket of its own.
pub fn serve(folder: &str) {
    let address: SocketAddr = env::var(LISTEN).unwrap().parse().unwrap();
    let tiles = Arc::new(Tiles {
        by_path: load(Path::new(folder)),
        key: hmac::Key::new(hmac::HMAC_SHA256, SESSION_KEY.as_bytes()),
    });
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads: Vec<_> = (0..cores)
        .map(|_| {
            let tiles = tiles.clone();
            thread::spawn(move || listen(address, &tiles))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

fn load(folder: &Path) -> HashMap<String, (Bytes, HeaderValue)> {
    let mut tiles = HashMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let body = fs::read(&path).unwrap();
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &body);
            let etag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&digest.as_ref()[..16]));
            let name = format!("/{}", path.strip_prefix(folder).unwrap().display());
            tiles.insert(name, (body.into(), etag.try_into().unwrap()));
        }
    }
    tiles
}

fn listen(address: SocketAddr, tiles: &Arc<Tiles>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseport(true).unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(1024).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let tiles = tiles.clone();
            tokio::task::spawn_local(async move {
                let service = service_fn(move |request| {
                    let response = tiles.answer(&request);
                    async move { Ok::<_, Infallible>(response) }
                });
                let connection = auto::Builder::new(TokioExecutor::new());
                let _ = connection
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
}

impl Tiles {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        if !self.lets_in(request) {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            return response;
        }
        let Some((body, etag)) = self.by_path.get(request.uri().path()) else {
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        };
        let headers = response.headers_mut();
        headers.insert(ETAG, etag.clone());
        headers.insert(
            CACHE_CONTROL,
            HeaderValue::from_static("private, max-age=3600, stale-while-revalidate=39600"),
        );
        if request.headers().get(IF_NONE_MATCH) == Some(etag) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("image/png"));
        headers.insert(
            LAST_MODIFIED,
            HeaderValue::from_static("Sun, 01 Nov 2026 00:00:00 GMT"),
        );
        *response.body_mut() = Full::new(body.clone());
        response
    }

    fn lets_in(&self, request: &Request<Incoming>) -> bool {
        let token = request
            .headers()
            .get(COOKIE)
            .and_then(|cookie| cookie.to_str().ok())
            .and_then(|cookie| cookie.strip_prefix("tilekeep_session="));
        let Some((signed, signature)) = token.and_then(|token| token.rsplit_once('.')) else {
            return false;
        };
        let mut tag = [0; 33];
        match URL_SAFE_NO_PAD.decode_slice(signature, &mut tag) {
            Ok(length) => hmac::verify(&self.key, signed.as_bytes(), &tag[..length]).is_ok(),
            Err(_) => false,
        }
    }
}
