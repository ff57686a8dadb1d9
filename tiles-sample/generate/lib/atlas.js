// Natural Earth's countries out of world-atlas, at its three scales, with names, codes and colours.
//
// Invariant: a country has the same key, name, codes and colour at every scale.
// Natural Earth draws who holds a place on the ground, with the names and codes that it gives; apart
// from writing abbreviations out, nothing is added to that or taken from it here.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import iso from "i18n-iso-countries";
import * as topojson from "topojson-client";
import { flatLines, flatPolygons } from "./rings.js";

const require = createRequire(import.meta.url);

/** The scale that suits a zoom: a pixel is never much finer than what was drawn. */
export const scaleFor = (zoom) => (zoom <= 1 ? "110m" : zoom <= 3 ? "50m" : "10m");

export const COLOURS = 6;

const WRITTEN_OUT = {
  "Antigua and Barb.": "Antigua and Barbuda",
  "Ashmore and Cartier Is.": "Ashmore and Cartier Islands",
  "Bosnia and Herz.": "Bosnia and Herzegovina",
  "Br. Indian Ocean Ter.": "British Indian Ocean Territory",
  "British Virgin Is.": "British Virgin Islands",
  "Cayman Is.": "Cayman Islands",
  "Central African Rep.": "Central African Republic",
  "Clipperton I.": "Clipperton Island",
  "Cook Is.": "Cook Islands",
  "Coral Sea Is.": "Coral Sea Islands",
  "Dem. Rep. Congo": "DR Congo",
  "Dominican Rep.": "Dominican Republic",
  "Eq. Guinea": "Equatorial Guinea",
  eSwatini: "Eswatini",
  "Faeroe Is.": "Faroe Islands",
  "Falkland Is.": "Falkland Islands",
  "Fr. Polynesia": "French Polynesia",
  "Fr. S. Antarctic Lands": "French Southern Lands",
  "Heard I. and McDonald Is.": "Heard and McDonald Islands",
  "Indian Ocean Ter.": "Indian Ocean Territories",
  Macedonia: "North Macedonia",
  "Marshall Is.": "Marshall Islands",
  "N. Cyprus": "Northern Cyprus",
  "N. Mariana Is.": "Northern Mariana Islands",
  "Pitcairn Is.": "Pitcairn Islands",
  "S. Geo. and the Is.": "South Georgia and the South Sandwich Islands",
  "S. Sudan": "South Sudan",
  "Solomon Is.": "Solomon Islands",
  "Spratly Is.": "Spratly Islands",
  "St-Barthélemy": "Saint Barthélemy",
  "St-Martin": "Saint Martin",
  "St. Kitts and Nevis": "Saint Kitts and Nevis",
  "St. Pierre and Miquelon": "Saint Pierre and Miquelon",
  "St. Vin. and Gren.": "Saint Vincent and the Grenadines",
  "Turks and Caicos Is.": "Turks and Caicos Islands",
  "U.S. Minor Outlying Is.": "U.S. Minor Outlying Islands",
  "U.S. Virgin Is.": "U.S. Virgin Islands",
  "USNB Guantanamo Bay": "Guantanamo Bay",
  "W. Sahara": "Western Sahara",
  "Wallis and Futuna Is.": "Wallis and Futuna",
};

export const readTopology = (scale) =>
  JSON.parse(readFileSync(require.resolve(`world-atlas/countries-${scale}.json`), "utf8"));

/** Facts of every country, by Natural Earth's own name, which is the key at all scales. */
export const facts = (() => {
  const topology = readTopology("10m");
  const geometries = topology.objects.countries.geometries;
  const colour = colouring(topojson.neighbors(geometries));
  const seen = new Set();
  const out = new Map();
  // The first of two with one code has it; the other one and those without a code are numbered from 1001.
  let next = 1001;
  geometries.forEach(({ id, properties }, i) => {
    const coded = id !== undefined && !seen.has(id);
    if (coded) seen.add(id);
    out.set(properties.name, {
      id: coded ? Number(id) : next++,
      name: WRITTEN_OUT[properties.name] ?? properties.name,
      iso_n3: coded ? id : undefined,
      iso_a2: coded ? iso.numericToAlpha2(id) : undefined,
      iso_a3: coded ? iso.numericToAlpha3(id) : undefined,
      colour: colour[i],
    });
  });
  return out;
})();

/**
 * Colours a map so that neighbours differ: always the country with the most differently coloured neighbours
 * next (DSATUR), and for it the colour that is used least so far.
 */
function colouring(neighbours) {
  const colour = new Array(neighbours.length).fill(undefined);
  const used = new Array(COLOURS).fill(0);
  for (let done = 0; done < neighbours.length; done++) {
    let pick = -1;
    let rank = [-1, -1];
    neighbours.forEach((around, i) => {
      if (colour[i] !== undefined) return;
      const mine = [new Set(around.map((j) => colour[j]).filter((c) => c !== undefined)).size, around.length];
      if (mine[0] > rank[0] || (mine[0] === rank[0] && mine[1] > rank[1])) [pick, rank] = [i, mine];
    });
    const taken = new Set(neighbours[pick].map((j) => colour[j]));
    const free = used.map((n, c) => [n, c]).filter(([, c]) => !taken.has(c));
    if (free.length === 0) throw new Error(`${COLOURS} colours are not enough for this map`);
    free.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    colour[pick] = free[0][1];
    used[free[0][1]]++;
  }
  return colour;
}

/** Countries as `{key, ...facts, polygons}`, borders between them and coasts as lines; all flat, in degrees. */
export function countries(topology) {
  const collection = topology.objects.countries;
  return {
    countries: topojson.feature(topology, collection).features.map((feature) => ({
      key: feature.properties.name,
      ...facts.get(feature.properties.name),
      polygons: flatPolygons(feature.geometry),
    })),
    borders: flatLines(topojson.mesh(topology, collection, (a, b) => a !== b)),
    coast: flatLines(topojson.mesh(topology, collection, (a, b) => a === b)),
  };
}

/** All land as flat polygons, and its outline as flat lines, in degrees. */
export function land(topology) {
  return {
    polygons: topojson
      .feature(topology, topology.objects.land)
      .features.flatMap((feature) => flatPolygons(feature.geometry)),
    coast: flatLines(topojson.mesh(topology, topology.objects.land)),
  };
}
