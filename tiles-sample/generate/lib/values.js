// The `values` tiles: every pixel is the distance of its centre to the coast, as a number in RGB.
//
// Invariant: a pixel is positive exactly where its centre is on land. All zooms are cut from the same
// coast (1:10m), so a place has the same value at every zoom, up to the size of a pixel.
// No palette, dithering, antialiasing or resampling anywhere: each of them would make up numbers.

import { land, readTopology } from "./atlas.js";
import { Coast, EARTH_RADIUS_KM } from "./distance.js";
import { encode, roundDistance, steps } from "./encoding.js";
import { MAX_ZOOM, TILE, worldSize, xToLon, yToLat } from "./mercator.js";
import { encodeRgb } from "./png.js";
import { crossings, fillRow } from "./scanline.js";

const BLOCK = 8;

/** `emit(tile, bytes)` is called for every tile of every zoom up to `maxZoom`. */
export function makeValues(emit, maxZoom = MAX_ZOOM) {
  const { polygons, coast } = land(readTopology("10m"));
  const nearest = new Coast(coast);
  for (let zoom = 0; zoom <= maxZoom; zoom++) {
    const size = worldSize(zoom);
    const rows = crossings(polygons, size);
    const cosLon = new Float64Array(size);
    const sinLon = new Float64Array(size);
    for (let x = 0; x < size; x++) {
      const lon = (xToLon((x + 0.5) / size) * Math.PI) / 180;
      cosLon[x] = Math.cos(lon);
      sinLon[x] = Math.sin(lon);
    }
    for (let tileY = 0; tileY < 2 ** zoom; tileY++) {
      const top = tileY * TILE;
      const mask = new Uint8Array(size * TILE);
      for (let y = 0; y < TILE; y++) fillRow(rows[top + y], mask.subarray(y * size, (y + 1) * size), 1);
      const band = distances(nearest, zoom, size, top, cosLon, sinLon);
      for (let tileX = 0; tileX < 2 ** zoom; tileX++) {
        const rgb = new Uint8Array(TILE * TILE * 3);
        for (let y = 0; y < TILE; y++) {
          for (let x = 0; x < TILE; x++) {
            const at = y * size + tileX * TILE + x;
            encode(mask[at] ? band[at] : -band[at], rgb, 3 * (y * TILE + x));
          }
        }
        emit({ z: zoom, x: tileX, y: tileY }, encodeRgb(TILE, TILE, rgb));
      }
    }
  }
}

/** Rounded distances for a band of one tile's height. */
function distances(nearest, zoom, size, top, cosLon, sinLon) {
  const band = new Float32Array(size * TILE);
  const classes = steps(zoom);
  const cosLat = new Float64Array(TILE);
  const sinLat = new Float64Array(TILE);
  for (let y = 0; y < TILE; y++) {
    const lat = (yToLat((top + y + 0.5) / size) * Math.PI) / 180;
    cosLat[y] = Math.cos(lat);
    sinLat[y] = Math.sin(lat);
  }
  const at = (x, y) => nearest.distance(cosLat[y] * cosLon[x], cosLat[y] * sinLon[x], sinLat[y]);

  const block = (x, y, side) => {
    if (side === 1) {
      band[y * size + x] = roundDistance(at(x, y), classes);
      return;
    }
    // Distance changes by no more than the way between two places: where a whole block must fall into one
    // class, its middle speaks for it. The block's widest row is the one nearest the equator.
    const half = side / 2;
    const middle = at(x + half, y + half);
    const pixel = (2 * Math.PI * EARTH_RADIUS_KM * Math.max(cosLat[y], cosLat[y + side - 1])) / size;
    const reach = pixel * side * 0.75;
    const low = roundDistance(Math.max(0, middle - reach), classes);
    if (low === roundDistance(middle + reach, classes)) {
      for (let row = y; row < y + side; row++) band.fill(low, row * size + x, row * size + x + side);
      return;
    }
    const next = side > 2 ? half : 1;
    for (let dy = 0; dy < side; dy += next) for (let dx = 0; dx < side; dx += next) block(x + dx, y + dy, next);
  };
  for (let y = 0; y < TILE; y += BLOCK) for (let x = 0; x < size; x += BLOCK) block(x, y, BLOCK);
  return band;
}
