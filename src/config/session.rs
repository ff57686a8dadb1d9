//! `[session]`: the cookie, and the keys that sign and verify.

use std::collections::HashSet;
use std::time::Duration;

use super::SecretValue;
use super::section::{Item, Section};
use super::web_origin::valid_host;

/// The session cookie and the keys of its tokens.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// The cookie's name, without the `__Host-` that it gets when it is secure and has no domain.
    pub cookie: String,
    /// The cookie's domain; none: the one host alone.
    pub domain: Option<String>,
    /// How long a session lives unless it is renewed.
    pub ttl: Duration,
    /// How long it lives at most, renewed or not.
    pub max_ttl: Duration,
    /// The first that can signs, all verify. Empty only if every tileset is public.
    pub keys: Vec<SessionKey>,
}

/// One key.
#[derive(Debug, Clone)]
pub struct SessionKey {
    /// Its name: a token's `kid`. No two keys share one.
    pub id: String,
    /// What it is.
    pub material: KeyMaterial,
}

/// What a key is made of.
#[derive(Debug, Clone)]
pub enum KeyMaterial {
    /// HS256: the bytes of the text as they are, at least 32.
    Secret(SecretValue),
    /// `EdDSA` with Ed25519.
    Ed25519 {
        /// The public key: PEM, `BEGIN PUBLIC KEY`.
        public: String,
        /// The private key: PEM, `BEGIN PRIVATE KEY` (PKCS #8). Without it the key only verifies.
        private: Option<SecretValue>,
    },
}

impl KeyMaterial {
    /// Whether it can sign.
    pub fn signs(&self) -> bool {
        !matches!(self, Self::Ed25519 { private: None, .. })
    }
}

/// RFC 7518 §3.2: a key of the size of the hash, or larger.
const MIN_SECRET: usize = 32;

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            cookie: "tilekeep_session".to_owned(),
            domain: None,
            ttl: Duration::from_hours(12),
            max_ttl: Duration::from_hours(30 * 24),
            keys: Vec::new(),
        }
    }
}

impl SessionConfig {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        // Browsers keep a cookie for 400 days at most (RFC 6265bis §5.5).
        let lives = Duration::from_mins(1)..=Duration::from_hours(400 * 24);
        let session = Self {
            cookie: section.read("cookie", cookie).unwrap_or(default.cookie),
            domain: section.read("domain", domain),
            ttl: section
                .read("ttl", |item| item.duration(lives.clone()))
                .unwrap_or(default.ttl),
            max_ttl: section
                .read("max_ttl", |item| item.duration(lives))
                .unwrap_or(default.max_ttl),
            keys: {
                let mut ids = HashSet::new();
                section.list("keys", |item| SessionKey::read(item, &mut ids))
            },
        };
        if session.ttl > session.max_ttl {
            let (ttl, max_ttl) = (session.ttl, session.max_ttl);
            section.refuse(
                if section.has("ttl") { "ttl" } else { "max_ttl" },
                format!(
                    "makes `ttl` ({}) longer than `max_ttl` ({})",
                    humantime::format_duration(ttl),
                    humantime::format_duration(max_ttl)
                ),
                "shorten `ttl` or lengthen `max_ttl`",
            );
        }
        session
    }
}

/// A token of RFC 9110 §5.6.2, as RFC 6265 §4.1.1 wants it.
fn cookie(item: &Item<'_>) -> Option<String> {
    let name = item.word()?;
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if !name.bytes().all(token) || name.len() > 64 {
        return item.refuse(
            "cannot be a cookie's name",
            "use letters, digits, `-` and `_`, at most 64 of them",
        );
    }
    let lower = name.to_ascii_lowercase();
    if lower.starts_with("__host-") || lower.starts_with("__secure-") {
        return item.refuse(
            "starts with a prefix that the server adds by itself",
            "leave out `__Host-` and `__Secure-`: `__Host-` is added when the cookie is secure and has no `domain`",
        );
    }
    Some(name)
}

fn domain(item: &Item<'_>) -> Option<String> {
    let domain = item.word()?;
    if domain.contains("://") || domain.contains(':') || domain.starts_with('.') {
        return item.refuse(
            "is not a bare domain",
            "write the name alone, like \"example.com\": no scheme, no port, no leading dot",
        );
    }
    let name = valid_host(&domain) && domain.parse::<std::net::IpAddr>().is_err();
    if name && domain.contains('.') {
        return Some(domain);
    }
    item.refuse(
        "is not a domain that browsers take a cookie for",
        "use a name in lower case with a dot in it, like \"example.com\", or remove the key",
    )
}

impl SessionKey {
    fn read(item: &Item<'_>, ids: &mut HashSet<String>) -> Option<Self> {
        let section = item.table(None)?;
        let id = section.need("id", "name the key, like id = \"2026-11\"", |item| {
            let id = item.word()?;
            if id.len() > 128 || !id.bytes().all(|b| b.is_ascii_graphic()) {
                return item.refuse(
                    "cannot be a key's name",
                    "use letters, digits and signs of ASCII, at most 128",
                );
            }
            if !ids.insert(id.clone()) {
                return item.refuse(
                    "is the name of two keys",
                    "give each key an id of its own: a token names its key by it",
                );
            }
            Some(id)
        });
        let secret = section.read("secret", shared_secret);
        let public = section.read("public_key", |item| pem(item, "PUBLIC KEY"));
        let private = section.read("private_key", |item| pem(item, "PRIVATE KEY"));
        let material = match (
            section.has("secret"),
            section.has("public_key"),
            section.has("private_key"),
        ) {
            (true, false, false) => KeyMaterial::Secret(secret?),
            (false, true, has_private) => {
                if has_private && private.is_none() {
                    return None;
                }
                KeyMaterial::Ed25519 {
                    public: public?.expose().to_owned(),
                    private,
                }
            }
            (true, ..) => {
                return item.refuse(
                    "has a `secret` beside `public_key` or `private_key`",
                    "make two keys of it",
                );
            }
            (false, false, true) => {
                return item.refuse(
                    "has a `private_key` without its `public_key`",
                    "add it: openssl pkey -in KEY.pem -pubout",
                );
            }
            (false, false, false) => {
                return item.refuse(
                    "has nothing to verify with",
                    "add secret = { env = \"NAME\" }, or public_key = { file = \"app.pem\" }",
                );
            }
        };
        Some(Self { id: id?, material })
    }
}

pub(super) fn shared_secret(item: &Item<'_>) -> Option<SecretValue> {
    let secret = item.secret()?;
    if secret.expose().len() < MIN_SECRET {
        return item.refuse(
            format!("is shorter than the {MIN_SECRET} bytes that HS256 needs"),
            "make one: openssl rand -base64 48",
        );
    }
    Some(secret)
}

/// A PEM text with exactly this label. Whether it is a key of the right kind is `auth`'s to say.
fn pem(item: &Item<'_>, label: &str) -> Option<SecretValue> {
    let text = item.secret()?;
    if text
        .expose()
        .lines()
        .any(|line| line.trim() == format!("-----BEGIN {label}-----"))
    {
        return Some(text);
    }
    item.refuse(
        format!("is not PEM with `BEGIN {label}`"),
        "make one: openssl genpkey -algorithm ed25519 -out KEY.pem; openssl pkey -in KEY.pem -pubout -out PUBLIC.pem",
    )
}
