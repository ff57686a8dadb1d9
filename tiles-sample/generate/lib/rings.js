// Rings and lines on a sphere, laid out flat.
//
// world-atlas stores Russia, Fiji and Antarctica uncut: a ring steps from 179.9° to -179.9° where it
// crosses the antimeridian, and drawn as it stands that step is a smear across the whole map. Here each ring
// is unwrapped: longitudes run on past ±180, so a ring is one piece and its neighbours in the next
// world copy are its translations by 360°. A ring that has gone once round the globe (Antarctica) is not
// a ring on a flat map at all: it is cut at the antimeridian and closed along the pole, below the map.
//
// Invariant: no edge that comes out is longer than 180° of longitude, except those along a pole.
// Left out: rings round the North Pole alone would close at the north; Natural Earth has none.

/** Longitudes made continuous, starting from the first point's own. */
export function unwrap(points) {
  const out = [];
  let turn = 0;
  for (let i = 0; i < points.length; i++) {
    if (i > 0) {
      const step = points[i][0] - points[i - 1][0];
      if (step > 180) turn -= 360;
      else if (step < -180) turn += 360;
    }
    out.push([points[i][0] + turn, points[i][1]]);
  }
  return out;
}

/** Moves a run of points by whole worlds so that its middle is inside [-180, 180). */
function recentre(points) {
  let min = Infinity;
  let max = -Infinity;
  for (const [lon] of points) {
    min = Math.min(min, lon);
    max = Math.max(max, lon);
  }
  const shift = -360 * Math.floor(((min + max) / 2 + 180) / 360);
  return shift === 0 ? points : points.map(([lon, lat]) => [lon + shift, lat]);
}

/** An unwrapped ring that went round the globe: cut at the antimeridian, closed along the pole. */
function closeAtPole(ring) {
  const points = ring.slice(0, -1);
  const east = ring.at(-1)[0] > ring[0][0];
  if (!east) points.reverse();
  // Find the edge over the antimeridian and begin there.
  const norm = points.map(([lon, lat]) => [lon - 360 * Math.floor((lon + 180) / 360), lat]);
  let cut = 0;
  for (let i = 0; i < norm.length; i++) {
    const next = norm[(i + 1) % norm.length];
    if (norm[i][0] - next[0] > 180) cut = (i + 1) % norm.length;
  }
  const run = unwrap([...norm.slice(cut), ...norm.slice(0, cut)]);
  const first = run[0];
  const last = run.at(-1);
  const gap = first[0] + 360 - last[0];
  const at = gap > 0 ? (180 - last[0]) / gap : 0;
  const lat = last[1] + (first[1] - last[1]) * at;
  const out = [[-180, lat], ...run, [180, lat], [180, -90], [-180, -90], [-180, lat]];
  return east ? out : out.reverse();
}

const goesRound = (ring) => Math.abs(ring.at(-1)[0] - ring[0][0]) > 180;

/** A GeoJSON Polygon or MultiPolygon as flat polygons: `[[outer, ...holes], ...]`, in degrees. */
export function flatPolygons(geometry) {
  const polygons = geometry.type === "Polygon" ? [geometry.coordinates] : geometry.coordinates;
  const out = [];
  for (const polygon of polygons) {
    const flat = [];
    for (const raw of polygon) {
      const ring = unwrap(raw);
      if (!goesRound(ring)) {
        flat.push(ring);
      } else if (ring.some(([, lat]) => lat > -89)) {
        // In one of the three scales the Antarctic coast is a "hole" in a ring drawn at the pole itself:
        // closed along the pole it is an outer ring like any other, and the ring at the pole is nothing.
        out.push([closeAtPole(ring)]);
      }
    }
    if (flat.length > 0) out.push(alignHoles(flat));
  }
  return out;
}

/** Holes are moved into the same world copy as their outer ring. */
function alignHoles([outer, ...holes]) {
  const moved = recentre(outer);
  const [min, max] = lonRange(moved);
  return [
    moved,
    ...holes.map((hole) => {
      const [low, high] = lonRange(hole);
      const shift = 360 * Math.round(((min + max) / 2 - (low + high) / 2) / 360);
      for (const by of [shift, shift - 360, shift + 360]) {
        if (low + by >= min - 1e-9 && high + by <= max + 1e-9) {
          return hole.map(([lon, lat]) => [lon + by, lat]);
        }
      }
      return hole;
    }),
  ];
}

export function lonRange(points) {
  let min = Infinity;
  let max = -Infinity;
  for (const [lon] of points) {
    min = Math.min(min, lon);
    max = Math.max(max, lon);
  }
  return [min, max];
}

/**
 * A GeoJSON MultiLineString as flat lines, without what is no line in nature: edges along a pole, and edges along
 * the antimeridian, where the finest scale still has Chukotka and Fiji in two pieces.
 */
export function flatLines(geometry) {
  const out = [];
  for (const raw of geometry.coordinates) {
    const line = unwrap(raw);
    let run = [line[0]];
    const end = () => {
      if (run.length > 1) out.push(recentre(run));
    };
    for (let i = 1; i < line.length; i++) {
      if (isCut(line[i - 1], line[i])) {
        end();
        run = [];
      }
      run.push(line[i]);
    }
    end();
  }
  return out;
}

const onAntimeridian = ([lon]) => Math.abs(Math.abs(lon % 360) - 180) < 1e-6;
const atPole = ([, lat]) => Math.abs(lat) > 89;
const isCut = (a, b) => (onAntimeridian(a) && onAntimeridian(b)) || (atPole(a) && atPole(b));

/** Signed area of a flat ring, in the ring's own units squared. */
export function ringArea(ring) {
  let sum = 0;
  for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
    sum += ring[j][0] * ring[i][1] - ring[i][0] * ring[j][1];
  }
  return sum / 2;
}

/** Even-odd test against flat polygons; the point is tried in the neighbouring world copies too. */
export function contains(polygons, lon, lat) {
  return [lon, lon - 360, lon + 360].some((x) =>
    polygons.some((polygon) => {
      let inside = false;
      for (const ring of polygon) {
        for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
          const [xi, yi] = ring[i];
          const [xj, yj] = ring[j];
          if (yi > lat !== yj > lat && x < ((xj - xi) * (lat - yi)) / (yj - yi) + xi) inside = !inside;
        }
      }
      return inside;
    }),
  );
}
