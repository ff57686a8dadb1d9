//! The body of every answer: bytes at hand, or what a page's router made. And the reading of a
//! request's body, bounded in bytes and in time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::timeout;

use super::problem::HttpError;

/// A body.
#[derive(Debug)]
pub enum Body {
    /// Bytes at hand, once.
    Full(Option<Bytes>),
    /// From a router.
    Router(axum::body::Body),
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
        Self::Full((!bytes.is_empty()).then_some(bytes))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match &mut *self {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Router(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Router(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
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
