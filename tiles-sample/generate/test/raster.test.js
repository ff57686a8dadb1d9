import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { WATER } from "../lib/style.js";
import { bytes, chunks, decodePng, grid, has, pixel, shipped, ZOOMS } from "./tiles.js";

for (const set of ["world", "values"]) {
  test(`${set} has every tile of zoom 0 to 5 and nothing else`, () => {
    for (const zoom of ZOOMS) for (const tile of grid(zoom)) assert.ok(has(set, ...tile), `${set}/${tile.join("/")}`);
    assert.equal([...shipped(set)].length, 1365);
  });

  test(`${set} tiles are PNGs of 256 by 256 without any chunk that changes colours`, () => {
    for (const tile of shipped(set)) {
      const data = bytes(set, ...tile);
      const { width, height } = decodePng(data);
      assert.deepEqual([width, height], [256, 256], `${set}/${tile.join("/")}`);
      const expected = set === "world" ? ["IHDR", "PLTE", "IDAT", "IEND"] : ["IHDR", "IDAT", "IEND"];
      assert.deepEqual(chunks(data), expected, `${set}/${tile.join("/")}`);
      assert.equal(data[25], set === "world" ? 3 : 2, "colour type");
      if (set === "values") assert.equal(data[24], 8, "bits a channel");
    }
  });
}

test("at zoom 5 a quarter of the world's tiles or more is identical to another", () => {
  const times = new Map();
  const hashes = [...grid(5)].map((tile) => createHash("sha256").update(bytes("world", ...tile)).digest("hex"));
  for (const hash of hashes) times.set(hash, (times.get(hash) ?? 0) + 1);
  const twins = hashes.filter((hash) => times.get(hash) > 1).length;
  assert.ok(twins / hashes.length >= 0.25, `${twins} of ${hashes.length}`);
});

test("the open sea is plain water, and land is not", () => {
  const water = [1, 3, 5].map((i) => parseInt(WATER.slice(i, i + 2), 16));
  for (const zoom of ZOOMS) {
    for (const [lon, lat] of [[-32, 47], [-152, -40], [95, -42]]) {
      assert.deepEqual(pixel("world", zoom, lon, lat), water, `zoom ${zoom}, ${lon} ${lat}`);
    }
    for (const [lon, lat] of [[-90, 35], [25, 24], [127, -31], [100, 67], [20, -84.9]]) {
      const [r, g, b] = pixel("world", zoom, lon, lat);
      // Water and shallows are bluish, land and borders are not; ice is nearly white.
      assert.ok(r >= b - 8 && r > 150, `zoom ${zoom}, ${lon} ${lat}: ${r} ${g} ${b}`);
    }
  }
});

test("no coast is drawn along the antimeridian through Chukotka", () => {
  for (const lat of [66.2, 67.1, 68.3]) {
    for (const lon of [179.98, -179.98]) {
      const [r, g, b] = pixel("world", 5, lon, lat);
      assert.ok(Math.min(r, g, b) > 220, `${lon} ${lat}: ${r} ${g} ${b}`);
    }
  }
});

test("Brazil's name is written", () => {
  let dark = 0;
  for (let lon = -57; lon < -47; lon += 0.1) {
    for (let lat = -14; lat < -6; lat += 0.1) if (Math.max(...pixel("world", 4, lon, lat)) < 130) dark++;
  }
  assert.ok(dark > 20, `${dark} dark pixels`);
});

test("what crosses a tile's edge goes on in the next tile", () => {
  // Neighbouring rows of pixels differ no more over an edge between tiles than inside a tile. Rows, because
  // meridians lie along tile edges; the equator does too, and is left out.
  const difference = (a, ay, b, by) => {
    let sum = 0;
    for (let x = 0; x < 256; x++) {
      for (let k = 0; k < 3; k++) sum += Math.abs(a.data[4 * (ay * 256 + x) + k] - b.data[4 * (by * 256 + x) + k]);
    }
    return sum;
  };
  let [inside, over] = [0, 0];
  for (const [z, x, y] of grid(4)) {
    if (y === 7 || y === 15) continue;
    const here = decodePng(bytes("world", z, x, y));
    const next = decodePng(bytes("world", z, x, y + 1));
    for (let row = 8; row < 248; row += 16) inside += difference(here, row, here, row + 1) / 15;
    over += difference(here, 255, next, 0);
  }
  assert.ok(over < inside * 1.3, `over edges ${over}, inside ${inside}`);
});
