//! Tokens as text: JWTs, compact form, signed with the keys of a [`KeyRing`].
//!
//! The algorithm is the key's. `kid` names the key; a token without one is tried against every key
//! of its algorithm, so that an application's library that cannot set `kid` works, at the cost
//! of a verification a key. `jsonwebtoken` checks the signature and nothing else: time is an
//! argument here, and its own validation asks the ambient clock.

use std::collections::HashSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::keys::{Key, KeyRing};
use super::{AuthError, Claims, Session};
use crate::clock::Timestamp;

/// The longest token that is looked at, in bytes. Browsers keep no longer cookie (RFC 6265bis §5.6).
pub const MAX_TOKEN_LEN: usize = 4096;
/// How far the clocks of those who mint and those who verify may differ.
pub const LEEWAY: Duration = Duration::from_secs(30);

/// Why a token was not minted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// Only public keys are configured.
    #[error("no session key can sign: give one a `secret` or a `private_key`")]
    NoSigningKey,
    /// A claim that the same server would refuse.
    #[error("claim `{0}`: its value would be refused when the token comes back")]
    Claim(&'static str),
    /// The claims make it longer than a cookie can be.
    #[error("the token would be {0} bytes long, more than a cookie carries; name fewer tilesets")]
    TooLong(usize),
    /// The key would not sign.
    #[error("the session key failed to sign")]
    Signing,
}

/// The part of a JOSE header that decides anything (RFC 7515 §4.1).
#[derive(Deserialize)]
pub(super) struct TokenHeader {
    pub(super) alg: String,
    #[serde(default)]
    pub(super) kid: Option<String>,
    /// What kind of token it says it is.
    #[serde(default)]
    pub(super) typ: Option<String>,
    /// Extensions that must be understood; none is (RFC 7515 §4.1.11).
    #[serde(default)]
    pub(super) crit: Option<serde::de::IgnoredAny>,
}

impl TokenHeader {
    pub(super) fn of(token: &str) -> Option<Self> {
        let (header, rest) = token.split_once('.')?;
        // Exactly three parts; a JWE has five.
        (rest.bytes().filter(|byte| *byte == b'.').count() == 1).then_some(())?;
        let json = URL_SAFE_NO_PAD.decode(header).ok()?;
        serde_json::from_slice(&json).ok()
    }
}

/// What a token claims, whoever made it: to explain a token to a person, and never to decide
/// anything.
#[derive(Debug, Clone, PartialEq)]
pub struct Unverified {
    /// The algorithm that it says it is signed with.
    pub alg: String,
    /// The key that it names.
    pub kid: Option<String>,
    /// Its payload as it is.
    pub claims: serde_json::Value,
}

impl Unverified {
    /// Reads a token of at most [`MAX_TOKEN_LEN`] bytes; `None` for what is no JWT.
    pub fn read(token: &str) -> Option<Self> {
        if token.len() > MAX_TOKEN_LEN {
            return None;
        }
        let TokenHeader { alg, kid, .. } = TokenHeader::of(token)?;
        let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
        let claims = serde_json::from_slice(&payload).ok()?;
        Some(Self { alg, kid, claims })
    }
}

impl KeyRing {
    /// Verifies a token: its size, signature, claims, and time. Revocations are not asked; see
    /// [`Sessions::authorize`](super::Sessions::authorize), which also remembers.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Session, AuthError> {
        if token.is_empty() {
            return Err(AuthError::Missing);
        }
        if token.len() > MAX_TOKEN_LEN {
            return Err(AuthError::TooLong);
        }
        let header = TokenHeader::of(token).ok_or(AuthError::Malformed)?;
        if header.crit.is_some() {
            return Err(AuthError::Malformed);
        }
        let session = if let Some(kid) = &header.kid {
            let key = self.get(kid).ok_or(AuthError::UnknownKey)?;
            verify_with(key, &header, token)
        } else {
            self.iter()
                .map(|key| verify_with(key, &header, token))
                .reduce(|first, next| match (&first, &next) {
                    // The key that gets further tells more.
                    (Err(AuthError::WrongAlgorithm | AuthError::BadSignature), Ok(_))
                    | (Err(AuthError::WrongAlgorithm), Err(_))
                    | (Err(AuthError::BadSignature), Err(AuthError::Malformed)) => next,
                    _ => first,
                })
                .unwrap_or(Err(AuthError::UnknownKey))
        }?;
        session.check_time(now)?;
        Ok(session)
    }

    /// Signs claims with the first key that can.
    pub fn mint(&self, claims: &Claims) -> Result<String, MintError> {
        if let Some(claim) = claims.unacceptable() {
            return Err(MintError::Claim(claim));
        }
        let (key, signs) = self.signer().ok_or(MintError::NoSigningKey)?;
        let mut header = Header::new(key.algorithm());
        header.kid = Some(key.id().to_owned());
        let token = jsonwebtoken::encode(&header, claims, signs).map_err(|_| MintError::Signing)?;
        if token.len() > MAX_TOKEN_LEN {
            return Err(MintError::TooLong(token.len()));
        }
        Ok(token)
    }
}

/// Verifies with one key, by that key's algorithm alone.
fn verify_with(key: &Key, header: &TokenHeader, token: &str) -> Result<Session, AuthError> {
    if header.alg != algorithm_name(key.algorithm()) {
        return Err(AuthError::WrongAlgorithm);
    }
    let claims = signed_claims(token, key.verifies(), key.algorithm())?;
    let signed_part = token.rsplit_once('.').map_or(token, |(part, _)| part);
    Session::new(claims, signed_part).ok_or(AuthError::Malformed)
}

/// The payload of a token whose signature is this key's, by this algorithm and no other. Nothing
/// else is looked at.
pub(super) fn signed_claims<T: DeserializeOwned>(
    token: &str,
    key: &DecodingKey,
    algorithm: Algorithm,
) -> Result<T, AuthError> {
    let mut only_signature = Validation::new(algorithm);
    only_signature.required_spec_claims = HashSet::new();
    only_signature.validate_exp = false;
    only_signature.validate_nbf = false;
    only_signature.validate_aud = false;
    let verified = jsonwebtoken::decode::<T>(token, key, &only_signature).map_err(|error| {
        match error.kind() {
            ErrorKind::InvalidSignature => AuthError::BadSignature,
            ErrorKind::InvalidAlgorithm => AuthError::WrongAlgorithm,
            _ => AuthError::Malformed,
        }
    })?;
    Ok(verified.claims)
}

fn algorithm_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::EdDSA => "EdDSA",
        // A ring has no other key.
        _ => "HS256",
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::hmac;
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::testing::{SECRET, claims, ed25519, hs256, pem_pair, ring};
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    /// A token made by hand, signed by HMAC with any bytes as the key.
    fn forged(header: &serde_json::Value, payload: &serde_json::Value, secret: &[u8]) -> String {
        let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(header), encode(payload));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let signature = hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn payload() -> serde_json::Value {
        json!({"sub": "eve", "exp": 2_000, "tilesets": ["*"]})
    }

    fn secret_of(id: &str) -> Vec<u8> {
        [SECRET, id.as_bytes()].concat()
    }

    #[test]
    fn what_is_minted_verifies_whatever_the_algorithm() {
        let (public, private) = pem_pair();
        for keys in [
            ring(vec![hs256("a")]),
            ring(vec![ed25519("b", &public, Some(&private))]),
        ] {
            let token = keys.mint(&claims(2_000)).unwrap();
            let session = keys.verify(&token, NOW).unwrap();
            assert_eq!(session.claims(), &claims(2_000));
        }
    }

    #[test]
    fn an_application_that_shares_the_key_can_mint() {
        let keys = ring(vec![hs256("a")]);
        let header = json!({"typ": "JWT", "alg": "HS256", "kid": "a"});
        let token = forged(&header, &payload(), &secret_of("a"));
        assert_eq!(keys.verify(&token, NOW).unwrap().sub(), "eve");
    }

    #[test]
    fn no_algorithm_is_no_signature() {
        let keys = ring(vec![hs256("a")]);
        for alg in ["none", "None", "NONE", ""] {
            for kid in [json!("a"), json!(null)] {
                let header = json!({"alg": alg, "kid": kid});
                let token = forged(&header, &payload(), b"");
                let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
                for token in [token, unsigned] {
                    let refused = keys.verify(&token, NOW).unwrap_err();
                    assert_eq!(refused, AuthError::WrongAlgorithm, "{alg}");
                }
            }
        }
    }

    #[test]
    fn a_public_key_is_not_taken_for_a_secret() {
        let (public, private) = pem_pair();
        let keys = ring(vec![ed25519("b", &public, Some(&private))]);
        for kid in [json!("b"), json!(null)] {
            let header = json!({"alg": "HS256", "kid": kid});
            let token = forged(&header, &payload(), public.as_bytes());
            assert_eq!(
                keys.verify(&token, NOW).unwrap_err(),
                AuthError::WrongAlgorithm
            );
        }
        // Claiming the key's algorithm does not make the MAC a signature.
        let token = forged(
            &json!({"alg": "EdDSA", "kid": "b"}),
            &payload(),
            public.as_bytes(),
        );
        assert_eq!(
            keys.verify(&token, NOW).unwrap_err(),
            AuthError::BadSignature
        );
    }

    #[test]
    fn the_kid_of_another_key_does_not_help() {
        let (public, private) = pem_pair();
        let keys = ring(vec![
            hs256("a"),
            hs256("c"),
            ed25519("b", &public, Some(&private)),
        ]);
        let token = |kid: &str, alg: &str| {
            forged(
                &json!({"alg": alg, "kid": kid}),
                &payload(),
                &secret_of("a"),
            )
        };
        let refusal = |kid, alg| keys.verify(&token(kid, alg), NOW).unwrap_err();
        assert_eq!(refusal("c", "HS256"), AuthError::BadSignature);
        assert_eq!(refusal("b", "HS256"), AuthError::WrongAlgorithm);
        assert_eq!(refusal("d", "HS256"), AuthError::UnknownKey);
        assert_eq!(refusal("a", "HS384"), AuthError::WrongAlgorithm);
        assert!(keys.verify(&token("a", "HS256"), NOW).is_ok());
    }

    #[test]
    fn a_token_without_kid_is_tried_against_every_key() {
        let (public, private) = pem_pair();
        let keys = ring(vec![
            hs256("a"),
            ed25519("b", &public, Some(&private)),
            hs256("c"),
        ]);
        let header = json!({"alg": "HS256"});
        for id in ["a", "c"] {
            let token = forged(&header, &payload(), &secret_of(id));
            assert!(keys.verify(&token, NOW).is_ok());
        }
        let token = forged(&header, &payload(), b"somebody else's secret, 32 bytes");
        assert_eq!(
            keys.verify(&token, NOW).unwrap_err(),
            AuthError::BadSignature
        );
        let broken = forged(&header, &json!({"sub": "eve"}), &secret_of("c"));
        assert_eq!(keys.verify(&broken, NOW).unwrap_err(), AuthError::Malformed);
    }

    #[test]
    fn a_new_key_in_front_logs_nobody_out() {
        let token = ring(vec![hs256("old")]).mint(&claims(2_000)).unwrap();
        let rotated = ring(vec![hs256("new"), hs256("old")]);
        assert!(rotated.verify(&token, NOW).is_ok());
        let fresh = rotated.mint(&claims(2_000)).unwrap();
        assert!(ring(vec![hs256("new")]).verify(&fresh, NOW).is_ok());
        assert_eq!(
            ring(vec![hs256("new")]).verify(&token, NOW).unwrap_err(),
            AuthError::UnknownKey
        );
    }

    #[test]
    fn an_extension_that_must_be_understood_is_not() {
        let keys = ring(vec![hs256("a")]);
        let header = json!({"alg": "HS256", "kid": "a", "crit": ["b64"], "b64": false});
        let token = forged(&header, &payload(), &secret_of("a"));
        assert_eq!(keys.verify(&token, NOW).unwrap_err(), AuthError::Malformed);
    }

    #[test]
    fn an_oversized_token_is_neither_read_nor_minted() {
        let keys = ring(vec![hs256("a")]);
        let long = "x".repeat(MAX_TOKEN_LEN + 1);
        assert_eq!(keys.verify(&long, NOW).unwrap_err(), AuthError::TooLong);
        let mut many = claims(2_000);
        many.tilesets = (0..400).map(|n| format!("tileset-{n}")).collect();
        assert!(matches!(keys.mint(&many), Err(MintError::TooLong(_))));
        assert_eq!(keys.verify("", NOW).unwrap_err(), AuthError::Missing);
    }

    #[test]
    fn a_token_that_nobody_here_signed_can_still_be_explained() {
        let header = json!({"alg": "none", "kid": "x"});
        let read = Unverified::read(&forged(&header, &payload(), b"")).unwrap();
        assert_eq!((&*read.alg, read.kid.as_deref()), ("none", Some("x")));
        assert_eq!(read.claims, payload());
        assert_eq!(Unverified::read("x.y"), None);
    }

    proptest! {
        #[test]
        fn a_token_with_one_byte_changed_is_refused(at in 0usize..10_000, with in 0u8..128) {
            let keys = ring(vec![hs256("a")]);
            let token = keys.mint(&claims(2_000)).unwrap();
            let mut bytes = token.clone().into_bytes();
            let at = at % bytes.len();
            bytes[at] = with;
            let changed = String::from_utf8(bytes).unwrap();
            prop_assume!(changed != token);
            prop_assert!(keys.verify(&changed, NOW).is_err());
        }

        #[test]
        fn no_text_makes_the_reader_fall_over(text in ".{0,200}") {
            prop_assert!(ring(vec![hs256("a")]).verify(&text, NOW).is_err());
        }
    }
}
