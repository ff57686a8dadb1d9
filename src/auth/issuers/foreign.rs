//! What a foreign token says. Read only after its signature was verified, but for the issuer's name.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::super::claims::{is_sub, maybe_seconds, seconds};
use super::{Identity, IssuerError, Rights};
use crate::auth::LEEWAY;
use crate::clock::Timestamp;

/// The claims that decide, and the rest as it is.
#[derive(Deserialize)]
pub(in crate::auth) struct ForeignClaims {
    pub(super) iss: String,
    sub: String,
    aud: Audience,
    #[serde(deserialize_with = "seconds")]
    exp: u64,
    #[serde(default, deserialize_with = "maybe_seconds")]
    nbf: Option<u64>,
    #[serde(default, deserialize_with = "maybe_seconds")]
    auth_time: Option<u64>,
    pub(in crate::auth) nonce: Option<String>,
    pub(in crate::auth) azp: Option<String>,
    /// A security event or a log-out (RFC 8417 §2.2): it says nothing of who is here.
    events: Option<IgnoredAny>,
    /// Bound to a key of its holder (RFC 7800 §3): whoever has only the text is not the holder.
    cnf: Option<IgnoredAny>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// One or several (RFC 7519 §4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl ForeignClaims {
    /// Everything but the signature.
    pub(super) fn check(
        &self,
        issuer: &str,
        audience: &str,
        now: Timestamp,
    ) -> Result<(), IssuerError> {
        if self.iss != issuer {
            return Err(IssuerError::UnknownIssuer);
        }
        if self.events.is_some() || self.cnf.is_some() {
            return Err(IssuerError::WrongKind);
        }
        if !self.audiences().iter().any(|aud| aud == audience) {
            return Err(IssuerError::WrongAudience);
        }
        if now >= Timestamp::from_secs(self.exp) + LEEWAY {
            return Err(IssuerError::Expired);
        }
        if self
            .nbf
            .is_some_and(|nbf| now + LEEWAY < Timestamp::from_secs(nbf))
        {
            return Err(IssuerError::NotYetValid);
        }
        // It becomes a session's, and stands in the log.
        if !is_sub(&self.sub) {
            return Err(IssuerError::Malformed);
        }
        Ok(())
    }

    /// Whom it is meant for.
    pub(in crate::auth) fn audiences(&self) -> &[String] {
        match &self.aud {
            Audience::One(one) => std::slice::from_ref(one),
            Audience::Several(several) => several,
        }
    }

    /// Who it speaks of.
    pub(in crate::auth) fn identity(
        self,
        rights: &Rights,
        now: Timestamp,
    ) -> Result<Identity, IssuerError> {
        let grants = rights.of(&self.rest)?;
        let auth_time = self.auth_time.map_or(now, Timestamp::from_secs).min(now);
        Ok(Identity {
            sub: self.sub,
            grants,
            auth_time,
            issuer: self.iss,
        })
    }
}

/// The issuer that a token names, whoever made it.
pub(super) fn unverified_issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        iss: String,
    }
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    Some(serde_json::from_slice::<Named>(&payload).ok()?.iss)
}
