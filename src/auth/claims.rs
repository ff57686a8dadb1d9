//! What a token says: its claims, and the rights among them.
//!
//! Claims are read at the door: names that are not known are ignored (`aud` among them: a token is
//! meant for this server because one of its keys signed it), a known name with a value of the wrong
//! type refuses the token, and every text is bounded, because it ends up in logs and tables.

use serde::{Deserialize, Deserializer, Serialize};

use crate::tile::Bounds;

/// The longest `sub` and `iss`, in bytes.
const MAX_SUB_LEN: usize = 256;
/// The longest `sid` and `jti`, in bytes.
const MAX_ID_LEN: usize = 128;
/// The longest `quota`, in bytes.
const MAX_QUOTA_LEN: usize = 64;
/// `iss` of the tokens that this server issues.
pub(super) const OWN_ISSUER: &str = "tilekeep";

/// A token's claims, as in JSON. Times are seconds since 1970 (`NumericDate`, RFC 7519 §2);
/// fractions are cut off.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Claims {
    /// Whose session it is: 1 to 256 bytes.
    pub sub: String,
    /// When it ends.
    #[serde(deserialize_with = "seconds")]
    pub exp: u64,
    /// When the token was made.
    #[serde(
        default,
        deserialize_with = "maybe_seconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub iat: Option<u64>,
    /// When it begins.
    #[serde(
        default,
        deserialize_with = "maybe_seconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub nbf: Option<u64>,
    /// The token's own id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// The session that this token and its renewals belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// When the person logged in.
    #[serde(
        default,
        deserialize_with = "maybe_seconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub auth_time: Option<u64>,
    /// Names of tilesets, or `*` for all. Nothing said is nothing granted.
    #[serde(default)]
    pub tilesets: Vec<String>,
    /// Space-separated scopes; `tiles` where the claim is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The deepest zoom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maxzoom: Option<u8>,
    /// West, south, east, north.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounds: Option<[f64; 4]>,
    /// The quota class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<String>,
}

impl Claims {
    /// The first claim whose value no session can have, by name.
    pub(super) fn unacceptable(&self) -> Option<&'static str> {
        let bad = |text: &str, max| !is_label(text, max);
        let maybe_bad =
            |text: &Option<String>, max| text.as_deref().is_some_and(|text| bad(text, max));
        if bad(&self.sub, MAX_SUB_LEN) {
            Some("sub")
        } else if maybe_bad(&self.iss, MAX_SUB_LEN) {
            Some("iss")
        } else if maybe_bad(&self.sid, MAX_ID_LEN) {
            Some("sid")
        } else if maybe_bad(&self.jti, MAX_ID_LEN) {
            Some("jti")
        } else if maybe_bad(&self.quota, MAX_QUOTA_LEN) {
            Some("quota")
        } else if self
            .bounds
            .is_some_and(|degrees| Bounds::new(degrees).is_err())
        {
            Some("bounds")
        } else {
            None
        }
    }

    /// Whether this server issued them.
    pub(super) fn is_ours(&self) -> bool {
        self.iss.as_deref() == Some(OWN_ISSUER)
    }
}

/// 1 to `max` bytes that can stand in a log.
fn is_label(text: &str, max: usize) -> bool {
    !text.is_empty() && text.len() <= max && !text.chars().any(char::is_control)
}

/// Whether a session can be of this person.
pub(super) fn is_sub(text: &str) -> bool {
    is_label(text, MAX_SUB_LEN)
}

/// Whether a quota class can have this name.
pub(super) fn is_quota(text: &str) -> bool {
    is_label(text, MAX_QUOTA_LEN)
}

/// The rights that a person gets at log-in.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Grants {
    /// Names of tilesets, or `*`.
    pub tilesets: Vec<String>,
    /// Space-separated scopes; `None` is `tiles`.
    pub scope: Option<String>,
    /// The deepest zoom.
    pub maxzoom: Option<u8>,
    /// The area.
    pub bounds: Option<Bounds>,
    /// The quota class.
    pub quota: Option<String>,
}

/// One right beyond which tileset, zoom and area.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Scope {
    /// Tiles and TileJSON.
    Tiles = 1,
    /// Signed URLs.
    Sign = 2,
    /// Temporary AWS credentials.
    Credentials = 4,
    /// Where a tile is and how old.
    Explain = 8,
}

impl Scope {
    /// All of them.
    pub const ALL: [Scope; 4] = [
        Scope::Tiles,
        Scope::Sign,
        Scope::Credentials,
        Scope::Explain,
    ];

    /// As in the `scope` claim.
    pub const fn name(self) -> &'static str {
        match self {
            Scope::Tiles => "tiles",
            Scope::Sign => "sign",
            Scope::Credentials => "credentials",
            Scope::Explain => "explain",
        }
    }
}

/// A set of scopes, a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// What a token without the claim has.
    pub const DEFAULT: Scopes = Scopes(Scope::Tiles as u8);

    /// Reads a `scope` claim (RFC 8693 §4.2). Unknown words grant nothing and are no error: a
    /// later version's token must work here.
    pub fn parse(text: &str) -> Self {
        Self::words(text).fold(Self(0), |set, scope| match scope {
            Ok(scope) => Self(set.0 | scope as u8),
            Err(_) => set,
        })
    }

    /// The first word that names no scope: for configuration, where it is a mistake.
    pub fn unknown_word(text: &str) -> Option<&str> {
        Self::words(text).find_map(Result::err)
    }

    fn words(text: &str) -> impl Iterator<Item = Result<Scope, &str>> {
        text.split_ascii_whitespace().map(|word| {
            Scope::ALL
                .into_iter()
                .find(|scope| scope.name() == word)
                .ok_or(word)
        })
    }

    /// Whether it is in.
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & scope as u8 != 0
    }
}

/// A `NumericDate`: an integer, or a fraction cut off. Nothing below zero, nothing that is no time.
pub(super) fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Whole(u64),
        Fraction(f64),
    }
    /// Beyond this a double no longer counts seconds one by one.
    const LIMIT: f64 = 9_007_199_254_740_992.0;
    match Number::deserialize(deserializer)? {
        Number::Whole(seconds) => Ok(seconds),
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the guard leaves whole numbers that u64 holds"
        )]
        Number::Fraction(seconds) if (0.0..LIMIT).contains(&seconds) => Ok(seconds as u64),
        Number::Fraction(_) => Err(serde::de::Error::custom("not a NumericDate")),
    }
}

pub(super) fn maybe_seconds<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    seconds(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: serde_json::Value) -> Option<Claims> {
        serde_json::from_value::<Claims>(value)
            .ok()
            .filter(|claims| claims.unacceptable().is_none())
    }

    #[test]
    fn only_sub_and_exp_are_required() {
        let claims = read(json!({"sub": "ada", "exp": 1_800_000_000})).unwrap();
        assert_eq!(claims.exp, 1_800_000_000);
        assert!(
            claims.tilesets.is_empty(),
            "nothing said is nothing granted"
        );
        assert!(read(json!({"sub": "ada"})).is_none());
        assert!(read(json!({"exp": 1})).is_none());
    }

    #[test]
    fn unknown_claims_are_ignored() {
        assert!(read(json!({"sub": "ada", "exp": 1, "aud": "x", "roles": [1]})).is_some());
    }

    #[test]
    fn a_claim_of_the_wrong_type_refuses_the_token() {
        for (name, value) in [
            ("sub", json!(7)),
            ("exp", json!("1800000000")),
            ("exp", json!(-1)),
            ("exp", json!(1e300)),
            ("exp", json!(null)),
            ("nbf", json!("soon")),
            ("iat", json!(true)),
            ("auth_time", json!([])),
            ("tilesets", json!("*")),
            ("tilesets", json!([1])),
            ("scope", json!(["tiles"])),
            ("maxzoom", json!(-1)),
            ("maxzoom", json!("12")),
            ("maxzoom", json!(1.5)),
            ("bounds", json!([0, 0, 1])),
            ("bounds", json!([0, 2, 1, 1])),
            ("bounds", json!([0, 0, 1, 95])),
            ("quota", json!(1)),
            ("quota", json!("")),
            ("sid", json!("a\nb")),
            ("sub", json!("")),
            ("sub", json!("x".repeat(257))),
            ("jti", json!("x".repeat(129))),
        ] {
            let mut claims = json!({"sub": "ada", "exp": 1_800_000_000});
            claims[name] = value;
            assert!(read(claims.clone()).is_none(), "{claims}");
        }
    }

    #[test]
    fn a_claim_said_twice_refuses_the_token() {
        let twice = r#"{"sub": "ada", "exp": 1, "tilesets": [], "tilesets": ["*"]}"#;
        assert!(serde_json::from_str::<Claims>(twice).is_err());
    }

    #[test]
    fn dates_may_have_fractions() {
        let claims = read(json!({"sub": "ada", "exp": 1_800_000_000.9, "nbf": 5.0})).unwrap();
        assert_eq!((claims.exp, claims.nbf), (1_800_000_000, Some(5)));
    }

    #[test]
    fn scopes_are_words_and_unknown_ones_grant_nothing() {
        let scopes = Scopes::parse("tiles  explain fly");
        assert!(scopes.contains(Scope::Tiles) && scopes.contains(Scope::Explain));
        assert!(!scopes.contains(Scope::Sign) && !scopes.contains(Scope::Credentials));
        assert!(!Scopes::parse("").contains(Scope::Tiles));
        assert!(Scopes::DEFAULT.contains(Scope::Tiles));
        assert_eq!(Scopes::unknown_word("tiles fly"), Some("fly"));
        assert_eq!(Scopes::unknown_word("sign credentials"), None);
    }
}
