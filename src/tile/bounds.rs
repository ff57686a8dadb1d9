//! Areas in longitude and latitude, and the tiles that touch them.

use std::f64::consts::PI;

use super::TileCoord;

/// Why four numbers are not an area.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum BoundsError {
    /// A longitude outside ±180° or a number that is none.
    #[error("longitudes (the first and third number) lie between -180 and 180")]
    Longitude,
    /// A latitude outside ±90° or a number that is none.
    #[error("latitudes (the second and fourth number) lie between -90 and 90")]
    Latitude,
    /// South above north.
    #[error("the order is west, south, east, north: south is above north here")]
    SouthAboveNorth,
}

/// West, south, east, north in degrees (WGS 84). West above east crosses the antimeridian, as in
/// GeoJSON (RFC 7946 §5.2).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    degrees: [f64; 4],
    /// The same edges as shares of the map, worked out once: every tile answer asks.
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

/// Where Web Mercator is cut off, to the four digits that people write. Its exact edge is
/// 85.051128…°; at zoom 20 and above the difference is whole rows of tiles, which nobody who
/// writes 85.0511 means to leave out.
const EDGE: f64 = 85.0511;

impl Bounds {
    /// The whole map.
    pub const WORLD: Bounds = Bounds {
        degrees: [-180.0, -EDGE, 180.0, EDGE],
        left: 0.0,
        right: 1.0,
        top: 0.0,
        bottom: 1.0,
    };

    /// Reads `[west, south, east, north]`.
    pub fn new([west, south, east, north]: [f64; 4]) -> Result<Self, BoundsError> {
        if !(west.abs() <= 180.0 && east.abs() <= 180.0) {
            return Err(BoundsError::Longitude);
        }
        if !(south.abs() <= 90.0 && north.abs() <= 90.0) {
            return Err(BoundsError::Latitude);
        }
        if south > north {
            return Err(BoundsError::SouthAboveNorth);
        }
        Ok(Self {
            degrees: [west, south, east, north],
            left: column(west),
            right: column(east),
            top: row(north),
            bottom: row(south),
        })
    }

    /// The four numbers, in the order of TileJSON.
    pub fn to_array(self) -> [f64; 4] {
        self.degrees
    }

    /// What of this area is within another. Where an area crosses the antimeridian, its west and east stay as they are;
    /// areas that do not meet give this one.
    #[must_use]
    pub fn within(self, other: Self) -> Self {
        let [west, south, east, north] = self.degrees;
        let [other_west, other_south, other_east, other_north] = other.degrees;
        let (west, east) = if west <= east && other_west <= other_east {
            (west.max(other_west), east.min(other_east))
        } else {
            (west, east)
        };
        let both = [west, south.max(other_south), east, north.min(other_north)];
        let meet = self.degrees[0] > self.degrees[2] || west <= east;
        Self::new(both).ok().filter(|_| meet).unwrap_or(self)
    }

    /// The edges as shares of the map: left, top, right, bottom, each 0 to 1; left above right crosses the
    /// antimeridian.
    pub fn shares(self) -> [f64; 4] {
        [self.left, self.top, self.right, self.bottom]
    }

    /// Whether the tile touches this area, edges included.
    pub fn touches(&self, tile: TileCoord) -> bool {
        let size = f64::from(1u32 << tile.z());
        let (x, y) = (f64::from(tile.x()), f64::from(tile.y()));
        if y > self.bottom * size || y + 1.0 < self.top * size {
            return false;
        }
        let (starts_before_end, ends_after_start) =
            (x <= self.right * size, x + 1.0 >= self.left * size);
        if self.left <= self.right {
            starts_before_end && ends_after_start
        } else {
            starts_before_end || ends_after_start
        }
    }
}

/// Longitude as a share of the map's width.
pub(super) fn column(longitude: f64) -> f64 {
    (longitude + 180.0) / 360.0
}

/// Latitude as a share of the map's height, 0 at the north (spherical Mercator, EPSG:3857).
pub(super) fn row(latitude: f64) -> f64 {
    if latitude >= EDGE {
        return 0.0;
    }
    if latitude <= -EDGE {
        return 1.0;
    }
    let sin = latitude.to_radians().sin();
    0.5 - ((1.0 + sin) / (1.0 - sin)).ln() / (4.0 * PI)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile(z: u8, x: u32, y: u32) -> TileCoord {
        TileCoord::new(z, x, y).unwrap()
    }

    #[test]
    fn the_default_bounds_hold_every_tile() {
        for z in [0, 1, 20, 22, 30] {
            let last = (1u32 << z) - 1;
            assert!(Bounds::WORLD.touches(tile(z, 0, 0)));
            assert!(Bounds::WORLD.touches(tile(z, last, last)));
        }
    }

    #[test]
    fn a_tile_that_only_touches_is_inside() {
        let east = Bounds::new([0.0, 0.0, 90.0, 45.0]).unwrap();
        assert!(east.touches(tile(1, 1, 0)));
        assert!(
            east.touches(tile(1, 0, 0)),
            "shares the meridian of Greenwich"
        );
        assert!(east.touches(tile(1, 1, 1)), "shares the equator");
        assert!(!east.touches(tile(2, 0, 1)));
        assert!(!east.touches(tile(3, 7, 3)));
    }

    #[test]
    fn west_above_east_crosses_the_antimeridian() {
        let fiji = Bounds::new([176.0, -20.0, -178.0, -15.0]).unwrap();
        assert!(fiji.touches(tile(4, 15, 8)));
        assert!(fiji.touches(tile(4, 0, 8)));
        assert!(!fiji.touches(tile(4, 8, 8)));
    }

    #[test]
    fn an_area_within_another_is_what_both_have() {
        let area = |degrees| Bounds::new(degrees).unwrap();
        let europe = area([-10.0, 35.0, 30.0, 70.0]);
        let alps = area([5.0, 44.0, 40.0, 80.0]);
        assert_eq!(alps.within(europe), area([5.0, 44.0, 30.0, 70.0]));
        assert_eq!(europe.within(alps), area([5.0, 44.0, 30.0, 70.0]));
        let fiji = area([176.0, -20.0, -178.0, -15.0]);
        let south = area([-180.0, -90.0, 180.0, -18.0]);
        assert_eq!(fiji.within(south), area([176.0, -20.0, -178.0, -18.0]));
        let africa = area([-20.0, -35.0, 50.0, 30.0]);
        let pacific = area([100.0, 35.0, 170.0, 70.0]);
        for elsewhere in [fiji, africa, pacific] {
            assert_eq!(alps.within(elsewhere), alps, "they do not meet");
        }
    }

    #[test]
    fn numbers_that_are_no_area_are_refused() {
        assert_eq!(
            Bounds::new([-181.0, 0.0, 0.0, 1.0]),
            Err(BoundsError::Longitude)
        );
        assert_eq!(
            Bounds::new([f64::NAN, 0.0, 0.0, 1.0]),
            Err(BoundsError::Longitude)
        );
        assert_eq!(
            Bounds::new([0.0, 0.0, 0.0, 91.0]),
            Err(BoundsError::Latitude)
        );
        assert_eq!(
            Bounds::new([0.0, 2.0, 0.0, 1.0]),
            Err(BoundsError::SouthAboveNorth)
        );
    }
}
