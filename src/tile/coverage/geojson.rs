//! Areas from GeoJSON: read, checked, and laid out on the map's square.
//!
//! What is wrong is named with its place in the file. Longitudes beyond ±180° go on around the world, as many programs
//! write areas across the antimeridian; RFC 7946 §3.1.9 would have them cut, which is understood too.

use geo::Coord;
use geo::algorithm::kernels::{Kernel as _, Orientation, RobustKernel};
use geojson::{GeoJson, GeometryValue, Position};

use super::polygons::{Edge, Polygons};
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
        for (number, hole) in (1..).zip(holes) {
            if !surrounds(outline, hole) {
                return Err(AreaError::StrayHole(format!("{place}, hole {number}")));
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

/// Refuses edges that pass through each other. A sweep from west to east; those that only meet are let be, the rule
/// of odd and even copes with them.
fn crossings(rings: &[geo::LineString], place: &str) -> Result<(), AreaError> {
    let mut lines: Vec<geo::Line> = rings.iter().flat_map(geo::LineString::lines).collect();
    let west = |line: &geo::Line| line.start.x.min(line.end.x);
    let east = |line: &geo::Line| line.start.x.max(line.end.x);
    lines.sort_by(|a, b| west(a).total_cmp(&west(b)));
    let mut open: Vec<geo::Line> = Vec::new();
    for line in lines {
        open.retain(|other| east(other) >= west(&line));
        let (low, high) = rows(&line);
        for other in &open {
            let (from, to) = rows(other);
            if from <= high && low <= to && cross(&line, other) {
                let near = meeting(&line, other);
                let near = format!("{:.5},{:.5}", near.x, near.y);
                return Err(AreaError::Crossing(place.to_owned(), near));
            }
        }
        open.push(line);
    }
    Ok(())
}

fn rows(line: &geo::Line) -> (f64, f64) {
    let (a, b) = (line.start.y, line.end.y);
    (a.min(b), a.max(b))
}

/// Whether each has its ends on both sides of the other (Shewchuk's exact predicates).
fn cross(a: &geo::Line, b: &geo::Line) -> bool {
    let sides = |line: &geo::Line, other: &geo::Line| {
        let side = |end| RobustKernel::orient2d(line.start, line.end, end);
        matches!(
            (side(other.start), side(other.end)),
            (Orientation::Clockwise, Orientation::CounterClockwise)
                | (Orientation::CounterClockwise, Orientation::Clockwise)
        )
    };
    sides(a, b) && sides(b, a)
}

fn meeting(a: &geo::Line, b: &geo::Line) -> Coord {
    let (d, e) = (a.delta(), b.delta());
    let along =
        ((b.start.x - a.start.x) * e.y - (b.start.y - a.start.y) * e.x) / (d.x * e.y - d.y * e.x);
    a.start + d * along
}

/// Whether a ring that does not cross the outline lies inside it: one of its corners does. Corners on the outline say
/// nothing, and if all are on it, nothing is wrong.
fn surrounds(outline: &geo::LineString, hole: &geo::LineString) -> bool {
    use geo::coordinate_position::{CoordPos, coord_pos_relative_to_ring};
    hole.0
        .iter()
        .map(|corner| coord_pos_relative_to_ring(*corner, outline))
        .find(|position| *position != CoordPos::OnBoundary)
        .is_none_or(|position| position == CoordPos::Inside)
}
