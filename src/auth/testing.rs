//! Keys and claims for this module's tests.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::keys::{KeyMaterial, KeySettings, Secret};
use super::{Claims, KeyRing};

pub(super) const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// An HS256 key; a secret of its own for each id.
pub(super) fn hs256(id: &str) -> KeySettings {
    KeySettings {
        id: id.to_owned(),
        material: KeyMaterial::Hs256 {
            secret: Secret::new([SECRET, id.as_bytes()].concat()),
        },
    }
}

pub(super) fn ed25519(id: &str, public: &str, private: Option<&str>) -> KeySettings {
    KeySettings {
        id: id.to_owned(),
        material: KeyMaterial::Ed25519 {
            public_key: Secret::new(public),
            private_key: private.map(Secret::new),
        },
    }
}

/// A fresh pair in PEM: public, private.
pub(super) fn pem_pair() -> (String, String) {
    let pair = Ed25519KeyPair::generate().unwrap();
    // SubjectPublicKeyInfo for Ed25519 (RFC 8410 §4) is this prefix and the 32 bytes.
    let prefix = [
        0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
    ];
    let public = [&prefix[..], pair.public_key().as_ref()].concat();
    let private = pair.to_pkcs8v1().unwrap();
    let pem = |label: &str, der: &[u8]| {
        let body = STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    };
    (
        pem("PUBLIC KEY", &public),
        pem("PRIVATE KEY", private.as_ref()),
    )
}

pub(super) fn ring(keys: Vec<KeySettings>) -> KeyRing {
    KeyRing::new(keys).unwrap()
}

/// Somebody who may see everything until `exp`.
pub(super) fn claims(exp: u64) -> Claims {
    Claims {
        sub: "ada".to_owned(),
        exp,
        tilesets: vec!["*".to_owned()],
        ..Claims::default()
    }
}
