// The `world` tiles: a light political map for people to look at.
//
// Each zoom is drawn as sheets of several tiles and then cut; a sheet is a window on one global drawing at
// whole pixels, so there is nothing to see where tiles or sheets meet. Everything is drawn in three world
// copies, so there is nothing to see at the antimeridian either.

import { createRequire } from "node:module";
import { createCanvas, GlobalFonts } from "@napi-rs/canvas";
import { countries, readTopology, scaleFor } from "./atlas.js";
import { anchors, Owners, placeLabels } from "./labels.js";
import { latToY, lonToX, MAX_ZOOM, TILE, worldSize } from "./mercator.js";
import { Histogram, Palette } from "./palette.js";
import { encodeIndexed } from "./png.js";
import * as style from "./style.js";

const SHEET = 2048;
const PALETTE_SIZE = 96;

const require = createRequire(import.meta.url);
for (const face of ["600-normal", "400-italic"]) {
  const file = require.resolve(`@fontsource/source-sans-3/files/source-sans-3-latin-${face}.woff2`);
  if (!GlobalFonts.registerFromPath(file, style.FONT)) throw new Error(`cannot load the font ${face}`);
}

const setType = (ctx, type) => {
  ctx.font = `${type.italic ? "italic " : ""}${type.weight} ${type.size}px "${style.FONT}"`;
  ctx.letterSpacing = `${type.spacing}px`;
};

/** Flat degrees to pixels of a zoom: a Float64Array of x, y, with its bounding box. */
function toPixels(points, size) {
  const xy = new Float64Array(points.length * 2);
  const box = [Infinity, Infinity, -Infinity, -Infinity];
  points.forEach(([lon, lat], i) => {
    const x = lonToX(lon) * size;
    const y = latToY(lat) * size;
    xy[2 * i] = x;
    xy[2 * i + 1] = y;
    box[0] = Math.min(box[0], x);
    box[1] = Math.min(box[1], y);
    box[2] = Math.max(box[2], x);
    box[3] = Math.max(box[3], y);
  });
  return { xy, box };
}

/** Whether two boxes meet, in any world copy. */
const touches = (a, b, size) =>
  a[1] <= b[3] && a[3] >= b[1] && [-size, 0, size].some((dx) => a[0] + dx <= b[2] && a[2] + dx >= b[0]);

/** One zoom's drawing, ready to be painted through any window. */
function prepare(zoom, anchored, owners, measure) {
  const size = worldSize(zoom);
  const atlas = countries(readTopology(scaleFor(zoom)));
  const borders = atlas.borders.map((line) => toPixels(line, size));
  return {
    zoom,
    size,
    countries: atlas.countries.map((country) => {
      const polygons = country.polygons.map((polygon) => polygon.map((ring) => toPixels(ring, size)));
      return {
        ...(style.ICE_KEYS.has(country.key) ? style.ICE : style.LAND[country.colour]),
        polygons,
        // Not only its own: a neighbours' border that ends at this one rounds the corner.
        borders: borders.filter(({ box }) => polygons.some(([outer]) => touches(outer.box, box, size))),
      };
    }),
    borders,
    coast: atlas.coast.map((line) => toPixels(line, size)),
    labels: placeLabels(zoom, anchored, owners, measure),
  };
}

const MARGIN = 64;

function paint(map, left, top, side) {
  const { zoom, size } = map;
  const canvas = createCanvas(side, side);
  const ctx = canvas.getContext("2d");
  ctx.lineJoin = "round";
  ctx.lineCap = "round";

  const trace = ({ xy, box }, close) => {
    for (const shift of [-size, 0, size]) {
      if (box[2] + shift < left - MARGIN || box[0] + shift > left + side + MARGIN) continue;
      if (box[3] < top - MARGIN || box[1] > top + side + MARGIN) continue;
      ctx.moveTo(xy[0] + shift - left, xy[1] - top);
      for (let i = 2; i < xy.length; i += 2) ctx.lineTo(xy[i] + shift - left, xy[i + 1] - top);
      if (close) ctx.closePath();
    }
  };
  const stroke = (lines, colour, width) => {
    ctx.beginPath();
    for (const line of lines) trace(line, false);
    ctx.strokeStyle = colour;
    ctx.lineWidth = width;
    ctx.stroke();
  };

  ctx.fillStyle = style.WATER;
  ctx.fillRect(0, 0, side, side);
  for (const [reach, colour] of style.SHALLOWS) stroke(map.coast, colour, 2 * reach * style.shallowsScale(zoom));
  if (zoom >= style.GRATICULE.from) graticule(ctx, zoom, size, left, top, side);

  for (const country of map.countries) {
    ctx.beginPath();
    for (const polygon of country.polygons) for (const ring of polygon) trace(ring, true);
    ctx.fillStyle = country.fill;
    ctx.fill("evenodd");
  }
  // The ribbon: each country is its own stencil, so that the line along its border colours its side alone.
  for (const country of map.countries) {
    if (style.ribbonWidth(zoom) === 0) break;
    const window = [left, top, left + side, top + side];
    if (!country.polygons.some(([outer]) => touches(outer.box, window, size))) continue;
    ctx.save();
    ctx.beginPath();
    for (const polygon of country.polygons) for (const ring of polygon) trace(ring, true);
    ctx.clip("evenodd");
    for (const [share, alpha] of [[1, 0.45], [0.5, 0.55]]) {
      ctx.globalAlpha = alpha;
      stroke(country.borders, country.ribbon, style.ribbonWidth(zoom) * share);
    }
    ctx.restore();
  }
  stroke(map.coast, style.COAST.colour, style.COAST.width(zoom));
  stroke(map.borders, style.BORDER.colour, style.BORDER.width(zoom));
  for (const label of map.labels) letter(ctx, label, size, left, top, side);
  return ctx.getImageData(0, 0, side, side).data;
}

function graticule(ctx, zoom, size, left, top, side) {
  const step = style.GRATICULE.step(zoom);
  ctx.fillStyle = style.GRATICULE.colour;
  for (let lon = -180; lon < 180; lon += step) ctx.fillRect(Math.round(lonToX(lon) * size) - left, 0, 1, side);
  for (let lat = 0; lat < 85; lat += step) {
    for (const parallel of new Set([lat, -lat])) ctx.fillRect(0, Math.round(latToY(parallel) * size) - top, side, 1);
  }
}

function letter(ctx, label, size, left, top, side) {
  const [x0, y0, x1, y1] = label.box;
  for (const shift of [-size, 0, size]) {
    if (x1 + shift < left || x0 + shift > left + side || y1 < top || y0 > top + side) continue;
    setType(ctx, label.type);
    const { colour, halo } = style.LABEL[label.style];
    for (const { text, x, y } of label.lines) {
      if (halo) {
        ctx.strokeStyle = halo;
        ctx.lineWidth = 3;
        ctx.strokeText(text, x + shift - left, y - top);
      }
      ctx.fillStyle = colour;
      ctx.fillText(text, x + shift - left, y - top);
    }
  }
}

/** `emit(tile, bytes)` is called for every tile of every zoom up to `maxZoom`. */
export function makeWorld(emit, maxZoom = MAX_ZOOM) {
  const finest = countries(readTopology("10m")).countries;
  const anchored = anchors(finest);
  const owners = new Owners(finest);
  const probe = createCanvas(8, 8).getContext("2d");
  const measure = (text, type) => {
    setType(probe, type);
    return probe.measureText(text).width;
  };
  for (let zoom = 0; zoom <= maxZoom; zoom++) {
    const map = prepare(zoom, anchored, owners, measure);
    const side = Math.min(SHEET, map.size);
    const histogram = new Histogram();
    const sheets = [];
    for (let top = 0; top < map.size; top += side) {
      for (let left = 0; left < map.size; left += side) {
        const rgba = paint(map, left, top, side);
        histogram.add(rgba);
        sheets.push({ left, top, rgba });
      }
    }
    const fixed = [style.WATER, style.GRATICULE.colour, ...style.LAND.map(({ fill }) => fill), style.ICE.fill];
    const palette = new Palette(histogram, PALETTE_SIZE, fixed);
    for (const { left, top, rgba } of sheets) {
      for (let y = 0; y < side; y += TILE) {
        for (let x = 0; x < side; x += TILE) {
          const indices = palette.indices(rgba, side, x, y, TILE, TILE);
          const tile = { z: zoom, x: (left + x) / TILE, y: (top + y) / TILE };
          emit(tile, encodeIndexed(TILE, TILE, indices, palette.colours));
        }
      }
    }
  }
}
