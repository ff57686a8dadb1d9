//! What handling a request comes to: an answer that is here already, or one to wait for.
//!
//! A tile at hand needs no future: the state of one that could also wait, for a fill or for a page, is some
//! kilobytes, and would be moved about for every request.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::reply::Reply;

/// An answer, sooner or later. It must not be polled again once it is there.
#[allow(
    clippy::large_enum_variant,
    reason = "the large one is the common one, and a box for it what is to be saved"
)]
pub enum Handling {
    /// Here; taken out by the first poll.
    Now(Option<Reply>),
    /// To be waited for.
    Later(Pin<Box<dyn Future<Output = Reply> + Send>>),
}

impl Handling {
    /// An answer that is here.
    pub fn now(reply: impl Into<Reply>) -> Self {
        Self::Now(Some(reply.into()))
    }

    /// One to wait for.
    pub fn later(answer: impl Future<Output = Reply> + Send + 'static) -> Self {
        Self::Later(Box::pin(answer))
    }
}

impl Future for Handling {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply> {
        match &mut *self {
            Self::Now(answer) => answer.take().map_or(Poll::Pending, Poll::Ready),
            Self::Later(answer) => answer.as_mut().poll(context),
        }
    }
}
