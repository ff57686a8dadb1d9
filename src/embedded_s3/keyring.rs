//! Who may sign: the owner, users, and temporary keys from STS; and what each may do.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Result, s3_error};

use super::policy::Policy;
use crate::aws::AccessKeys;
use crate::clock::{Clock, Timestamp};

/// Keys kept; past it, those that expired go, and then nobody gets new ones.
const MAX_KEYS: usize = 10_000;
/// The account that everything here belongs to.
pub(super) const ACCOUNT: &str = "000000000000";

/// Somebody whose signature was right.
#[derive(Debug, Clone)]
pub(super) struct Principal {
    pub(super) arn: String,
    pub(super) user_id: String,
    /// Whether the keys came from STS: those cannot be chained for longer than an hour.
    pub(super) temporary: bool,
    /// All of them must allow. None: the owner, who may do everything.
    pub(super) policies: Vec<Arc<Policy>>,
}

impl Principal {
    pub(super) fn may(&self, action: &str, resource: &str) -> bool {
        self.may_in(action, resource, None)
    }

    /// The same of a list of what begins so.
    pub(super) fn may_in(&self, action: &str, resource: &str, prefix: Option<&str>) -> bool {
        let mut policies = self.policies.iter();
        policies.all(|p| p.allows(action, resource, prefix))
    }
}

struct Key {
    secret: SecretKey,
    token: Option<String>,
    expires: Option<Timestamp>,
    principal: Principal,
}

/// Every key that signs here.
pub(super) struct Keyring {
    keys: RwLock<HashMap<String, Key>>,
    clock: Clock,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").finish_non_exhaustive()
    }
}

/// Why a signer is nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stranger {
    /// No such key.
    Unknown,
    /// The key needs another session token, or none.
    WrongToken,
    /// The key's time is over.
    Expired,
}

impl Keyring {
    pub(super) fn new(owner: &AccessKeys, clock: Clock) -> Self {
        let ring = Self {
            keys: RwLock::default(),
            clock,
        };
        let principal = Principal {
            arn: format!("arn:aws:iam::{ACCOUNT}:root"),
            user_id: ACCOUNT.into(),
            temporary: false,
            policies: Vec::new(),
        };
        ring.add(owner, None, principal);
        ring
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// New permanent keys.
    pub(super) fn issue(&self, principal: Principal) -> AccessKeys {
        let keys = random_keys("AKIA", false);
        self.add(&keys, None, principal);
        keys
    }

    /// New temporary keys, and when they end.
    pub(super) fn issue_temporary(
        &self,
        principal: Principal,
        duration: Duration,
    ) -> (AccessKeys, Timestamp) {
        let keys = random_keys("ASIA", true);
        let expires = self.now() + duration;
        self.add(&keys, Some(expires), principal);
        (keys, expires)
    }

    fn add(&self, keys: &AccessKeys, expires: Option<Timestamp>, principal: Principal) {
        let now = self.now();
        let mut ring = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if ring.len() >= MAX_KEYS {
            ring.retain(|_, key| key.expires.is_none_or(|end| end > now));
        }
        if ring.len() < MAX_KEYS {
            let key = Key {
                secret: keys.secret_access_key.as_str().into(),
                token: keys.session_token.clone(),
                expires,
                principal,
            };
            ring.insert(keys.access_key_id.clone(), key);
        }
    }

    /// Who signed with this key, if its token is right and its time is not over.
    pub(super) fn principal(
        &self,
        access_key: &str,
        token: Option<&str>,
    ) -> Result<Principal, Stranger> {
        let ring = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let key = ring.get(access_key).ok_or(Stranger::Unknown)?;
        if key.token.as_deref() != token {
            return Err(Stranger::WrongToken);
        }
        if key.expires.is_some_and(|end| end <= self.now()) {
            return Err(Stranger::Expired);
        }
        Ok(key.principal.clone())
    }

    fn secret(&self, access_key: &str) -> Option<SecretKey> {
        let ring = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        ring.get(access_key).map(|key| key.secret.clone())
    }
}

/// The keyring, as s3s asks it while it verifies a signature.
pub(super) struct Auth(pub(super) Arc<Keyring>);

#[async_trait::async_trait]
impl S3Auth for Auth {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        self.0.secret(access_key).ok_or_else(|| {
            s3_error!(
                InvalidAccessKeyId,
                "The AWS Access Key Id you provided does not exist in our records."
            )
        })
    }
}

/// Keys in AWS's shape: `AKIA` or `ASIA` and 16 of base 32, 40 of base 64, and a token.
pub(super) fn random_keys(prefix: &str, temporary: bool) -> AccessKeys {
    const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    AccessKeys {
        access_key_id: format!("{prefix}{}", random(BASE32, 16)),
        secret_access_key: random(BASE64, 40),
        session_token: temporary.then(|| random(BASE64, 120)),
    }
}

/// Random text over an alphabet whose length divides 256.
fn random(alphabet: &[u8], length: usize) -> String {
    let mut bytes = vec![0; length];
    // Without the system's randomness nothing here would be safe, not even on a loopback address.
    getrandom::fill(&mut bytes).expect("the system's random numbers");
    let pick = |byte: u8| char::from(alphabet[usize::from(byte) % alphabet.len()]);
    bytes.into_iter().map(pick).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_keys_need_their_token_and_end() {
        let clock = Clock::manual(Timestamp::from_secs(1_000));
        let owner = random_keys("AKIA", false);
        let ring = Keyring::new(&owner, clock.clone());
        let principal = ring.principal(&owner.access_key_id, None).unwrap();
        let (keys, end) = ring.issue_temporary(principal, Duration::from_mins(15));
        assert_eq!(end, Timestamp::from_secs(1_900));
        let token = keys.session_token.as_deref();
        let id = &keys.access_key_id;
        assert!(ring.principal(id, token).is_ok());
        assert_eq!(ring.principal(id, None).unwrap_err(), Stranger::WrongToken);
        assert_eq!(
            ring.principal(id, Some("x")).unwrap_err(),
            Stranger::WrongToken
        );
        clock.advance(Duration::from_mins(15));
        assert_eq!(ring.principal(id, token).unwrap_err(), Stranger::Expired);
        assert_eq!(ring.principal("AKIA", None).unwrap_err(), Stranger::Unknown);
    }
}
