//! What beginning and renewing a session gives, and why it may not.

use std::fmt;
use std::time::Duration;

use super::{Claims, MintError, NoRandomness};
use crate::clock::Timestamp;

/// A session that was begun or renewed.
#[derive(Clone, PartialEq)]
pub struct IssuedSession {
    /// The token: the secret that is the session.
    pub token: String,
    /// What it says.
    pub claims: Claims,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl IssuedSession {
    /// How long it lasts from now, for a cookie.
    pub fn max_age(&self, now: Timestamp) -> Duration {
        self.expires_at.since(now)
    }
}

impl fmt::Debug for IssuedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedSession")
            .field("claims", &self.claims)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Why a session was not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BeginError {
    /// They proved who they are longer ago than `max_ttl`.
    #[error("the log-in that it rests on is older than the longest session")]
    TooLongAgo,
    /// They are given a quota class that nobody has defined: every request would be refused.
    #[error("the quota class that it is given is none of this server's")]
    UnknownQuota,
    /// The token could not be made.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// No randomness for its ids.
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

/// Why a session was not renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RenewError {
    /// Another made it; another renews it.
    #[error("this session was not issued here and is renewed by whoever issued it")]
    NotOurs,
    /// It lasts as long already as it would after renewal: just renewed, or at its very end.
    #[error("this session cannot last longer than it does")]
    NoLater,
    /// It was ended.
    #[error("the session was ended")]
    Revoked,
    /// The new token could not be made.
    #[error(transparent)]
    Begin(#[from] BeginError),
}
