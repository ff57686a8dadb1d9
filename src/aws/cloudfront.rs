//! CloudFront's signed URLs and cookies: the policy, its signature, and how AWS writes both.
//!
//! Invariant: pure but for the chance in an ECDSA signature; when something ends is an argument. The private key
//! reaches neither `Debug` nor an error. Hashed with SHA-256, which CloudFront has to be told
//! (`CloudFront-Hash-Algorithm`, `Hash-Algorithm`): without that word it reads SHA-1.
//! Left out on purpose: who may have them (`http/cloudfront`), and start times and addresses in policies.

use std::fmt;

use aws_lc_rs::error::KeyRejected;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use crate::clock::Timestamp;

/// The word for the hash.
const HASH: &str = "SHA256";

/// The names of a set of signed cookies with a custom policy.
pub const COOKIES: [&str; 4] = [
    "CloudFront-Policy",
    "CloudFront-Signature",
    "CloudFront-Key-Pair-Id",
    "CloudFront-Hash-Algorithm",
];

/// Why a text is not a key that CloudFront's signatures are made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// No PEM block in it.
    #[error("holds no PEM: no line reads -----BEGIN PRIVATE KEY-----")]
    NoPem,
    /// The half that goes to CloudFront.
    #[error("holds a public key, where the private one is needed")]
    PublicKey,
    /// A certificate.
    #[error("holds a certificate, where a private key is needed")]
    Certificate,
    /// A key behind a passphrase.
    #[error("holds an encrypted private key, which nobody could type a passphrase for")]
    Encrypted,
    /// OpenSSH's own format.
    #[error("holds a key in OpenSSH's own format, which is not the PEM of OpenSSL")]
    OpenSsh,
    /// A curve or a kind that CloudFront does not know.
    #[error("holds {0}, which CloudFront does not take")]
    Kind(&'static str),
    /// An RSA key that is too short.
    #[error("holds an RSA key of fewer than 2048 bits")]
    ShortRsa,
    /// Bytes that are no key.
    #[error("holds a private key that cannot be read: its content is damaged")]
    Damaged,
}

impl SigningKeyError {
    /// What to do.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Encrypted => "decrypt it: openssl pkey -in KEY.pem -out PLAIN.pem",
            Self::OpenSsh => "convert it: ssh-keygen -p -m PEM -f KEY",
            _ => {
                "make one: openssl ecparam -name prime256v1 -genkey -noout -out cloudfront.pem (or: openssl genrsa -out cloudfront.pem 2048), and give CloudFront its public half"
            }
        }
    }
}

enum Key {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
}

/// A private key of a kind that CloudFront takes: RSA of 2048 bits or more, or ECDSA P-256.
pub struct SigningKey(Key);

impl SigningKey {
    /// Reads PEM: PKCS #8, PKCS #1 (`RSA PRIVATE KEY`) or SEC 1 (`EC PRIVATE KEY`).
    pub fn from_pem(pem: &str) -> Result<Self, SigningKeyError> {
        let Ok(der) = PrivateKeyDer::from_pem_slice(pem.as_bytes()) else {
            return Err(what_else(pem));
        };
        match &der {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der())
                .map(|key| Self(Key::Rsa(key)))
                .map_err(rsa_refused),
            PrivateKeyDer::Sec1(der) => {
                let der = der.secret_sec1_der();
                EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, der)
                    .map(|key| Self(Key::Ecdsa(key)))
                    .map_err(|_| other_kind(der).unwrap_or(SigningKeyError::Damaged))
            }
            PrivateKeyDer::Pkcs8(der) => Self::from_pkcs8(der.secret_pkcs8_der()),
            _ => Err(SigningKeyError::Kind("a key of an unknown kind")),
        }
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, SigningKeyError> {
        if let Some(other) = other_kind(der) {
            return Err(other);
        }
        if has(der, OID_RSA) {
            return RsaKeyPair::from_pkcs8(der)
                .map(|key| Self(Key::Rsa(key)))
                .map_err(rsa_refused);
        }
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der)
            .map(|key| Self(Key::Ecdsa(key)))
            .map_err(|_| SigningKeyError::Damaged)
    }

    /// RSASSA-PKCS1-v1_5, or ECDSA in ASN.1 as `openssl dgst -sha256 -sign` writes it. `None` if the machine
    /// gives no random bytes.
    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        // A nonce nobody may foresee: what `crate::auth::random` is to tokens, the library asks for itself.
        let random = SystemRandom::new();
        match &self.0 {
            Key::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .ok()?;
                Some(signature)
            }
            Key::Ecdsa(key) => Some(key.sign(&random, message).ok()?.as_ref().to_vec()),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Key::Rsa(_) => "SigningKey(RSA, not shown)",
            Key::Ecdsa(_) => "SigningKey(P-256, not shown)",
        })
    }
}

const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// Object identifiers of what people have instead, in DER.
const OTHERS: [(&[u8], &str); 6] = [
    (&[0x2b, 0x65, 0x70], "an Ed25519 key"),
    (&[0x2b, 0x65, 0x71], "an Ed448 key"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x22], "a P-384 key"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x23], "a P-521 key"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x0a], "a secp256k1 key"),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a],
        "an RSA-PSS key",
    ),
];

/// A DER object identifier among a key's first bytes, where its algorithm is named; at a SEC 1 key's end.
fn has(der: &[u8], oid: &[u8]) -> bool {
    let tagged = |window: &[u8]| {
        window[0] == 0x06 && usize::from(window[1]) == oid.len() && &window[2..] == oid
    };
    der.windows(oid.len() + 2).any(tagged)
}

fn other_kind(der: &[u8]) -> Option<SigningKeyError> {
    // The key's own random bytes could look like an identifier; its head cannot.
    let head = &der[..der.len().min(40)];
    let sec1 = |oid| has(der, oid) && !has(der, OID_RSA) && der.len() < 256;
    OTHERS
        .iter()
        .find(|(oid, _)| has(head, oid) || sec1(oid))
        .map(|(_, kind)| SigningKeyError::Kind(kind))
}

fn rsa_refused(why: KeyRejected) -> SigningKeyError {
    if why.description_() == "TooSmall" {
        SigningKeyError::ShortRsa
    } else {
        SigningKeyError::Damaged
    }
}

/// What a text is that holds no private key.
fn what_else(pem: &str) -> SigningKeyError {
    let begins = |label: &str| pem.contains(&format!("-----BEGIN {label}-----"));
    if begins("PUBLIC KEY") || begins("RSA PUBLIC KEY") {
        SigningKeyError::PublicKey
    } else if begins("CERTIFICATE") {
        SigningKeyError::Certificate
    } else if begins("ENCRYPTED PRIVATE KEY") {
        SigningKeyError::Encrypted
    } else if begins("OPENSSH PRIVATE KEY") {
        SigningKeyError::OpenSsh
    } else if begins("PRIVATE KEY") || begins("RSA PRIVATE KEY") || begins("EC PRIVATE KEY") {
        SigningKeyError::Damaged
    } else {
        SigningKeyError::NoPem
    }
}

/// A policy and its signature, in CloudFront's base64.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed {
    policy: String,
    signature: String,
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signed(not shown)")
    }
}

/// Signs with one key pair.
#[derive(Debug)]
pub struct Signer {
    key_pair_id: String,
    key: SigningKey,
}

impl Signer {
    /// `key_pair_id` is the public key's id at CloudFront.
    pub fn new(key_pair_id: impl Into<String>, key: SigningKey) -> Self {
        Self {
            key_pair_id: key_pair_id.into(),
            key,
        }
    }

    /// Signs a custom policy: for every URL that `resource` matches (`*`: any characters, `?`: one), until a
    /// moment, which is rounded down to a second. `None` if the machine gives no random bytes.
    pub fn sign(&self, resource: &str, until: Timestamp) -> Option<Signed> {
        let policy = policy(resource, until);
        Some(Signed {
            signature: safe_base64(&self.key.sign(policy.as_bytes())?),
            policy: safe_base64(policy.as_bytes()),
        })
    }

    /// Names and values of a signed policy's cookies.
    pub fn cookies<'a>(&'a self, signed: &'a Signed) -> [(&'static str, &'a str); 4] {
        let [policy, signature, key_pair_id, hash] = COOKIES;
        [
            (policy, &signed.policy),
            (signature, &signed.signature),
            (key_pair_id, &self.key_pair_id),
            (hash, HASH),
        ]
    }

    /// A URL with a canned policy: for this URL alone, whose query may hold none of CloudFront's own names.
    /// `None` if the machine gives no random bytes.
    pub fn canned_url(&self, url: &str, until: Timestamp) -> Option<String> {
        let signature = safe_base64(&self.key.sign(policy(url, until).as_bytes())?);
        let expires = format!("Expires={}", until.secs());
        Some(self.with_query(url, &expires, &signature))
    }

    /// A URL with a custom policy that was signed for it, and may be for others too.
    pub fn custom_url(&self, url: &str, signed: &Signed) -> String {
        let policy = format!("Policy={}", signed.policy);
        self.with_query(url, &policy, &signed.signature)
    }

    fn with_query(&self, url: &str, first: &str, signature: &str) -> String {
        let mark = if url.contains('?') { '&' } else { '?' };
        let id = &self.key_pair_id;
        format!("{url}{mark}{first}&Signature={signature}&Key-Pair-Id={id}&Hash-Algorithm={HASH}")
    }
}

/// The policy's text. For a canned policy CloudFront puts it together by itself, so that not a blank may differ.
/// A resource is a URL of ours or a pattern for such: nothing in it has to be escaped.
fn policy(resource: &str, until: Timestamp) -> String {
    debug_assert!(
        resource
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\'),
        "a URL"
    );
    let until = until.secs();
    format!(
        r#"{{"Statement":[{{"Resource":"{resource}","Condition":{{"DateLessThan":{{"AWS:EpochTime":{until}}}}}}}]}}"#
    )
}

/// Base64 in which what a query or a cookie could not hold is replaced as AWS wants it.
fn safe_base64(bytes: &[u8]) -> String {
    STANDARD
        .encode(bytes)
        .bytes()
        .map(|byte| match byte {
            b'+' => '-',
            b'=' => '_',
            b'/' => '~',
            other => char::from(other),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
    use aws_lc_rs::signature::KeyPair as _;

    use super::*;

    const UNTIL: Timestamp = Timestamp::from_millis(1_800_000_900_999);

    fn pem(label: &str, der: &[u8]) -> String {
        format!(
            "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
            STANDARD.encode(der)
        )
    }

    fn p256() -> SigningKey {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let der = key.to_pkcs8v1().unwrap();
        SigningKey::from_pem(&pem("PRIVATE KEY", der.as_ref())).unwrap()
    }

    #[test]
    fn a_policy_has_not_a_blank_and_whole_seconds() {
        assert_eq!(
            policy("https://t.example.com/world/*", UNTIL),
            r#"{"Statement":[{"Resource":"https://t.example.com/world/*","Condition":{"DateLessThan":{"AWS:EpochTime":1800000900}}}]}"#
        );
    }

    #[test]
    fn what_a_query_cannot_hold_is_replaced() {
        assert_eq!(safe_base64(&[0xfb, 0xef, 0xff, 0xfe]), "--~~~g__");
    }

    #[test]
    fn both_kinds_of_key_are_read_in_every_pem_that_openssl_writes() {
        use aws_lc_rs::rsa::KeySize;
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = rsa.as_der().unwrap();
        let key = SigningKey::from_pem(&pem("PRIVATE KEY", der.as_ref())).unwrap();
        let signature = key.sign(b"text").unwrap();
        assert_eq!(signature.len(), 256);
        let public = aws_lc_rs::signature::UnparsedPublicKey::new(
            &aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256,
            rsa.public_key(),
        );
        public.verify(b"text", &signature).unwrap();
        assert_eq!(format!("{:?}", p256()), "SigningKey(P-256, not shown)");
    }

    #[test]
    fn what_is_no_key_for_cloudfront_is_called_by_its_name() {
        use SigningKeyError as E;
        let of = |text: &str| SigningKey::from_pem(text).unwrap_err();
        assert_eq!(of("hunter2"), E::NoPem);
        assert_eq!(of(&pem("PUBLIC KEY", b"x")), E::PublicKey);
        assert_eq!(of(&pem("CERTIFICATE", b"x")), E::Certificate);
        assert_eq!(of(&pem("ENCRYPTED PRIVATE KEY", b"x")), E::Encrypted);
        assert_eq!(of(&pem("OPENSSH PRIVATE KEY", b"x")), E::OpenSsh);
        for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"] {
            assert_eq!(of(&pem(label, b"rubbish")), E::Damaged, "{label}");
        }
        let ed25519 = aws_lc_rs::signature::Ed25519KeyPair::generate().unwrap();
        let der: Pkcs8V1Der<'_> = ed25519.as_der().unwrap();
        let found = of(&pem("PRIVATE KEY", der.as_ref()));
        assert_eq!(found, E::Kind("an Ed25519 key"));
        assert!(found.to_string().contains("Ed25519"));
    }

    #[test]
    fn a_url_with_a_query_keeps_it() {
        let signer = Signer::new("K1", p256());
        let url = signer
            .canned_url("https://d/w/0/0/0.png?v=2", UNTIL)
            .unwrap();
        assert!(url.starts_with("https://d/w/0/0/0.png?v=2&Expires=1800000900&Signature="));
        assert!(url.ends_with("&Key-Pair-Id=K1&Hash-Algorithm=SHA256"));
        let signed = signer.sign("https://d/w/*", UNTIL).unwrap();
        let url = signer.custom_url("https://d/w/0/0/0.png", &signed);
        assert!(url.starts_with("https://d/w/0/0/0.png?Policy=eyJT"));
    }
}
