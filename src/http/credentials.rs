//! `POST /credentials`: AWS credentials that read one tileset's prefix, for a trusted job, in the shape of
//! the AWS CLI's `credential_process`.
//!
//! Invariant: nobody gets what their session could not have tile by tile. A session that is limited in
//! zoom, area or number of tiles gets none, and none outlive the session.
//! Left out on purpose: STS (`aws/vending`). Credentials that were handed out cannot be taken back.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::json;

use super::helper_error::HelperError;
use super::problem::HttpError;
use super::quota::Purse;
use super::site::{Peer, Site, problem};
use crate::auth::{Scope, Session};
use crate::aws::vending::{LONGEST, Lent, SHORTEST, VendError, Wish};
use crate::clock::Timestamp;
use crate::metrics::{Label as _, VendOutcome};
use crate::tile::Access;

const WRONG_BODY: &str = "The body is JSON, like {\"tileset\": \"world\", \"duration_seconds\": 3600}: seconds, from 900 to 43200. Without them, 3600.";

/// What is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    tileset: String,
    #[serde(default)]
    duration_seconds: Option<u64>,
}

/// The answer.
pub(super) async fn lend(
    State(site): State<Arc<Site>>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let Ok(body) = body else {
        return problem(&HttpError::TooLarge);
    };
    let (tileset, duration) = match read(&body) {
        Ok(asked) => asked,
        Err(refusal) => return problem(&refusal),
    };
    let now = site.parts.clock.now();
    let caller = match site.writer(peer, &headers, now) {
        Ok(caller) => caller,
        Err(refusal) => return problem(&refusal),
    };
    let session = &*caller.session;
    let count = |outcome| site.parts.metrics.helpers.vended.inc(outcome);
    let duration = match allowed(&site, session, &tileset, duration, now) {
        Ok(duration) => duration,
        Err(refusal) => {
            count(VendOutcome::Withheld);
            return problem(&refusal);
        }
    };
    let wish = Wish {
        tileset: &tileset,
        person: session.sub(),
        duration,
        now,
    };
    match site.parts.helpers.vending.lend(wish).await {
        Ok((lent, outcome)) => {
            count(outcome);
            tell(session, &tileset, &lent, outcome);
            credential_process(&lent)
        }
        Err(error) => {
            count(error.outcome());
            complain(&tileset, &error);
            problem(&HttpError::Helper(HelperError::from(&error)))
        }
    }
}

fn read(body: &[u8]) -> Result<(String, Duration), HttpError> {
    let asked: Asked =
        serde_json::from_slice(body).map_err(|_| HttpError::BadRequest(WRONG_BODY))?;
    let duration = Duration::from_secs(asked.duration_seconds.unwrap_or(3600));
    if (SHORTEST..=LONGEST).contains(&duration) {
        Ok((asked.tileset, duration))
    } else {
        Err(HttpError::BadRequest(WRONG_BODY))
    }
}

/// Whether this session may have credentials for this tileset, and for how long. In the contract's order.
fn allowed(
    site: &Site,
    session: &Session,
    tileset: &str,
    duration: Duration,
    now: Timestamp,
) -> Result<Duration, HttpError> {
    let tilesets = &site.parts.tilesets;
    if tilesets.get(tileset).is_none() || !session.allows_tileset(tileset) {
        return Err(HttpError::UnknownTileset);
    }
    if !session.scopes().contains(Scope::Credentials) {
        return Err(HttpError::ForbiddenScope(Scope::Credentials.name()));
    }
    let uptime = site.parts.clock.uptime();
    let spender = session.spender();
    let limit = if session.maxzoom().is_some() {
        Some("maxzoom")
    } else if session.bounds().is_some() {
        Some("bounds")
    } else if spender.is_some_and(|spender| spender.tiles_left(uptime).is_some()) {
        Some("distinct_tiles_per_hour")
    } else {
        None
    };
    if let Some(limit) = limit {
        return Err(HttpError::Helper(HelperError::Withheld(limit)));
    }
    let sees = |name: &str| {
        let public = tilesets
            .get(name)
            .is_some_and(|t| t.access() == Access::Public);
        public || session.allows_tileset(name)
    };
    let mut also = site.parts.helpers.vending.also_opens(tileset);
    if !also.all(sees) {
        return Err(HttpError::Helper(HelperError::WithheldForOthers));
    }
    let left = session.expires_at().since(now);
    if left < SHORTEST {
        return Err(HttpError::Helper(HelperError::SessionEndsSoon));
    }
    if let Some(purse) = Purse::of(session, &site.parts) {
        purse.request().map_err(HttpError::OverQuota)?;
    }
    // STS counts whole seconds.
    Ok(duration.min(Duration::from_secs(left.as_secs())))
}

fn credential_process(lent: &Lent) -> Response {
    let ends = humantime::format_rfc3339_seconds(lent.ends.to_system_time());
    let text = json!({
        "Version": 1,
        "AccessKeyId": lent.access_key_id,
        "SecretAccessKey": lent.secret_access_key,
        "SessionToken": lent.session_token,
        "Expiration": ends.to_string(),
    });
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, text.to_string()).into_response()
}

/// Who got which key, for the day when `CloudTrail` shows it.
fn tell(session: &Session, tileset: &str, lent: &Lent, outcome: VendOutcome) {
    let user = session.sub().escape_debug();
    let key = lent.access_key_id.as_str();
    let key = key.get(key.len().saturating_sub(4)..).unwrap_or_default();
    let until = humantime::format_rfc3339_seconds(lent.ends.to_system_time());
    let outcome = outcome.label();
    tracing::info!(%user, tileset, key = format_args!("…{key}"), %until, outcome, "AWS credentials were lent");
}

fn complain(tileset: &str, error: &VendError) {
    let outcome = error.outcome().label();
    match error {
        VendError::Denied(_) => {
            tracing::error!(tileset, outcome, %error, "AWS credentials were not lent");
        }
        VendError::Unavailable(_) | VendError::Deadline => {
            tracing::warn!(tileset, outcome, %error, "AWS credentials were not lent");
        }
        _ => tracing::debug!(tileset, outcome, %error, "AWS credentials were not lent"),
    }
}
