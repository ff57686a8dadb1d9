//! `[cloudfront]`: the distribution in front, the key that signs for it, and how it proves itself here.

use super::SecretValue;
use super::section::{Item, Section};
use super::web_origin::valid_host;
use super::{Config, WebOrigin};
use crate::aws::cloudfront::SigningKey;
use crate::tile::Access;

/// CloudFront in front.
#[derive(Debug, Clone)]
pub struct CloudFrontConfig {
    /// The host name by which browsers reach the distribution.
    pub domain: String,
    /// The public key's id at CloudFront.
    pub key_pair_id: String,
    /// PEM; it has been looked at.
    pub private_key: SecretValue,
    /// What the distribution proves itself with; none: it is given no tiles.
    pub origin_secrets: Vec<SecretValue>,
    /// The tilesets that go through it, in the order of the file.
    pub tilesets: Vec<String>,
}

/// Each takes four cookies and 1.2 KB of a log-in's head, of which proxies in front take 8 to 16 KB.
const MOST_TILESETS: usize = 8;
/// While secrets are changed there are two.
const MOST_SECRETS: usize = 4;
/// As long as 24 random bytes in base64.
const MIN_SECRET: usize = 32;
/// CloudFront takes 1783 characters.
const MAX_SECRET: usize = 1024;

impl CloudFrontConfig {
    /// Last of all sections, as it needs the others.
    pub(super) fn read(section: &Section<'_>, config: &Config) -> Option<Self> {
        // Whether they are there is asked only where the section is.
        let domain = section.read("domain", domain);
        let key_pair_id = section.read("key_pair_id", key_pair_id);
        let private_key = section.read("private_key", private_key);
        let origin_secrets = section.read("origin_secret", origin_secrets);
        let tilesets = section.list("tilesets", Item::word);
        if section.is_empty() {
            return None;
        }
        for (key, remedy) in [
            (
                "domain",
                "name the distribution's host, like \"tiles.example.com\"",
            ),
            (
                "key_pair_id",
                "name the public key's ID at CloudFront, like \"K2JCJMDEHXQW5F\"",
            ),
            (
                "private_key",
                "add private_key = { file = \"cloudfront.pem\" }",
            ),
        ] {
            if !section.has(key) {
                section.refuse(key, "is missing", remedy);
            }
        }
        if let Some(domain) = &domain {
            check_host(domain, config, section);
        }
        Some(Self {
            tilesets: check_tilesets(tilesets, config, section),
            domain: domain?,
            key_pair_id: key_pair_id?,
            private_key: private_key?,
            origin_secrets: origin_secrets.unwrap_or_default(),
        })
    }
}

/// Those that are named, else all that need a session.
fn check_tilesets(named: Vec<String>, config: &Config, section: &Section<'_>) -> Vec<String> {
    let private = config
        .tilesets
        .iter()
        .filter(|tileset| tileset.tileset.access() == Access::Session)
        .map(|tileset| tileset.tileset.name());
    if named.is_empty() {
        let all: Vec<_> = private.map(str::to_owned).collect();
        if all.len() > MOST_TILESETS {
            section.refuse(
                    "tilesets",
                    format!(
                        "is missing, and {} tilesets need a session: a browser takes cookies for {MOST_TILESETS}",
                        all.len()
                    ),
                    "name those that go through CloudFront, like tilesets = [\"world\"]",
                );
        }
        return all;
    }
    if named.len() > MOST_TILESETS {
        section.refuse(
            "tilesets",
            format!("names more than the {MOST_TILESETS} that a browser takes cookies for"),
            "leave out those that are looked at least",
        );
    }
    let private: Vec<_> = private.collect();
    if let Some(stranger) = named.iter().find(|name| !private.contains(&&***name)) {
        let known = config.tilesets.iter().any(|t| t.tileset.name() == stranger);
        let what = if known {
            format!("names `{stranger}`, whose access is \"public\": it needs no cookies")
        } else {
            format!("names `{stranger}`, which is no tileset")
        };
        section.refuse("tilesets", what, "leave it out");
    }
    named
}

/// That browsers take the cookies for both hosts.
fn check_host(domain: &str, config: &Config, section: &Section<'_>) {
    let Some(url) = &config.server.public_url else {
        section.refuse(
                "domain",
                "needs `public_url` in [server]: its cookies are set from there",
                format!("add public_url = \"https://{domain}\", or the host beside it that serves the log-in"),
            );
        return;
    };
    if !url.is_https() {
        section.refuse(
            "domain",
            "is reached by https, and `public_url` is http: browsers would not keep its cookies",
            "make `public_url` https",
        );
    }
    if is_one_host(url, domain) {
        return;
    }
    let covers = |parent: &str| domain == parent || domain.ends_with(&format!(".{parent}"));
    match &config.session.domain {
            Some(parent) if covers(parent) => {}
            Some(parent) => section.refuse(
                "domain",
                format!(
                    "is not below [session] domain `{parent}`: what is set at `{}` would not be sent to it",
                    url.host()
                ),
                "give the distribution a name below it (an alternate domain name), or that of `public_url`",
            ),
            None => section.refuse(
                "domain",
                format!(
                    "is another host than `public_url`'s `{}`, and [session] domain, which would cover both, is not set",
                    url.host()
                ),
                format!("set [session] domain to what both end in, or make `public_url` https://{domain}"),
            ),
        }
}

/// Whether the public side is reached through the distribution itself.
pub fn is_one_host(public_url: &WebOrigin, domain: &str) -> bool {
    public_url.host() == domain
}

fn domain(item: &Item<'_>) -> Option<String> {
    let domain = item.word()?;
    let name = domain.contains('.')
        && !domain.starts_with('.')
        && valid_host(&domain)
        && domain.parse::<std::net::IpAddr>().is_err();
    if name {
        return Some(domain);
    }
    item.refuse(
        "is not a host's name",
        "write the name alone in lower case, like \"tiles.example.com\": no scheme, no port, no path",
    )
}

fn key_pair_id(item: &Item<'_>) -> Option<String> {
    let id = item.word()?;
    let right = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit();
    if id.len() <= 64 && id.bytes().all(right) {
        return Some(id);
    }
    item.refuse(
        "is not a public key's ID",
        "it has capitals and digits, like \"K2JCJMDEHXQW5F\" (CloudFront, Public keys); one with dashes is a key group's",
    )
}

fn private_key(item: &Item<'_>) -> Option<SecretValue> {
    let pem = item.secret()?;
    match SigningKey::from_pem(pem.expose()) {
        Ok(_) => Some(pem),
        Err(error) => item.refuse(error.to_string(), error.remedy()),
    }
}

/// One secret, or several while they are changed.
fn origin_secrets(item: &Item<'_>) -> Option<Vec<SecretValue>> {
    if item.value.as_array().is_none() {
        return Some(vec![origin_secret(item)?]);
    }
    let items = item.elements()?;
    if items.is_empty() || items.len() > MOST_SECRETS {
        return item.refuse(
            "holds no secret, or more than anybody changes at once",
            format!("name 1 to {MOST_SECRETS}, or remove the key"),
        );
    }
    Some(items.iter().filter_map(origin_secret).collect())
}

fn origin_secret(item: &Item<'_>) -> Option<SecretValue> {
    let secret = item.secret()?;
    let text = secret.expose();
    let length = MIN_SECRET..=MAX_SECRET;
    if length.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
        return Some(secret);
    }
    item.refuse(
        format!(
            "cannot be the secret header's value: it has {} characters, or signs that a header does not take",
            text.chars().count()
        ),
        format!("use {MIN_SECRET} to {MAX_SECRET} letters and digits: openssl rand -hex 32"),
    )
}
