//! A bucket of bounded capacity: so many requests at a time, so long for each, and no more work than that. It
//! looks at no signature; what a tile holds comes from its key, so that no two are the same.

use std::convert::Infallible;
use std::env;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, LAST_MODIFIED};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

const BODY: usize = 8700;

/// Answers until it is ended. Its arguments: how many at once, and how many milliseconds each.
pub fn serve() {
    let mut numbers = env::args().filter_map(|arg| arg.parse::<u64>().ok());
    let at_once = usize::try_from(numbers.next().unwrap()).unwrap();
    let latency = Duration::from_millis(numbers.next().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("http://{}", listener.local_addr().unwrap());
        let slots = Arc::new(Semaphore::new(at_once));
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let slots = slots.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| answer(request, &slots, latency));
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
}

async fn answer(
    request: Request<Incoming>,
    slots: &Semaphore,
    latency: Duration,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let _slot = slots.acquire().await.unwrap();
    tokio::time::sleep(latency).await;
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(request.uri().path());
    let mut body = b"\x89PNG\r\n\x1a\n".to_vec();
    body.extend_from_slice(&hash.to_le_bytes());
    body.resize(BODY, 0x5a);
    let answer = Response::builder()
        .header(ETAG, format!("\"{hash:032x}\""))
        .header(LAST_MODIFIED, "Mon, 02 Nov 2026 08:00:00 GMT")
        .header(CONTENT_TYPE, "image/png");
    Ok(answer.body(Full::new(body.into())).unwrap())
}
