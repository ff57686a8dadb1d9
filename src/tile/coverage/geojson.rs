//! Areas from GeoJSON: read, checked, and laid out on the map's square.
//!
//! What is wrong is named with its place in the file. Longitudes beyond ±180° go on around the world, as many programs
//! write areas across the antimeridian; RFC 7946 §3.1.9 would have them cut, which is understood too.

use geo::Coord;
use geo::algorithm::kernels::{Kernel as _, Orientation, RobustKernel};
use geojson::{GeoJson, GeometryValue, Position};

use super::crossings;
use super::polygons::{Edge, Polygons};
use super::rows::Rows;
use crate::tile::bounds::{column, row};

/// The largest file that is read.
pub const MAX_AREA_BYTES: u64 = 64 << 20;
/// The most corners that all polygons together may have.
pub const MAX_VERTICES: usize = 500_000;
/// One and a half times around the world.
const MAX_LONGITUDE: f64 = 540.0;

/// Why a text is no area. The place reads like `feature 3, polygon 1, hole 2`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AreaError {
    /// Not GeoJSON.
    #[error("not GeoJSON: {0}")]
    NotGeoJson(String),
    /// Something without an area.
    #[error("{0}: a {1} has no area: draw a Polygon or a MultiPolygon around what is wanted")]
    NoArea(String, &'static str),
    /// Nothing at all.
    #[error("there is no polygon in it")]
    Empty,
    /// Too many corners.
    #[error(
        "more than {MAX_VERTICES} corners: simplify the outline, for tiles it need not be that fine (mapshaper -simplify, ST_Simplify, QGIS 'Simplify')"
    )]
    TooManyVertices,
    /// A ring of fewer than four positions.
    #[error("{0}: a ring has four positions at least, the first and the last the same")]
    TooShort(String),
    /// A ring that ends elsewhere than it began.
    #[error("{0}: the ring is not closed: its last position has to be its first")]
    NotClosed(String),
    /// A position that is none.
    #[error(
        "{0}: {1} is no place: longitude first, then latitude, in degrees (WGS 84; `ogr2ogr -t_srs EPSG:4326` converts)"
    )]
    Position(String, String),
    /// Edges that cross.
    #[error(
        "{0}: the outline crosses itself near {1}: repair it (ST_MakeValid, or QGIS 'Fix geometries')"
    )]
    Crossing(String, String),
    /// A hole that is not in its polygon.
    #[error("{0}: the hole lies outside of its polygon")]
    StrayHole(String),
}

/// Reads all polygons.
pub(super) fn read(text: &str) -> Result<Polygons, AreaError> {
    let json = text.trim_start_matches('\u{feff}').parse::<GeoJson>();
    let json = json.map_err(|error| {
        let mut text = error.to_string();
        // Some errors repeat the whole document.
        if let Some((end, _)) = text.char_indices().nth(200) {
            text.truncate(end);
        }
        AreaError::NotGeoJson(text)
    })?;
    let mut reader = Reader::default();
    match &json {
        GeoJson::Geometry(geometry) => reader.geometry(&geometry.value, "")?,
        GeoJson::Feature(feature) => {
            if let Some(geometry) = &feature.geometry {
                reader.geometry(&geometry.value, "the feature")?;
            }
        }
        GeoJson::FeatureCollection(collection) => {
            for (number, feature) in (1..).zip(&collection.features) {
                if let Some(geometry) = &feature.geometry {
                    reader.geometry(&geometry.value, &format!("feature {number}"))?;
                }
            }
        }
    }
    if reader.edges.is_empty() {
        return Err(AreaError::Empty);
    }
    Ok(Polygons::new(reader.edges, reader.digest))
}

#[derive(Default)]
struct Reader {
    edges: Vec<Edge>,
    polygons: u32,
    vertices: usize,
    digest: Vec<u8>,
}

impl Reader {
    fn geometry(&mut self, value: &GeometryValue, place: &str) -> Result<(), AreaError> {
        match value {
            GeometryValue::Polygon { coordinates } => {
                self.polygon(coordinates, &within(place, "the polygon"))
            }
            GeometryValue::MultiPolygon { coordinates } => {
                for (number, polygon) in (1..).zip(coordinates) {
                    self.polygon(polygon, &within(place, &format!("polygon {number}")))?;
                }
                Ok(())
            }
            GeometryValue::GeometryCollection { geometries } => {
                for (number, geometry) in (1..).zip(geometries) {
                    let place = within(place, &format!("geometry {number}"));
                    self.geometry(&geometry.value, &place)?;
                }
                Ok(())
            }
            other => {
                let place = if place.is_empty() { "the file" } else { place };
                Err(AreaError::NoArea(place.to_owned(), other.type_name()))
            }
        }
    }

    fn polygon(&mut self, rings: &[Vec<Position>], place: &str) -> Result<(), AreaError> {
        let mut read = Vec::with_capacity(rings.len());
        for (number, positions) in rings.iter().enumerate() {
            let place = if number == 0 {
                place.to_owned()
            } else {
                format!("{place}, hole {number}")
            };
            self.vertices += positions.len();
            if self.vertices > MAX_VERTICES {
                return Err(AreaError::TooManyVertices);
            }
            read.push(ring(positions, &place)?);
        }
        let Some((outline, holes)) = read.split_first() else {
            return Ok(());
        };
        crossings(&read, place)?;
        if !holes.is_empty() {
            let outline = Outline::new(outline);
            for (number, hole) in (1..).zip(holes) {
                if !outline.surrounds(hole) {
                    return Err(AreaError::StrayHole(format!("{place}, hole {number}")));
                }
            }
        }
        for coord in read.iter().flat_map(geo::CoordsIter::coords_iter) {
            self.digest.extend_from_slice(&coord.x.to_le_bytes());
            self.digest.extend_from_slice(&coord.y.to_le_bytes());
        }
        self.lay_out(&read);
        Ok(())
    }

    /// Puts a polygon on the map, again a world further where it goes beyond the map's end.
    fn lay_out(&mut self, rings: &[geo::LineString]) {
        let longitudes = || rings.iter().flat_map(|ring| ring.0.iter().map(|c| c.x));
        let west = longitudes().fold(f64::INFINITY, f64::min);
        let east = longitudes().fold(f64::NEG_INFINITY, f64::max);
        for turns in [0.0, 360.0, -360.0] {
            if west + turns >= 180.0 || east + turns <= -180.0 {
                continue;
            }
            for ring in rings {
                for line in ring.lines() {
                    let point = |c: Coord| [column(c.x + turns), row(c.y)];
                    self.edges.push(Edge {
                        from: point(line.start),
                        to: point(line.end),
                        of: self.polygons,
                    });
                }
            }
            self.polygons += 1;
        }
    }
}

fn within(place: &str, part: &str) -> String {
    if place.is_empty() {
        part.to_owned()
    } else {
        format!("{place}, {part}")
    }
}

fn ring(positions: &[Position], place: &str) -> Result<geo::LineString, AreaError> {
    let mut coords = Vec::with_capacity(positions.len());
    for position in positions {
        match *position.as_slice() {
            [x, y, ..] if x.abs() <= MAX_LONGITUDE && y.abs() <= 90.0 => {
                coords.push(Coord { x, y });
            }
            ref other => {
                let shown: Vec<String> = other.iter().take(3).map(f64::to_string).collect();
                let shown = format!("[{}]", shown.join(","));
                return Err(AreaError::Position(place.to_owned(), shown));
            }
        }
    }
    if coords.len() < 4 {
        return Err(AreaError::TooShort(place.to_owned()));
    }
    if coords.first() != coords.last() {
        return Err(AreaError::NotClosed(place.to_owned()));
    }
    Ok(geo::LineString(coords))
}

/// Refuses edges that pass through each other. Those that only meet are let be, the rule of odd and even copes with
/// them.
fn crossings(rings: &[geo::LineString], place: &str) -> Result<(), AreaError> {
    let Some((a, b)) = crossings::find(rings.iter().flat_map(geo::LineString::lines)) else {
        return Ok(());
    };
    let near = meeting(&a, &b);
    let near = format!("{:.5},{:.5}", near.x, near.y);
    Err(AreaError::Crossing(place.to_owned(), near))
}

fn meeting(a: &geo::Line, b: &geo::Line) -> Coord {
    let (d, e) = (a.delta(), b.delta());
    let along =
        ((b.start.x - a.start.x) * e.y - (b.start.y - a.start.y) * e.x) / (d.x * e.y - d.y * e.x);
    a.start + d * along
}

/// A ring, and which of its edges are near a height.
struct Outline {
    edges: Vec<geo::Line>,
    rows: Rows,
}

impl Outline {
    fn new(ring: &geo::LineString) -> Self {
        let edges: Vec<geo::Line> = ring.lines().collect();
        let spans = edges.iter().map(|edge| {
            let (a, b) = (share(edge.start.y), share(edge.end.y));
            (a.min(b), a.max(b))
        });
        let rows = Rows::new(edges.len(), spans);
        Self { edges, rows }
    }

    /// Whether a ring that does not cross this one lies inside it: one of its corners does. Corners on this one say
    /// nothing, and if all are on it, nothing is wrong.
    fn surrounds(&self, hole: &geo::LineString) -> bool {
        let mut sides = hole.0.iter().filter_map(|corner| self.is_inside(*corner));
        sides.next().unwrap_or(true)
    }

    /// `None`: it lies on the ring. A ray goes to the east.
    fn is_inside(&self, point: Coord) -> Option<bool> {
        let mut odd = false;
        for index in self.rows.at(share(point.y)) {
            let Some(geo::Line { start, end }) = self.edges.get(index as usize) else {
                continue;
            };
            let side = RobustKernel::orient2d(*start, *end, point);
            let between = |a: f64, b: f64, c: f64| a.min(b) <= c && c <= a.max(b);
            if side == Orientation::Collinear
                && between(start.x, end.x, point.x)
                && between(start.y, end.y, point.y)
            {
                return None;
            }
            let (up, down) = (end.y > point.y, start.y > point.y);
            let west_of_it = if up {
                Orientation::CounterClockwise
            } else {
                Orientation::Clockwise
            };
            odd ^= up != down && side == west_of_it;
        }
        Some(odd)
    }
}

/// A latitude as a share of what there is.
fn share(latitude: f64) -> f64 {
    (latitude + 90.0) / 180.0
}
