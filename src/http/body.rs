//! The body of every answer: bytes at hand, or what a page's router made. And the body of a request, and
//! the reading of one, bounded in bytes and in time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::problem::HttpError;
use crate::cache::Held;

/// A body.
#[derive(Debug)]
pub enum Body {
    /// Bytes at hand, once.
    Full(Option<Chunk>),
    /// From a router.
    Router(axum::body::Body),
}

/// Bytes on their way out.
#[derive(Debug)]
pub enum Chunk {
    /// Bytes.
    Bytes(Bytes),
    /// A tile, which stays for so long; and how much of it has gone. [`Bytes`] of it would take an allocation.
    Tile(Held, usize),
}

impl Chunk {
    /// Bytes, if there are any.
    pub fn bytes(bytes: Bytes) -> Option<Self> {
        (!bytes.is_empty()).then_some(Self::Bytes(bytes))
    }

    /// A tile's bytes, if it has any.
    pub fn tile(held: Held) -> Option<Self> {
        (!held.body().is_empty()).then_some(Self::Tile(held, 0))
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.chunk().len()
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Tile(held, gone) => &held.body()[*gone..],
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Bytes(bytes) => bytes.advance(count),
            Self::Tile(held, gone) => {
                assert!(count <= held.body().len() - *gone, "beyond the end");
                *gone += count;
            }
        }
    }
}

impl From<Chunk> for Bytes {
    fn from(chunk: Chunk) -> Self {
        match chunk {
            Chunk::Bytes(bytes) => bytes,
            Chunk::Tile(held, gone) => held.bytes().slice(gone..),
        }
    }
}

/// A request's body.
#[derive(Debug)]
pub enum RequestBody {
    /// There is none, which its head told.
    None,
    /// What hyper reads.
    Incoming(Incoming),
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::None => Poll::Ready(None),
            Self::Incoming(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::None => true,
            Self::Incoming(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::None => SizeHint::with_exact(0),
            Self::Incoming(body) => body.size_hint(),
        }
    }
}

impl Body {
    /// How many bytes are known to come.
    pub fn length(&self) -> u64 {
        http_body::Body::size_hint(self).exact().unwrap_or(0)
    }

    /// Nothing.
    pub const fn empty() -> Self {
        Self::Full(None)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Full(Chunk::bytes(bytes))
    }
}

impl http_body::Body for Body {
    type Data = Chunk;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, axum::Error>>> {
        match &mut *self {
            Self::Full(chunk) => Poll::Ready(chunk.take().map(|chunk| Ok(Frame::data(chunk)))),
            Self::Router(body) => {
                let frame = ready!(Pin::new(body).poll_frame(context));
                Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(Chunk::Bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(chunk) => chunk.is_none(),
            Self::Router(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(chunk) => {
                SizeHint::with_exact(chunk.as_ref().map_or(0, Chunk::remaining) as u64)
            }
            Self::Router(body) => body.size_hint(),
        }
    }
}

/// Reads a request's body whole: so many bytes at most, within so long.
pub(super) async fn whole<B>(body: B, most: usize, patience: Duration) -> Result<Bytes, HttpError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<axum::BoxError>,
{
    match timeout(patience, Limited::new(body, most).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(HttpError::TooLarge),
        Ok(Err(_)) => Err(HttpError::BadRequest("The body did not arrive whole.")),
        Err(_) => Err(HttpError::BadRequest("The body did not arrive in time.")),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::Full;

    use super::*;

    /// A body of which nothing ever comes.
    struct Silent;

    impl http_body::Body for Silent {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_body_is_read_up_to_its_bound() {
        let body = || Full::new(Bytes::from_static(b"12345"));
        assert_eq!(whole(body(), 5, PATIENCE).await.unwrap(), "12345");
        let refused = whole(body(), 4, PATIENCE).await.unwrap_err();
        assert_eq!(refused, HttpError::TooLarge);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let refused = whole(Silent, 5, PATIENCE).await.unwrap_err();
        assert!(matches!(refused, HttpError::BadRequest(_)));
    }
}
