// Reads the shipped tiles the way a map would. Decoders here are other people's, not the generator's.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { VectorTile } from "@mapbox/vector-tile";
import { PbfReader } from "pbf";
import { PNG } from "pngjs";

export const ROOT = fileURLToPath(new URL("../../", import.meta.url));
export const ZOOMS = [0, 1, 2, 3, 4, 5];

export const path = (set, z, x, y) => join(ROOT, set, `${z}`, `${x}`, `${y}.${set === "countries" ? "mvt" : "png"}`);
export const has = (set, z, x, y) => existsSync(path(set, z, x, y));
export const bytes = (set, z, x, y) => readFileSync(path(set, z, x, y));

/** Every tile file of a set as `[z, x, y]`. */
export function* shipped(set) {
  for (const z of readdirSync(join(ROOT, set))) {
    for (const x of readdirSync(join(ROOT, set, z))) {
      for (const file of readdirSync(join(ROOT, set, z, x))) yield [Number(z), Number(x), parseInt(file, 10)];
    }
  }
}

export function* grid(zoom) {
  for (let y = 0; y < 2 ** zoom; y++) for (let x = 0; x < 2 ** zoom; x++) yield [zoom, x, y];
}

/** The names of a PNG's chunks, in order. */
export function chunks(png) {
  const out = [];
  for (let at = 8; at < png.length; at += 12 + png.readUInt32BE(at)) out.push(png.toString("latin1", at + 4, at + 8));
  return out;
}

export const decodePng = (data) => PNG.sync.read(data);

export const decodeMvt = (data) => new VectorTile(new PbfReader(gunzipSync(data)));

/** Tile and position in it (0..1) of a place. */
export function locate(zoom, lon, lat) {
  const n = 2 ** zoom;
  const sin = Math.sin((lat * Math.PI) / 180);
  const x = ((lon + 180) / 360) * n;
  const y = (0.5 - Math.log((1 + sin) / (1 - sin)) / (4 * Math.PI)) * n;
  return { x: Math.floor(x), y: Math.floor(y), u: x - Math.floor(x), v: y - Math.floor(y) };
}

const cache = new Map();

/** [r, g, b] of a raster set at a place. */
export function pixel(set, zoom, lon, lat) {
  const { x, y, u, v } = locate(zoom, lon, lat);
  const key = `${set}/${zoom}/${x}/${y}`;
  if (!cache.has(key)) cache.set(key, decodePng(bytes(set, zoom, x, y)));
  const { width, height, data } = cache.get(key);
  const at = 4 * (Math.floor(v * height) * width + Math.floor(u * width));
  return [...data.subarray(at, at + 3)];
}

/** The names of the countries at a place, by the vector tiles' own geometry (even-odd). */
export function countriesAt(zoom, lon, lat) {
  const { x, y, u, v } = locate(zoom, lon, lat);
  if (!has("countries", zoom, x, y)) return [];
  const layer = decodeMvt(bytes("countries", zoom, x, y)).layers.countries;
  const out = [];
  for (let i = 0; i < (layer?.length ?? 0); i++) {
    const feature = layer.feature(i);
    let inside = false;
    for (const ring of feature.loadGeometry()) {
      for (let a = 0, b = ring.length - 1; a < ring.length; b = a++) {
        const [p, q] = [ring[a], ring[b]];
        const [px, py] = [u * layer.extent, v * layer.extent];
        if (p.y > py !== q.y > py && px < ((q.x - p.x) * (py - p.y)) / (q.y - p.y) + p.x) inside = !inside;
      }
    }
    if (inside) out.push(feature.properties.name);
  }
  return out;
}
