//! An answer on its way out: a tile's, or any other.
//!
//! A tile's head stays facts up to where it is written (`tile_head.rs`). Whoever changes a field (CORS, a renewal,
//! HEAD's length) makes it an answer like any other, with a map of its fields.

use http::{HeaderMap, Response, StatusCode};

use super::body::{Body, Chunk};
use super::tile_head::TileHead;

/// An answer.
#[allow(
    clippy::large_enum_variant,
    reason = "the large one is the common one, and a box for it what is to be saved"
)]
#[derive(Debug)]
pub enum Reply {
    /// A tile with its body; or its head alone: for HEAD, and where it has not changed.
    Tile(TileHead, Option<Chunk>),
    /// Any other.
    Whole(Response<Body>),
}

impl Reply {
    /// The status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Tile(head, _) => head.status(),
            Self::Whole(response) => response.status(),
        }
    }

    /// How many bytes of a body are known to come.
    pub fn body_length(&self) -> u64 {
        match self {
            Self::Tile(_, None) => 0,
            Self::Tile(_, Some(chunk)) => bytes::Buf::remaining(chunk) as u64,
            Self::Whole(response) => response.body().length(),
        }
    }

    /// The same with its fields changed.
    #[must_use]
    pub fn with_headers(self, change: impl FnOnce(&mut HeaderMap)) -> Self {
        let mut response = self.into_response();
        change(response.headers_mut());
        Self::Whole(response)
    }

    /// The same, as hyper knows answers.
    pub fn into_response(self) -> Response<Body> {
        match self {
            Self::Tile(head, chunk) => {
                let mut response = Response::new(Body::Full(chunk));
                *response.status_mut() = head.status();
                *response.headers_mut() = head.fields();
                response
            }
            Self::Whole(response) => response,
        }
    }
}

impl From<Response<Body>> for Reply {
    fn from(response: Response<Body>) -> Self {
        Self::Whole(response)
    }
}
