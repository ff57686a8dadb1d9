//! `[login]`: who can log in, and by which way.

use std::collections::HashSet;
use std::path::PathBuf;

use super::quotas::QuotaConfig;
use super::section::{Item, Section, list};
use super::session::{KeyMaterial, SessionConfig, shared_secret};
use super::{SecretValue, WebOrigin};
use crate::auth::{ClaimName, LOGIN_COOKIE, Scopes};
use crate::tile::Bounds;

/// Who can log in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Login {
    /// The people whom the page at `/login` knows; readable when the configuration was read.
    pub users_file: Option<PathBuf>,
    /// Whose JWTs are exchanged for sessions; no two of one name.
    pub issuers: Vec<LoginIssuer>,
    /// The identity provider that the page at `/login` leads to.
    pub oidc: Option<LoginOidc>,
}

/// An issuer of JWTs.
#[derive(Debug, Clone, PartialEq)]
pub struct LoginIssuer {
    /// Its `iss`.
    pub issuer: String,
    /// Our `aud`.
    pub audience: String,
    /// What it signs with.
    pub keys: IssuerKeySource,
    /// What its people may do.
    pub grants: LoginGrants,
    /// The JWT's claims that may say otherwise.
    pub trust_claims: Vec<ClaimName>,
}

/// What an issuer signs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssuerKeySource {
    /// HS256: the bytes of the text as they are, at least 32.
    Secret(SecretValue),
    /// The address of its key set: https, or loopback.
    JwksUrl(String),
}

/// An OpenID provider.
#[derive(Debug, Clone, PartialEq)]
pub struct LoginOidc {
    /// Its name for itself: https, or loopback.
    pub issuer: String,
    /// Our name there.
    pub client_id: String,
    /// Our secret there; none for a public client.
    pub client_secret: Option<SecretValue>,
    /// What is asked for.
    pub scopes: Vec<String>,
    /// What its people may do.
    pub grants: LoginGrants,
    /// The ID token's claims that may say otherwise.
    pub trust_claims: Vec<ClaimName>,
    /// What the log-in page calls it, after "Sign in with".
    pub name: String,
}

/// What people who come by one way may do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoginGrants {
    /// Names of tilesets, or `*`.
    pub tilesets: Vec<String>,
    /// Scopes; none: `tiles`.
    pub scope: Option<String>,
    /// The deepest zoom.
    pub maxzoom: Option<u8>,
    /// The area.
    pub bounds: Option<Bounds>,
    /// The quota class.
    pub quota: Option<String>,
}

impl Login {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let mut names = HashSet::new();
        Self {
            users_file: section.read("users_file", |item| {
                item.readable_or(
                    "`tilekeep user add` makes it; a relative path starts at the config file's folder; check the \
                     name and its rights",
                )
            }),
            issuers: section.list("issuers", |item| LoginIssuer::read(item, &mut names)),
            oidc: section.read("oidc", LoginOidc::read),
        }
    }

    /// Whether the file lets anybody log in, rightly written or not.
    pub(super) fn is_asked_for(section: &Section<'_>) -> bool {
        ["users_file", "issuers", "oidc"]
            .iter()
            .any(|key| section.has(key))
    }

    /// What it needs of the session's keys: an issuer that shares one of them could be used without the
    /// exchange, with whatever rights its JWTs claim.
    pub(super) fn check(
        &self,
        section: &Section<'_>,
        session: &SessionConfig,
        quotas: &[QuotaConfig],
    ) {
        let unknown = |grants: &LoginGrants| {
            let class = grants.quota.as_ref();
            class.is_some_and(|class| !quotas.is_empty() && quotas.iter().all(|q| q.name != *class))
        };
        let grants = self
            .issuers
            .iter()
            .map(|issuer| ("issuers", &issuer.grants));
        let grants = grants.chain(self.oidc.iter().map(|oidc| ("oidc", &oidc.grants)));
        for (key, _) in grants.filter(|(_, grants)| unknown(grants)) {
            section.refuse(
                key,
                "grants a `quota` that is none of [[quotas]]",
                "name one of the classes, or add it",
            );
        }
        let session_keys = session.keys.iter().filter_map(|key| match &key.material {
            KeyMaterial::Secret(secret) => Some(secret),
            KeyMaterial::Ed25519 { .. } => None,
        });
        let shared = session_keys.clone().any(|key| {
            self.issuers
                .iter()
                .any(|issuer| issuer.keys == IssuerKeySource::Secret(key.clone()))
        });
        if shared {
            section.refuse(
                "issuers",
                "share a `secret` with [session] keys: such JWTs are sessions already, with whatever rights they claim",
                "give the issuer a secret of its own",
            );
        }
        if self.oidc.is_some() && session.cookie == LOGIN_COOKIE {
            section.refuse(
                "oidc",
                "uses a cookie of the name that [session] cookie has",
                "give the session's cookie another name",
            );
        }
    }
}

impl LoginIssuer {
    fn read(item: &Item<'_>, names: &mut HashSet<String>) -> Option<Self> {
        let section = item.table(None)?;
        let issuer = section.need("issuer", "write the `iss` of its JWTs", |item| {
            let issuer = item.word()?;
            if issuer == "tilekeep" {
                return item.refuse(
                    "is the name of this server's own sessions",
                    "give the issuer a name of its own",
                );
            }
            if !names.insert(issuer.clone()) {
                return item.refuse("is the name of two issuers", "keep one of them");
            }
            Some(issuer)
        });
        let audience = section.need(
            "audience",
            "write the `aud` by which its JWTs are meant for this server, like audience = \"tiles\"",
            Item::word,
        );
        let url = section.read("jwks_url", |item| address(item, true));
        let secret = section.read("secret", shared_secret);
        let keys = match (section.has("jwks_url"), section.has("secret")) {
            (true, false) => url.map(IssuerKeySource::JwksUrl),
            (false, true) => secret.map(IssuerKeySource::Secret),
            (true, true) => item.refuse(
                "has a `jwks_url` and a `secret`",
                "keep the one that its JWTs are signed with",
            ),
            (false, false) => item.refuse(
                "has nothing to verify with",
                "add jwks_url = \"https://…\", or secret = { env = \"NAME\" }",
            ),
        };
        let (grants, trust_claims) = rights(&section);
        Some(Self {
            issuer: issuer?,
            audience: audience?,
            keys: keys?,
            grants,
            trust_claims,
        })
    }
}

impl LoginOidc {
    fn read(item: &Item<'_>) -> Option<Self> {
        let section = item.table(None)?;
        let issuer = section.need(
            "issuer",
            "write the provider's address, without /.well-known/…",
            |item| address(item, false),
        );
        let client_id = section.need(
            "client_id",
            "write the name under which this server is registered at the provider",
            Item::word,
        );
        let (grants, trust_claims) = rights(&section);
        let scopes = section.read("scopes", |item| {
            let scopes: Option<Vec<_>> = item.elements()?.iter().map(scope_name).collect();
            scopes
        });
        let client_secret = section.read("client_secret", Item::secret);
        let name = section.read("name", short);
        Some(Self {
            client_secret,
            scopes: scopes.unwrap_or_else(|| vec!["openid".to_owned()]),
            name: name.unwrap_or_else(|| "single sign-on".to_owned()),
            issuer: issuer?,
            client_id: client_id?,
            grants,
            trust_claims,
        })
    }
}

/// `grants` and `trust_claims`; with neither, nobody who comes this way sees anything.
fn rights(section: &Section<'_>) -> (LoginGrants, Vec<ClaimName>) {
    let grants = section.read("grants", LoginGrants::read);
    let choices = ClaimName::ALL.map(|claim| (claim.name(), claim));
    let trusted = section.list("trust_claims", |item| item.choice(&choices));
    if !section.has("grants") && !section.has("trust_claims") {
        section.refuse(
            "grants",
            "is missing, so that nobody who comes this way could see anything",
            "add grants = { tilesets = [\"*\"] }, or name the JWT's claims to believe, like trust_claims = [\"tilesets\"]",
        );
    }
    (grants.unwrap_or_default(), trusted)
}

impl LoginGrants {
    fn read(item: &Item<'_>) -> Option<Self> {
        let section = item.table(None)?;
        Some(Self {
            tilesets: section.list("tilesets", Item::word),
            scope: section.read("scope", scope),
            maxzoom: section.read("maxzoom", |item| u8::try_from(item.integer(0..=30)?).ok()),
            bounds: section.read("bounds", bounds),
            quota: section.read("quota", short),
        })
    }
}

fn scope(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    match Scopes::unknown_word(text) {
        None => Some(text.to_owned()),
        Some(word) => {
            let known = crate::auth::Scope::ALL.map(crate::auth::Scope::name);
            item.refuse(
                format!("has a word that is no scope: `{word}`"),
                format!("use {}, with spaces between", list(&known)),
            )
        }
    }
}

fn bounds(item: &Item<'_>) -> Option<Bounds> {
    let numbers: Option<Vec<f64>> = item.elements()?.iter().map(Item::number).collect();
    let Ok(degrees) = <[f64; 4]>::try_from(numbers?) else {
        return item.refuse(
            "has not four numbers",
            "write [west, south, east, north] in degrees",
        );
    };
    match Bounds::new(degrees) {
        Ok(bounds) => Some(bounds),
        Err(error) => item.refuse("is not an area", error.to_string()),
    }
}

/// A word of at most 64 bytes.
fn short(item: &Item<'_>) -> Option<String> {
    let name = item.word()?;
    if name.len() > 64 {
        return item.refuse("is too long", "use 64 bytes at most");
    }
    Some(name)
}

/// RFC 6749 §3.3.
fn scope_name(item: &Item<'_>) -> Option<String> {
    let name = item.word()?;
    let allowed = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    if name.bytes().all(allowed) {
        return Some(name);
    }
    item.refuse(
        "is not one scope",
        "write each in quotes of its own, without spaces",
    )
}

/// An https address, or an http one on this machine; without a fragment, and a query only where `query`.
fn address(item: &Item<'_>, query: bool) -> Option<String> {
    let text = item.word()?;
    let Some((scheme, rest)) = text.split_once("://") else {
        return item.refuse(
            "is not an address",
            "write it like \"https://id.example.com\"",
        );
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    match WebOrigin::parse(&format!("{scheme}://{host}")) {
        Err(error) => return item.refuse("is not an address", error.to_string()),
        Ok(origin) if !origin.is_https() && !origin.is_loopback() => {
            return item.refuse(
                "is http: who listens on the way could put keys of their own in",
                "use https",
            );
        }
        Ok(_) => {}
    }
    let plain = path
        .bytes()
        .all(|b| b.is_ascii_graphic() && b != b'#' && (query || b != b'?'));
    if plain {
        return Some(text);
    }
    item.refuse(
        "has something behind its path",
        "remove spaces, the fragment (`#…`) and, for an issuer, the query (`?…`)",
    )
}
