//! Signatures, held against botocore and Python's `cryptography`.

use tilekeep::aws::cloudfront::{Signer, SigningKey, SigningKeyError};
use tilekeep::clock::Timestamp;

use super::*;

const UNTIL: Timestamp = Timestamp::from_secs(1_800_000_900);
const URL: &str = "https://tiles.example.com/world/3/4/2.png?v=1";
const RESOURCE: &str = "https://tiles.example.com/world/*";
const POLICY: &str = r#"{"Statement":[{"Resource":"https://tiles.example.com/world/*","Condition":{"DateLessThan":{"AWS:EpochTime":1800000900}}}]}"#;

/// Verifies `[public, policy text, signature]` triples: PKCS #1 v1.5 or ECDSA, SHA-256.
const VERIFY: &str = "\
import base64, json, sys
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
for public, text, signature in json.loads(sys.argv[1]):
    key = serialization.load_pem_public_key(public.encode())
    raw = base64.b64decode(signature.replace('-', '+').replace('_', '=').replace('~', '/'), validate=True)
    how = (padding.PKCS1v15(), hashes.SHA256()) if isinstance(key, rsa.RSAPublicKey) else (ec.ECDSA(hashes.SHA256()),)
    key.verify(raw, text.encode(), *how)
    print('verified')";

/// botocore's signer over `cryptography`, with SHA-256: the canned URL, the custom one, and the custom policy.
const BOTOCORE: &str = "\
import datetime, json, sys
from botocore.signers import CloudFrontSigner
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
pem, url, resource, until, key_id = sys.argv[1:]
key = serialization.load_pem_private_key(pem.encode(), None)
signer = CloudFrontSigner(key_id, lambda m: key.sign(m, padding.PKCS1v15(), hashes.SHA256()))
ends = datetime.datetime.fromtimestamp(int(until), datetime.timezone.utc)
policy = signer.build_policy(resource, ends)
print(json.dumps([signer.generate_presigned_url(url, date_less_than=ends),
                  signer.generate_presigned_url(url, policy=policy), policy]))";

fn signer(name: &str) -> Signer {
    Signer::new(KEY_PAIR_ID, SigningKey::from_pem(key(name)).unwrap())
}

#[test]
fn urls_are_those_that_botocore_makes() {
    let until = UNTIL.secs().to_string();
    let theirs = python_says(BOTOCORE, &[key("rsa"), URL, RESOURCE, &until, KEY_PAIR_ID]);
    let theirs: Vec<String> = serde_json::from_str(&theirs).unwrap();
    assert_eq!(theirs[2], POLICY);
    for name in ["rsa", "rsa_pkcs1"] {
        let signer = signer(name);
        let ours = [
            signer.canned_url(URL, UNTIL).unwrap(),
            signer.custom_url(URL, &signer.sign(RESOURCE, UNTIL).unwrap()),
        ];
        // botocore leaves it to the caller to say which hash it was.
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(*ours, format!("{theirs}&Hash-Algorithm=SHA256"));
        }
    }
}

#[test]
fn cookies_and_urls_of_both_kinds_of_key_verify() {
    let mut triples = Vec::new();
    for (name, public) in [
        ("rsa", "rsa_public"),
        ("rsa_pkcs1", "rsa_public"),
        ("ec", "ec_public"),
        ("ec_sec1", "ec_public"),
    ] {
        let signer = signer(name);
        let signed = signer.sign(RESOURCE, UNTIL).unwrap();
        let [(_, policy), (_, signature), ..] = signer.cookies(&signed);
        let text = python_says(
            "import base64, sys; print(base64.b64decode(sys.argv[1].replace('_', '=').replace('-', '+').replace('~', '/')).decode(), end='')",
            &[policy],
        );
        assert_eq!(text, POLICY);
        triples.push([key(public).to_owned(), text, signature.to_owned()]);
        let url = signer.canned_url(URL, UNTIL).unwrap();
        let signature = url
            .split("Signature=")
            .nth(1)
            .unwrap()
            .split('&')
            .next()
            .unwrap();
        let canned = POLICY.replace(RESOURCE, URL);
        triples.push([key(public).to_owned(), canned, signature.to_owned()]);
    }
    let said = python_says(VERIFY, &[&serde_json::to_string(&triples).unwrap()]);
    assert_eq!(
        said.lines().filter(|line| *line == "verified").count(),
        triples.len()
    );
}

#[test]
fn keys_that_cloudfront_does_not_take_are_called_by_their_names() {
    use SigningKeyError as E;
    for (name, error) in [
        ("rsa_public", E::PublicKey),
        ("locked", E::Encrypted),
        ("short", E::ShortRsa),
        ("short_pkcs1", E::ShortRsa),
        ("p384", E::Kind("a P-384 key")),
        ("p384_sec1", E::Kind("a P-384 key")),
        ("k1", E::Kind("a secp256k1 key")),
        ("ed25519", E::Kind("an Ed25519 key")),
    ] {
        assert_eq!(
            SigningKey::from_pem(key(name)).unwrap_err(),
            error,
            "{name}"
        );
    }
}
