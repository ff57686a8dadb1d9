// Web Mercator (EPSG:3857), as map tiles use it: the world is a square with 0..1 on each side,
// x to the east from the antimeridian, y to the south from 85.0511° N.

export const TILE = 256;
export const MAX_ZOOM = 5;

/** The world's side in pixels at a zoom. */
export const worldSize = (zoom) => TILE * 2 ** zoom;

export const lonToX = (lon) => (lon + 180) / 360;

/** Finite for the poles too: they land outside 0..1, where "below the map" is. */
export const latToY = (lat) => {
  const sin = Math.sin((Math.max(-89.99, Math.min(89.99, lat)) * Math.PI) / 180);
  return 0.5 - Math.log((1 + sin) / (1 - sin)) / (4 * Math.PI);
};

export const xToLon = (x) => x * 360 - 180;

export const yToLat = (y) => (Math.atan(Math.sinh(Math.PI * (1 - 2 * y))) * 180) / Math.PI;

/** Every tile of a zoom, row by row. */
export function* tilesOf(zoom) {
  const n = 2 ** zoom;
  for (let y = 0; y < n; y++) for (let x = 0; x < n; x++) yield { z: zoom, x, y };
}
