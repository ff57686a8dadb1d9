//! A connection with deadlines that hyper does not keep: for the first bytes, by which HTTP/1.1 is told
//! from HTTP/2, and for a reader that does not read.
//!
//! Invariant: a place among the connections is held only by a peer that moves. Between these two,
//! hyper's own head timeout and the pages' body timeout apply.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// As long as HTTP/2's preface (RFC 9113 §3.4): hyper-util waits for all of it if what came is its start,
/// and no head timeout runs meanwhile.
const FIRST_BYTES: usize = 24;

/// A connection that is given up when its peer does not move.
#[derive(Debug)]
pub struct TimedIo<I> {
    io: I,
    patience: Duration,
    /// Runs until the first bytes are read.
    silence: Option<Pin<Box<Sleep>>>,
    /// How many of those are to come.
    missing: usize,
    /// Runs while a write waits for the peer to read.
    stall: Option<Pin<Box<Sleep>>>,
}

impl<I> TimedIo<I> {
    /// Gives the peer so long to say something, and so long for each write to move on.
    pub fn new(io: I, patience: Duration) -> Self {
        Self {
            io,
            patience,
            silence: Some(Box::pin(sleep(patience))),
            missing: FIRST_BYTES,
            stall: None,
        }
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
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        if self.missing > 0 && read.is_ready() {
            let came = buffer.filled().len() - before;
            self.missing = self.missing.saturating_sub(came);
            if self.missing == 0 {
                self.silence = None;
            }
        } else if let Some(silence) = &mut self.silence {
            ready!(silence.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
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
    use tokio::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_given_up_and_one_that_spoke_is_not() {
        let (mut peer, ours) = duplex(64);
        let mut ours = TimedIo::new(ours, PATIENCE);
        let begun = Instant::now();
        let silent = ours.read_u8().await.unwrap_err();
        assert_eq!(silent.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= PATIENCE);

        let (mut other, ours) = duplex(64);
        let mut ours = TimedIo::new(ours, PATIENCE);
        other.write_all(&[7; FIRST_BYTES]).await.unwrap();
        ours.read_exact(&mut [0; FIRST_BYTES]).await.unwrap();
        let late = tokio::time::timeout(PATIENCE * 10, ours.read_u8()).await;
        assert!(late.is_err(), "idle between requests is hyper's to bound");
        peer.shutdown().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_stops_within_the_preface_is_given_up() {
        let (mut peer, ours) = duplex(64);
        let mut ours = TimedIo::new(ours, PATIENCE);
        let limit = Instant::now() + PATIENCE;
        for byte in b"PRI * HTTP/2.0" {
            peer.write_u8(*byte).await.unwrap();
            assert_eq!(ours.read_u8().await.unwrap(), *byte);
        }
        let stalled = ours.read_u8().await.unwrap_err();
        assert_eq!(stalled.kind(), io::ErrorKind::TimedOut);
        assert!(Instant::now() <= limit + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_given_up() {
        let (_peer, ours) = duplex(64);
        let mut ours = TimedIo::new(ours, PATIENCE);
        let limit = Instant::now() + PATIENCE * 2;
        let stalled = ours.write_all(&[0; 1000]).await.unwrap_err();
        assert_eq!(stalled.kind(), io::ErrorKind::TimedOut);
        assert!(Instant::now() <= limit);
    }
}
