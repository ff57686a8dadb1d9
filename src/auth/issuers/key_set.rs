//! The public keys that an issuer publishes (RFC 7517), each with the algorithms it may be used with.
//!
//! Invariant: no key here is symmetric, and no algorithm is HMAC: a public key taken for a secret would
//! let everybody sign (RFC 8725 §2.1).

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::IssuerError;

/// More keys than any issuer has; the rest is not looked at.
const MAX_KEYS: usize = 100;

const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

struct PublicKey {
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    verifies: DecodingKey,
}

/// An issuer's keys, at least one.
pub(in crate::auth) struct KeySet(Vec<PublicKey>);

impl KeySet {
    /// Reads a JWK set. Keys of other kinds or for other uses are passed over (RFC 7517 §5); a set
    /// that leaves nothing is none.
    pub(in crate::auth) fn parse(json: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(json).ok()?;
        let keys: Vec<_> = set
            .keys
            .into_iter()
            .take(MAX_KEYS)
            .filter_map(PublicKey::read)
            .collect();
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// The key that a token names, for the algorithm that it names.
    pub(super) fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<&DecodingKey, IssuerError> {
        let named: Vec<_> = match (kid, &*self.0) {
            // One key needs no name.
            (None, [only]) => vec![only],
            (None, _) => return Err(IssuerError::KeyNotNamed),
            (Some(_), [only]) if only.kid.is_none() => vec![only],
            (Some(kid), keys) => keys
                .iter()
                .filter(|key| key.kid.as_deref() == Some(kid))
                .collect(),
        };
        if named.is_empty() {
            return Err(IssuerError::UnknownKey);
        }
        // Some issuers give one name to a key for each algorithm.
        let mut fitting = named
            .into_iter()
            .filter(|key| key.algorithms.contains(&algorithm));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(&key.verifies),
            (Some(_), Some(_)) => Err(IssuerError::KeyNotNamed),
            (None, _) => Err(IssuerError::WrongAlgorithm),
        }
    }
}

impl PublicKey {
    /// `None` for a key that is not for verifying signatures of ours to read.
    fn read(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let possible = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => RSA,
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => &[Algorithm::ES256],
                EllipticCurve::P384 => &[Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                &[Algorithm::EdDSA][..]
            }
            _ => return None,
        };
        let common = &jwk.common;
        let for_signatures = common
            .public_key_use
            .as_ref()
            .is_none_or(|usage| *usage == PublicKeyUse::Signature);
        let verifies = common
            .key_operations
            .as_ref()
            .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        if !for_signatures || !verifies {
            return None;
        }
        let algorithms = match common.key_algorithm {
            None => possible.to_vec(),
            // What the key is for says more than what it could do, and less than it can is nothing.
            Some(stated) => {
                let stated = Algorithm::try_from(stated).ok()?;
                possible.contains(&stated).then(|| vec![stated])?
            }
        };
        Some(Self {
            kid: common.key_id.clone(),
            algorithms,
            verifies: DecodingKey::from_jwk(&jwk).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Whether a set of this one key can be used, and for which of all algorithms.
    fn algorithms(key: &Value) -> Vec<Algorithm> {
        let text = json!({ "keys": [key] }).to_string();
        KeySet::parse(text.as_bytes()).map_or(vec![], |set| set.0[0].algorithms.clone())
    }

    fn rsa(extra: &Value) -> Value {
        let mut key = json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"});
        for (name, value) in extra.as_object().unwrap() {
            key[name] = value.clone();
        }
        key
    }

    #[test]
    fn a_key_has_the_algorithms_of_its_kind_or_the_one_that_it_states() {
        assert_eq!(algorithms(&rsa(&json!({}))), RSA);
        assert_eq!(
            algorithms(&rsa(&json!({"alg": "PS384"}))),
            [Algorithm::PS384]
        );
        let ec = |curve: &str| json!({"kty": "EC", "crv": curve, "x": "AA", "y": "AA"});
        assert_eq!(algorithms(&ec("P-256")), [Algorithm::ES256]);
        assert_eq!(algorithms(&ec("P-384")), [Algorithm::ES384]);
        assert_eq!(algorithms(&ec("P-521")), []);
        let ed = json!({"kty": "OKP", "crv": "Ed25519", "x": "AA"});
        assert_eq!(algorithms(&ed), [Algorithm::EdDSA]);
    }

    #[test]
    fn no_published_key_is_a_secret() {
        for key in [
            json!({"kty": "oct", "k": "AAAA"}),
            json!({"kty": "oct", "k": "AAAA", "alg": "HS256"}),
            rsa(&json!({"alg": "HS256"})),
            rsa(&json!({"alg": "ES256"})),
            rsa(&json!({"alg": "RSA-OAEP"})),
            rsa(&json!({"alg": "none"})),
            rsa(&json!({"use": "enc"})),
            rsa(&json!({"key_ops": ["encrypt"]})),
            json!({"kty": "new"}),
            json!("text"),
        ] {
            assert_eq!(algorithms(&key), [], "{key}");
        }
    }

    #[test]
    fn of_several_keys_one_has_to_be_named() {
        let several = json!({"keys": [
            rsa(&json!({"kid": "a"})), rsa(&json!({"kid": "b", "alg": "RS256"})), {"kty": "oct", "k": "AA"},
        ]});
        let set = KeySet::parse(several.to_string().as_bytes()).unwrap();
        let find = |kid, algorithm| set.find(kid, algorithm).map(|_| ());
        assert_eq!(find(Some("a"), Algorithm::PS256), Ok(()));
        assert_eq!(find(Some("b"), Algorithm::RS256), Ok(()));
        assert_eq!(find(None, Algorithm::RS256), Err(IssuerError::KeyNotNamed));
        assert_eq!(
            find(Some("c"), Algorithm::RS256),
            Err(IssuerError::UnknownKey)
        );
        for (kid, algorithm) in [("a", Algorithm::HS256), ("b", Algorithm::PS256)] {
            let refused = find(Some(kid), algorithm);
            assert_eq!(refused, Err(IssuerError::WrongAlgorithm));
        }
    }

    #[test]
    fn what_is_no_set_with_a_usable_key_is_none() {
        for text in [
            "",
            "{}",
            "[]",
            r#"{"keys":[]}"#,
            r#"{"keys":[{"kty":"oct","k":"AA"}]}"#,
        ] {
            assert!(KeySet::parse(text.as_bytes()).is_none(), "{text}");
        }
    }
}
