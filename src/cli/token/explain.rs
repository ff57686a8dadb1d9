//! A token in words. Nothing here is verified: what a token says of itself, for the person who holds it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::Parts;
use crate::auth::{Claims, Scope, Scopes};
use crate::clock::Timestamp;

/// The header and the claims, if it has the form of a signed JWT (RFC 7519 §7.2).
pub(super) fn decode(token: &str) -> Option<Parts> {
    let mut parts = token.split('.');
    let mut object = || {
        let json = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
        serde_json::from_slice(&json).ok()
    };
    let (header, claims) = (object()?, object()?);
    URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
    parts.next().is_none().then_some(Parts { header, claims })
}

/// Claims in the order in which people ask for them, and what they mean.
const CLAIMS: [(&str, &str); 14] = [
    ("sub", "whose"),
    ("tilesets", "opens"),
    ("scope", "may"),
    ("maxzoom", "down to zoom"),
    ("bounds", "inside of"),
    ("quota", "quota class"),
    ("exp", "expires"),
    ("nbf", "begins"),
    ("iat", "made"),
    ("auth_time", "logged in"),
    ("iss", "made by"),
    ("aud", "made for"),
    ("sid", "session"),
    ("jti", "token id"),
];

/// A line for the key, and one for each claim.
pub(super) fn words(parts: &Parts, now: Timestamp) -> String {
    let header = |name: &str| {
        parts
            .header
            .get(name)
            .map_or_else(|| "none".to_owned(), plain)
    };
    let mut lines = vec![
        line("signed with", &header("alg")),
        line("key", &header("kid")),
    ];
    for (name, label) in CLAIMS {
        let text = match (name, parts.claims.get(name)) {
            ("exp" | "nbf" | "iat" | "auth_time", Some(value)) => {
                seconds(value).map_or_else(|| plain(value), |at| moment(at, now))
            }
            (_, Some(value)) => plain(value),
            ("sub" | "exp", None) => "MISSING: the server refuses a token without it".to_owned(),
            ("tilesets", None) => "nothing".to_owned(),
            ("scope", None) => "tiles (where nothing is said)".to_owned(),
            _ => continue,
        };
        lines.push(line(label, &text));
    }
    let others = parts
        .claims
        .keys()
        .filter(|name| CLAIMS.iter().all(|(known, _)| known != name));
    let others: Vec<_> = others.map(|name| name.escape_debug().to_string()).collect();
    if !others.is_empty() {
        lines.push(line("ignored", &others.join(", ")));
    }
    lines.join("\n")
}

/// What a server holds against the claims, whatever the signature: clocks may differ by 30 seconds.
pub(super) fn refusal(parts: &Parts, now: Timestamp) -> Option<String> {
    let leeway = Duration::from_secs(30);
    let time = |name: &str| {
        parts
            .claims
            .get(name)
            .and_then(seconds)
            .map(Timestamp::from_secs)
    };
    if !parts.claims.get("sub").is_some_and(Value::is_string) {
        return Some("it has no `sub`".to_owned());
    }
    match (time("exp"), time("nbf")) {
        (None, _) => Some("it has no `exp` that is a number".to_owned()),
        (Some(exp), _) if now >= exp + leeway => Some("it has expired".to_owned()),
        (_, Some(nbf)) if now + leeway < nbf => Some("it has not begun yet".to_owned()),
        _ => unreadable(&parts.claims),
    }
}

/// The first claim that a server cannot read, and what it expects there.
fn unreadable(claims: &Map<String, Value>) -> Option<String> {
    claims.iter().find_map(|(name, value)| {
        // Alone, beside what no token lacks: so it is this one that is told of.
        let mut one = json!({ "sub": "x", "exp": 0 });
        one[name] = value.clone();
        let error = serde_json::from_value::<Claims>(one).err()?;
        Some(format!("claim `{}`: {error}", name.escape_debug()))
    })
}

/// What is no mistake to a server, and probably one of who made the token.
pub(super) fn doubt(parts: &Parts) -> Option<String> {
    let scope = parts.claims.get("scope")?.as_str()?;
    let word = Scopes::unknown_word(scope)?.escape_debug();
    let words = Scope::ALL.map(Scope::name).join(", ");
    Some(format!(
        "scope: `{word}` grants nothing; the words are {words}"
    ))
}

fn line(label: &str, text: &str) -> String {
    format!("{label:<12}  {text}")
}

/// A claim's value on one line, without anything that a terminal would act on.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.escape_debug().to_string(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string().escape_debug().to_string(),
    }
}

/// A `NumericDate` (RFC 7519 §2), fractions cut off.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float that is no time saturates"
)]
fn seconds(value: &Value) -> Option<u64> {
    value
        .as_u64()
        .or_else(|| value.as_f64().map(|seconds| seconds as u64))
}

/// A time, and how far it is from now.
fn moment(at: u64, now: Timestamp) -> String {
    /// 10000-01-01: later ones have no RFC 3339 form.
    const END: u64 = 253_402_300_800;
    if at >= END {
        return format!("{at} seconds after 1970");
    }
    let date = Timestamp::from_secs(at);
    let text = humantime::format_rfc3339_seconds(date.to_system_time());
    let far = |by: Duration| humantime::format_duration(coarse(by)).to_string();
    if date > now {
        format!("{text} (in {})", far(date.since(now)))
    } else {
        format!("{text} ({} ago)", far(now.since(date)))
    }
}

/// As exact as one would say it.
fn coarse(by: Duration) -> Duration {
    let seconds = by.as_secs();
    let unit = match seconds {
        0..=119 => 1,
        120..=7_199 => 60,
        7_200..=172_799 => 3_600,
        _ => 86_400,
    };
    Duration::from_secs(seconds - seconds % unit)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn token(claims: &Value) -> String {
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        format!(
            "{}.{}.c2ln",
            part(&json!({ "alg": "HS256", "kid": "k" })),
            part(claims)
        )
    }

    #[test]
    fn a_token_is_put_into_words() {
        let parts = decode(&token(&json!({
            "sub": "anna\u{1b}[31m", "exp": 10_000_000, "tilesets": ["w", "v"], "x": 1,
        })))
        .unwrap();
        let words = words(&parts, Timestamp::from_secs(9_990_000));
        assert!(
            words.contains("signed with   HS256\nkey           k\n"),
            "{words}"
        );
        assert!(words.contains("opens         w, v\n"), "{words}");
        assert!(
            words.contains("expires       1970-04-26T17:46:40Z (in 2h)"),
            "{words}"
        );
        assert!(words.contains("may           tiles (where"), "{words}");
        assert!(words.ends_with("ignored       x"), "{words}");
        assert!(!words.contains('\u{1b}'));
    }

    #[test]
    fn times_that_no_calendar_has_are_numbers() {
        let now = Timestamp::from_secs(0);
        assert!(moment(u64::MAX, now).contains("seconds after 1970"));
        assert_eq!(seconds(&json!(-5.5)), Some(0));
        assert_eq!(seconds(&json!(1e300)), Some(u64::MAX));
        assert_eq!(seconds(&json!("1")), None);
    }

    #[test]
    fn what_is_no_token_is_none() {
        for text in ["", "a.b.c", "e30.e30", "e30.e30.c2ln.c2ln", "e30.W10.c2ln"] {
            assert!(decode(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_claim_that_cannot_be_read_is_named_with_what_is_expected() {
        for (claim, value, expected) in [
            ("tilesets", json!("world"), "a sequence"),
            ("scope", json!(["tiles"]), "a string"),
            ("maxzoom", json!(300), "u8"),
            ("bounds", json!([1, 2, 3]), "array of length 4"),
        ] {
            let mut claims = json!({ "sub": "anna", "exp": 2000 });
            claims[claim] = value;
            let parts = decode(&token(&claims)).unwrap();
            let refusal = refusal(&parts, Timestamp::from_secs(1000)).unwrap();
            assert!(
                refusal.starts_with(&format!("claim `{claim}`: ")),
                "{refusal}"
            );
            assert!(refusal.contains(expected), "{refusal}");
        }
    }

    #[test]
    fn a_scope_that_grants_nothing_is_doubted() {
        let doubt = |scope| {
            let claims = json!({ "sub": "anna", "exp": 2000, "scope": scope });
            doubt(&decode(&token(&claims)).unwrap())
        };
        assert_eq!(doubt("tiles sign"), None);
        assert!(
            doubt("tiles tile")
                .unwrap()
                .contains("`tile` grants nothing")
        );
    }

    #[test]
    fn a_token_out_of_its_time_would_be_refused() {
        let at = |now| {
            let parts = decode(&token(&json!({ "sub": "a", "exp": 2000, "nbf": 1000 }))).unwrap();
            refusal(&parts, Timestamp::from_secs(now))
        };
        assert_eq!(at(969).as_deref(), Some("it has not begun yet"));
        assert_eq!(at(970), None);
        assert_eq!(at(2029), None);
        assert_eq!(at(2030).as_deref(), Some("it has expired"));
    }
}
