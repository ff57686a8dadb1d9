//! Cookies, bearers and tokens: whatever verifies was signed with the key.

use std::cell::OnceCell;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::auth::{
    Claims, KeyMaterial, KeyRing, KeySettings, LEEWAY, MAX_TOKEN_LEN, MintError, Permission, Scope,
    Secret, Unverified, bearer_token, session_tokens_from_cookies,
};
use crate::clock::Timestamp;
use crate::tile::{Scale, TileAddress};

const SECRET: &[u8] = b"a key for fuzzing, 32 bytes or so";
/// Before the end of the corpus's token.
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

thread_local! {
    static KEYS: OnceCell<KeyRing> = const { OnceCell::new() };
}

fn with_keys<T>(work: impl FnOnce(&KeyRing) -> T) -> T {
    KEYS.with(|keys| {
        work(keys.get_or_init(|| {
            let material = KeyMaterial::Hs256 {
                secret: Secret::new(SECRET),
            };
            let id = "fuzz".to_owned();
            KeyRing::new(vec![KeySettings { id, material }]).unwrap()
        }))
    })
}

pub(super) fn run(data: &[u8]) {
    cookies(data);
    if let Some(token) = bearer_token(data).and_then(|token| str::from_utf8(token).ok()) {
        with_keys(|keys| token_alone(keys, token));
    }
    if let Ok(text) = std::str::from_utf8(data) {
        with_keys(|keys| token_alone(keys, text));
    }
    with_keys(|keys| claims(keys, data));
}

fn cookies(data: &[u8]) {
    let headers = || data.split(|byte| *byte == b'\n');
    let found = session_tokens_from_cookies(headers(), "tk");
    let tokens: Vec<&[u8]> = found.iter().collect();
    assert!(tokens.len() <= 4, "{tokens:?}");
    for (nth, token) in tokens.iter().enumerate() {
        assert!(!token.is_empty() && token.len() <= MAX_TOKEN_LEN);
        assert!(!tokens[..nth].contains(token), "twice: {tokens:?}");
        assert!(!token.contains(&b';'), "{token:?}");
        let sent = |header: &[u8]| {
            let mut pairs = header.split(|byte| *byte == b';');
            pairs.any(|pair| pair.trim_ascii_start().starts_with(b"tk"))
        };
        assert!(headers().any(sent), "nobody sent {token:?}");
        if let Ok(token) = str::from_utf8(token) {
            with_keys(|keys| token_alone(keys, token));
        }
    }
}

/// A token as somebody sent it.
fn token_alone(keys: &KeyRing, token: &str) {
    let _ = Unverified::read(token);
    let Ok(session) = keys.verify(token, NOW) else {
        return;
    };
    // Checked by hand: three parts, the last of which is the MAC of the first two, and in the one way to write it.
    let (message, signature) = token.rsplit_once('.').unwrap();
    let mac = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, SECRET),
        message.as_bytes(),
    );
    assert_eq!(signature, URL_SAFE_NO_PAD.encode(mac), "{token:?}");
    assert_eq!(message.matches('.').count(), 1, "{token:?}");
    assert!(Timestamp::from_secs(session.claims().exp) + LEEWAY >= NOW);
}

/// Bytes as the payload that an application which shares the key has signed: nonsense is refused, and what is let in
/// is bounded and can be signed again.
fn claims(keys: &KeyRing, payload: &[u8]) {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let message = format!(
        "{}.{}",
        encode(br#"{"alg":"HS256","kid":"fuzz"}"#),
        encode(payload)
    );
    let mac = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, SECRET),
        message.as_bytes(),
    );
    let token = format!("{message}.{}", encode(mac.as_ref()));
    let Ok(session) = keys.verify(&token, NOW) else {
        return;
    };
    let claims: &Claims = session.claims();
    assert!(!claims.sub.is_empty() && claims.sub.len() <= 256);
    assert!(
        !claims.sub.chars().any(char::is_control),
        "{:?}",
        claims.sub
    );
    let everywhere = [(0, 0, 0), (30, 5, 7), (200, u32::MAX, u32::MAX)];
    for (z, x, y) in everywhere {
        let scale = Scale::One;
        let address = TileAddress { z, x, y, scale };
        let may = session.permits("world", address, Scope::Tiles);
        let named = claims
            .tilesets
            .iter()
            .any(|name| name == "*" || name == "world");
        assert!(named || may != Permission::Granted);
    }
    match keys.mint(claims) {
        Ok(again) => {
            let again = keys.verify(&again, NOW).unwrap();
            let (mut one, mut other) = (claims.clone(), again.claims().clone());
            // Degrees are read to the last but one bit.
            (one.bounds, other.bounds) = (None, None);
            assert_eq!(one, other);
        }
        Err(MintError::TooLong(_)) => {}
        Err(error) => panic!("it was let in and cannot be signed: {error}"),
    }
}
