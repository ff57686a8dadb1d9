//! The accept loop: connections in, requests to a service, everything bounded.
//!
//! HTTP/1.1 and HTTP/2 on one port: by ALPN over TLS, by the preface without (h2c). Requests that are nothing but a
//! head are answered by `plain.rs`, all others by hyper.
//!
//! At the shutdown a connection that has asked for something is let finish it, and one that has not, or is
//! half through its first head or its TLS handshake, is closed at once: nobody waits for it.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::body::{Body, RequestBody};
use super::dozing::Dozing;
use super::handling::Handling;
use super::places::{Place, Places};
use super::plain::{self, Left};
use super::problem::HttpError;
use super::request_head::RequestHead;
use super::timed_io::{Progress, TimedIo};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;

/// For a peer's first request, for the next one on an HTTP/1.1 connection (up to twice that), and for each
/// write to move on.
const PEER_PATIENCE: Duration = Duration::from_secs(30);

/// Between two pings of an HTTP/2 peer.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// For a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A request's head at most, and what is buffered for a connection.
const MAX_HEAD: usize = 32 * 1024;

/// HTTP/2 streams of one connection at a time: a map's viewport is some 50 tiles.
const MAX_STREAMS: u32 = 200;

/// For one HTTP/2 stream, from its head to its answer's last byte: a peer that grants no window stalls no
/// write, and answers pings for ever.
const STREAM_TIMEOUT: Duration = Duration::from_mins(5);

/// Bytes of request bodies that an HTTP/2 peer may send ahead of their readers; what the protocol begins with.
const MAX_WINDOW: u32 = 65_535;

/// After an `accept()` that failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What answers requests.
pub trait Service: Clone + Send + 'static {
    /// Answers a request.
    fn handle(&self, peer: SocketAddr, request: Request<RequestBody>) -> Handling;

    /// Answers one that is nothing but this head, whose target names no authority.
    fn handle_head(&self, peer: SocketAddr, head: &RequestHead<'_>) -> Handling {
        handle_whole(self, peer, head)
    }
}

impl<F> Service for F
where
    F: Fn(SocketAddr, Request<RequestBody>) -> Handling + Clone + Send + 'static,
{
    fn handle(&self, peer: SocketAddr, request: Request<RequestBody>) -> Handling {
        self(peer, request)
    }
}

/// Makes a request of a head, and answers that.
pub(super) fn handle_whole(
    service: &impl Service,
    peer: SocketAddr,
    head: &RequestHead<'_>,
) -> Handling {
    match head.to_request(RequestBody::None) {
        Ok(request) => service.handle(peer, request),
        Err(_) => unreadable(),
    }
}

/// For what `http` does not take for a request; `plain.rs` lets none through.
#[cold]
pub(super) fn unreadable() -> Handling {
    Handling::now(HttpError::BadRequest("The request cannot be read.").response())
}

/// How the connections of a listening socket are treated.
#[derive(Clone)]
pub struct Server {
    /// TLS, if any.
    pub tls: Option<TlsAcceptor>,
    /// When to stop.
    pub shutdown: Shutdown,
    /// How long open requests have then.
    pub grace: Duration,
    /// Places for connections.
    pub places: Places,
    /// Where connections are counted; the admin side's are not.
    pub metrics: Option<Arc<Metrics>>,
    /// The time, for `Date`.
    pub clock: Clock,
}

impl Server {
    /// Serves a socket until the shutdown, then lets open requests end within the grace.
    pub async fn run(mut self, listener: std::net::TcpListener, service: impl Service) {
        let hyper = Arc::new(Hyper::new());
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "a socket cannot be listened on"),
        };
        // Nothing is sent: every connection holds a sender, and the end of all ends the channel.
        let (open_ones, mut all_ended) = mpsc::channel::<Infallible>(1);
        loop {
            // A place first: what cannot be served is not accepted.
            let accepted = tokio::select! {
                () = self.shutdown.asked() => break,
                accepted = accept(&listener, &self.places) => accepted,
            };
            let (stream, peer, of_all) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    if let Some(metrics) = &self.metrics {
                        metrics.accept_errors.inc();
                    }
                    tracing::warn!(%error, "a connection could not be accepted; pausing");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = self.places.take(of_all, peer.ip()) else {
                if let Some(metrics) = &self.metrics {
                    metrics.connections_refused.inc();
                }
                tracing::debug!(%peer, "closed: its address has as many connections as one may have");
                continue;
            };
            // Answers are written whole: waiting for more to send only delays them.
            let _ = stream.set_nodelay(true);
            let open = Connection::open(self.metrics.clone(), place);
            let (hyper, service, tls) = (hyper.clone(), service.clone(), self.tls.clone());
            let clock = self.clock.clone();
            let (one, mut shutdown) = (open_ones.clone(), self.shutdown.clone());
            tokio::spawn(async move {
                let (_open, _one) = (open, one);
                let Some(tls) = tls else {
                    return serve_connection((&hyper, &clock), stream, peer, service, shutdown)
                        .await;
                };
                let handshake = timeout(HANDSHAKE_TIMEOUT, tls.accept(stream));
                let handshake = tokio::select! {
                    () = shutdown.asked() => return,
                    handshake = handshake => handshake,
                };
                match handshake {
                    Ok(Ok(stream)) => {
                        serve_connection((&hyper, &clock), stream, peer, service, shutdown).await;
                    }
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                    Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                }
            });
        }
        drop((listener, open_ones));
        if timeout(self.grace, all_ended.recv()).await.is_err() {
            tracing::warn!(grace = ?self.grace, "some requests were still open when the grace ran out");
        }
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Places,
) -> std::io::Result<(tokio::net::TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let of_all = places.any().await;
    let of_all = of_all.ok_or_else(|| std::io::Error::other("closed"))?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, of_all))
}

async fn serve_connection<I, S>(
    (hyper, clock): (&Hyper, &Clock),
    io: I,
    peer: SocketAddr,
    service: S,
    mut shutdown: Shutdown,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service,
{
    let progress = Arc::new(Progress::default());
    let io = TimedIo::new(io, PEER_PATIENCE, progress.clone());
    let ending = shutdown.clone();
    let mut end = Dozing::new(async move { shutdown.asked().await });
    let (noted, plainly) = (progress.clone(), service.clone());
    let answer = move |head: &RequestHead<'_>| {
        noted.note_request(false);
        plainly.handle_head(peer, head)
    };
    let io = match plain::serve(io, answer, Pin::new(&mut end), &ending, clock).await {
        Left::ToHyper(io) => io,
        Left::Ended(Ok(())) => return,
        Left::Ended(Err(error)) => {
            // Clients hang up all the time; that is theirs to do.
            return tracing::debug!(%peer, %error, "a connection ended early");
        }
    };
    let (noted, before) = (progress.clone(), progress.requests());
    let service = service_fn(move |request: Request<Incoming>| {
        noted.note_request(request.version() == Version::HTTP_2);
        Unfailing(service.handle(peer, request.map(RequestBody::Incoming)))
    });
    let builder = if before == 0 {
        &hyper.any
    } else {
        &hyper.http1
    };
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = &mut end => {
            // hyper closes what idles between requests, but waits for a first head that has begun.
            if progress.requests() == before {
                return;
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

/// Handling, as hyper asks for it. An `async` block around it would hold it twice, and move it as often.
struct Unfailing(Handling);

impl Future for Unfailing {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(Ok(reply.into_response()))
    }
}

/// Runs HTTP/2 streams, each as a task that is given up in time; hyper then resets the stream.
#[derive(Debug, Clone, Copy)]
struct Streams;

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        tokio::spawn(async move {
            let mut stream = pin!(stream);
            // A hit is over at its first poll: a timer would cost as much as the rest of its task.
            let over = poll_fn(|context| Poll::Ready(stream.as_mut().poll(context).is_ready()));
            if !over.await {
                let _ = timeout(STREAM_TIMEOUT, stream).await;
            }
        });
    }
}

/// What hyper makes of connections.
struct Hyper {
    /// Of new ones: HTTP/2 if they begin with its preface.
    any: auto::Builder<Streams>,
    /// Of those on which HTTP/1.1 was spoken.
    http1: auto::Builder<Streams>,
}

impl Hyper {
    fn new() -> Self {
        Self {
            any: connection_builder(),
            http1: connection_builder().http1_only(),
        }
    }
}

fn connection_builder() -> auto::Builder<Streams> {
    let mut builder = auto::Builder::new(Streams);
    builder
        .http1()
        // `TimedIo` keeps the time: hyper would set and clear a timer for each head.
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD)
        // Who has sent its request may stop sending, and still gets the answer.
        .half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        // Requests here are small: what nobody reads yet is not to pile up, by connection or by stream.
        .initial_stream_window_size(MAX_WINDOW)
        .initial_connection_window_size(MAX_WINDOW)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(HANDSHAKE_TIMEOUT);
    builder
}

/// Counts a connection while it is open, and holds its place.
struct Connection {
    metrics: Option<Arc<Metrics>>,
    _place: Place,
}

impl Connection {
    fn open(metrics: Option<Arc<Metrics>>, place: Place) -> Self {
        if let Some(metrics) = &metrics {
            metrics.connections.inc();
        }
        Self {
            metrics,
            _place: place,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(metrics) = &self.metrics {
            metrics.connections.dec();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_nobody_reads_is_given_up() {
        let begun = Instant::now();
        let (held, given_up) = oneshot::channel::<()>();
        Streams.execute(async move {
            std::future::pending::<()>().await;
            drop(held);
        });
        assert!(given_up.await.is_err());
        assert!(begun.elapsed() >= STREAM_TIMEOUT);
    }
}
