import assert from "node:assert/strict";
import { test } from "node:test";
import * as topojson from "topojson-client";
import { facts, readTopology } from "../lib/atlas.js";
import { makeCountries } from "../lib/countries.js";
import { makeWorld } from "../lib/world.js";
import { flatPolygons, unwrap } from "../lib/rings.js";
import { bytes, countriesAt, decodeMvt, decodePng, has, shipped, ZOOMS } from "./tiles.js";

test("tiles are gzip without a time, and MVT version 2 with these layers alone", () => {
  for (const tile of shipped("countries")) {
    const data = bytes("countries", ...tile);
    assert.equal(data.toString("hex", 0, 10), "1f8b0800000000000203", tile.join("/"));
    const { layers } = decodeMvt(data);
    assert.ok(Object.keys(layers).length > 0, tile.join("/"));
    for (const [name, layer] of Object.entries(layers)) {
      assert.ok(["countries", "borders", "labels"].includes(name), name);
      assert.deepEqual([layer.version, layer.extent], [2, 4096]);
      assert.ok(layer.length > 0, `${tile.join("/")}: ${name} is empty`);
    }
  }
});

test("geometry is of its layer's type, inside the tile and its buffer, and rings are wound as the format asks", () => {
  const types = { countries: 3, borders: 2, labels: 1 };
  for (const tile of shipped("countries")) {
    for (const [name, layer] of Object.entries(decodeMvt(bytes("countries", ...tile)).layers)) {
      for (let i = 0; i < layer.length; i++) {
        const feature = layer.feature(i);
        assert.equal(feature.type, types[name]);
        feature.loadGeometry().forEach((part, index) => {
          for (const { x, y } of part) {
            assert.ok(Math.min(x, y) >= -64 && Math.max(x, y) <= 4160, `${tile.join("/")} ${name}: ${x}, ${y}`);
          }
          if (name !== "countries") return;
          assert.ok(part.length >= 4, `${tile.join("/")}: a ring of ${part.length} points`);
          let area = 0;
          for (let k = 1; k < part.length; k++) area += part[k - 1].x * part[k].y - part[k].x * part[k - 1].y;
          assert.notEqual(area, 0, `${tile.join("/")}: an empty ring`);
          if (index === 0) assert.ok(area > 0, `${tile.join("/")}: the first ring is a hole`);
        });
      }
    }
  }
});

test("places are in their countries at every zoom", () => {
  for (const [lon, lat, name] of [
    [-98.5, 39, "United States of America"],
    [-152, 65, "United States of America"],
    [37.6, 55.7, "Russia"],
    [97, 63, "Russia"],
    [179.5, 67.5, "Russia"],
    [-179.5, 67.5, "Russia"],
    [-175, 66.9, "Russia"],
    [-53, -10, "Brazil"],
    [134, -24, "Australia"],
    [8.9, 61, "Norway"],
    [0, -84.9, "Antarctica"],
    [-179.9, -84.95, "Antarctica"],
    [179.9, -84.95, "Antarctica"],
    [60, -75, "Antarctica"],
  ]) {
    for (const zoom of ZOOMS) assert.deepEqual(countriesAt(zoom, lon, lat), [name], `zoom ${zoom}, ${lon} ${lat}`);
  }
  for (const zoom of [2, 3, 4, 5]) assert.deepEqual(countriesAt(zoom, 178, -17.8), ["Fiji"], `zoom ${zoom}`);
});

test("nothing is smeared over the map from the antimeridian", () => {
  for (const zoom of ZOOMS) {
    // Seas at the latitudes of Chukotka, of Wrangel Island, of Fiji and of Antarctica's edge.
    for (const [lon, lat] of [
      [-30, 58], [-32, 62.5], [0, 66.5], [0, 71.3], [-60, 71.3], [40, 71.3], [-140, 71.3],
      [0, -16.5], [-30, -17], [-100, -16.8], [80, -16.5], [179, -30], [-179, -30], [0, -60], [180 - 1e-6, -60],
    ]) {
      assert.deepEqual(countriesAt(zoom, lon, lat), [], `zoom ${zoom}, ${lon} ${lat}`);
    }
  }
  const { countries } = decodeMvt(bytes("countries", 0, 0, 0)).layers;
  for (let i = 0; i < countries.length; i++) {
    const feature = countries.feature(i);
    for (const ring of feature.loadGeometry()) {
      const xs = ring.map(({ x }) => x);
      const width = (Math.max(...xs) - Math.min(...xs)) / 4096;
      assert.ok(width < 0.5 || feature.properties.name === "Antarctica", `${feature.properties.name}: ${width}`);
    }
  }
});

test("an open-sea tile is absent", () => {
  assert.ok(!has("countries", 5, 3, 19), "the South Pacific");
  assert.ok(!has("countries", 3, 0, 0), "the Arctic Ocean");
  assert.ok([...shipped("countries")].length < 1365);
});

test("features carry their names, codes and colours", () => {
  const { countries, labels } = decodeMvt(bytes("countries", 2, 2, 1)).layers;
  const find = (layer, name) => {
    for (let i = 0; i < layer.length; i++) if (layer.feature(i).properties.name === name) return layer.feature(i);
    return assert.fail(`no ${name}`);
  };
  const italy = find(countries, "Italy");
  assert.equal(italy.id, 380);
  const { colour, ...rest } = italy.properties;
  assert.deepEqual(rest, { name: "Italy", iso_a2: "IT", iso_a3: "ITA", iso_n3: "380" });
  assert.ok(Number.isInteger(colour) && colour >= 0 && colour <= 5);
  assert.equal(find(labels, "Algeria").id, 12);
});

test("ids are unique and neighbours differ in colour", () => {
  assert.equal(new Set([...facts.values()].map(({ id }) => id)).size, facts.size);
  for (const scale of ["110m", "50m", "10m"]) {
    const { geometries } = readTopology(scale).objects.countries;
    topojson.neighbors(geometries).forEach((around, i) => {
      const mine = geometries[i].properties.name;
      for (const j of around.filter((other) => other !== i)) {
        const theirs = geometries[j].properties.name;
        if (scale === "10m") assert.notEqual(facts.get(mine).colour, facts.get(theirs).colour, `${mine}, ${theirs}`);
        assert.ok(facts.has(theirs), theirs);
      }
    });
  }
});

test("a ring over the antimeridian is unwrapped", () => {
  const ring = [[179, 0], [-179, 0], [-179, 1], [179, 1], [179, 0]];
  assert.deepEqual(unwrap(ring), [[179, 0], [181, 0], [181, 1], [179, 1], [179, 0]]);
});

test("a ring round the pole is closed below the map, whichever way it goes", () => {
  const ring = [[-90, -70], [0, -75], [90, -70], [170, -72], [-170, -74], [-90, -70]];
  for (const points of [ring, [...ring].reverse()]) {
    const [[closed]] = flatPolygons({ type: "Polygon", coordinates: [points] });
    assert.deepEqual(closed[0], closed.at(-1));
    const lons = closed.map(([lon]) => lon);
    assert.deepEqual([Math.min(...lons), Math.max(...lons)], [-180, 180]);
    assert.equal(Math.min(...closed.map(([, lat]) => lat)), -90);
    const onCut = closed.filter(([lon, lat]) => Math.abs(lon) === 180 && lat > -90);
    for (const [, lat] of onCut) assert.ok(Math.abs(lat + 73) < 1e-9, `${lat}`);
  }
});

test("the shipped vector tiles are what the program makes, to the byte", () => {
  let count = 0;
  makeCountries(({ z, x, y }, data) => {
    assert.ok(Buffer.from(data).equals(bytes("countries", z, x, y)), `countries/${z}/${x}/${y} differs: generate again`);
    count++;
  }, 2);
  assert.equal(count, [...shipped("countries")].filter(([z]) => z <= 2).length);
});

test("the shipped world is what the program draws", () => {
  // Pixels, not bytes: another processor may round an antialiased edge the other way.
  makeWorld(({ z, x, y }, data) => {
    const [made, kept] = [decodePng(data).data, decodePng(bytes("world", z, x, y)).data];
    let sum = 0;
    for (let i = 0; i < made.length; i++) sum += Math.abs(made[i] - kept[i]);
    assert.ok(sum / made.length < 0.5, `world/${z}/${x}/${y} differs: generate again`);
  }, 1);
});
