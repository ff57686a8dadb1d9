//! The keys that session tokens are signed and verified with.
//!
//! Invariant: a key has one algorithm for ever; a token never chooses it (RFC 8725 §3.1). Ids are
//! unique, secrets are long enough, and a private key fits its public one, or there is no ring.

use std::fmt;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};

use super::{NoRandomness, hex, random};

/// The shortest HS256 secret: as long as the hash (RFC 7518 §3.2).
const MIN_SECRET_LEN: usize = 32;
/// The longest key id. It travels in every token.
const MAX_ID_LEN: usize = 128;

/// Bytes that must not be seen: `Debug` hides them, and there is no `Display`.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Takes the bytes over.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into().into_boxed_slice())
    }

    /// The bytes. Whoever asks keeps them out of logs and errors.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// What a key is made of.
#[derive(Debug, Clone)]
pub enum KeyMaterial {
    /// HMAC with SHA-256: whoever can verify can also sign.
    Hs256 {
        /// At least 32 bytes.
        secret: Secret,
    },
    /// `EdDSA` over Ed25519.
    Ed25519 {
        /// PEM, `BEGIN PUBLIC KEY`.
        public_key: Secret,
        /// PEM, `BEGIN PRIVATE KEY` (PKCS #8); without it the key only verifies.
        private_key: Option<Secret>,
    },
}

/// One key as configured.
#[derive(Debug, Clone)]
pub struct KeySettings {
    /// Its `kid`.
    pub id: String,
    /// What it is made of.
    pub material: KeyMaterial,
}

/// Why a list of keys was refused. Names the key, never a byte of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No key at all.
    #[error("at least one session key is needed, for example one made by `openssl rand -hex 32`")]
    None,
    /// An id that cannot be a `kid`.
    #[error("session key {0:?}: an id has 1 to {MAX_ID_LEN} bytes and no control characters")]
    Id(String),
    /// Two keys of one id.
    #[error("session key {0:?}: the id is given twice; tokens could not say which they mean")]
    Duplicate(String),
    /// Too short a secret.
    #[error(
        "session key {id:?}: the secret has {len} bytes, HS256 needs at least {MIN_SECRET_LEN}; make one with `openssl rand -hex 32`"
    )]
    ShortSecret {
        /// The key.
        id: String,
        /// How long it is.
        len: usize,
    },
    /// No Ed25519 public key.
    #[error(
        "session key {0:?}: public_key is no Ed25519 public key in PEM (`openssl pkey -in private.pem -pubout`)"
    )]
    PublicKey(String),
    /// No Ed25519 private key.
    #[error(
        "session key {0:?}: private_key is no Ed25519 private key in PEM, PKCS #8 (`openssl genpkey -algorithm ed25519`)"
    )]
    PrivateKey(String),
    /// Both are keys, but not of one pair.
    #[error("session key {0:?}: private_key and public_key are not of one pair")]
    Mismatch(String),
}

/// One usable key.
pub(super) struct Key {
    id: Box<str>,
    algorithm: Algorithm,
    verifies: DecodingKey,
    signs: Option<EncodingKey>,
}

impl Key {
    fn new(KeySettings { id, material }: KeySettings) -> Result<Self, KeyError> {
        if id.is_empty() || id.len() > MAX_ID_LEN || id.chars().any(char::is_control) {
            return Err(KeyError::Id(id));
        }
        let (algorithm, verifies, signs) = match material {
            KeyMaterial::Hs256 { secret } => {
                let len = secret.expose().len();
                if len < MIN_SECRET_LEN {
                    return Err(KeyError::ShortSecret { id, len });
                }
                (
                    Algorithm::HS256,
                    DecodingKey::from_secret(secret.expose()),
                    Some(EncodingKey::from_secret(secret.expose())),
                )
            }
            KeyMaterial::Ed25519 {
                public_key,
                private_key,
            } => {
                let verifies = DecodingKey::from_ed_pem(public_key.expose())
                    .map_err(|_| KeyError::PublicKey(id.clone()))?;
                let signs = private_key
                    .map(|pem| EncodingKey::from_ed_pem(pem.expose()))
                    .transpose()
                    .map_err(|_| KeyError::PrivateKey(id.clone()))?;
                (Algorithm::EdDSA, verifies, signs)
            }
        };
        let key = Self {
            id: id.into(),
            algorithm,
            verifies,
            signs,
        };
        key.check_pair()?;
        Ok(key)
    }

    /// Signs something and verifies it: a private key of another pair would otherwise be found
    /// out by users, one failed request after the other.
    fn check_pair(&self) -> Result<(), KeyError> {
        let Some(signs) = &self.signs else {
            return Ok(());
        };
        let probe = b"tilekeep";
        let signature = jsonwebtoken::crypto::sign(probe, signs, self.algorithm)
            .map_err(|_| KeyError::PrivateKey(self.id.to_string()))?;
        match jsonwebtoken::crypto::verify(&signature, probe, &self.verifies, self.algorithm) {
            Ok(true) => Ok(()),
            Ok(false) => Err(KeyError::Mismatch(self.id.to_string())),
            Err(_) => Err(KeyError::PublicKey(self.id.to_string())),
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) fn verifies(&self) -> &DecodingKey {
        &self.verifies
    }
}

/// The keys of this server: the first that can sign signs, all verify.
pub struct KeyRing {
    keys: Vec<Key>,
}

impl KeyRing {
    /// Checks and takes the keys, in order of preference; all problems at once.
    pub fn new(settings: Vec<KeySettings>) -> Result<Self, Vec<KeyError>> {
        let mut problems = Vec::new();
        let mut keys: Vec<Key> = Vec::with_capacity(settings.len());
        let mut ids = std::collections::HashSet::new();
        for setting in settings {
            if !ids.insert(setting.id.clone()) {
                problems.push(KeyError::Duplicate(setting.id));
                continue;
            }
            match Key::new(setting) {
                Ok(key) => keys.push(key),
                Err(problem) => problems.push(problem),
            }
        }
        if keys.is_empty() && problems.is_empty() {
            problems.push(KeyError::None);
        }
        if problems.is_empty() {
            Ok(Self { keys })
        } else {
            Err(problems)
        }
    }

    /// One random key that nobody else has and that is forgotten at exit: for the demo. Its id is
    /// random too, so that a cookie of an earlier run is told by its key.
    pub fn ephemeral() -> Result<Self, NoRandomness> {
        let secret: [u8; 32] = random()?;
        Ok(Self {
            keys: vec![Key {
                id: format!("ephemeral-{}", hex(&random::<4>()?)).into(),
                algorithm: Algorithm::HS256,
                verifies: DecodingKey::from_secret(&secret),
                signs: Some(EncodingKey::from_secret(&secret)),
            }],
        })
    }

    /// Whether this server can issue sessions, or only read other people's.
    pub fn can_sign(&self) -> bool {
        self.signer().is_some()
    }

    /// A key for another purpose from each key that signs, the signer's first: nodes that share session
    /// keys share these too, and nothing made with one is ever a token's signature (RFC 5869 §3.2).
    pub(super) fn derive(&self, purpose: &[u8]) -> Result<Vec<[u8; 32]>, Unspecified> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"tilekeep");
        let signing = self.keys.iter().filter_map(|key| key.signs.as_ref());
        signing
            .map(|key| {
                let mut derived = [0; 32];
                let from = salt.extract(key.as_bytes());
                from.expand(&[purpose], hkdf::HKDF_SHA256)?
                    .fill(&mut derived)?;
                Ok(derived)
            })
            .collect()
    }

    /// The ids, in order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(Key::id)
    }

    pub(super) fn signer(&self) -> Option<(&Key, &EncodingKey)> {
        self.keys
            .iter()
            .find_map(|key| key.signs.as_ref().map(|signs| (key, signs)))
    }

    pub(super) fn get(&self, id: &str) -> Option<&Key> {
        self.keys.iter().find(|key| &*key.id == id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("ids", &self.ids().collect::<Vec<_>>())
            .field("signs", &self.signer().map(|(key, _)| key.id()))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ed25519, hs256, pem_pair};
    use super::*;

    #[test]
    fn the_first_key_that_can_sign_signs() {
        let (public, private) = pem_pair();
        let ring = KeyRing::new(vec![
            ed25519("app", &pem_pair().0, None),
            ed25519("own", &public, Some(&private)),
            hs256("old"),
        ])
        .unwrap();
        assert_eq!(ring.signer().unwrap().0.id(), "own");
        assert_eq!(ring.ids().collect::<Vec<_>>(), ["app", "own", "old"]);
        let verifies_only = KeyRing::new(vec![ed25519("app", &public, None)]).unwrap();
        assert!(!verifies_only.can_sign());
    }

    #[test]
    fn keys_in_the_form_that_openssl_writes_are_read() {
        // RFC 8410 §10.
        let public = "-----BEGIN PUBLIC KEY-----\n\
            MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
            -----END PUBLIC KEY-----\n";
        let private = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
            -----END PRIVATE KEY-----\n";
        assert!(KeyRing::new(vec![ed25519("a", public, Some(private))]).is_ok());
        let crlf = (public.replace('\n', "\r\n"), private.replace('\n', "\r\n"));
        assert!(KeyRing::new(vec![ed25519("a", &crlf.0, Some(&crlf.1))]).is_ok());
    }

    #[test]
    fn every_problem_of_a_list_of_keys_is_told_at_once() {
        let (public, private) = pem_pair();
        let short = KeySettings {
            id: "short".into(),
            material: KeyMaterial::Hs256 {
                secret: Secret::new("hunter2"),
            },
        };
        let problems = KeyRing::new(vec![
            short,
            hs256("a"),
            hs256("a"),
            hs256(""),
            ed25519("swapped", &private, None),
            ed25519("other", &pem_pair().0, Some(&private)),
            ed25519("nonsense", &public, Some("no key")),
        ])
        .unwrap_err();
        assert_eq!(
            problems,
            [
                KeyError::ShortSecret {
                    id: "short".into(),
                    len: 7
                },
                KeyError::Duplicate("a".into()),
                KeyError::Id(String::new()),
                KeyError::PublicKey("swapped".into()),
                KeyError::Mismatch("other".into()),
                KeyError::PrivateKey("nonsense".into()),
            ]
        );
        assert!(!format!("{problems:?} {}", problems[0]).contains("hunter2"));
        assert_eq!(KeyRing::new(vec![]).unwrap_err(), [KeyError::None]);
    }

    #[test]
    fn debug_shows_no_secret() {
        let (public, private) = pem_pair();
        let settings = vec![hs256("a"), ed25519("b", &public, Some(&private))];
        let shown = format!("{settings:?} {:?}", KeyRing::new(settings.clone()).unwrap());
        assert!(!shown.contains("PRIVATE"), "{shown}");
        assert!(!shown.contains("0123456789"), "{shown}");
        assert!(!shown.contains("48, 49, 50"), "{shown}");
    }
}
