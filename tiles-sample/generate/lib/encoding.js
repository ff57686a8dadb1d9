// How a pixel of the `values` tiles is a number. The page decodes it with the same three lines:
//
//   kilometres = -10000 + (R * 65536 + G * 256 + B) * 0.1
//
// (the formula of Mapbox Terrain-RGB, with kilometres from the coast in place of metres of height).

const OFFSET = 10000;
const UNIT = 0.1;

export function encode(value, rgb, at) {
  const n = Math.round((value + OFFSET) / UNIT);
  rgb[at] = n >> 16;
  rgb[at + 1] = (n >> 8) & 255;
  rgb[at + 2] = n & 255;
}

export const decode = (r, g, b) => -OFFSET + (r * 65536 + g * 256 + b) * UNIT;

/**
 * The classes that distances are rounded to, `[up to kilometres, step]`, by zoom: finer where the coast is near,
 * because that is where a reader looks closely, coarser in mid-ocean and at low zooms, because the tiles
 * are shipped and every step is a contour line that has to be compressed.
 */
export const steps = (zoom) =>
  zoom >= 5
    ? [[50, 10], [Infinity, 50]]
    : zoom === 4
      ? [[200, 50], [Infinity, 100]]
      : [[500, 50], [Infinity, 100]];

/** Rounds a distance (kilometres, not negative) to its class. The class at the coast is half a step, not 0, which would lose the sign. */
export function roundDistance(distance, classes) {
  const [, step] = classes.find(([limit]) => distance < limit);
  return Math.max(classes[0][1] / 2, Math.round(distance / step) * step);
}
