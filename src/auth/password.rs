//! Passwords: argon2id hashes in PHC form, made and checked. Everything here takes tens of
//! milliseconds and megabytes on purpose: never on an async thread.

use std::fmt;

use argon2::password_hash::phc;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Argon2, Params};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::{NoRandomness, random};

/// The longest password, in bytes: what a log-in may make the server hash.
pub(super) const MAX_PASSWORD_LEN: usize = 1024;
/// The dearest hash that is accepted: somebody's typo must not make a log-in a way to stop the
/// server.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 16;

/// Why a text is no usable password hash, or none was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Not a PHC string with parameters, salt and hash.
    #[error("not a PHC string ($argon2id$v=19$m=…,t=…,p=…$salt$hash)")]
    Form,
    /// Another function.
    #[error("only argon2id, version 19, is accepted")]
    Algorithm,
    /// Too dear to check at each log-in.
    #[error("at most {MAX_MEMORY_KIB} KiB of memory, {MAX_PASSES} passes and {MAX_LANES} lanes")]
    Cost,
    /// A password that could not be used to log in.
    #[error("a password has 1 to {MAX_PASSWORD_LEN} bytes")]
    Length,
    /// No salt.
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

/// An argon2id hash. `Debug` shows no part of it.
#[derive(Clone)]
pub struct PasswordHash(phc::PasswordHash);

impl PasswordHash {
    /// Reads a PHC string.
    pub fn parse(text: &str) -> Result<Self, HashError> {
        let hash = phc::PasswordHash::new(text).map_err(|_| HashError::Form)?;
        if hash.algorithm.as_str() != "argon2id" || hash.version != Some(19) {
            return Err(HashError::Algorithm);
        }
        if hash.salt.is_none() || hash.hash.is_none() {
            return Err(HashError::Form);
        }
        let params = Params::try_from(&hash).map_err(|_| HashError::Form)?;
        if params.m_cost() > MAX_MEMORY_KIB
            || params.t_cost() > MAX_PASSES
            || params.p_cost() > MAX_LANES
        {
            return Err(HashError::Cost);
        }
        Ok(Self(hash))
    }

    /// Hashes a password with a new salt, at the cost that OWASP asks for (19 MiB, 2 passes).
    pub fn of(password: &str) -> Result<Self, HashError> {
        Self::with(password, Params::default())
    }

    pub(super) fn with(password: &str, params: Params) -> Result<Self, HashError> {
        if password.is_empty() || password.len() > MAX_PASSWORD_LEN {
            return Err(HashError::Length);
        }
        let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let salt: [u8; 16] = random()?;
        argon2
            .hash_password_with_salt(password.as_bytes(), &salt)
            .map(Self)
            .map_err(|_| HashError::Form)
    }

    /// A hash that no password has and that takes as long to check as this one. Made without
    /// hashing.
    pub(super) fn decoy(&self) -> Result<Self, HashError> {
        let salt_len = self.0.salt.as_ref().map_or(16, |salt| salt.as_ref().len());
        let hash_len = self
            .0
            .hash
            .as_ref()
            .map_or(32, |hash| hash.as_bytes().len());
        let (salt, hash): ([u8; 64], [u8; 64]) = (random()?, random()?);
        let text = format!(
            "$argon2id$v=19${}${}${}",
            self.0.params,
            STANDARD_NO_PAD.encode(&salt[..salt_len.min(64)]),
            STANDARD_NO_PAD.encode(&hash[..hash_len.min(64)]),
        );
        Self::parse(&text)
    }

    /// The cost, as the PHC string says it: equal for hashes that take equally long.
    pub(super) fn cost(&self) -> &str {
        self.0.params.as_str()
    }

    /// Whether it is this password's. Compares in constant time.
    pub(super) fn verify(&self, password: &[u8]) -> bool {
        Argon2::default().verify_password(password, &self.0).is_ok()
    }

    /// The PHC string, for the users file alone.
    pub(super) fn to_phc(&self) -> String {
        self.0.to_string()
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(hidden)")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As cheap as argon2 gets.
    pub(in super::super) fn cheap(password: &str) -> PasswordHash {
        PasswordHash::with(password, Params::new(8, 1, 1, None).unwrap()).unwrap()
    }

    #[test]
    fn a_hash_verifies_its_password_alone_and_survives_writing() {
        let hash = PasswordHash::parse(&cheap("open sesame").to_phc()).unwrap();
        assert!(hash.verify(b"open sesame"));
        assert!(!hash.verify(b"open sesam"));
        assert!(!hash.decoy().unwrap().verify(b"open sesame"));
        assert_eq!(hash.decoy().unwrap().cost(), hash.cost());
    }

    #[test]
    fn the_usual_cost_is_what_owasp_asks_for() {
        let hash = PasswordHash::of("x").unwrap();
        assert_eq!(hash.cost(), "m=19456,t=2,p=1");
        assert!(PasswordHash::of("").is_err());
        assert!(PasswordHash::of(&"x".repeat(1025)).is_err());
    }

    #[test]
    fn a_hash_of_argon2s_own_command_is_read() {
        // printf password | argon2 somesalt -id -t 2 -m 8 -p 1 -e (the reference's own test vector)
        let hash = PasswordHash::parse(
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
        )
        .unwrap();
        assert!(hash.verify(b"password"));
    }

    #[test]
    fn other_functions_and_other_costs_are_refused() {
        let refusal = |text: &str| PasswordHash::parse(text).unwrap_err();
        let phc = cheap("x").to_phc();
        assert_eq!(refusal("hunter2"), HashError::Form);
        assert_eq!(refusal("$2b$10$abcdefghijklmnopqrstuv"), HashError::Form);
        assert_eq!(
            refusal(&phc.replace("argon2id", "argon2i")),
            HashError::Algorithm
        );
        assert_eq!(refusal(&phc.replace("v=19", "v=16")), HashError::Algorithm);
        assert_eq!(refusal(&phc.replace("m=8,", "m=4194304,")), HashError::Cost);
        assert_eq!(refusal("$argon2id$v=19$m=8,t=1,p=1"), HashError::Form);
    }

    #[test]
    fn debug_shows_nothing_of_a_hash() {
        assert_eq!(format!("{:?}", cheap("x")), "PasswordHash(hidden)");
    }
}
