//! `POST /purge` on the admin side: what it asks for, and which keys that is.
//!
//! In effect on this node before the answer returns: a tile that was asked for before is fetched or
//! revalidated when it is asked for again, also where a fetch was under way.

use std::collections::HashSet;
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
use super::site::problem;
use crate::cache::Purge;
use crate::tile::{Bounds, KeySpace, TileCoord, TileKey};

/// At most this many tiles in one list; more are more requests, or an area.
pub const MAX_TILES: usize = 100_000;

/// What to purge: everything of a tileset that fits all that is said.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeRequest {
    /// The tileset's name.
    pub tileset: String,
    /// Of this version; without it the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// From this zoom on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minzoom: Option<u8>,
    /// Up to this zoom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maxzoom: Option<u8>,
    /// West, south, east, north: every tile that touches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bbox: Option<[f64; 4]>,
    /// These tiles, as `z/x/y`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiles: Option<Vec<String>>,
    /// Mark stale instead of dropping: revalidated before or behind the next answer.
    #[serde(default)]
    pub soft: bool,
}

/// What was purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct PurgeReport {
    /// Entries in memory.
    pub memory: u64,
    /// Entries on disk.
    pub disk: u64,
}

/// `POST /purge`.
pub(super) async fn purge(
    State(parts): State<Arc<AdminParts>>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let Ok(body) = body else {
        return problem(&HttpError::TooLarge);
    };
    let request: PurgeRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return problem(&HttpError::BadPurge(error.to_string())),
    };
    let (tileset, soft) = (request.tileset.clone(), request.soft);
    let Some(known) = parts.tilesets.get(&tileset) else {
        let names: Vec<&str> = parts.tilesets.iter().map(|t| t.name()).collect();
        let names = names.join(", ");
        return problem(&HttpError::BadPurge(format!(
            "no tileset `{tileset}`; there are: {names}"
        )));
    };
    let version = request.version.as_deref().or(known.version());
    let filter = match Filter::new(KeySpace::new(&tileset, version), &request) {
        Ok(filter) => filter,
        Err(what) => return problem(&HttpError::BadPurge(what)),
    };
    let cache = parts.cache.clone();
    // Looking at every entry takes a while.
    let purged = tokio::task::spawn_blocking(move || {
        let purge = if soft { Purge::Soft } else { Purge::Hard };
        cache.purge(purge, |key| filter.matches(*key))
    });
    let Ok(purged) = purged.await else {
        // The runtime is ending: nobody waits for this answer any more.
        return problem(&HttpError::Internal);
    };
    let report = PurgeReport {
        memory: purged.memory,
        disk: purged.disk,
    };
    tracing::info!(
        tileset,
        soft,
        memory = report.memory,
        disk = report.disk,
        "purged"
    );
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, serde_json::to_string(&report).unwrap_or_default()).into_response()
}

/// A purge's keys.
struct Filter {
    space: KeySpace,
    zooms: std::ops::RangeInclusive<u8>,
    area: Option<Bounds>,
    tiles: Option<HashSet<TileCoord>>,
}

impl Filter {
    fn new(space: KeySpace, request: &PurgeRequest) -> Result<Self, String> {
        let (minzoom, maxzoom) = (
            request.minzoom.unwrap_or(0),
            request.maxzoom.unwrap_or(u8::MAX),
        );
        if minzoom > maxzoom {
            return Err("`minzoom` is above `maxzoom`".to_owned());
        }
        let area = request.bbox.map(Bounds::new).transpose();
        let area = area.map_err(|error| format!("`bbox`: {error}"))?;
        let tiles = request.tiles.as_ref().map(|tiles| {
            if tiles.len() > MAX_TILES {
                return Err(format!("`tiles`: at most {MAX_TILES} in one request"));
            }
            tiles.iter().map(|tile| coord(tile)).collect()
        });
        Ok(Self {
            space,
            zooms: minzoom..=maxzoom,
            area,
            tiles: tiles.transpose()?,
        })
    }

    fn matches(&self, key: TileKey) -> bool {
        key.space() == self.space
            && key.coord().is_some_and(|coord| {
                self.zooms.contains(&coord.z())
                    && self.area.is_none_or(|area| area.touches(coord))
                    && self
                        .tiles
                        .as_ref()
                        .is_none_or(|tiles| tiles.contains(&coord))
            })
    }
}

fn coord(text: &str) -> Result<TileCoord, String> {
    let mut numbers = text.split('/');
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    let coord = match (next(), next(), next()) {
        (Some(z), Some(x), Some(y)) => u8::try_from(z).ok().and_then(|z| TileCoord::new(z, x, y)),
        _ => None,
    };
    coord
        .filter(|_| numbers.next().is_none())
        .ok_or_else(|| format!("`tiles`: `{}` is no tile; write z/x/y", text.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tile::Scale;

    fn matches(request: &PurgeRequest, tile: &str) -> bool {
        let space = KeySpace::new("world", None);
        let filter = Filter::new(space, request).unwrap();
        filter.matches(TileKey::new(space, coord(tile).unwrap(), Scale::Two))
    }

    #[test]
    fn everything_said_has_to_fit() {
        let all = PurgeRequest::default();
        assert!(matches(&all, "0/0/0") && matches(&all, "22/7/7"));
        let zooms = PurgeRequest {
            minzoom: Some(3),
            maxzoom: Some(4),
            ..all.clone()
        };
        assert!(matches(&zooms, "3/0/0") && !matches(&zooms, "5/0/0") && !matches(&zooms, "2/0/0"));
        let bbox = Some([0.0, 1.0, 90.0, 80.0]);
        let area = PurgeRequest {
            bbox,
            ..zooms.clone()
        };
        assert!(matches(&area, "3/4/3") && !matches(&area, "3/0/3"));
        let tiles = Some(vec!["3/4/3".to_owned(), "9/0/0".to_owned()]);
        let list = PurgeRequest { tiles, ..zooms };
        assert!(matches(&list, "3/4/3") && !matches(&list, "9/0/0") && !matches(&list, "3/4/4"));
    }

    #[test]
    fn nonsense_is_refused_with_its_name() {
        for tile in ["3/8/0", "1/2", "a/b/c", "3/1/2/3", "3/1/2.png", ""] {
            assert!(coord(tile).unwrap_err().contains("z/x/y"), "{tile}");
        }
        let refused = |request: PurgeRequest| Filter::new(KeySpace::new("w", None), &request).err();
        let zooms = PurgeRequest {
            minzoom: Some(9),
            maxzoom: Some(1),
            ..PurgeRequest::default()
        };
        assert!(refused(zooms).unwrap().contains("minzoom"));
        let bbox = Some([0.0, 9.0, 1.0, 1.0]);
        let area = PurgeRequest {
            bbox,
            ..PurgeRequest::default()
        };
        assert!(refused(area).unwrap().contains("bbox"));
    }
}
