//! Where tiles come from: one trait, its S3 implementation, archives over that, and a twin that fails on purpose.
//!
//! Invariant: an answer keeps its meaning. Missing, denied, throttled, timed out, truncated and
//! unreachable are different outcomes, and only [`OriginReply::NotFound`] is 'no such tile'.
//! Left out on purpose: caches and HTTP status codes. AWS types appear in `origin/s3` alone.

mod encoding;
pub mod failing;
pub mod limits;
pub mod pmtiles;
pub mod s3;
mod urgency;
mod validator;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use self::urgency::{Lane, Urgency};
pub use self::validator::OriginValidator;
use crate::tile::{Scale, TileCoord, Tileset};

/// How a stored tile's bytes are encoded (RFC 9110 §8.4.1), found by looking at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentEncoding {
    /// As they are.
    Identity,
    /// gzip (RFC 1952).
    Gzip,
    /// Brotli (RFC 7932).
    Brotli,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// One tile that is wanted.
#[derive(Debug, Clone)]
pub struct OriginRequest {
    /// Of which tileset.
    pub tileset: Arc<Tileset>,
    /// Where.
    pub coord: TileCoord,
    /// In which density.
    pub scale: Scale,
    /// What is held already: sent as `If-None-Match`.
    pub validator: Option<OriginValidator>,
    /// How long the answer may take, retries included.
    pub deadline: Duration,
    /// Who waits for it.
    pub urgency: Urgency,
}

/// A tile as the origin had it, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginTile {
    /// The object's bytes, as stored.
    pub body: Bytes,
    /// How they are encoded.
    pub encoding: ContentEncoding,
    /// What to ask about it with.
    pub validator: Option<OriginValidator>,
    /// When it was written, in seconds since the epoch.
    pub last_modified: Option<u64>,
}

/// What an origin that works can say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginReply {
    /// The tile.
    Found(OriginTile),
    /// The held one is still right.
    NotModified,
    /// There is no such tile.
    NotFound,
}

/// How an origin can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OriginErrorKind {
    /// It refused us: credentials, policy, key, or a missing object seen without `s3:ListBucket`.
    Denied,
    /// It asked for less (503 `SlowDown`, 429).
    Throttled,
    /// It broke (5xx), or said something that is none of its answers.
    Server,
    /// The bytes are not those that were promised: too few, too many, a wrong checksum.
    Truncated,
    /// No connection, or one that broke.
    Unreachable,
    /// No answer in time.
    Deadline,
    /// Never asked: too many requests under way, or the circuit is open.
    HeldBack,
}

impl OriginErrorKind {
    /// Every kind, in the order of [`OriginErrorKind::index`].
    pub const ALL: [Self; 7] = [
        Self::Denied,
        Self::Throttled,
        Self::Server,
        Self::Truncated,
        Self::Unreachable,
        Self::Deadline,
        Self::HeldBack,
    ];

    /// Its place in [`OriginErrorKind::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word for logs, metric labels and headers.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Throttled => "throttled",
            Self::Server => "server_error",
            Self::Truncated => "truncated",
            Self::Unreachable => "unreachable",
            Self::Deadline => "deadline",
            Self::HeldBack => "held_back",
        }
    }
}

/// What a failure says about other requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ErrorScope {
    /// The origin itself is in trouble, so the next request may well fail too.
    #[default]
    Origin,
    /// This one object is wrong (too large, in an encoding that nobody knows); the origin is well.
    Object,
}

/// A failure, with what the log should know and the public must not.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{kind:?}: {detail}")]
pub struct OriginError {
    /// Which of the outcomes it is.
    pub kind: OriginErrorKind,
    /// For the log: the AWS call, its code, its request id. Never a credential.
    pub detail: Arc<str>,
    /// When to come back, where the origin said so or we know.
    pub retry_after: Option<Duration>,
    /// Whether it is the origin's trouble or one object's.
    pub scope: ErrorScope,
}

impl OriginError {
    /// A failure of this kind.
    pub fn new(kind: OriginErrorKind, detail: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            retry_after: None,
            scope: ErrorScope::Origin,
        }
    }

    /// A failure that is this one object's fault.
    pub fn of_object(kind: OriginErrorKind, detail: impl Into<Arc<str>>) -> Self {
        Self {
            scope: ErrorScope::Object,
            ..Self::new(kind, detail)
        }
    }

    /// The same, with a time to come back.
    #[must_use]
    pub fn with_retry_after(self, retry_after: Option<Duration>) -> Self {
        Self {
            retry_after,
            ..self
        }
    }
}

/// The future of an answer. Boxed: it is made once a miss, and tilesets differ in their origins.
pub type OriginFuture<'a> =
    Pin<Box<dyn Future<Output = Result<OriginReply, OriginError>> + Send + 'a>>;

/// Something that tiles come from.
pub trait Origin: Send + Sync + 'static {
    /// Asks for one tile. Keeps the request's deadline; a whole answer or an error, never a part.
    fn fetch(&self, request: OriginRequest) -> OriginFuture<'_>;

    /// Whether a guess ([`Lane::Speculative`]) would be let through now: what need not be begun is not.
    fn has_room_for_guess(&self) -> bool {
        true
    }

    /// Whether a fetch in this lane would be held back now: told before anything is begun for it, and counted
    /// as one that was. `None` where only [`Origin::fetch`] can tell. `begun`: how many of the lane have been begun,
    /// of which some may not have come here yet.
    fn refuses(&self, lane: Lane, begun: usize, deadline: Duration) -> Option<OriginError> {
        let _ = (lane, begun, deadline);
        None
    }
}

/// A shared origin is one: a test keeps a handle on the twin that it gave away.
impl<O: Origin + ?Sized> Origin for Arc<O> {
    fn fetch(&self, request: OriginRequest) -> OriginFuture<'_> {
        (**self).fetch(request)
    }

    fn has_room_for_guess(&self) -> bool {
        (**self).has_room_for_guess()
    }

    fn refuses(&self, lane: Lane, begun: usize, deadline: Duration) -> Option<OriginError> {
        (**self).refuses(lane, begun, deadline)
    }
}
