//! `[cluster]`: where nodes meet.

use std::path::PathBuf;

use super::section::{Item, Section};
use crate::cluster::Address;

/// Redis or Valkey.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Its address, with the password in it.
    pub redis: Address,
    /// What every key there begins with.
    pub prefix: String,
    /// Who vouches for its certificate; none: whom the system believes.
    pub ca: Option<PathBuf>,
}

/// Without `prefix`.
const PREFIX: &str = "tilekeep:";

impl ClusterConfig {
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let redis = section.read("redis", |item| {
            let url = item.secret()?;
            match Address::parse(url.expose()) {
                Ok(address) => Some(address),
                Err(error) => item.refuse(error.to_string(), error.remedy()),
            }
        });
        let prefix = section.read("prefix", prefix);
        let ca = section.read("ca", Item::readable);
        if !section.is_empty() && !section.has("redis") {
            section.refuse(
                "redis",
                "is missing",
                "name a Redis or Valkey, like redis = \"redis://10.0.0.5:6379\", or remove the section",
            );
        }
        let redis = redis?;
        if section.has("ca") && !redis.is_tls() {
            section.refuse(
                "ca",
                "is for TLS, and `redis` asks for none",
                "write rediss:// there, or remove this",
            );
        }
        Some(Self {
            redis,
            prefix: prefix.unwrap_or_else(|| PREFIX.to_owned()),
            ca,
        })
    }
}

fn prefix(item: &Item<'_>) -> Option<String> {
    let prefix = item.word()?;
    if prefix.len() <= 64 && prefix.bytes().all(|b| b.is_ascii_graphic()) {
        return Some(prefix);
    }
    item.refuse(
        "cannot begin a key",
        "use letters, digits and signs of ASCII without spaces, at most 64, like \"tilekeep:\"",
    )
}
