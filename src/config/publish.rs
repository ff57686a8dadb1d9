//! `[publish]`: whom `tilekeep publish` tells what has changed.

use super::secret::SecretValue;
use super::section::{Item, Section};
use super::web_origin::WebOrigin;

/// The servers to tell.
#[derive(Debug, Clone, Default)]
pub struct PublishConfig {
    /// Their admin sides, `http://10.0.0.5:9090`.
    pub admin_urls: Vec<String>,
    /// What they ask for.
    pub admin_token: Option<SecretValue>,
}

impl PublishConfig {
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self {
            admin_urls: section.list("admin_urls", admin_url),
            admin_token: section.read("admin_token", Item::secret),
        }
    }
}

fn admin_url(item: &Item<'_>) -> Option<String> {
    const REMEDY: &str =
        "write a server's admin side like \"http://10.0.0.5:9090\": it speaks plain HTTP";
    let url = item.word()?;
    let origin = url.trim_end_matches('/').to_ascii_lowercase();
    let plain = origin.strip_suffix(":80").unwrap_or(&origin);
    if origin.starts_with("http://") && WebOrigin::parse(plain).is_ok() {
        return Some(origin);
    }
    item.refuse("is not the address of an admin side", REMEDY)
}
