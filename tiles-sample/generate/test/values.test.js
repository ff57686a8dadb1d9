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
    const classes = new Set();
    for (let d = 0; d < 3000; d++) classes.add(roundDistance(d, steps(z)));
    const seen = new Set();
    for (let i = 0; i < data.length; i += 4) seen.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
    for (const n of seen) {
      const v = decode(n >> 16, (n >> 8) & 255, n & 255);
      assert.ok(v >= -2750 && v <= 2500, `values/${z}/${x}/${y}: ${v}`);
      assert.ok(classes.has(Math.round(Math.abs(v) * 10) / 10), `values/${z}/${x}/${y}: ${v}`);
    }
  }
});

test("places have the distances that an atlas gives them", () => {
  // The poles of inaccessibility and their distances as published, not as computed here.
  for (const [place, lon, lat, km] of [
    ["Point Nemo, the place farthest from any land", -123.393, -48.877, -2688],
    ["the pole of inaccessibility of North America", -101.97, 43.36, 1650],
    ["the pole of inaccessibility of South America", -56.85, -14.05, 1504],
    ["the pole of inaccessibility of Africa", 26.17, 5.65, 1814],
    ["the pole of inaccessibility of Australia", 132.27, -23.17, 920],
    ["Kansas, from the Gulf of Mexico", -98.5, 39, 1070],
    ["the Mid-Atlantic, from the Azores", -38, 40, -580],
    ["central Russia", 97, 63, 970],
    ["the middle of the Caspian Sea, which counts as sea", 50.8, 42, -130],
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

test("the cut between Chukotka's two halves is no coast", () => {
  // The finest scale cuts Chukotka along 180°; at 67.2° N there the real coast is 96 km away.
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
