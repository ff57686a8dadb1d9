//! `[aws]`: on top of the SDK's own chain of credentials.

use std::time::Duration;

use super::section::{Item, Section};
use super::web_origin::WebOrigin;

/// Region, endpoints and role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aws {
    /// The region; none: as the SDK finds it.
    pub region: Option<String>,
    /// An S3-compatible server; none: AWS.
    pub endpoint_url: Option<String>,
    /// Its STS. With `endpoint_url` and without this, STS is not asked.
    pub sts_endpoint_url: Option<String>,
    /// `http://host/bucket/key` instead of `http://bucket.host/key`.
    pub path_style: bool,
    /// The role that reads every tileset without one of its own.
    pub assume_role: Option<AssumeRole>,
}

/// A role to assume before S3 is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssumeRole {
    /// The role.
    pub arn: String,
    /// What its trust policy may ask for.
    pub external_id: Option<String>,
    /// The session's name in `CloudTrail`.
    pub session_name: String,
    /// How long its credentials live, from 15 minutes to 12 hours.
    pub duration: Duration,
}

impl Aws {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let aws = Self {
            region: section.read("region", region),
            endpoint_url: section.read("endpoint_url", endpoint),
            sts_endpoint_url: section.read("sts_endpoint_url", endpoint),
            path_style: section.read("path_style", Item::switch).unwrap_or_default(),
            assume_role: section.read("assume_role", AssumeRole::read),
        };
        if section.has("assume_role") {
            aws.check_role(section);
        }
        aws
    }

    /// Whether a role in this section could be assumed at all.
    pub(super) fn check_role(&self, section: &Section<'_>) {
        if self.endpoint_url.is_some() && self.sts_endpoint_url.is_none() {
            section.refuse(
                "assume_role",
                "cannot be assumed: with `endpoint_url` and without `sts_endpoint_url` there is no STS to ask",
                "add [aws] sts_endpoint_url, or remove the role",
            );
        }
    }
}

fn region(item: &Item<'_>) -> Option<String> {
    let region = item.word()?;
    let part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if region.bytes().all(part) && region.len() <= 64 {
        return Some(region);
    }
    item.refuse(
        "is not a region",
        "use its code, like \"eu-west-1\"; many S3-compatible servers take \"us-east-1\"",
    )
}

/// `http(s)://host[:port][/path]`, where the port may be the scheme's own.
pub(super) fn endpoint(item: &Item<'_>) -> Option<String> {
    const REMEDY: &str = "write it like \"http://127.0.0.1:9000\", without query or password";
    let url = item.word()?;
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let port = if scheme == "https" { ":443" } else { ":80" };
    let authority = authority.strip_suffix(port).unwrap_or(authority);
    let origin = format!("{scheme}://{authority}").to_ascii_lowercase();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%".contains(&b);
    if WebOrigin::parse(&origin).is_ok() && path.bytes().all(plain) {
        return Some(url.trim_end_matches('/').to_owned());
    }
    item.refuse("is not the URL of an endpoint", REMEDY)
}

impl AssumeRole {
    pub(super) fn read(item: &Item<'_>) -> Option<Self> {
        let section = item.table(None)?;
        let lives = Duration::from_mins(15)..=Duration::from_hours(12);
        let arn = section.need(
            "arn",
            "name the role, like arn = \"arn:aws:iam::123456789012:role/tiles\"",
            role_arn,
        );
        let external_id = section.read("external_id", |item| {
            limited(item, 2..=1224, b"_+=,.@:/-", "an external id")
        });
        let session_name = section.read("session_name", |item| {
            limited(item, 2..=64, b"_+=,.@-", "a session name")
        });
        let duration = section.read("duration", |item| item.duration(lives));
        Some(Self {
            arn: arn?,
            external_id,
            session_name: session_name.unwrap_or_else(|| "tilekeep".to_owned()),
            duration: duration.unwrap_or(Duration::from_hours(1)),
        })
    }
}

fn role_arn(item: &Item<'_>) -> Option<String> {
    let arn = item.word()?;
    let shape = arn.starts_with("arn:")
        && arn.matches(':').count() >= 5
        && arn.bytes().all(|b| b.is_ascii_graphic());
    if shape && (20..=2048).contains(&arn.len()) {
        return Some(arn);
    }
    item.refuse(
        "is not the ARN of a role",
        "write it like \"arn:aws:iam::123456789012:role/tiles\"",
    )
}

/// Letters, digits and some signs, as STS's reference lists them for `AssumeRole`.
fn limited(
    item: &Item<'_>,
    length: std::ops::RangeInclusive<usize>,
    signs: &[u8],
    what: &str,
) -> Option<String> {
    let text = item.word()?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || signs.contains(&b);
    if length.contains(&text.len()) && text.bytes().all(allowed) {
        return Some(text);
    }
    item.refuse(
        format!("is not {what} that STS takes"),
        format!(
            "use {} to {} letters, digits and {}",
            length.start(),
            length.end(),
            String::from_utf8_lossy(signs)
        ),
    )
}
