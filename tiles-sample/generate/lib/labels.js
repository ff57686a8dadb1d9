// Where names go. Countries are tried from the largest on the map to the smallest; each takes the first
// place, line break and size at which its name lies on its own land or on water and touches no name that is
// there already, or goes without. Positions are global pixels of a zoom, so a name is one thing across all
// the tiles it touches, and whole pixels, so that each tile gets the same letters.
//
// `measure(text, type)` is the only thing that it needs from the drawing side.

import polylabel from "polylabel";
import { latToY, lonToX, worldSize } from "./mercator.js";
import { ringArea } from "./rings.js";
import { crossings, fillRow } from "./scanline.js";
import { OCEANS } from "./style.js";

/** Names are wider than high: places are sought on a map squeezed sideways by this much. */
const SQUEEZE = 2.5;

/** Natural Earth's leftovers between states, too small and too contested for a name on this map. */
const UNNAMED = new Set([
  "Akrotiri",
  "Ashmore and Cartier Is.",
  "Baikonur",
  "Bajo Nuevo Bank",
  "Coral Sea Is.",
  "Cyprus U.N. Buffer Zone",
  "Dhekelia",
  "Indian Ocean Ter.",
  "Scarborough Reef",
  "Serranilla Bank",
  "Siachen Glacier",
  "Spratly Is.",
  "U.S. Minor Outlying Is.",
  "USNB Guantanamo Bay",
]);

/** Where the widest room for a name is not where a reader looks for it. `[lon, lat]` */
const BY_HAND = {
  "United States of America": [-98.5, 39.2],
  Canada: [-106, 58.5],
  Russia: [97, 63],
  Antarctica: [75, -79],
  Norway: [9.3, 61.3],
  Chile: [-70.6, -28],
  Fiji: [178, -18.9],
  Kiribati: [-157.4, 0.6],
  "New Zealand": [172.2, -42.2],
  Malaysia: [102.3, 4.2],
  Greenland: [-41, 73],
};

const SHORT = {
  "United States of America": "United States",
};

/** Squared: the world's unit square in thousandths, so that polylabel's precision is a plain number. */
const project = (ring) => ring.map(([lon, lat]) => [lonToX(lon) * 1000, latToY(lat) * 1000]);

/**
 * One anchor a country: `{country, x, y, area, total}`; x, y in world units 0..1, areas in world units squared:
 * of its largest piece, which is what a name has to fit, and of all of it.
 */
export function anchors(countries) {
  return countries
    .map((country) => {
      const projected = country.polygons.map((polygon) => polygon.map(project));
      const areas = projected.map(([outer]) => Math.abs(ringArea(outer)));
      const total = areas.reduce((sum, a) => sum + a, 0);
      const area = Math.max(...areas);
      const largest = projected[areas.indexOf(area)];
      const squeezed = largest.map((ring) => ring.map(([x, y]) => [x / SQUEEZE, y]));
      const found = polylabel(squeezed, Math.sqrt(area) / 100);
      const hand = BY_HAND[country.key];
      const [x, y] = hand
        ? [lonToX(hand[0]), latToY(hand[1])]
        : [(found[0] * SQUEEZE) / 1000, found[1] / 1000];
      return { country, x: x - Math.floor(x), y, area: area / 1e6, total: total / 1e6 };
    })
    .sort((a, b) => b.total - a.total || (a.country.key < b.country.key ? -1 : 1));
}

/** Whose land is where: the ids of countries on a grid, 0 for water. */
export class Owners {
  #side = 4096;
  #grid = new Uint16Array(this.#side ** 2);

  constructor(countries) {
    for (const { id, polygons } of countries) {
      crossings(polygons, this.#side).forEach((xs, y) => {
        fillRow(xs, this.#grid.subarray(y * this.#side, (y + 1) * this.#side), id);
      });
    }
  }

  /** World units; x may lie in a neighbouring world copy. */
  at(x, y) {
    return this.#grid[Math.floor(y * this.#side) * this.#side + Math.floor((x - Math.floor(x)) * this.#side)];
  }
}

/** The first zoom at which a country has a name, from its size on the map. */
export function rankOf(area) {
  const side = Math.sqrt(area) * 256;
  for (let zoom = 0; zoom < 5; zoom++) if (side * 2 ** zoom >= 20) return zoom;
  return 5;
}

/** Every way to break a name into one, two or three lines. */
function breaks(name) {
  const words = name.split(" ");
  const out = [[name]];
  for (let i = 1; i < words.length; i++) {
    out.push([words.slice(0, i).join(" "), words.slice(i).join(" ")]);
    for (let j = i + 1; j < words.length; j++) {
      out.push([words.slice(0, i).join(" "), words.slice(i, j).join(" "), words.slice(j).join(" ")]);
    }
  }
  return out;
}

const typeFor = (size, caps) =>
  caps
    ? { size, weight: 600, italic: false, caps: true, spacing: Math.round(size * 0.14 * 10) / 10 }
    : { size, weight: 600, italic: false, caps: false, spacing: 0.2 };

/** Sizes worth trying for a country whose area is a square with this side (pixels), best first. */
function types(side, zoom) {
  if (side < 20) return [];
  const wish = Math.min(zoom <= 1 ? 12 : 20, Math.max(10.5, 7 + side / 26));
  const out = [];
  for (let size = Math.round(wish); size >= 11; size--) if (size <= 13 || size % 2 === 0) out.push(typeFor(size, true));
  out.push(typeFor(10, true));
  if (zoom >= 3) out.push(typeFor(12, false), typeFor(11, false));
  return out;
}

/** The labels of a zoom: `{lines: [{text, x, y}], type, style, box}`; x, y the middle of a line. */
export function placeLabels(zoom, anchored, owners, measure) {
  const size = worldSize(zoom);
  const placed = [];

  const free = (box) =>
    placed.every((other) =>
      [-size, 0, size].every(
        (dx) =>
          box[0] + dx > other.box[2] ||
          box[2] + dx < other.box[0] ||
          box[1] > other.box[3] ||
          box[3] < other.box[1],
      ),
    );

  const layOut = (lines, type, x, y) => {
    const leading = Math.round(type.size * (type.italic ? 1.2 : 1.1));
    const widths = lines.map((line) => measure(type.caps ? line.toUpperCase() : line, type));
    const half = Math.max(...widths) / 2;
    const top = y - ((lines.length - 1) * leading) / 2;
    return {
      type,
      lines: lines.map((line, i) => ({
        text: type.caps ? line.toUpperCase() : line,
        x: Math.round(x - widths[i] / 2),
        y: Math.round(top + i * leading + type.size * 0.34),
        width: widths[i],
      })),
      box: [x - half - 4, top - type.size * 0.65, x + half + 4, top + (lines.length - 1) * leading + type.size * 0.65],
    };
  };

  const oceans = () => {
    for (const [lines, lon, lat, from, to, first] of OCEANS) {
      if (zoom < from || zoom > to) continue;
      const px = Math.min(first + 3 * (zoom - from), 24);
      const type = { size: px, weight: 400, italic: true, caps: false, spacing: Math.round(px * 1.6) / 10 };
      const label = layOut(lines, type, lonToX(lon) * size, latToY(lat) * size);
      if (free(label.box)) placed.push({ ...label, style: "ocean" });
    }
  };

  /** 1: on its own land; 0.9: on water; 0: on somebody else's, or off the map. */
  const ground = (own, x, y) => {
    if (y < 0 || y >= size) return 0;
    const owner = owners.at(x / size, y / size);
    return owner === own ? 1 : owner === 0 ? 0.9 : 0;
  };
  const fit = (own, label) => {
    let sum = 0;
    let count = 0;
    for (const line of label.lines) {
      for (let k = 0; k <= 8; k++) {
        sum += ground(own, line.x + (line.width * k) / 8, line.y - label.type.size * 0.34);
        count++;
      }
    }
    return sum / count;
  };

  const countries = () => {
    anchored.forEach(({ country, x, y, area, total }) => {
      if (UNNAMED.has(country.key)) return;
      const side = Math.sqrt(area) * size;
      const name = SHORT[country.key] ?? country.name;
      // Islands too small to hold a name carry it beside them, in the sea, at the last zooms.
      const beside = side < 20 && zoom >= 4 && Math.sqrt(total) * size >= (zoom === 4 ? 5 : 0.8);
      const tries = [];
      for (const type of beside ? [typeFor(11, false)] : types(side, zoom)) {
        for (const lines of breaks(name)) {
          const spots = beside
            ? [[0, 10 + lines.length * 4 + side / 2], [0, -10 - lines.length * 4 - side / 2]]
            : [[0, 0], [0, type.size * 0.5], [0, -type.size * 0.5], [type.size, 0], [-type.size, 0]];
          for (const [dx, dy] of spots) tries.push(layOut(lines, type, x * size + dx, y * size + dy));
        }
      }
      let best;
      for (const label of tries) {
        if (best && label.type.size < best.label.type.size && best.score >= 0.86) break;
        if (!free(label.box)) continue;
        const score = fit(country.id, label) - 0.02 * (label.lines.length - 1);
        if (!best || score > best.score + 0.01) best = { label, score };
        if (score >= 0.99) break;
      }
      if (best && best.score >= (beside ? 0.82 : 0.72)) {
        placed.push({ ...best.label, style: best.label.type.caps ? "country" : "small", key: country.key });
      }
    });
  };

  // Oceans first: they are few, big and placed by hand, and countries can move.
  if (zoom > 0) {
    oceans();
    countries();
  }
  return placed;
}
