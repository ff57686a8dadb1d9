//! Connections: accepted on a loopback address, bounded in number, closed by themselves at the end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::service::S3Service;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use super::faults::{CannedAnswer, Fault, FaultyBody, Operation, Script, Wire};
use super::sts;

/// Connections at once. More wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1024;
/// How long a connection may take to send a request's head, and to stand idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long open requests may go on after the end was announced.
const GRACE: Duration = Duration::from_secs(1);

/// What every connection shares.
pub(super) struct Front {
    pub(super) service: S3Service,
    pub(super) script: Script,
    pub(super) requests: AtomicU64,
}

/// Accepts until told to stop.
pub(super) async fn run(listener: TcpListener, front: Arc<Front>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let for_each = stop.clone();
    loop {
        let room = connections.len() < MAX_CONNECTIONS;
        tokio::select! {
            () = told(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if room => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&front), for_each.clone()));
                }
                // Out of file descriptors, mostly: it would fail again at once.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    // What is left is aborted with the set.
    let _ = tokio::time::timeout(GRACE, ended).await;
}

/// Ends when it is time to stop, also because nobody is left to say so.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn connection(stream: TcpStream, front: Arc<Front>, mut stop: watch::Receiver<bool>) {
    // Small answers: waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let wire = Arc::new(Wire::default());
    let io = FaultyIo {
        io: TokioIo::new(stream),
        wire: Arc::clone(&wire),
    };
    let service = service_fn(move |request| {
        let (front, wire) = (Arc::clone(&front), Arc::clone(&wire));
        async move { Ok::<_, Infallible>(front.answer(request, wire).await) }
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(io, service)
    );
    tokio::select! {
        // A client that went away, or a fault on purpose: neither is news.
        _ = connection.as_mut() => return,
        () = told(&mut stop) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

impl Front {
    async fn answer(&self, request: Request<Incoming>, wire: Arc<Wire>) -> Response<FaultyBody> {
        let operation = Operation::of(&request);
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let fault = self.script.arrive(operation);
        match fault {
            Some(Fault::NeverAnswer) => std::future::pending().await,
            Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
            _ => {}
        }
        let mut response = match fault {
            Some(Fault::Answer(answer)) => canned(&answer),
            fault => self.ask(request, operation, fault, wire).await,
        };
        let id = format!("TILEKEEP{number:08X}");
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert("x-amz-request-id", id);
        }
        response
    }

    async fn ask(
        &self,
        request: Request<Incoming>,
        operation: Operation,
        fault: Option<Fault>,
        wire: Arc<Wire>,
    ) -> Response<FaultyBody> {
        // s3s logs whole requests, session tokens included, and each refusal as an error.
        let answer = self
            .service
            .call(request.map(s3s::Body::from))
            .with_subscriber(NoSubscriber::default());
        let Ok(response) = answer.await else {
            return empty(StatusCode::INTERNAL_SERVER_ERROR);
        };
        let (mut parts, body) = response.into_parts();
        if parts.status == StatusCode::NOT_MODIFIED {
            // s3s has no answer without a body but for success (RFC 9110 §15.4.5).
            parts.headers.remove(header::CONTENT_TYPE);
            parts.headers.remove(header::CONTENT_LENGTH);
            return Response::from_parts(parts, FaultyBody::Whole(s3s::Body::empty()));
        }
        let s3_error = operation == Operation::Sts && !parts.status.is_success();
        let Some(fault) = fault else {
            if s3_error {
                return sts_error(parts, body).await;
            }
            return Response::from_parts(parts, FaultyBody::Whole(body));
        };
        let Ok(whole) = body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
        else {
            return empty(StatusCode::INTERNAL_SERVER_ERROR);
        };
        if fault == Fault::Chunked {
            parts.headers.remove(header::CONTENT_LENGTH);
        }
        Response::from_parts(parts, FaultyBody::broken(whole, fault, wire))
    }
}

/// Errors that s3s found before the STS route was reached are in S3's words.
async fn sts_error(parts: http::response::Parts, body: s3s::Body) -> Response<FaultyBody> {
    let whole = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes);
    let text = whole.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    if text.contains("<ErrorResponse") {
        let whole = s3s::Body::from(text.into_owned());
        return Response::from_parts(parts, FaultyBody::Whole(whole));
    }
    let between = |open: &str, close: &str| {
        let (_, rest) = text.split_once(open)?;
        Some(rest.split_once(close)?.0)
    };
    let code = between("<Code>", "</Code>").unwrap_or_default();
    let message = between("<Message>", "</Message>").unwrap_or("The request was refused.");
    let (status, code) = sts::translate(code);
    let mut response = Response::new(FaultyBody::Whole(sts::error(code, message).into()));
    *response.status_mut() = status;
    response
}

fn canned(answer: &CannedAnswer) -> Response<FaultyBody> {
    let mut response = Response::new(FaultyBody::Whole(answer.body.clone().into()));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &answer.headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(*name, value);
        }
    }
    response
}

fn empty(status: StatusCode) -> Response<FaultyBody> {
    let mut response = Response::new(FaultyBody::Whole(s3s::Body::empty()));
    *response.status_mut() = status;
    response
}

/// Binds, on a loopback address or not at all.
pub(super) async fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    if !listen.ip().is_loopback() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the embedded S3 endpoint listens on a loopback address alone",
        ));
    }
    TcpListener::bind(listen).await
}

/// A connection that can be reset, and that can say more than was promised.
struct FaultyIo {
    io: TokioIo<TcpStream>,
    wire: Arc<Wire>,
}

impl Drop for FaultyIo {
    fn drop(&mut self) {
        if self.wire.reset.load(Ordering::Acquire) {
            // Closing with zero linger sends a reset.
            let _ = self.io.inner().set_zero_linger();
        }
    }
}

impl FaultyIo {
    /// What is to follow everything else.
    fn appended(&self) -> Option<Bytes> {
        let append = self.wire.append.lock();
        append.ok().and_then(|mut append| append.take())
    }
}

impl Read for FaultyIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for FaultyIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when it has written everything: this is the moment after a body's end.
        if let Some(mut more) = self.appended() {
            while more.has_remaining() {
                let written = ready!(Pin::new(&mut self.io).poll_write(cx, &more))?;
                more.advance(written);
            }
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}
