//! Other people's JWTs: an application's or an identity provider's, exchanged for a session of ours.
//!
//! Invariant: what such a token says of rights counts only where the configuration trusts it
//! ([`Rights`]); its algorithm is its key's and a public key is never a secret; one issuer's keys
//! verify that issuer's tokens alone. It is exchanged and never carried: a tile does not accept it.
//!
//! Left out on purpose: HTTP. What identity providers publish comes through [`Fetch`]. Encrypted
//! tokens (JWE) and introspection of opaque ones are not supported.

mod foreign;
mod key_set;
mod published;
mod rights;
mod verifier;

use std::sync::Arc;
use std::time::Duration;

pub(super) use self::foreign::ForeignClaims;
pub(super) use self::key_set::KeySet;
pub use self::published::{Fetch, FetchError, FetchErrorKind, Fetched, Fetching};
pub(super) use self::published::{Published, Unavailable};
pub use self::rights::{ClaimName, Rights};
pub(super) use self::verifier::{Keys, Kind, Verifier};
use super::{Grants, Secret};
use crate::clock::Timestamp;

/// The longest foreign token that is looked at, in bytes. Identity providers put groups and pictures
/// into them; a cookie's bound does not apply, as none carries it.
pub const MAX_FOREIGN_TOKEN_LEN: usize = 16 * 1024;

/// An issuer as configured.
#[derive(Debug, Clone)]
pub struct IssuerSettings {
    /// `iss` of its tokens, exactly.
    pub issuer: String,
    /// What `aud` must hold.
    pub audience: String,
    /// What it signs with.
    pub keys: IssuerKeys,
    /// What its people may do.
    pub rights: Rights,
}

/// What an issuer signs with.
#[derive(Debug, Clone)]
pub enum IssuerKeys {
    /// A secret that it shares with us: HS256 and nothing else.
    Secret(Secret),
    /// Public keys that it publishes here: everything but HMAC.
    Published(String),
}

/// Somebody whom an issuer vouches for.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// Who, in the issuer's words.
    pub sub: String,
    /// What they may do here.
    pub grants: Grants,
    /// When they proved who they are; the moment of the exchange where the issuer does not say.
    pub auth_time: Timestamp,
    /// Who vouches.
    pub issuer: String,
}

/// Why a foreign token was not accepted. The client hears little of it, the log the [`label`].
///
/// [`label`]: IssuerError::label
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IssuerError {
    /// Longer than [`MAX_FOREIGN_TOKEN_LEN`].
    #[error("the token is longer than {MAX_FOREIGN_TOKEN_LEN} bytes")]
    TooLong,
    /// Not a JWT, or one of the claims that are needed is missing or not what it should be.
    #[error("the token is not a JWT with `iss`, `sub`, `aud` and `exp`")]
    Malformed,
    /// A JWT for something else: a log-out, an event, a token bound to a key of its holder.
    #[error("the token is a JWT for another purpose, or bound to a key of its holder")]
    WrongKind,
    /// `iss` is nobody whom this server believes.
    #[error("the token's issuer is not configured")]
    UnknownIssuer,
    /// Several keys, and no `kid`.
    #[error("the token does not say which of its issuer's keys signed it")]
    KeyNotNamed,
    /// `kid` names none of the issuer's keys.
    #[error("the token names a key that its issuer does not publish")]
    UnknownKey,
    /// `alg` is not one that the key may be used with.
    #[error("the token's algorithm is not its key's")]
    WrongAlgorithm,
    /// The signature is not the key's.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// `aud` does not name this server.
    #[error("the token is meant for somebody else")]
    WrongAudience,
    /// `exp` is past, leeway included.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is still to come, leeway included.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// It answers another log-in than this one.
    #[error("the token was made for another log-in")]
    WrongNonce,
    /// A trusted claim has no meaning here.
    #[error("the token's claim `{}` cannot be read", .0.name())]
    BadClaim(ClaimName),
    /// The issuer's keys are not known at this moment.
    #[error("the issuer's keys cannot be fetched at this moment")]
    KeysUnavailable {
        /// When to try again.
        retry_after: Duration,
    },
}

impl IssuerError {
    /// The word for metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::WrongKind => "wrong_kind",
            Self::UnknownIssuer => "unknown_issuer",
            Self::KeyNotNamed => "key_not_named",
            Self::UnknownKey => "unknown_key",
            Self::WrongAlgorithm => "wrong_algorithm",
            Self::BadSignature => "bad_signature",
            Self::WrongAudience => "wrong_audience",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongNonce => "wrong_nonce",
            Self::BadClaim(_) => "bad_claim",
            Self::KeysUnavailable { .. } => "keys_unavailable",
        }
    }
}

impl From<Unavailable> for IssuerError {
    fn from(Unavailable { retry_after }: Unavailable) -> Self {
        Self::KeysUnavailable { retry_after }
    }
}

/// Whose tokens are exchanged. Cheap to clone; nobody's by default.
#[derive(Clone, Default)]
pub struct Issuers(Arc<[(Verifier, Rights)]>);

impl Issuers {
    /// These, their keys fetched through `fetch` when they are first needed.
    pub fn new(settings: Vec<IssuerSettings>, fetch: &Arc<dyn Fetch>) -> Self {
        let issuer = |settings: IssuerSettings| {
            let keys = match settings.keys {
                IssuerKeys::Secret(secret) => Keys::shared(&secret),
                IssuerKeys::Published(url) => Keys::published(url, fetch),
            };
            let verifier = Verifier {
                issuer: settings.issuer,
                audience: settings.audience,
                keys,
            };
            (verifier, settings.rights)
        };
        Self(settings.into_iter().map(issuer).collect())
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Fetches every issuer's keys before somebody has to wait for them. Failures are logged.
    pub async fn warm_up(&self, now: Timestamp) {
        for (verifier, _) in &*self.0 {
            verifier.keys.warm_up(now).await;
        }
    }

    /// Who the token speaks of, if one of these issuers made it for this server.
    pub async fn verify(&self, token: &str, now: Timestamp) -> Result<Identity, IssuerError> {
        if token.len() > MAX_FOREIGN_TOKEN_LEN {
            return Err(IssuerError::TooLong);
        }
        // Unverified: it chooses the keys to verify with, and they are this issuer's alone.
        let named = foreign::unverified_issuer(token).ok_or(IssuerError::Malformed)?;
        let mut issuers = self.0.iter();
        let (verifier, rights) = issuers
            .find(|(verifier, _)| verifier.issuer == named)
            .ok_or(IssuerError::UnknownIssuer)?;
        let claims = verifier.verify(token, Kind::Exchange, now).await?;
        claims.identity(rights, now)
    }
}
