//! A connection with deadlines that hyper does not keep, or not cheaply: for the next request's head, and
//! for a reader that does not read.
//!
//! Invariant: a place among the connections is held only by a peer that moves: one that makes a request
//! within each two of its patience's periods (HTTP/1.1; an HTTP/2 peer answers pings instead), and its first
//! within one. A request's body has a deadline of its own, where it is read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::dozing::Dozing;

/// What the service tells of a connection.
#[derive(Debug, Default)]
pub struct Progress {
    requests: AtomicU32,
    streams: AtomicBool,
}

impl Progress {
    /// A whole head has come; whether by HTTP/2.
    pub fn note_request(&self, http2: bool) {
        if http2 {
            self.streams.store(true, Ordering::Relaxed);
        }
        // One thread at a time has the connection, so this need not be one step.
        let requests = self.requests().wrapping_add(1).max(1);
        self.requests.store(requests, Ordering::Relaxed);
    }

    /// Changes with every request; 0 before the first.
    pub fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// A connection that is given up when its peer does not move.
#[derive(Debug)]
pub struct TimedIo<I> {
    io: I,
    patience: Duration,
    progress: Arc<Progress>,
    /// Ends each period in turn. It is not set anew for a request: at its end one looks whether there was any.
    period: Option<Dozing<Sleep>>,
    /// How many requests there had been when the period began.
    before: u32,
    /// What was read and is to be read again, before anything else.
    unread: Bytes,
    /// Runs while a write waits for the peer to read.
    stall: Option<Pin<Box<Sleep>>>,
}

impl<I> TimedIo<I> {
    /// Gives the peer so long for its first request and for each write to move on, and up to twice that for
    /// each further request.
    pub fn new(io: I, patience: Duration, progress: Arc<Progress>) -> Self {
        Self {
            io,
            patience,
            progress,
            period: Some(Dozing::new(sleep(patience))),
            before: 0,
            unread: Bytes::new(),
            stall: None,
        }
    }

    /// Gives back what was read: whoever reads next reads it again.
    pub fn unread(&mut self, bytes: Bytes) {
        debug_assert!(self.unread.is_empty(), "what was given back is read first");
        self.unread = bytes;
    }

    /// While nothing comes: whether that has been so for too long.
    fn waits(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(period) = &mut self.period {
            ready!(Pin::new(&mut *period).poll(context));
            if self.progress.streams.load(Ordering::Relaxed) {
                self.period = None;
                break;
            }
            let requests = self.progress.requests();
            if requests == self.before {
                self.period = None;
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.before = requests;
            period.inner().reset(Instant::now() + self.patience);
            period.ring();
        }
        Poll::Pending
    }

    /// What a write came to: as it was when it moved, an error when it has waited too long.
    fn watched<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let patience = self.patience;
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stall.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for TimedIo<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let length = self.unread.len().min(buffer.remaining());
            buffer.put_slice(&self.unread.split_to(length));
            return Poll::Ready(Ok(()));
        }
        match Pin::new(&mut self.io).poll_read(context, buffer) {
            Poll::Ready(read) => Poll::Ready(read),
            Poll::Pending => self.waits(context),
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for TimedIo<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.watched(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.watched(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(context);
        self.watched(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(context);
        self.watched(context, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn timed<I>(io: I) -> (TimedIo<I>, Arc<Progress>) {
        let progress = Arc::new(Progress::default());
        (TimedIo::new(io, PATIENCE, progress.clone()), progress)
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_makes_no_request_is_given_up_however_much_it_says() {
        let (mut peer, ours) = duplex(64);
        let (mut ours, _) = timed(ours);
        let begun = Instant::now();
        let saying = tokio::spawn(async move {
            loop {
                sleep(Duration::from_secs(7)).await;
                peer.write_all(b"G").await.unwrap();
            }
        });
        let given_up = loop {
            if let Err(error) = ours.read_u8().await {
                break error;
            }
        };
        saying.abort();
        assert_eq!(given_up.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_makes_requests_stays_and_then_has_a_period_or_two() {
        let (_peer, ours) = duplex(64);
        let (mut ours, progress) = timed(ours);
        let begun = Instant::now();
        let asking = tokio::spawn(async move {
            for _ in 0..10 {
                sleep(PATIENCE / 2).await;
                progress.note_request(false);
            }
            Instant::now()
        });
        let idle = ours.read_u8().await.unwrap_err();
        assert_eq!(idle.kind(), io::ErrorKind::TimedOut);
        let last = asking.await.unwrap();
        assert!(last - begun == PATIENCE * 5);
        assert!((PATIENCE..=PATIENCE * 2).contains(&last.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_http_2_peer_may_idle_for_pings_tell_whether_it_lives() {
        let (_peer, ours) = duplex(64);
        let (mut ours, progress) = timed(ours);
        progress.note_request(true);
        let late = tokio::time::timeout(PATIENCE * 10, ours.read_u8()).await;
        assert!(late.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_given_up() {
        let (_peer, ours) = duplex(64);
        let (mut ours, _) = timed(ours);
        let limit = Instant::now() + PATIENCE * 2;
        let stalled = ours.write_all(&[0; 1000]).await.unwrap_err();
        assert_eq!(stalled.kind(), io::ErrorKind::TimedOut);
        assert!(Instant::now() <= limit);
    }
}
