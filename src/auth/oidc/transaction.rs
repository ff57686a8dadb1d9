//! A log-in under way, as its browser carries it: sealed, so that it can neither be read nor made up.
//!
//! Invariant: the key is derived for this purpose alone and the text has no dots, so that it is never
//! a token; it is bound to the provider and to our name there.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::super::{KeyRing, NoRandomness, random};
use crate::clock::Timestamp;

const PURPOSE: &[u8] = b"log-in under way, version 1";
/// Of AES-GCM-SIV (RFC 8452 §4).
const NONCE_LEN: usize = 12;

/// What is remembered from the way out to the way back.
#[derive(Serialize, Deserialize)]
pub struct Transaction {
    /// Ties the answer to this browser.
    pub(super) state: String,
    /// Ties the ID token to this log-in.
    pub(super) nonce: String,
    /// Proves that who redeems the code is who asked for it (RFC 7636).
    pub(super) verifier: String,
    /// Where to go afterwards, a path of ours.
    next: String,
    /// When it is too late, in seconds.
    until: u64,
}

impl Transaction {
    /// A new one.
    pub(super) fn new(next: &str, until: Timestamp) -> Result<Self, NoRandomness> {
        // 32 bytes are 43 letters, what RFC 7636 §4.1 wants at least.
        let secret = || Ok(URL_SAFE_NO_PAD.encode(random::<32>()?));
        Ok(Self {
            state: secret()?,
            nonce: secret()?,
            verifier: secret()?,
            next: next.to_owned(),
            until: until.secs(),
        })
    }

    /// Where to go afterwards.
    pub fn next(&self) -> &str {
        &self.next
    }

    pub(super) fn is_for(&self, state: &str, now: Timestamp) -> bool {
        now < Timestamp::from_secs(self.until)
            && verify_slices_are_equal(self.state.as_bytes(), state.as_bytes()).is_ok()
    }
}

/// Seals and opens.
pub(super) struct Sealer {
    /// The first seals, all open: nodes whose keys are in another order understand each other.
    keys: Vec<RandomizedNonceKey>,
    /// What else has to be the same.
    bound_to: String,
}

impl Sealer {
    /// For this provider and our name there. A ring that cannot sign seals for this process alone; it can
    /// begin no session either.
    pub(super) fn new(keys: &KeyRing, issuer: &str, client_id: &str) -> Result<Self, NoRandomness> {
        let mut derived = keys.derive(PURPOSE).map_err(|_| NoRandomness)?;
        if derived.is_empty() {
            derived.push(random()?);
        }
        let keys: Result<_, _> = derived
            .iter()
            .map(|key| RandomizedNonceKey::new(&AES_256_GCM_SIV, key))
            .collect();
        Ok(Self {
            keys: keys.map_err(|_| NoRandomness)?,
            bound_to: format!("{issuer}\0{client_id}"),
        })
    }

    pub(super) fn seal(&self, transaction: &Transaction) -> Result<String, NoRandomness> {
        let mut sealed = serde_json::to_vec(transaction).map_err(|_| NoRandomness)?;
        let key = self.keys.first().ok_or(NoRandomness)?;
        let nonce = key
            .seal_in_place_append_tag(Aad::from(&self.bound_to), &mut sealed)
            .map_err(|_| NoRandomness)?;
        let nonce: &[u8; NONCE_LEN] = nonce.as_ref();
        Ok(URL_SAFE_NO_PAD.encode([nonce, &*sealed].concat()))
    }

    pub(super) fn open(&self, text: &str) -> Option<Transaction> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
        self.keys.iter().find_map(|key| {
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let mut opened = sealed.to_vec();
            let plain = key
                .open_in_place(nonce, Aad::from(&self.bound_to), &mut opened)
                .ok()?;
            serde_json::from_slice(plain).ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{ed25519, hs256, pem_pair, ring};
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);
    const END: Timestamp = Timestamp::from_secs(1_600);

    fn sealer(keys: &KeyRing) -> Sealer {
        Sealer::new(keys, "https://id.example.com", "tilekeep").unwrap()
    }

    #[test]
    fn any_node_with_the_session_keys_finishes_what_another_began() {
        let transaction = Transaction::new("/map#x", END).unwrap();
        let (public, private) = pem_pair();
        let pair = || ed25519("b", &public, Some(&private));
        let sealed = sealer(&ring(vec![hs256("a"), pair()]))
            .seal(&transaction)
            .unwrap();
        let opened = sealer(&ring(vec![pair(), hs256("a")]))
            .open(&sealed)
            .unwrap();
        assert_eq!(opened.next(), "/map#x");
        assert_eq!(opened.verifier, transaction.verifier);
        assert!(opened.is_for(&transaction.state, NOW));
        assert!(sealer(&ring(vec![hs256("c")])).open(&sealed).is_none());
    }

    #[test]
    fn what_was_changed_or_made_for_another_provider_is_nothing() {
        let keys = ring(vec![hs256("a")]);
        let transaction = Transaction::new("/", END).unwrap();
        let sealed = sealer(&keys).seal(&transaction).unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // The last letter holds bits that no byte has; strict decoding refuses them too.
            assert!(sealer(&keys).open(&changed).is_none(), "at {at}");
        }
        for rubbish in ["", "A", "AAAAAAAAAAAAAAAAAAAAAAAA", "a.b.c"] {
            assert!(sealer(&keys).open(rubbish).is_none());
        }
        let other = Sealer::new(&keys, "https://id.example.com", "other").unwrap();
        assert!(other.open(&sealed).is_none());
    }

    #[test]
    fn a_log_in_belongs_to_one_state_and_ends() {
        let transaction = Transaction::new("/", END).unwrap();
        assert!(transaction.is_for(&transaction.state.clone(), NOW));
        assert!(!transaction.is_for("", NOW));
        assert!(!transaction.is_for(&transaction.nonce, NOW));
        assert!(!transaction.is_for(&transaction.state, END));
        let again = Transaction::new("/", END).unwrap();
        assert_ne!(again.state, transaction.state);
        assert_eq!(again.verifier.len(), 43);
    }

    #[test]
    fn it_is_never_a_session_token() {
        let keys = ring(vec![hs256("a")]);
        let sealed = sealer(&keys)
            .seal(&Transaction::new("/", END).unwrap())
            .unwrap();
        assert!(keys.verify(&sealed, NOW).is_err());
        let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        assert!(sealed.bytes().all(letters), "and fits a cookie");
        let long = Transaction::new(&"/x".repeat(1024), END).unwrap();
        assert!(sealer(&keys).seal(&long).unwrap().len() < 4000);
    }
}
