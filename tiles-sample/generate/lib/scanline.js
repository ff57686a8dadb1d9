// Polygons to pixels without antialiasing: a pixel is inside when its centre is.

import { latToY, lonToX } from "./mercator.js";

/** For each row of pixel centres of a square world, the sorted x (in pixels) where an edge crosses it. */
export function crossings(polygons, size) {
  const rows = Array.from({ length: size }, () => []);
  for (const polygon of polygons) {
    for (const ring of polygon) {
      let [ax, ay] = [lonToX(ring[0][0]) * size, latToY(ring[0][1]) * size];
      for (let i = 1; i < ring.length; i++) {
        const [bx, by] = [lonToX(ring[i][0]) * size, latToY(ring[i][1]) * size];
        const first = Math.max(0, Math.ceil(Math.min(ay, by) - 0.5));
        const last = Math.min(size - 1, Math.ceil(Math.max(ay, by) - 0.5) - 1);
        for (let row = first; row <= last; row++) {
          const x = ax + ((row + 0.5 - ay) / (by - ay)) * (bx - ax);
          // In three world copies, so that what hangs over one edge comes in at the other.
          rows[row].push(x - size, x, x + size);
        }
        [ax, ay] = [bx, by];
      }
    }
  }
  for (const row of rows) row.sort((a, b) => a - b);
  return rows;
}

/** Fills between each pair of crossings (even-odd, so holes such as the Caspian Sea stay empty). */
export function fillRow(xs, pixels, value) {
  for (let i = 0; i + 1 < xs.length; i += 2) {
    const from = Math.max(0, Math.ceil(xs[i] - 0.5));
    const to = Math.min(pixels.length, Math.ceil(xs[i + 1] - 0.5));
    if (to > from) pixels.fill(value, from, to);
  }
}
