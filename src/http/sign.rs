//! `POST /sign/…`: a tile's signed URL; and the redirect to it, where a tileset is delivered so.
//!
//! Invariant: whoever gets one was let in as for the tile itself, and has spent it. A redirect is kept for
//! no longer than its URL lives, and no longer than the session.
//! Left out on purpose: whether there is such a tile. S3 is not asked; its own 404 (or 403) tells.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::body::Body;
use super::cache_control::{self, Audience};
use super::cache_status::CACHE_STATUS;
use super::helper_error::HelperError;
use super::problem::HttpError;
use super::public::PublicParts;
use super::shield::shield;
use super::tile_head::protect;
use crate::aws::presign::{self, LONGEST, SHORTEST, SignedUrl, Wanted};
use crate::clock::Timestamp;
use crate::metrics::{Answer, SignOutcome};
use crate::tile::{Access, Scale, TileCoord, Tileset};

/// The methods of `/sign/…`.
pub(super) const METHODS: &str = "POST, OPTIONS";

const WRONG_BODY: &str = "The body is JSON, like {\"expires_in\": 300}: seconds, from 60 to 604800. Without it, 300. `via` is `s3` or `cloudfront`.";
const DEFAULT_LIFE: Duration = Duration::from_mins(5);
/// A browser follows a redirect that it keeps some moments after it has looked at the time.
const TO_FOLLOW: Duration = Duration::from_secs(10);
/// RFC 9211: the cache was not used, by configuration.
const BYPASS: &str = "tilekeep; fwd=bypass; detail=redirect";

/// What is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default)]
    expires_in: Option<u64>,
    #[serde(default)]
    via: Via,
}

/// Who is to take the URL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Via {
    /// S3 itself.
    #[default]
    S3,
    /// The distribution in front.
    CloudFront,
}

/// What a URL is to be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    /// How long it is to live.
    pub(super) life: Duration,
    /// Who is to take it.
    pub(super) via: Via,
}

/// A tile whose URL is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct SignedTile<'a> {
    pub(super) tileset: &'a Tileset,
    pub(super) coord: TileCoord,
    pub(super) scale: Scale,
}

/// Whether a request is for a signature, whatever else its path says.
pub(super) fn is_sign<B>(request: &Request<B>) -> bool {
    *request.method() == Method::POST && request.uri().path().starts_with("/sign/")
}

/// Reads the body.
pub(super) fn wish(body: &[u8]) -> Result<Wish, HttpError> {
    if body.trim_ascii().is_empty() {
        return Ok(Wish {
            life: DEFAULT_LIFE,
            via: Via::S3,
        });
    }
    let asked: Asked =
        serde_json::from_slice(body).map_err(|_| HttpError::BadRequest(WRONG_BODY))?;
    let life = asked.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs);
    if (SHORTEST..=LONGEST).contains(&life) {
        let via = asked.via;
        Ok(Wish { life, via })
    } else {
        Err(HttpError::BadRequest(WRONG_BODY))
    }
}

/// The answer to `POST /sign/…` from somebody who may have the tile.
pub(super) async fn answer(
    parts: &PublicParts,
    tile: SignedTile<'_>,
    Wish { life, via }: Wish,
    now: Timestamp,
) -> (Response<Body>, Answer) {
    let signed = match via {
        Via::S3 => signed(parts, tile, presign::Method::Get, life, now).await,
        Via::CloudFront => by_distribution(parts, tile, life, now),
    };
    let signed = match signed {
        Ok(signed) => signed,
        Err(error) => return refuse(error),
    };
    let ends = humantime::format_rfc3339_seconds(signed.ends.to_system_time());
    let text = json!({ "url": signed.url, "expires_at": ends.to_string() }).to_string();
    let mut response = Response::new(Body::from(Bytes::from(text)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    shield(headers);
    (response, Answer::Other)
}

/// The answer to a tile's stable address where the tileset is delivered by redirect.
pub(super) async fn redirect(
    parts: &PublicParts,
    tile: SignedTile<'_>,
    method: &Method,
    audience: Audience,
    now: Timestamp,
) -> (Response<Body>, Answer) {
    // S3 takes a URL for the method that it was signed for.
    let method = match *method {
        Method::HEAD => presign::Method::Head,
        _ => presign::Method::Get,
    };
    // Half of a URL's life is left at least, so a browser may keep what it gets for as long as a tile.
    let max_age = tile.tileset.browser().max_age;
    let signed = match signed(parts, tile, method, max_age.saturating_mul(2), now).await {
        Ok(signed) => signed,
        Err(error) => return refuse(error),
    };
    let Ok(location) = HeaderValue::try_from(signed.url) else {
        return refuse(HelperError::NotSigned);
    };
    let kept = signed
        .ends
        .since(now)
        .saturating_sub(TO_FOLLOW)
        .min(max_age);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::FOUND;
    let headers = response.headers_mut();
    headers.insert(LOCATION, location);
    headers.insert(
        CACHE_CONTROL,
        cache_control::for_redirect(kept, audience, now).value(),
    );
    headers.insert(CACHE_STATUS, HeaderValue::from_static(BYPASS));
    protect(headers, tile.tileset.access());
    (response, Answer::Redirect)
}

/// A URL that CloudFront takes, which asks this server for what it has not.
fn by_distribution(
    parts: &PublicParts,
    tile: SignedTile<'_>,
    life: Duration,
    now: Timestamp,
) -> Result<SignedUrl, HelperError> {
    let cloudfront = parts.cloudfront.as_ref();
    let place = (tile.coord, tile.scale);
    let signed = cloudfront.and_then(|c| c.signed_url(tile.tileset, place, life, now));
    let outcome = match signed {
        Some(_) => SignOutcome::Signed,
        None => SignOutcome::NotSignable,
    };
    parts.metrics.helpers.signed.inc(outcome);
    let (url, ends) = signed.ok_or(HelperError::NotBehindCloudFront)?;
    Ok(SignedUrl { url, ends })
}

async fn signed(
    parts: &PublicParts,
    tile: SignedTile<'_>,
    method: presign::Method,
    life: Duration,
    now: Timestamp,
) -> Result<SignedUrl, HelperError> {
    let SignedTile { tileset, .. } = tile;
    let count = |outcome| parts.metrics.helpers.signed.inc(outcome);
    let Some(signer) = parts.helpers.signers.of(tileset.name()) else {
        count(SignOutcome::NotSignable);
        return Err(HelperError::NotSignable);
    };
    let life = life.clamp(SHORTEST, LONGEST);
    let place = tileset.place();
    // The same for all who get the same URL, so it cannot be cut by one session's end.
    let max_age = tileset.browser().max_age.min(life).as_secs();
    let audience = match tileset.access() {
        Access::Session => "private",
        Access::Public => "public",
    };
    let wanted = Wanted {
        bucket: &place.bucket,
        key: &place.key.key(tile.coord, tile.scale),
        method,
        life,
        cache_control: &format!("{audience}, max-age={max_age}"),
        content_type: tileset.format().content_type(),
    };
    let signed = signer.sign(wanted, now).await;
    count(
        signed
            .as_ref()
            .map_or_else(presign::SignError::outcome, |_| SignOutcome::Signed),
    );
    signed.map_err(|error| {
        if let presign::SignError::Failed(_) = error {
            tracing::error!(tileset = tileset.name(), tile = %tile.coord, %error, "a URL was not signed");
        }
        HelperError::from(&error)
    })
}

fn refuse(error: HelperError) -> (Response<Body>, Answer) {
    (HttpError::Helper(error).response(), error.answer())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_sixty_seconds_to_a_week() {
        let secs = |body: &str| wish(body.as_bytes()).map(|wish| wish.life.as_secs());
        for (body, expected) in [
            ("", 300),
            (" \n", 300),
            ("{}", 300),
            (r#"{"expires_in":null}"#, 300),
            (r#"{"expires_in":60}"#, 60),
            (r#"{"expires_in":604800}"#, 604_800),
        ] {
            assert_eq!(secs(body), Ok(expected), "{body}");
        }
        for body in [
            "{",
            "300",
            "null",
            r#"{"expires_in":59}"#,
            r#"{"expires_in":604801}"#,
            r#"{"expires_in":-1}"#,
            r#"{"expires_in":"300"}"#,
            r#"{"expires_in":300.5}"#,
            r#"{"expires":300}"#,
            r#"{"expires_in":99999999999999999999}"#,
        ] {
            assert_eq!(secs(body), Err(HttpError::BadRequest(WRONG_BODY)), "{body}");
        }
    }
}
