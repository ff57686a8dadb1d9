// The `countries` tiles: gzipped Mapbox Vector Tiles (version 2) with three layers.
//
//   countries  polygons  id; name, iso_a2, iso_a3, iso_n3 (where Natural Earth gives a code), colour 0..5
//   borders    lines     land borders between countries; no attributes
//   labels     points    id; name, iso_a2, rank: the zoom from which the country is big enough for a name
//
// Invariants: simplification works on the arcs that neighbours share, so borders still meet; no empty layer
// is written, and a tile in which there is nothing is not written at all.

import { gzipSync } from "fflate";
import GeoJSONVT from "geojson-vt";
import { fromGeojsonVt } from "@maplibre/vt-pbf";
import * as topojson from "topojson-simplify";
import { countries, readTopology, scaleFor } from "./atlas.js";
import { anchors, rankOf } from "./labels.js";
import { latToY, lonToX, MAX_ZOOM, tilesOf, xToLon, yToLat } from "./mercator.js";
import { ringArea } from "./rings.js";

const EXTENT = 4096;
const BUFFER = 64;
/** What simplification may take from a line: triangles smaller than a square with this side, in tile units. */
const DETAIL = 3;
/** Islands smaller than a square with this side, in tile units, are left out, but for a country's largest. */
const ISLAND = 4;

const vector = (features, zoom) =>
  new GeoJSONVT(
    { type: "FeatureCollection", features },
    { maxZoom: zoom, indexMaxZoom: zoom, indexMaxPoints: 0, tolerance: 0, extent: EXTENT, buffer: BUFFER },
  );

/** A topology simplified for a zoom; weights are areas on the map, not in degrees. */
function simplified(zoom) {
  const flat = (points) => points.map(([lon, lat]) => [lonToX(lon), latToY(lat)]);
  const weighted = topojson.presimplify(readTopology(scaleFor(zoom)), (triangle) => Math.abs(ringArea(flat(triangle))));
  return topojson.simplify(weighted, (DETAIL / (EXTENT * 2 ** zoom)) ** 2);
}

const properties = ({ name, iso_a2, iso_a3, iso_n3, colour }) =>
  Object.fromEntries(Object.entries({ name, iso_a2, iso_a3, iso_n3, colour }).filter(([, value]) => value !== undefined));

function layersFor(zoom, anchored) {
  const atlas = countries(simplified(zoom));
  const unit = 1 / (EXTENT * 2 ** zoom);
  const polygons = atlas.countries.map((country) => {
    const size = ([outer]) => Math.abs(ringArea(outer.map(([lon, lat]) => [lonToX(lon), latToY(lat)])));
    const areas = country.polygons.map(size);
    const largest = Math.max(...areas);
    return {
      type: "Feature",
      id: country.id,
      properties: properties(country),
      geometry: {
        type: "MultiPolygon",
        coordinates: country.polygons.filter((_, i) => areas[i] === largest || areas[i] >= (ISLAND * unit) ** 2),
      },
    };
  });
  const borders = [
    { type: "Feature", properties: {}, geometry: { type: "MultiLineString", coordinates: atlas.borders } },
  ];
  const labels = anchored
    .map(({ country, x, y, area }) => ({
      type: "Feature",
      id: country.id,
      properties: { name: country.name, iso_a2: country.iso_a2, rank: rankOf(area) },
      geometry: { type: "Point", coordinates: [xToLon(x), yToLat(y)] },
    }))
    .filter(({ properties: { rank } }) => rank <= zoom);
  return { countries: vector(polygons, zoom), borders: vector(borders, zoom), labels: vector(labels, zoom) };
}

/** Rounding to the tile's grid leaves points on top of each other, and rings and lines of nothing. */
function tidy(feature) {
  if (feature.type === 1) {
    // A point in the buffer belongs to the neighbour; twice would be two labels.
    const geometry = feature.geometry.filter(([x, y]) => x >= 0 && x < EXTENT && y >= 0 && y < EXTENT);
    return geometry.length > 0 ? [{ ...feature, geometry }] : [];
  }
  const geometry = [];
  let dropHoles = false;
  for (const raw of feature.geometry) {
    const points = raw.filter(([x, y], i) => i === 0 || x !== raw[i - 1][0] || y !== raw[i - 1][1]);
    if (feature.type === 2) {
      if (points.length > 1) geometry.push(points);
      continue;
    }
    const area = ringArea(points);
    const outer = area > 0 || (area === 0 && !dropHoles);
    const empty = points.length < 4 || area === 0;
    if (outer) dropHoles = empty;
    if (!empty && (outer || !dropHoles)) geometry.push(points);
  }
  return geometry.length > 0 ? [{ ...feature, geometry }] : [];
}

/** `emit(tile, bytes)` is called for every tile with anything in it. */
export function makeCountries(emit, maxZoom = MAX_ZOOM) {
  const anchored = anchors(countries(readTopology("10m")).countries);
  for (let zoom = 0; zoom <= maxZoom; zoom++) {
    const layers = Object.entries(layersFor(zoom, anchored));
    for (const tile of tilesOf(zoom)) {
      const found = {};
      for (const [name, layer] of layers) {
        const features = (layer.getTile(tile.z, tile.x, tile.y)?.features ?? []).flatMap(tidy);
        if (features.length > 0) found[name] = { features };
      }
      if (Object.keys(found).length === 0) continue;
      const raw = fromGeojsonVt(found, { version: 2, extent: EXTENT });
      // fflate writes the time as zero when told so, and always the same "operating system".
      emit(tile, gzipSync(raw, { level: 9, mem: 9, mtime: 0 }));
    }
  }
}
