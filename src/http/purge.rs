//! `POST /purge` on the admin side: what it asks for, and which keys that is.
//!
//! In effect on this node before the answer returns: a tile that was asked for before is fetched or
//! revalidated when it is asked for again, also where a fetch was under way. Other nodes apply the same request
//! by the same [`apply`].

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
use crate::cache::{Purge, TileCache};
use crate::cluster::Handed;
use crate::tile::{Bounds, KeySpace, Scale, TileCoord, TileKey, Tilesets};

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
    /// Whether other nodes will do the same; `None` where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Handed>,
}

/// Why nothing was purged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PurgeRefusal {
    /// This server has no such tileset.
    UnknownTileset,
    /// It cannot be understood.
    Malformed(String),
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
    // In a task of its own: an operator who hangs up has purged all the same, here and on other nodes.
    let report = match tokio::spawn(purge_everywhere(parts, request)).await {
        Ok(Ok(report)) => report,
        Ok(Err(refused)) => return problem(&refused),
        // The runtime is ending: nobody waits for this answer any more.
        Err(_) => return problem(&HttpError::Internal),
    };
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, serde_json::to_string(&report).unwrap_or_default()).into_response()
}

/// Purges here, and has other nodes do the same.
async fn purge_everywhere(
    parts: Arc<AdminParts>,
    request: PurgeRequest,
) -> Result<PurgeReport, HttpError> {
    let (cache, tilesets) = (parts.cache.clone(), parts.tilesets.clone());
    // Looking at every entry takes a while.
    let purged = tokio::task::spawn_blocking(move || {
        let applied = apply(&cache, &tilesets, &request);
        (request, applied)
    });
    let (request, applied) = purged.await.map_err(|_| HttpError::Internal)?;
    let mut report =
        applied.map_err(|refusal| HttpError::BadPurge(said(&parts, &request, refusal)))?;
    log(&request, &report, "this node");
    if let Some(others) = &parts.others {
        let request = serde_json::to_string(&request).unwrap_or_default();
        report.cluster = Some(others.purge(request).await);
    }
    Ok(report)
}

/// Purges. Unless it is for a list of tiles, it looks at every entry, and waits for a disk tier that is just starting:
/// blocking.
pub fn apply(
    cache: &TileCache,
    tilesets: &Tilesets,
    request: &PurgeRequest,
) -> Result<PurgeReport, PurgeRefusal> {
    let known = tilesets.get(&request.tileset);
    let known = known.ok_or(PurgeRefusal::UnknownTileset)?;
    let version = request.version.as_deref().or(known.version());
    let filter = Filter::new(KeySpace::new(known.name(), version), request)
        .map_err(PurgeRefusal::Malformed)?;
    let purge = if request.soft {
        Purge::Soft
    } else {
        Purge::Hard
    };
    let purged = match filter.keys() {
        // A few tiles by name are no reason to look at every entry.
        Some(keys) if purge == Purge::Hard => cache.purge_tiles(&keys),
        _ => cache.purge(purge, |key| filter.matches(*key)),
    };
    Ok(PurgeReport {
        memory: purged.memory,
        disk: purged.disk,
        cluster: None,
    })
}

/// A line in the log for a purge that was applied, and by whose wish.
pub fn log(request: &PurgeRequest, report: &PurgeReport, by: &'static str) {
    let PurgeRequest { tileset, soft, .. } = request;
    let PurgeReport { memory, disk, .. } = report;
    tracing::info!(tileset, soft, memory, disk, by, "purged");
}

fn said(parts: &AdminParts, request: &PurgeRequest, refusal: PurgeRefusal) -> String {
    match refusal {
        PurgeRefusal::Malformed(what) => what,
        PurgeRefusal::UnknownTileset => {
            let names = names(&parts.tilesets);
            format!("no tileset `{}`; there are: {names}", request.tileset)
        }
    }
}

/// What there is, for those who asked for something else.
pub(super) fn names(tilesets: &Tilesets) -> String {
    let names: Vec<_> = tilesets.iter().map(|t| t.name().to_owned()).collect();
    names.join(", ")
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

    /// The keys that match, in every density, where there is a list of tiles.
    fn keys(&self) -> Option<Vec<TileKey>> {
        let tiles = self.tiles.as_ref()?.iter();
        let both = |coord: &TileCoord| [Scale::One, Scale::Two].map(|scale| (*coord, scale));
        let keys = tiles.flat_map(both);
        let keys = keys.map(|(coord, scale)| TileKey::new(self.space, coord, scale));
        Some(keys.filter(|key| self.matches(*key)).collect())
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
        let space = KeySpace::new("world", None);
        let mut keys = Filter::new(space, &list).unwrap().keys().unwrap();
        keys.sort();
        let both = [Scale::One, Scale::Two];
        let both = both.map(|scale| TileKey::new(space, coord("3/4/3").unwrap(), scale));
        assert_eq!(keys, both);
        assert!(Filter::new(space, &all).unwrap().keys().is_none());
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
