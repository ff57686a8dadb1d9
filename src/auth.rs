//! Who may see a tile: session tokens, the keys that sign them, log-in (by password, by another
//! issuer's token, at an identity provider) and revocation.
//!
//! A request brings a token (a cookie or a bearer). [`Sessions::authorize`] turns it into a
//! [`Session`], and [`Session::permits`] answers for each tile. Invariant: no `Session` exists
//! whose signature was not verified here, and none is handed out that has expired or was ended.
//!
//! Left out on purpose: HTTP (no status code, no header type: cookies and bearers are bytes) and the
//! caches.

mod claims;
mod cookie;
mod issued;
mod issuers;
mod keys;
mod known;
mod oidc;
mod password;
mod quotas;
mod renewal;
mod revocation;
mod revocation_file;
mod session;
mod sessions;
#[cfg(test)]
mod testing;
mod throttle;
mod token;
mod users;
mod users_edit;
mod users_file;

pub use claims::{Claims, Grants, Scope, Scopes};
pub use cookie::{
    CookieError, CookiePolicy, CookieTokens, Scheme, bearer_token, needs_secure,
    session_tokens_from_cookies,
};
pub use issued::{BeginError, IssuedSession, RenewError};
pub use issuers::{
    ClaimName, Fetch, FetchError, FetchErrorKind, Fetched, Fetching, Identity, IssuerError,
    IssuerKeys, IssuerSettings, Issuers, MAX_FOREIGN_TOKEN_LEN, Rights,
};
pub use keys::{KeyError, KeyMaterial, KeyRing, KeySettings, Secret};
pub use oidc::{
    LOGIN_COOKIE, Oidc, OidcError, OidcSettings, Returned, Started, TRANSACTION_LIFE, Transaction,
};
pub use password::{HashError, PasswordHash};
pub use quotas::{OverQuota, QuotaClass, QuotaLimit, Quotas, Spender};
pub use renewal::renewal_due;
pub use revocation::{EndError, EndedMany, Revocations, RevocationsError};
pub use session::{Permission, RevocationId, Session};
pub use sessions::{Announce, OpenError, SessionSettings, Sessions};
pub use throttle::{Attempt, Throttle, Throttled};
pub use token::{LEEWAY, MAX_TOKEN_LEN, MintError, Unverified};
pub use users::{LoginError, User, Users};
pub use users_edit::{EditError, IfExists, add_user, list_users, remove_user};
pub use users_file::{UsersError, UsersProblem};

/// Why a request has no session. The answer to the client is the same for all but [`Missing`],
/// which deserves no log line; the [`label`] is for metrics and logs.
///
/// [`Missing`]: AuthError::Missing
/// [`label`]: AuthError::label
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AuthError {
    /// No token was sent.
    #[error("no session token was sent")]
    Missing,
    /// Longer than [`MAX_TOKEN_LEN`].
    #[error("the session token is longer than {MAX_TOKEN_LEN} bytes")]
    TooLong,
    /// Not a JWT, or claims of the wrong type, or a claim out of its bounds.
    #[error("the session token is not one that this server reads")]
    Malformed,
    /// `kid` names no key of this server.
    #[error("the session token names a key that this server does not have")]
    UnknownKey,
    /// `alg` is not the algorithm of the key that `kid` names; `none` is nobody's.
    #[error("the session token's algorithm is not its key's")]
    WrongAlgorithm,
    /// The signature is not the key's.
    #[error("the session token's signature is wrong")]
    BadSignature,
    /// `exp` is past, leeway included.
    #[error("the session has expired")]
    Expired,
    /// `nbf` is still to come, leeway included.
    #[error("the session has not begun yet")]
    NotYetValid,
    /// It was ended.
    #[error("the session was ended")]
    Revoked,
    /// `quota` names no class of this server.
    #[error("the session's quota class is not one of this server's")]
    UnknownQuota,
}

impl AuthError {
    /// Every outcome, for a metric's table of labels.
    pub const ALL: [AuthError; 10] = [
        Self::Missing,
        Self::TooLong,
        Self::Malformed,
        Self::UnknownKey,
        Self::WrongAlgorithm,
        Self::BadSignature,
        Self::Expired,
        Self::NotYetValid,
        Self::Revoked,
        Self::UnknownQuota,
    ];

    /// The word for metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::WrongAlgorithm => "wrong_algorithm",
            Self::BadSignature => "bad_signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::UnknownQuota => "unknown_quota",
        }
    }
}

/// The machine's generator of random bytes failed; nothing that must not be guessed can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct NoRandomness;

/// Random bytes that nobody can guess.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}
