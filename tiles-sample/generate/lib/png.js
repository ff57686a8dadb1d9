// A PNG writer for exactly two kinds of image: indexed colour for maps that people look at, and 24-bit RGB
// for pixels that are numbers. It writes IHDR, PLTE, IDAT, IEND and nothing else: no gamma, no colour
// profile, no time stamp, so the bytes depend on the pixels alone and no reader is told to change them.
// Compression is fflate's (plain JavaScript): the same bytes with every version of Node on every machine.

import { zlibSync } from "fflate";

const CRC = new Uint32Array(256).map((_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

function chunk(type, data) {
  const out = new Uint8Array(12 + data.length);
  const view = new DataView(out.buffer);
  view.setUint32(0, data.length);
  for (let i = 0; i < 4; i++) out[4 + i] = type.charCodeAt(i);
  out.set(data, 8);
  let crc = 0xffffffff;
  for (let i = 4; i < 8 + data.length; i++) crc = CRC[(crc ^ out[i]) & 255] ^ (crc >>> 8);
  view.setUint32(8 + data.length, (crc ^ 0xffffffff) >>> 0);
  return out;
}

function assemble(width, height, depth, colourType, rows, palette) {
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([depth, colourType, 0, 0, 0], 8);
  const parts = [Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10), chunk("IHDR", header)];
  if (palette) parts.push(chunk("PLTE", palette));
  parts.push(chunk("IDAT", smallest(rows)), chunk("IEND", new Uint8Array(0)));
  return Buffer.concat(parts);
}

const smallest = (candidates) =>
  candidates
    .map((rows) => zlibSync(rows, { level: 9, mem: 9 }))
    .reduce((best, next) => (next.length < best.length ? next : best));

/** `indices` point into `palette` (an array of [r, g, b]); only colours in use are written, in palette order. */
export function encodeIndexed(width, height, indices, palette) {
  const used = new Uint8Array(256);
  for (const index of indices) used[index] = 1;
  const slot = new Uint8Array(256);
  const colours = [];
  for (let i = 0; i < 256; i++) {
    if (!used[i]) continue;
    slot[i] = colours.length / 3;
    colours.push(...palette[i]);
  }
  const count = colours.length / 3;
  const depth = count <= 2 ? 1 : count <= 4 ? 2 : count <= 16 ? 4 : 8;
  const stride = 1 + Math.ceil((width * depth) / 8);
  const rows = new Uint8Array(stride * height); // filter 0: indices have no gradient to predict
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const bit = x * depth;
      rows[y * stride + 1 + (bit >> 3)] |= slot[indices[y * width + x]] << (8 - depth - (bit & 7));
    }
  }
  return assemble(width, height, depth, 3, [rows], Uint8Array.from(colours));
}

/** `rgb` is three bytes a pixel. Flat areas compress best unfiltered, gradients as differences: the smaller is kept. */
export function encodeRgb(width, height, rgb) {
  const line = width * 3;
  const plain = new Uint8Array((line + 1) * height);
  const sub = new Uint8Array((line + 1) * height);
  for (let y = 0; y < height; y++) {
    const row = y * (line + 1);
    sub[row] = 1;
    for (let i = 0; i < line; i++) {
      const value = rgb[y * line + i];
      plain[row + 1 + i] = value;
      sub[row + 1 + i] = i >= 3 ? value - rgb[y * line + i - 3] : value;
    }
  }
  return assemble(width, height, 8, 2, [plain, sub]);
}
