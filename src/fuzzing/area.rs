//! GeoJSON areas: a cover of the area, no larger than what is drawn, and counted as it is walked.

use crate::tile::{Bounds, Cover, Coverage, TileCoord};

/// What a run may take is bounded by the text's length.
const MAX_TEXT: usize = 32 * 1024;

pub(super) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if text.len() > MAX_TEXT {
        return;
    }
    let coverage = match Coverage::geojson(text) {
        Ok(coverage) => coverage,
        Err(error) => return assert!((1..=1000).contains(&error.to_string().len()), "{error}"),
    };
    let cover = Cover::new(&coverage, (0, 5), Bounds::WORLD);
    let tiles: Vec<TileCoord> = cover.walk().collect();
    assert_eq!(cover.count(), tiles.len() as u64);
    let by_zoom: u64 = cover.counts().iter().map(|(_, tiles)| tiles).sum();
    assert_eq!(by_zoom, tiles.len() as u64);
    let mut once = tiles.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), tiles.len(), "a tile came twice");
    for tile in &tiles {
        let above = TileCoord::new(tile.z().saturating_sub(1), tile.x() / 2, tile.y() / 2);
        let has = above.is_some_and(|above| tile.z() == 0 || once.binary_search(&above).is_ok());
        assert!(has, "{tile:?} without the tile above it");
    }
    if let Some(bounds) = drawn(text) {
        for tile in &tiles {
            assert!(bounds.touches(*tile), "{tile:?} is outside {bounds:?}");
        }
    }
}

/// The box around all positions in the text, where that is simple to say.
fn drawn(text: &str) -> Option<Bounds> {
    let json: serde_json::Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).ok()?;
    let mut places = Vec::new();
    let members = collect(&json, &mut places);
    // With a member named twice, two readers may see two documents.
    if members != text.matches("coordinates").count() || text.contains('\\') {
        return None;
    }
    let edge = |pick: fn(&[f64; 2]) -> f64, best: fn(f64, f64) -> f64, from: f64| {
        places.iter().map(pick).fold(from, best)
    };
    let (west, east) = (
        edge(|p| p[0], f64::min, f64::INFINITY),
        edge(|p| p[0], f64::max, f64::NEG_INFINITY),
    );
    let (south, north) = (
        edge(|p| p[1], f64::min, f64::INFINITY),
        edge(|p| p[1], f64::max, f64::NEG_INFINITY),
    );
    if west < -180.0 || east > 180.0 {
        return None;
    }
    Bounds::new([west, south.max(-90.0), east, north.min(90.0)]).ok()
}

/// Gathers whatever looks like a position, and counts the members that have some.
fn collect(json: &serde_json::Value, places: &mut Vec<[f64; 2]>) -> usize {
    match json {
        serde_json::Value::Array(items) => {
            if let [x, y, ..] = &items[..]
                && let (Some(x), Some(y)) = (x.as_f64(), y.as_f64())
            {
                places.push([x, y]);
            }
            items.iter().map(|item| collect(item, places)).sum()
        }
        serde_json::Value::Object(members) => members
            .iter()
            .map(|(name, value)| usize::from(name == "coordinates") + collect(value, places))
            .sum(),
        _ => 0,
    }
}
