// One palette for all tiles of a zoom, so that no colour changes where two tiles meet, and no dithering,
// so that flat water stays flat and open-sea tiles stay identical.
//
// Median cut over all the colours that occur, weighted, then a few rounds of k-means. Colours named as
// `fixed` (water, land) come out as they are.

/** Counts colours of RGBA images; colours are 0xRRGGBB. */
export class Histogram {
  #counts = new Map();

  add(rgba) {
    const counts = this.#counts;
    let last = -1;
    let run = 0;
    for (let i = 0; i < rgba.length; i += 4) {
      const colour = (rgba[i] << 16) | (rgba[i + 1] << 8) | rgba[i + 2];
      if (colour === last) {
        run++;
        continue;
      }
      if (run > 0) counts.set(last, (counts.get(last) ?? 0) + run);
      last = colour;
      run = 1;
    }
    counts.set(last, (counts.get(last) ?? 0) + run);
  }

  /** `[{r, g, b, weight}]` by colour. Big areas are damped, or water would take the whole palette. */
  colours() {
    return [...this.#counts]
      .sort(([a], [b]) => a - b)
      .map(([colour, n]) => ({ r: colour >> 16, g: (colour >> 8) & 255, b: colour & 255, weight: n ** 0.6 }));
  }
}

const distance = (a, b) => 2 * (a.r - b.r) ** 2 + 4 * (a.g - b.g) ** 2 + 3 * (a.b - b.b) ** 2;

function mean(box) {
  let [r, g, b, weight] = [0, 0, 0, 0];
  for (const c of box) {
    r += c.r * c.weight;
    g += c.g * c.weight;
    b += c.b * c.weight;
    weight += c.weight;
  }
  return { r: r / weight, g: g / weight, b: b / weight, weight };
}

function spread(box) {
  const m = mean(box);
  const out = { r: 0, g: 0, b: 0 };
  for (const c of box) for (const k of ["r", "g", "b"]) out[k] += c.weight * (c[k] - m[k]) ** 2;
  const [axis, amount] = Object.entries({ r: 2 * out.r, g: 4 * out.g, b: 3 * out.b }).reduce((a, b) => (b[1] > a[1] ? b : a));
  return { axis, amount };
}

function medianCut(colours, count) {
  const boxes = [{ box: colours, ...spread(colours) }];
  while (boxes.length < count) {
    const widest = boxes.reduce((a, b) => (b.amount > a.amount ? b : a));
    if (widest.box.length < 2) break;
    const sorted = widest.box.sort((a, b) => a[widest.axis] - b[widest.axis]);
    const total = sorted.reduce((sum, c) => sum + c.weight, 0);
    let [at, sum] = [0, 0];
    while (at < sorted.length - 1 && sum + sorted[at].weight <= total / 2) sum += sorted[at++].weight;
    at = Math.max(1, at);
    const halves = [sorted.slice(0, at), sorted.slice(at)].map((box) => ({ box, ...spread(box) }));
    boxes.splice(boxes.indexOf(widest), 1, ...halves);
  }
  return boxes.map(({ box }) => mean(box));
}

const nearest = (palette, colour) => {
  let best = 0;
  let least = Infinity;
  for (let i = 0; i < palette.length; i++) {
    const d = distance(palette[i], colour);
    if (d < least) [best, least] = [i, d];
  }
  return best;
};

export class Palette {
  #lookup = new Map();

  /** `fixed`: "#rrggbb" strings. */
  constructor(histogram, count, fixed) {
    const kept = [...new Set(fixed)].map((hex) => {
      const n = parseInt(hex.slice(1), 16);
      return { r: n >> 16, g: (n >> 8) & 255, b: n & 255 };
    });
    const colours = histogram.colours();
    let free = medianCut([...colours], count - kept.length);
    for (let round = 0; round < 4; round++) {
      const boxes = Array.from({ length: count }, () => []);
      for (const c of colours) boxes[nearest([...kept, ...free], c)].push(c);
      free = free.map((old, i) => (boxes[kept.length + i].length > 0 ? mean(boxes[kept.length + i]) : old));
    }
    const round = ({ r, g, b }) => [Math.round(r), Math.round(g), Math.round(b)];
    /** [r, g, b] a colour, light to dark so that neighbours in the palette look alike. */
    this.colours = [...kept, ...free].map(round).sort((a, b) => b[0] + b[1] + b[2] - a[0] - a[1] - a[2]);
  }

  /** Indices for a rectangle of an RGBA image. */
  indices(rgba, stride, left, top, width, height) {
    const palette = (this.entries ??= this.colours.map(([r, g, b]) => ({ r, g, b })));
    const out = new Uint8Array(width * height);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const i = 4 * ((top + y) * stride + left + x);
        const colour = (rgba[i] << 16) | (rgba[i + 1] << 8) | rgba[i + 2];
        let index = this.#lookup.get(colour);
        if (index === undefined) {
          index = nearest(palette, { r: rgba[i], g: rgba[i + 1], b: rgba[i + 2] });
          this.#lookup.set(colour, index);
        }
        out[y * width + x] = index;
      }
    }
    return out;
  }
}
