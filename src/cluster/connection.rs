//! One connection to Redis on which one question is asked at a time.
//!
//! Invariant: every question has a deadline, and no answer may be longer than [`LONGEST_REPLY`]: who can write
//! to Redis could put half a gigabyte under one key. After any trouble the connection is not used again.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, Pipeline, RedisError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::address::Secured;

/// For name, connection, TLS and log-in together.
const OPENING: Duration = Duration::from_secs(3);
/// For an answer.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);
/// A page of the largest purges, and a little.
const LONGEST_REPLY: usize = 24 << 20;

/// Why the conversation ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// No answer.
    #[error("no answer in time")]
    Silent,
    /// No connection.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Redis refuses, or speaks something else.
    #[error("{}", short(.0))]
    Redis(#[from] RedisError),
    /// More endings than the queue holds: everything is compared anew.
    #[error("more endings at once than the queue holds")]
    Overrun,
    /// The runtime is ending.
    #[error("the server is stopping")]
    Stopping,
}

/// What an error says, without what somebody may have put into Redis.
fn short(error: &RedisError) -> String {
    let text: String = error.to_string().chars().take(200).collect();
    text.escape_debug().to_string()
}

/// A connection.
pub(super) struct Connection {
    inner: MultiplexedConnection,
    /// Bytes that the current answer may still have.
    allowance: Arc<AtomicUsize>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // It would wait for the answer to a question that nobody asks any more.
        self.driver.abort();
    }
}

impl Connection {
    /// Connects and logs in.
    pub(super) async fn open(redis: &Secured) -> Result<Self, Trouble> {
        let opening = async {
            let stream = TcpStream::connect(redis.place()).await?;
            stream.set_nodelay(true)?;
            match redis.tls() {
                None => Self::over(stream, redis).await,
                Some((config, name)) => {
                    let connector = TlsConnector::from(config.clone());
                    let stream = connector.connect(name.clone(), stream).await?;
                    Self::over(stream, redis).await
                }
            }
        };
        timeout(OPENING, opening)
            .await
            .map_err(|_| Trouble::Silent)?
    }

    async fn over<S>(stream: S, redis: &Secured) -> Result<Self, Trouble>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let allowance = Arc::new(AtomicUsize::new(LONGEST_REPLY));
        let bounded = Bounded {
            stream,
            allowance: allowance.clone(),
        };
        // Deadlines are ours: a question that waits for news takes longer.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let (inner, driver) =
            MultiplexedConnection::new_with_config(redis.settings(), bounded, config).await?;
        Ok(Self {
            inner,
            allowance,
            driver: tokio::spawn(driver),
        })
    }

    /// Asks.
    pub(super) async fn ask<T: FromRedisValue>(&mut self, question: &Cmd) -> Result<T, Trouble> {
        self.ask_within(question, DEADLINE).await
    }

    /// Asks what takes its time.
    pub(super) async fn ask_within<T: FromRedisValue>(
        &mut self,
        question: &Cmd,
        deadline: Duration,
    ) -> Result<T, Trouble> {
        self.allowance.store(LONGEST_REPLY, Ordering::Relaxed);
        let answer = timeout(deadline, question.query_async(&mut self.inner)).await;
        Ok(answer.map_err(|_| Trouble::Silent)??)
    }

    /// Asks several in one go, for their effect.
    pub(super) async fn tell(&mut self, questions: &Pipeline) -> Result<(), Trouble> {
        self.allowance.store(LONGEST_REPLY, Ordering::Relaxed);
        let answer = timeout(DEADLINE, questions.query_async::<()>(&mut self.inner)).await;
        Ok(answer.map_err(|_| Trouble::Silent)??)
    }
}

/// A stream that fails when it has been read for more than is allowed.
struct Bounded<S> {
    stream: S,
    allowance: Arc<AtomicUsize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        let left = self.allowance.load(Ordering::Relaxed);
        if read > left {
            return Poll::Ready(Err(io::Error::other(
                "an answer longer than any that is right",
            )));
        }
        self.allowance.store(left - read, Ordering::Relaxed);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn an_answer_longer_than_allowed_ends_the_connection() {
        let (mut redis, ours) = tokio::io::duplex(64);
        let allowance = Arc::new(AtomicUsize::new(10));
        let mut bounded = Bounded {
            stream: ours,
            allowance: allowance.clone(),
        };
        let mut buf = [0; 8];
        redis.write_all(&[0; 8]).await.unwrap();
        assert_eq!(bounded.read(&mut buf).await.unwrap(), 8);
        redis.write_all(&[0; 8]).await.unwrap();
        bounded.read(&mut buf).await.unwrap_err();
        allowance.store(10, Ordering::Relaxed);
        redis.write_all(&[0; 8]).await.unwrap();
        assert_eq!(bounded.read(&mut buf).await.unwrap(), 8, "the next answer");
    }
}
