//! Counting and walking against looking at every tile.

use geo::MapCoords as _;
use geo::{Polygon, Rect as GeoRect, Relate as _};
use proptest::prelude::*;

use super::*;
use crate::tile::MAX_ZOOM;
use crate::tile::bounds::{column, row};

fn bounds(edges: [f64; 4]) -> Bounds {
    Bounds::new(edges).unwrap()
}

fn every_tile(zooms: (u8, u8)) -> impl Iterator<Item = TileCoord> {
    (zooms.0..=zooms.1).flat_map(|z| {
        (0..1u32 << z)
            .flat_map(move |x| (0..1u32 << z).map(move |y| TileCoord::new(z, x, y).unwrap()))
    })
}

fn sorted(cover: &Cover) -> Vec<TileCoord> {
    let mut tiles: Vec<_> = cover.walk().collect();
    assert_eq!(tiles.len() as u64, cover.count(), "the count is the walk's");
    tiles.sort_unstable();
    tiles
}

/// Whether a tile's inside overlaps a box's, by comparing numbers.
fn overlaps(tile: TileCoord, area: Bounds) -> bool {
    let [left, top, right, bottom] = area.shares();
    let size = f64::from(1u32 << tile.z());
    let (x, y) = (f64::from(tile.x()), f64::from(tile.y()));
    let rows = y < bottom * size && y + 1.0 > top * size;
    let columns = |left: f64, right: f64| x < right * size && x + 1.0 > left * size;
    rows && if left <= right {
        columns(left, right)
    } else {
        columns(left, 1.0) || columns(0.0, right)
    }
}

#[test]
fn a_whole_world_is_counted_at_once_and_never_listed() {
    let world = Coverage::boxes(&[bounds([-180.0, -90.0, 180.0, 90.0])]);
    let cover = Cover::new(&world, (0, 14), Bounds::WORLD);
    assert_eq!(cover.count(), 357_913_941);
    let deepest = Cover::new(&world, (0, MAX_ZOOM), Bounds::WORLD);
    assert_eq!(deepest.count(), ((1u64 << 62) - 1) / 3);
    let mut walk = deepest.walk();
    walk.skip_tiles(1 << 59);
    assert!(walk.next().is_some());
}

#[test]
fn a_box_on_the_tiles_edges_has_those_tiles_and_no_others() {
    let quarter = Coverage::boxes(&[bounds([0.0, 0.0, 180.0, 90.0])]);
    let tiles = sorted(&Cover::new(&quarter, (1, 1), Bounds::WORLD));
    assert_eq!(tiles, [TileCoord::new(1, 1, 0).unwrap()]);
    let point = Coverage::boxes(&[bounds([8.54, 47.38, 8.54, 47.38])]);
    assert_eq!(Cover::new(&point, (0, 20), Bounds::WORLD).count(), 21);
    let corner = Coverage::boxes(&[bounds([180.0, -90.0, 180.0, -90.0])]);
    assert_eq!(Cover::new(&corner, (0, 20), Bounds::WORLD).count(), 21);
}

#[test]
fn a_box_across_the_antimeridian_has_both_ends_and_not_the_middle() {
    let fiji = Coverage::boxes(&[bounds([176.0, -20.0, -178.0, -15.0])]);
    let cover = Cover::new(&fiji, (4, 4), Bounds::WORLD);
    let columns: Vec<u32> = sorted(&cover).iter().map(|tile| tile.x()).collect();
    assert_eq!(columns, [0, 15]);
}

#[test]
fn a_tile_is_followed_by_what_is_below_it() {
    let all = Coverage::boxes(&[Bounds::WORLD]);
    let tiles: Vec<String> = Cover::new(&all, (0, 2), Bounds::WORLD)
        .walk()
        .take(7)
        .map(|tile| tile.to_string())
        .collect();
    let order = [
        "0/0/0", "1/0/0", "2/0/0", "2/1/0", "2/0/1", "2/1/1", "1/1/0",
    ];
    assert_eq!(tiles, order);
    let listed: Vec<_> = Cover::new(&all, (0, 4), Bounds::WORLD).walk().collect();
    let mut shuffled = listed.clone();
    shuffled.reverse();
    shuffled.extend_from_slice(&listed);
    let list = Cover::new(&Coverage::tiles(shuffled), (0, 4), Bounds::WORLD);
    assert_eq!(list.walk().collect::<Vec<_>>(), listed);
}

fn polygon(text: &str) -> Coverage {
    Coverage::geojson(text).unwrap()
}

#[test]
fn a_hole_is_left_out() {
    let ring = r#"{"type":"Polygon","coordinates":[
        [[-90,-60],[90,-60],[90,60],[-90,60],[-90,-60]],
        [[-45,-30],[45,-30],[45,30],[-45,30],[-45,-30]]]}"#;
    let cover = Cover::new(&polygon(ring), (6, 6), Bounds::WORLD);
    let tiles = sorted(&cover);
    assert!(!tiles.contains(&TileCoord::new(6, 32, 32).unwrap()));
    assert!(tiles.contains(&TileCoord::new(6, 20, 32).unwrap()));
    let whole = Coverage::boxes(&[bounds([-90.0, -60.0, 90.0, 60.0])]);
    assert!(cover.count() < Cover::new(&whole, (6, 6), Bounds::WORLD).count());
}

#[test]
fn a_polygon_beyond_180_degrees_goes_on_around_the_world() {
    let beyond = polygon(
        r#"{"type":"Feature","properties":null,"geometry":
        {"type":"Polygon","coordinates":[[[176,-20],[182,-20],[182,-15],[176,-15],[176,-20]]]}}"#,
    );
    let fiji = Coverage::boxes(&[bounds([176.0, -20.0, -178.0, -15.0])]);
    let tiles = |coverage| sorted(&Cover::new(coverage, (0, 8), Bounds::WORLD));
    assert_eq!(tiles(&beyond), tiles(&fiji));
}

#[test]
fn polygons_that_overlap_are_counted_once() {
    let square = "[[[0,0],[20,0],[20,20],[0,20],[0,0]]]";
    let other = "[[[10,10],[30,10],[30,30],[10,30],[10,10]]]";
    let text = |polygons: &str| {
        format!(
            r#"{{"type":"GeometryCollection","geometries":[{{"type":"MultiPolygon","coordinates":[{polygons}]}}]}}"#
        )
    };
    let both = Cover::new(
        &polygon(&text(&format!("{square},{other},{square}"))),
        (0, 7),
        Bounds::WORLD,
    );
    let boxes = Coverage::boxes(&[
        bounds([0.0, 0.0, 20.0, 20.0]),
        bounds([10.0, 10.0, 30.0, 30.0]),
    ]);
    let boxes = Cover::new(&boxes, (0, 7), Bounds::WORLD);
    assert_eq!(sorted(&both), sorted(&boxes));
}

#[test]
fn what_is_no_area_is_named_with_its_place() {
    let error = |text: &str| Coverage::geojson(text).unwrap_err().to_string();
    let ring = |ring: &str| format!(r#"{{"type":"Polygon","coordinates":[{ring}]}}"#);
    let feature = |geometry: &str| {
        format!(
            r#"{{"type":"FeatureCollection","features":[
            {{"type":"Feature","properties":null,"geometry":null}},
            {{"type":"Feature","properties":null,"geometry":{geometry}}}]}}"#
        )
    };
    for (text, words) in [
        ("{}".to_owned(), "not GeoJSON"),
        ("[".to_owned(), "not GeoJSON"),
        (
            r#"{"type":"FeatureCollection","features":[]}"#.to_owned(),
            "no polygon",
        ),
        (
            feature(r#"{"type":"Point","coordinates":[1,2]}"#),
            "feature 2: a Point has no area",
        ),
        (ring("[[0,0],[1,0],[0,0]]"), "four positions"),
        (ring("[[0,0],[1,0],[1,1],[0,1]]"), "not closed"),
        (ring("[[0,0],[1,0],[1,91],[0,0]]"), "[1,91] is no place"),
        (ring("[[0,0],[950000,0],[1,1],[0,0]]"), "EPSG:4326"),
        (
            feature(&ring("[[0,0],[2,2],[2,0],[0,2],[0,0]]")),
            "feature 2, the polygon: the outline crosses itself near 1.00000,1.00000",
        ),
        (
            ring("[[0,0],[1,0],[1,1],[0,0]],[[5,5],[6,5],[6,6],[5,5]]"),
            "hole 1: the hole lies outside",
        ),
    ] {
        let error = error(&text);
        assert!(error.contains(words), "{error}");
    }
    let far = "[0,0],".repeat(MAX_VERTICES);
    assert_eq!(
        Coverage::geojson(&ring(&format!("[{far}[0,0]]"))).unwrap_err(),
        AreaError::TooManyVertices
    );
}

/// Each of its edges runs from end to end, so that to look at every pair, or to note each row of each edge, would take
/// hours and gigabytes at the most corners that there may be.
#[test]
fn an_outline_of_many_long_edges_is_read_and_counted() {
    let teeth = 5_000;
    let mut corners = Vec::new();
    for tooth in 0..teeth {
        let left = -80.0 + 160.0 * f64::from(tooth) / f64::from(teeth);
        let right = left + 80.0 / f64::from(teeth);
        corners.extend([(left, -59.9), (left, 60.0), (right, 60.0), (right, -59.9)]);
    }
    corners.extend([(80.0, -60.0), (-80.0, -60.0), (-80.0, -59.9)]);
    let corners: Vec<String> = corners.iter().map(|(x, y)| format!("[{x},{y}]")).collect();
    let comb = format!(
        r#"{{"type":"Polygon","coordinates":[[{}]]}}"#,
        corners.join(",")
    );
    let cover = Cover::new(&polygon(&comb), (0, 6), Bounds::WORLD);
    let whole = Coverage::boxes(&[bounds([-80.0, -60.0, 80.0, 60.0])]);
    assert_eq!(
        cover.count(),
        Cover::new(&whole, (0, 6), Bounds::WORLD).count()
    );
}

/// A star-shaped polygon around a place: no two edges cross.
fn star(middle: (f64, f64), reaches: &[f64]) -> String {
    let count = f64::from(u8::try_from(reaches.len()).unwrap());
    let mut corners: Vec<String> = (0u16..)
        .zip(reaches)
        .map(|(index, reach)| {
            let angle = f64::from(index) / count * std::f64::consts::TAU;
            let (x, y) = (
                middle.0 + reach * angle.cos(),
                middle.1 + reach * angle.sin(),
            );
            format!("[{x},{}]", y.clamp(-85.0, 85.0))
        })
        .collect();
    corners.push(corners[0].clone());
    format!(
        r#"{{"type":"Polygon","coordinates":[[{}]]}}"#,
        corners.join(",")
    )
}

/// Not a line, which has the tiles that it lies in.
fn an_area() -> impl Strategy<Value = Bounds> {
    (
        -180.0..180.0f64,
        -84.0..80.0f64,
        -180.0..180.0f64,
        0.01..60.0f64,
    )
        .prop_filter("a line", |(west, _, east, _)| (west - east).abs() > 0.0)
        .prop_map(|(west, south, east, tall)| bounds([west, south, east, (south + tall).min(90.0)]))
}

proptest! {
    #[test]
    fn boxes_have_the_tiles_that_looking_at_each_finds(
        areas in proptest::collection::vec(an_area(), 1..5), clip in an_area(), minzoom in 0u8..4,
    ) {
        let cover = Cover::new(&Coverage::boxes(&areas), (minzoom, 5), clip);
        let found: Vec<_> = every_tile((minzoom, 5))
            .filter(|tile| clip.touches(*tile) && areas.iter().any(|area| overlaps(*tile, *area)))
            .collect();
        prop_assert_eq!(sorted(&cover), found);
    }

    #[test]
    fn polygons_have_the_tiles_that_looking_at_each_finds(
        x in -170.0..170.0f64, y in -50.0..50.0f64,
        reaches in proptest::collection::vec(1.0..30.0f64, 3..12),
    ) {
        let text = star((x, y), &reaches);
        let Ok(coverage) = Coverage::geojson(&text) else { return Ok(()) };
        let cover = Cover::new(&coverage, (0, 5), Bounds::WORLD);
        let rings: serde_json::Value = serde_json::from_str(&text).unwrap();
        let ring: Vec<(f64, f64)> = serde_json::from_value(rings["coordinates"][0].clone()).unwrap();
        let polygon = Polygon::new(ring.into(), Vec::new());
        let on_map = polygon.map_coords(|c| geo::Coord { x: column(c.x), y: row(c.y) });
        let copies: Vec<Polygon> = [-1.0, 0.0, 1.0].iter().map(|turn| {
            on_map.map_coords(|c| geo::Coord { x: c.x + turn, y: c.y })
        }).collect();
        let found: Vec<_> = every_tile((0, 5)).filter(|tile| {
            let side = 1.0 / f64::from(1u32 << tile.z());
            let corner = (f64::from(tile.x()) * side, f64::from(tile.y()) * side);
            let square = GeoRect::new(corner, (corner.0 + side, corner.1 + side)).to_polygon();
            copies.iter().any(|copy| {
                let relation = square.relate(copy);
                relation.is_intersects() && !relation.is_touches()
            })
        }).collect();
        prop_assert_eq!(sorted(&cover), found);
    }

    #[test]
    fn skipping_is_walking_without_looking(
        areas in proptest::collection::vec(an_area(), 1..3), reaches in proptest::collection::vec(5.0..40.0f64, 3..9),
        skip in 0usize..2000,
    ) {
        let mut coverages = vec![Coverage::boxes(&areas)];
        coverages.extend(Coverage::geojson(&star((10.0, 20.0), &reaches)));
        for coverage in coverages {
            let cover = Cover::new(&coverage, (2, 6), bounds([-100.0, -60.0, 150.0, 70.0]));
            let mut walk = cover.walk();
            walk.skip_tiles(skip as u64);
            prop_assert!(walk.eq(cover.walk().skip(skip)));
        }
    }
}
