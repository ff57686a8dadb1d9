// Signed distance to the coast, in kilometres: positive on land, negative at sea.
//
// The coast is Natural Earth's at 1:10m, as points never more than two kilometres apart, on a sphere of
// the Earth's mean radius. The nearest point is found exactly, by chord length in a k-d tree in three
// dimensions, so neither the poles nor the antimeridian is special.

export const EARTH_RADIUS_KM = 6371.0088;
const SPACING_KM = 2;

const toUnit = (lon, lat) => {
  const l = (lon * Math.PI) / 180;
  const p = (lat * Math.PI) / 180;
  return [Math.cos(p) * Math.cos(l), Math.cos(p) * Math.sin(l), Math.sin(p)];
};

/** Unit vectors along flat lines (degrees), three numbers a point. */
function sample(lines) {
  const out = [];
  for (const line of lines) {
    let [ax, ay, az] = toUnit(...line[0]);
    out.push(ax, ay, az);
    for (let i = 1; i < line.length; i++) {
      const [bx, by, bz] = toUnit(...line[i]);
      const length = EARTH_RADIUS_KM * Math.hypot(bx - ax, by - ay, bz - az);
      const pieces = Math.ceil(length / SPACING_KM);
      for (let k = 1; k < pieces; k++) {
        const t = k / pieces;
        const x = ax + (bx - ax) * t;
        const y = ay + (by - ay) * t;
        const z = az + (bz - az) * t;
        const n = Math.hypot(x, y, z);
        out.push(x / n, y / n, z / n);
      }
      out.push(bx, by, bz);
      [ax, ay, az] = [bx, by, bz];
    }
  }
  return Float64Array.from(out);
}

const LEAF = 12;

/**
 * Nearest-point search. Ranges of the point array, halved at the median of their box's longest side, make
 * the tree; each node has the box round its points, and a box farther away than the best point is skipped.
 */
export class Coast {
  #points;
  #boxes = [];
  #ranges = [];
  /** The point found last, a good first guess for the next pixel. */
  #last = 0;
  #stack = new Int32Array(256);

  constructor(lines) {
    this.#points = sample(lines);
    this.#build(0, this.size - 1, 0);
    this.#boxes = Float64Array.from(this.#boxes);
    this.#ranges = Int32Array.from(this.#ranges);
  }

  get size() {
    return this.#points.length / 3;
  }

  /** Nodes are stored depth first: a node's left child follows it, `ranges` says where its right child is. */
  #build(left, right) {
    const p = this.#points;
    const node = this.#ranges.length / 3;
    const box = [Infinity, Infinity, Infinity, -Infinity, -Infinity, -Infinity];
    for (let i = left; i <= right; i++) {
      for (let k = 0; k < 3; k++) {
        box[k] = Math.min(box[k], p[3 * i + k]);
        box[k + 3] = Math.max(box[k + 3], p[3 * i + k]);
      }
    }
    this.#boxes.push(...box);
    this.#ranges.push(left, right, 0);
    if (right - left < LEAF) return;
    const sides = [box[3] - box[0], box[4] - box[1], box[5] - box[2]];
    const mid = (left + right) >> 1;
    this.#select(mid, left, right, sides.indexOf(Math.max(...sides)));
    this.#build(left, mid);
    this.#ranges[3 * node + 2] = this.#ranges.length / 3;
    this.#build(mid + 1, right);
  }

  #swap(i, j) {
    const p = this.#points;
    for (let k = 0; k < 3; k++) {
      const t = p[3 * i + k];
      p[3 * i + k] = p[3 * j + k];
      p[3 * j + k] = t;
    }
  }

  /** Hoare's selection: afterwards the k-th smallest along `axis` is at k, smaller ones before it. */
  #select(k, left, right, axis) {
    const p = this.#points;
    while (right > left) {
      const pivot = p[3 * ((left + right) >> 1) + axis];
      let i = left;
      let j = right;
      while (i <= j) {
        while (p[3 * i + axis] < pivot) i++;
        while (p[3 * j + axis] > pivot) j--;
        if (i <= j) this.#swap(i++, j--);
      }
      if (k <= j) right = j;
      else if (k >= i) left = i;
      else return;
    }
  }

  #boxDistance(node, x, y, z) {
    const b = this.#boxes;
    const o = 6 * node;
    const dx = x < b[o] ? b[o] - x : x > b[o + 3] ? x - b[o + 3] : 0;
    const dy = y < b[o + 1] ? b[o + 1] - y : y > b[o + 4] ? y - b[o + 4] : 0;
    const dz = z < b[o + 2] ? b[o + 2] - z : z > b[o + 5] ? z - b[o + 5] : 0;
    return dx * dx + dy * dy + dz * dz;
  }

  /** Unsigned distance in kilometres from a unit vector. */
  distance(x, y, z) {
    const p = this.#points;
    const ranges = this.#ranges;
    const stack = this.#stack;
    const l = 3 * this.#last;
    let best = (p[l] - x) ** 2 + (p[l + 1] - y) ** 2 + (p[l + 2] - z) ** 2;
    let depth = 0;
    stack[depth++] = 0;
    while (depth > 0) {
      const node = stack[--depth];
      if (this.#boxDistance(node, x, y, z) >= best) continue;
      const right = ranges[3 * node + 2];
      if (right !== 0) {
        const nearLeft = this.#boxDistance(node + 1, x, y, z) <= this.#boxDistance(right, x, y, z);
        stack[depth++] = nearLeft ? right : node + 1;
        stack[depth++] = nearLeft ? node + 1 : right;
        continue;
      }
      for (let i = ranges[3 * node]; i <= ranges[3 * node + 1]; i++) {
        const dx = p[3 * i] - x;
        const dy = p[3 * i + 1] - y;
        const dz = p[3 * i + 2] - z;
        const d = dx * dx + dy * dy + dz * dz;
        if (d < best) {
          best = d;
          this.#last = i;
        }
      }
    }
    return 2 * EARTH_RADIUS_KM * Math.asin(Math.min(1, Math.sqrt(best) / 2));
  }

  distanceAt(lon, lat) {
    return this.distance(...toUnit(lon, lat));
  }
}
