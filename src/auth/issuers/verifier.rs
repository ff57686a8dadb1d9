//! One issuer's tokens for one audience: signature, then everything else. The exchange and OpenID
//! Connect verify alike.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey};

use super::super::token::{TokenHeader, signed_claims};
use super::{Fetch, ForeignClaims, IssuerError, KeySet, MAX_FOREIGN_TOKEN_LEN, Published};
use crate::auth::{AuthError, Secret};
use crate::clock::Timestamp;

/// What a token is presented as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::auth) enum Kind {
    /// In exchange for a session.
    Exchange,
    /// As the ID token of a log-in.
    IdToken,
}

impl Kind {
    /// Whether a token of this `typ` may be presented so. Other kinds come from the same issuer for the
    /// same audience and say nothing of who is here, such as `logout+jwt` (RFC 8725 §3.11).
    fn takes(self, typ: Option<&str>) -> bool {
        let Some(typ) = typ else {
            return true;
        };
        let typ = typ.to_ascii_lowercase();
        // RFC 7515 §4.1.9: `application/` may be left out.
        matches!(
            (typ.strip_prefix("application/").unwrap_or(&typ), self),
            ("jwt", _) | ("at+jwt", Self::Exchange)
        )
    }
}

/// What an issuer signs with.
pub(in crate::auth) enum Keys {
    /// A secret of both sides.
    Shared(DecodingKey),
    /// Keys at an address.
    Published(Arc<Published<KeySet>>),
}

impl Keys {
    pub(super) fn shared(secret: &Secret) -> Self {
        Self::Shared(DecodingKey::from_secret(secret.expose()))
    }

    pub(in crate::auth) fn published(url: String, fetch: &Arc<dyn Fetch>) -> Self {
        let read = Box::new(|json: &[u8]| KeySet::parse(json));
        Self::Published(Arc::new(Published::new("key set", url, fetch, read)))
    }

    /// Where they are published, if they are.
    pub(in crate::auth) fn url(&self) -> Option<&str> {
        match self {
            Self::Shared(_) => None,
            Self::Published(keys) => Some(keys.url()),
        }
    }

    pub(in crate::auth) async fn warm_up(&self, now: Timestamp) {
        if let Self::Published(keys) = self {
            // A failure is logged where it happens.
            let _ = keys.get(now).await;
        }
    }
}

/// Verifies one issuer's tokens for one audience.
pub(in crate::auth) struct Verifier {
    pub(in crate::auth) issuer: String,
    pub(in crate::auth) audience: String,
    pub(in crate::auth) keys: Keys,
}

impl Verifier {
    /// The claims of a token that is genuine, meant for us, of the right kind, and in time.
    pub(in crate::auth) async fn verify(
        &self,
        token: &str,
        kind: Kind,
        now: Timestamp,
    ) -> Result<ForeignClaims, IssuerError> {
        if token.len() > MAX_FOREIGN_TOKEN_LEN {
            return Err(IssuerError::TooLong);
        }
        let header = TokenHeader::of(token).ok_or(IssuerError::Malformed)?;
        if header.crit.is_some() {
            return Err(IssuerError::Malformed);
        }
        if !kind.takes(header.typ.as_deref()) {
            return Err(IssuerError::WrongKind);
        }
        let algorithm: Algorithm = header
            .alg
            .parse()
            .map_err(|_| IssuerError::WrongAlgorithm)?;
        let claims = match &self.keys {
            Keys::Shared(_) if algorithm != Algorithm::HS256 => {
                return Err(IssuerError::WrongAlgorithm);
            }
            Keys::Shared(key) => signed(token, key, algorithm),
            Keys::Published(published) => {
                let name = header.kid.as_deref();
                let set = published.get(now).await?;
                match set.find(name, algorithm) {
                    // The issuer may have begun to sign with a new one.
                    Err(IssuerError::UnknownKey) => {
                        let newer = published.newer(now).await?;
                        signed(token, newer.find(name, algorithm)?, algorithm)
                    }
                    found => signed(token, found?, algorithm),
                }
            }
        }?;
        claims.check(&self.issuer, &self.audience, now)?;
        Ok(claims)
    }
}

fn signed(
    token: &str,
    key: &DecodingKey,
    algorithm: Algorithm,
) -> Result<ForeignClaims, IssuerError> {
    signed_claims(token, key, algorithm).map_err(|error| match error {
        AuthError::BadSignature => IssuerError::BadSignature,
        AuthError::WrongAlgorithm => IssuerError::WrongAlgorithm,
        _ => IssuerError::Malformed,
    })
}
