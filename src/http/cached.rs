//! `GET /cached?tileset=NAME[&zoom=Z]` on the admin side: what the memory tier holds of a tileset, and how hot it is.
//!
//! Counts by zoom, and with `zoom` a grid: cells are tiles of a lower zoom, the deepest at which what is cached fits
//! into 64 by 64 of them. Invariants: one look at a time, as it takes a time in proportion to the entries; the answer
//! is bounded by the zooms and the cells; a look counts as no use.
//!
//! Left out on purpose: the disk tier, whose index would be locked for it, a part at a time, while look-ups wait;
//! and any version but the current one.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::admin::AdminParts;
use super::problem::HttpError;
use super::purge::names;
use super::site::problem;
use crate::cache::{FOUND_AT_MOST, MemoryTier};
use crate::tile::{KeySpace, MAX_ZOOM, Tilesets};

/// Cells along a side at most, and how many times they halve the world.
const SIDE: u32 = 1 << SIDE_ZOOM;
const SIDE_ZOOM: u8 = 6;

const ZOOMS: usize = MAX_ZOOM as usize + 1;

/// Lets one look through the memory tier happen at a time.
#[derive(Debug, Clone)]
pub struct Looks(Arc<Semaphore>);

impl Default for Looks {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Looks {
    /// A turn, which lasts until it is dropped; nobody waits for one.
    fn turn(&self) -> Result<OwnedSemaphorePermit, HttpError> {
        let turn = self.0.clone().try_acquire_owned();
        turn.map_err(|error| match error {
            TryAcquireError::NoPermits => HttpError::LookedThrough,
            TryAcquireError::Closed => HttpError::Internal,
        })
    }
}

/// What is cached of a tileset.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Cached {
    tileset: String,
    version: Option<String>,
    /// `None`: there is no memory tier.
    memory: Option<InMemory>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct InMemory {
    /// As far as `found` counts for each entry: so much stands for so much and more.
    found_at_most: u8,
    /// Those with anything.
    zooms: Vec<AtZoom>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grid: Option<Grid>,
}

/// Entries at a zoom; a tile and its @2x are two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct AtZoom {
    zoom: u8,
    tiles: u64,
    /// What is known not to be there.
    absent: u64,
    /// How often the tiles were found since they came.
    found: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Grid {
    zoom: u8,
    /// Cells are tiles of this zoom.
    cell_zoom: u8,
    /// Those with any tile, by row and column.
    cells: Vec<Cell>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Cell {
    x: u32,
    y: u32,
    tiles: u64,
    found: u64,
}

/// `GET /cached`.
pub(super) async fn cached(
    State(parts): State<Arc<AdminParts>>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Response {
    match look(&parts, query.map(|Query(pairs)| pairs).ok()).await {
        Ok(found) => {
            let headers = [
                (CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (CACHE_CONTROL, HeaderValue::from_static("no-store")),
            ];
            (headers, serde_json::to_string(&found).unwrap_or_default()).into_response()
        }
        Err(refusal) => problem(&refusal),
    }
}

async fn look(
    parts: &AdminParts,
    query: Option<Vec<(String, String)>>,
) -> Result<Cached, HttpError> {
    let question = Question::new(query, &parts.tilesets)?;
    // It goes with the look, which ends by itself when its asker has gone.
    let turn = parts.looks.turn()?;
    let cache = parts.cache.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let memory = cache.memory().map(|memory| question.ask(memory));
        let Question {
            tileset, version, ..
        } = question;
        Cached {
            tileset,
            version,
            memory,
        }
    });
    looked.await.map_err(|_| HttpError::Internal)
}

/// What is asked, of a tileset that there is.
#[derive(Debug)]
struct Question {
    tileset: String,
    version: Option<String>,
    space: KeySpace,
    zoom: Option<u8>,
}

impl Question {
    fn new(query: Option<Vec<(String, String)>>, tilesets: &Tilesets) -> Result<Self, HttpError> {
        let bad = |what: &str| HttpError::BadQuestion(what.to_owned());
        let query = query.ok_or_else(|| bad("the query is no list of `name=value`"))?;
        let (mut name, mut zoom) = (None, None);
        for (parameter, value) in query {
            let place = match parameter.as_str() {
                "tileset" => &mut name,
                "zoom" => &mut zoom,
                other => {
                    let other = other.chars().take(40).collect::<String>();
                    let what = format!(
                        "there is no parameter `{}`, only `tileset` and `zoom`",
                        other.escape_debug()
                    );
                    return Err(bad(&what));
                }
            };
            if place.replace(value).is_some() {
                return Err(bad(&format!("`{parameter}` is there twice")));
            }
        }
        let name = name.ok_or_else(|| bad("`tileset` is missing"))?;
        let tileset = tilesets.get(&name);
        let tileset = tileset.ok_or_else(|| HttpError::NoSuchTileset(names(tilesets)))?;
        let zooms = tileset.minzoom()..=tileset.maxzoom();
        let zoom = zoom.map(|text| {
            let zoom = text.parse().ok().filter(|zoom| zooms.contains(zoom));
            let (from, to) = (zooms.start(), zooms.end());
            zoom.ok_or_else(|| bad(&format!("`zoom` is a number from {from} to {to} here")))
        });
        Ok(Self {
            tileset: name,
            version: tileset.version().map(str::to_owned),
            space: tileset.space(),
            zoom: zoom.transpose()?,
        })
    }

    fn ask(&self, memory: &MemoryTier) -> InMemory {
        let mut counted = [AtZoom::default(); ZOOMS];
        let mut extent = Extent::default();
        memory.fold((), |(), held| {
            let Some(coord) = held.key.coord().filter(|_| held.key.space() == self.space) else {
                return;
            };
            let at = &mut counted[usize::from(coord.z())];
            if held.is_absence {
                at.absent += 1;
                return;
            }
            at.tiles += 1;
            at.found += u64::from(held.found);
            if Some(coord.z()) == self.zoom {
                extent.take_in(coord.x(), coord.y());
            }
        });
        let grid = self.zoom.map(|zoom| self.grid(memory, zoom, &extent));
        if let Some(grid) = &grid {
            // Tiles come and go between two looks: what is told of a zoom is what its cells tell.
            let at = &mut counted[usize::from(grid.zoom)];
            at.tiles = grid.cells.iter().map(|cell| cell.tiles).sum();
            at.found = grid.cells.iter().map(|cell| cell.found).sum();
        }
        let zooms = (0..).zip(counted).map(|(zoom, at)| AtZoom { zoom, ..at });
        InMemory {
            found_at_most: FOUND_AT_MOST,
            zooms: zooms.filter(|at| at.tiles + at.absent > 0).collect(),
            grid,
        }
    }

    /// A second look: how fine the grid can be was not known before the first.
    fn grid(&self, memory: &MemoryTier, zoom: u8, extent: &Extent) -> Grid {
        let cell_zoom = extent.cell_zoom(zoom);
        let up = zoom - cell_zoom;
        let (left, top) = (extent.left >> up, extent.top >> up);
        let mut cells = vec![(0_u64, 0_u64); (SIDE * SIDE) as usize];
        memory.fold((), |(), held| {
            let here = held.key.space() == self.space && !held.is_absence;
            let coord = held.key.coord().filter(|coord| here && coord.z() == zoom);
            // One that has come since the first look, outside of what there was, waits for the next question.
            let place = coord.and_then(|coord| {
                let column = (coord.x() >> up).checked_sub(left)?;
                let row = (coord.y() >> up).checked_sub(top)?;
                (column < SIDE && row < SIDE).then_some((row * SIDE + column) as usize)
            });
            if let Some((tiles, found)) = place.and_then(|place| cells.get_mut(place)) {
                *tiles += 1;
                *found += u64::from(held.found);
            }
        });
        let cells = (0..).zip(cells).filter(|(_, (tiles, _))| *tiles > 0);
        let cells = cells.map(|(place, (tiles, found)): (u32, _)| Cell {
            x: left + place % SIDE,
            y: top + place / SIDE,
            tiles,
            found,
        });
        Grid {
            zoom,
            cell_zoom,
            cells: cells.collect(),
        }
    }
}

/// The box around what is cached of a zoom; of nothing, it is the wrong way round.
#[derive(Debug, Clone, Copy)]
struct Extent {
    left: u32,
    top: u32,
    right: u32,
    bottom: u32,
}

impl Default for Extent {
    fn default() -> Self {
        Self {
            left: u32::MAX,
            top: u32::MAX,
            right: 0,
            bottom: 0,
        }
    }
}

impl Extent {
    fn take_in(&mut self, x: u32, y: u32) {
        (self.left, self.right) = (self.left.min(x), self.right.max(x));
        (self.top, self.bottom) = (self.top.min(y), self.bottom.max(y));
    }

    /// The deepest zoom at which it fits into the cells.
    fn cell_zoom(&self, zoom: u8) -> u8 {
        let fits = |cell_zoom: &u8| {
            let up = zoom - cell_zoom;
            let across = |from: u32, to: u32| (to >> up).saturating_sub(from >> up);
            across(self.left, self.right) < SIDE && across(self.top, self.bottom) < SIDE
        };
        let coarsest = zoom.min(SIDE_ZOOM);
        if self.left > self.right {
            return coarsest;
        }
        // The whole world is 64 cells wide at zoom 6.
        (coarsest..=zoom).rev().find(fits).unwrap_or(coarsest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Stored, StoredAbsence, StoredTile};
    use crate::clock::Timestamp;
    use crate::origin::{ContentEncoding, OriginTile};
    use crate::tile::{Scale, TileCoord, TileKey};

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn tier() -> MemoryTier {
        MemoryTier::new(16 << 20)
    }

    fn key(space: &str, z: u8, x: u32, y: u32) -> TileKey {
        let coord = TileCoord::new(z, x, y).unwrap();
        TileKey::new(KeySpace::new(space, None), coord, Scale::One)
    }

    fn put(tier: &MemoryTier, key: TileKey) {
        let tile = OriginTile {
            body: key.to_bytes().to_vec().into(),
            encoding: ContentEncoding::Identity,
            validator: None,
            last_modified: None,
        };
        tier.put(key, Stored::Tile(StoredTile::from_origin(tile, NOW)));
    }

    fn ask(tier: &MemoryTier, zoom: Option<u8>) -> InMemory {
        let question = Question {
            tileset: "world".into(),
            version: None,
            space: KeySpace::new("world", None),
            zoom,
        };
        question.ask(tier)
    }

    #[test]
    fn what_is_found_is_counted_and_looking_is_no_finding() {
        let tier = tier();
        put(&tier, key("world", 3, 1, 2));
        put(&tier, key("other", 3, 1, 2));
        let validated_at = NOW;
        let absence = Stored::Absence(StoredAbsence { validated_at });
        tier.put(key("world", 3, 7, 7), absence);
        for _ in 0..3 {
            tier.lookup(key("world", 3, 1, 2)).unwrap();
        }
        for _ in 0..2 {
            let seen = ask(&tier, Some(3));
            let at = AtZoom {
                zoom: 3,
                tiles: 1,
                absent: 1,
                found: 3,
            };
            assert_eq!(seen.zooms, [at]);
            let grid = seen.grid.unwrap();
            let cell = Cell {
                x: 1,
                y: 2,
                tiles: 1,
                found: 3,
            };
            assert_eq!((grid.cell_zoom, grid.cells), (3, vec![cell]));
        }
        for _ in 0..100 {
            tier.lookup(key("world", 3, 1, 2)).unwrap();
        }
        assert_eq!(ask(&tier, None).zooms[0].found, u64::from(FOUND_AT_MOST));
    }

    #[test]
    fn cells_are_as_fine_as_64_by_64_of_them_allow() {
        let whole = Extent {
            left: 0,
            top: 0,
            right: (1 << 14) - 1,
            bottom: 5,
        };
        assert_eq!(whole.cell_zoom(14), 6);
        let town = Extent {
            left: 8570,
            top: 5730,
            right: 8700,
            bottom: 5790,
        };
        assert_eq!(
            town.cell_zoom(14),
            12,
            "131 columns at 14, 66 at 13, 34 at 12"
        );
        let tile = Extent {
            right: 8570,
            bottom: 5730,
            ..town
        };
        assert_eq!(tile.cell_zoom(14), 14);
        assert_eq!(Extent::default().cell_zoom(14), 6);
        assert_eq!(Extent::default().cell_zoom(2), 2);
    }

    #[test]
    fn a_grid_adds_up_to_its_zoom_wherever_it_lies() {
        let tier = tier();
        // 200 by 20 tiles across a border of every zoom.
        for x in 8092..8292 {
            for y in 100..120 {
                put(&tier, key("world", 14, x, y));
            }
        }
        put(&tier, key("world", 2, 3, 3));
        let seen = ask(&tier, Some(14));
        let grid = seen.grid.unwrap();
        assert_eq!(grid.cell_zoom, 12);
        assert_eq!(grid.cells.iter().map(|cell| cell.tiles).sum::<u64>(), 4000);
        assert_eq!(seen.zooms[1].tiles, 4000);
        assert!(
            grid.cells
                .iter()
                .all(|cell| (2023..=2072).contains(&cell.x))
        );
        assert_eq!(seen.zooms[0].tiles, 1);
    }

    #[test]
    fn who_asks_while_another_look_is_under_way_is_sent_away_for_a_second() {
        let looks = Looks::default();
        let turn = looks.turn().unwrap();
        let refused = looks.turn().unwrap_err().response();
        assert_eq!(refused.status(), http::StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers()[http::header::RETRY_AFTER], "1");
        drop(turn);
        assert!(looks.turn().is_ok());
    }

    #[test]
    fn of_nothing_there_is_an_empty_grid() {
        let seen = ask(&tier(), Some(9));
        assert_eq!(seen.zooms, []);
        assert_eq!(seen.grid.unwrap().cells, []);
    }
}
