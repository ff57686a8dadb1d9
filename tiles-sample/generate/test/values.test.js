import assert from "node:assert/strict";
import { test } from "node:test";
import { land, readTopology } from "../lib/atlas.js";
import { Coast, EARTH_RADIUS_KM } from "../lib/distance.js";
import { decode, encode, roundDistance, steps } from "../lib/encoding.js";
import { contains } from "../lib/rings.js";
import { bytes, decodePng, pixel, shipped, ZOOMS } from "./tiles.js";

const value = (zoom, lon, lat) => decode(...pixel("values", zoom, lon, lat));

test("encoding and decoding give back a tenth of a kilometre", () => {
  const rgb = new Uint8Array(3);
  for (let v = -10000; v < 10000; v += 12.3) {
    encode(v, rgb, 0);
    assert.ok(Math.abs(decode(...rgb) - v) <= 0.05 + 1e-9, `${v}`);
  }
});

test("a rounded distance never loses its sign and never falls", () => {
  for (const zoom of ZOOMS) {
    let last = 0;
    for (let d = 0; d < 3000; d += 0.5) {
      const rounded = roundDistance(d, steps(zoom));
      assert.ok(rounded > 0 && rounded >= last, `zoom ${zoom}, ${d}: ${rounded}`);
      last = rounded;
    }
  }
});

test("every pixel is a distance that the Earth has, rounded to its class", () => {
  for (const [z, x, y] of shipped("values")) {
    const { data } = decodePng(bytes("values", z, x, y));
    const seen = new Set();
    for (let i = 0; i < data.length; i += 4) seen.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
    for (const n of seen) {
      const v = decode(n >> 16, (n >> 8) & 255, n & 255);
      assert.ok(v >= -2750 && v <= 2500, `values/${z}/${x}/${y}: ${v}`);
      assert.ok(Math.abs(roundDistance(Math.abs(v), steps(z)) - Math.abs(v)) < 1e-6, `values/${z}/${x}/${y}: ${v}`);
    }
  }
});

test("places have the distances that an atlas gives them", () => {
  for (const [place, lon, lat, km] of [
    ["Point Nemo, the place farthest from any land", -123.39, -48.88, -2690],
    ["the Mid-Atlantic Ridge west of the Azores", -38, 40, -800],
    ["Kansas", -98.5, 39, 1050],
    ["central Russia (Evenkia)", 97, 63, 1120],
    ["the Tian Shan, far from every sea", 86.67, 46.28, 2380],
    ["Alice Springs", 133.88, -23.7, 930],
    ["the middle of the Caspian Sea, which counts as sea", 50.8, 42, -115],
    ["Antarctica below the Ross Ice Shelf's edge", 150, -82, 700],
  ]) {
    for (const zoom of [3, 4, 5]) {
      const v = value(zoom, lon, lat);
      assert.ok(Math.sign(v) === Math.sign(km) && Math.abs(v - km) <= 100, `${place}, zoom ${zoom}: ${v}, not ${km}`);
    }
  }
});

test("a pixel is positive exactly where its centre is on land, on both sides of the antimeridian", () => {
  const { polygons } = land(readTopology("10m"));
  const zoom = 5;
  const size = 256 * 2 ** zoom;
  for (const top of [1700, 1850, 2100, 4500, 7900]) {
    for (let x = 3; x < size; x += 97) {
      const lon = ((x + 0.5) / size) * 360 - 180;
      const lat = (Math.atan(Math.sinh(Math.PI * (1 - (2 * (top + 0.5)) / size))) * 180) / Math.PI;
      assert.equal(value(zoom, lon, lat) > 0, contains(polygons, lon, lat), `${lon} ${lat}`);
    }
  }
});

test("the sea between Chukotka's two halves is no coast", () => {
  // The finest scale cuts Chukotka along 180°; 68.2° N there is about 90 km from the real coast.
  assert.ok(value(5, 179.95, 67.2) >= 80, `${value(5, 179.95, 67.2)}`);
});

test("the tree finds what looking at every point finds", () => {
  const { coast } = land(readTopology("110m"));
  const nearest = new Coast(coast);
  const unit = (lon, lat) => {
    const [l, p] = [(lon * Math.PI) / 180, (lat * Math.PI) / 180];
    return [Math.cos(p) * Math.cos(l), Math.cos(p) * Math.sin(l), Math.sin(p)];
  };
  for (let lon = -180; lon < 180; lon += 33) {
    for (let lat = -90; lat <= 90; lat += 30) {
      const from = unit(lon, lat);
      let best = Infinity;
      for (const line of coast) {
        for (const point of line) {
          const to = unit(...point);
          best = Math.min(best, Math.hypot(from[0] - to[0], from[1] - to[1], from[2] - to[2]));
        }
      }
      const vertices = 2 * EARTH_RADIUS_KM * Math.asin(best / 2);
      const found = nearest.distanceAt(lon, lat);
      // The tree also has points between the vertices, which can only be nearer.
      assert.ok(found <= vertices + 1e-6 && found >= vertices - 250, `${lon} ${lat}: ${found}, ${vertices}`);
    }
  }
});
