//! `POST /version` on the admin side: puts a tileset at another version while the server runs, and `GET /version`.
//!
//! In effect before the answer returns, for every request that comes after: tiles are read under the new version's
//! keys, TileJSON hands out its URLs. Nothing is dropped: what is cached of the old version waits for a switch back,
//! and goes for space. With other nodes around, they follow.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse as _, Response};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::{Deserialize, Serialize};

use super::admin::AdminParts;
use super::problem::HttpError;
use super::purge::names;
use super::site::problem;
use crate::cluster::Handed;
use crate::metrics::SwitchedBy;
use crate::tile::SwitchRefusal;

/// Which tileset, and to which version.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct VersionRequest {
    /// The tileset's name.
    pub tileset: String,
    /// The version that it shall be at.
    pub version: String,
}

/// What was switched.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct VersionReport {
    /// The tileset's name.
    pub tileset: String,
    /// The version that it is at.
    pub version: String,
    /// The version that it was at.
    pub previous: String,
    /// Whether other nodes will do the same; `None` where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Handed>,
    /// What is left to do, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// `GET /version`: each tileset's name and version.
pub(super) async fn versions(State(parts): State<Arc<AdminParts>>) -> Response {
    let all = parts.tilesets.iter();
    let version = |t: Arc<crate::tile::Tileset>| serde_json::json!({ "tileset": t.name(), "version": t.version() });
    answer(&all.map(version).collect::<Vec<_>>())
}

/// `POST /version`.
pub(super) async fn switch_version(
    State(parts): State<Arc<AdminParts>>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let Ok(body) = body else {
        return problem(&HttpError::TooLarge);
    };
    let request: VersionRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return problem(&HttpError::BadVersion(error.to_string())),
    };
    // In a task of its own: an operator who hangs up has switched all the same, here and on other nodes.
    match tokio::spawn(switch_everywhere(parts, request)).await {
        Ok(Ok(report)) => answer(&report),
        Ok(Err(refused)) => problem(&refused),
        // The runtime is ending: nobody waits for this answer any more.
        Err(_) => problem(&HttpError::Internal),
    }
}

/// Switches here, and has other nodes follow.
async fn switch_everywhere(
    parts: Arc<AdminParts>,
    request: VersionRequest,
) -> Result<VersionReport, HttpError> {
    let VersionRequest { tileset, version } = request;
    let switched = parts
        .tilesets
        .switch(&tileset, &version, parts.clock.now())
        .map_err(|refusal| match refusal {
            SwitchRefusal::UnknownTileset => HttpError::NoSuchTileset(names(&parts.tilesets)),
            other => HttpError::BadVersion(other.to_string()),
        })?;
    let previous = switched.previous;
    parts.metrics.version_switches.inc(SwitchedBy::Here);
    tracing::info!(
        tileset,
        version,
        previous,
        by = "this node",
        "the version was switched"
    );
    let cluster = match &parts.others {
        Some(others) => Some(
            others
                .tell_version(&tileset, switched.switch.to_json())
                .await,
        ),
        None => None,
    };
    let note = match cluster {
        Some(Handed::Sent) => None,
        Some(Handed::Unreachable) => Some(
            "Redis cannot be reached: other nodes follow when it is back, if this one still runs then".to_owned(),
        ),
        None => {
            let lasts = format!(
                "this lasts until the server restarts: set version = \"{version}\" in [tilesets.{tileset}] of its configuration, \
                 unless that says so already"
            );
            tracing::info!("{lasts}");
            Some(lasts)
        }
    };
    Ok(VersionReport {
        tileset,
        version,
        previous,
        cluster,
        note,
    })
}

fn answer(report: &impl Serialize) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, serde_json::to_string(report).unwrap_or_default()).into_response()
}
