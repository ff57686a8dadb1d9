// Data-encoded tiles: exact pixels, the values in them, and colours for them.
'use strict';
(() => {
  const TK = (window.Tilekeep = window.Tilekeep || {});

  // Each encoding counts in whole steps, so that a value is exact until it is shown.
  const ENCODINGS = {
    mapbox: { steps: (r, g, b) => r * 65536 + g * 256 + b - 100000, perUnit: 10, digits: 1 },
    terrarium: { steps: (r, g, b) => r * 65536 + g * 256 + b - 8388608, perUnit: 256, digits: 2 },
  };

  /**
   * The pixels of a tile as they were encoded. Colour management and alpha premultiplication would
   * change them, and a changed digit of red is 6553.6 units. The cache mode is the browser's own: the
   * map has just loaded this tile, so this costs no request.
   */
  const pixels = async (blob) => {
    const image = await createImageBitmap(blob, { colorSpaceConversion: 'none', premultiplyAlpha: 'none' });
    const { width, height } = image;
    const canvas = document.createElement('canvas');
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext('2d', { willReadFrequently: true, colorSpace: 'srgb' });
    context.drawImage(image, 0, 0);
    image.close();
    return { width, height, data: context.getImageData(0, 0, width, height).data };
  };

  const valueAt = (tile, encoding, column, row) => {
    const { steps, perUnit } = ENCODINGS[encoding];
    const at = (row * tile.width + column) * 4;
    if (tile.data[at + 3] === 0) return null;
    return steps(tile.data[at], tile.data[at + 1], tile.data[at + 2]) / perUnit;
  };

  const format = (value, encoding) =>
    value.toLocaleString('en', {
      minimumFractionDigits: ENCODINGS[encoding].digits,
      maximumFractionDigits: ENCODINGS[encoding].digits,
    }).replace('-', '\u2212');

  // Viridis: even steps for the eye, and for eyes that see fewer colours.
  const RAMP = [
    [68, 1, 84], [72, 36, 117], [65, 68, 135], [53, 95, 141], [42, 120, 142], [33, 145, 140],
    [34, 168, 132], [68, 191, 112], [122, 209, 81], [189, 223, 38], [253, 231, 37],
  ];
  const colour = (share) => {
    const place = Math.min(1, Math.max(0, share)) * (RAMP.length - 1);
    const lower = Math.min(RAMP.length - 2, Math.floor(place));
    const part = place - lower;
    return RAMP[lower].map((from, i) => Math.round(from + (RAMP[lower + 1][i] - from) * part));
  };

  /** The range of values worth colouring: all but the outermost hundredth at each end of one tile. */
  const domainOf = (tile, encoding) => {
    const values = [];
    for (let row = 0; row < tile.height; row += 2) {
      for (let column = 0; column < tile.width; column += 2) {
        const value = valueAt(tile, encoding, column, row);
        if (value !== null) values.push(value);
      }
    }
    if (!values.length) return [0, 1];
    values.sort((a, b) => a - b);
    const low = values[Math.floor(values.length * 0.01)];
    const high = values[Math.ceil(values.length * 0.99) - 1];
    return high > low ? [low, high] : [low - 1, low + 1];
  };

  /** Draws a tile's values through the ramp. */
  const paint = (canvas, tile, encoding, [low, high]) => {
    canvas.width = tile.width;
    canvas.height = tile.height;
    const table = Array.from({ length: 512 }, (_, i) => colour(i / 511));
    const image = new ImageData(tile.width, tile.height);
    const { steps, perUnit } = ENCODINGS[encoding];
    for (let at = 0; at < tile.data.length; at += 4) {
      if (tile.data[at + 3] === 0) continue;
      const value = steps(tile.data[at], tile.data[at + 1], tile.data[at + 2]) / perUnit;
      const share = Math.min(1, Math.max(0, (value - low) / (high - low)));
      const [r, g, b] = table[Math.round(share * 511)];
      image.data[at] = r;
      image.data[at + 1] = g;
      image.data[at + 2] = b;
      image.data[at + 3] = 255;
    }
    canvas.getContext('2d').putImageData(image, 0, 0);
  };

  /** Decoded tiles by address, the latest used last; 64 tiles are about 16 MB. */
  const decoded = new Map();
  const remember = (url, promise) => {
    decoded.delete(url);
    decoded.set(url, promise);
    // An absent tile is believed for a while: a moving pointer should not ask again at each step.
    promise.then((tile) => {
      if (!tile) setTimeout(() => { if (decoded.get(url) === promise) decoded.delete(url); }, 30e3);
    });
    if (decoded.size > 64) decoded.delete(decoded.keys().next().value);
    return promise;
  };
  const load = (url) => {
    const there = decoded.get(url);
    if (there) return remember(url, there);
    const forget = () => { decoded.delete(url); return null; };
    return remember(url, (async () => {
      try {
        const response = await fetch(url);
        if (response.status === 404 || response.status === 204 || response.status === 410) return null;
        return response.ok ? await pixels(await response.blob()) : forget();
      } catch {
        return forget();
      }
    })());
  };

  TK.values = {
    supports: (encoding) => encoding in ENCODINGS,
    pixels, valueAt, format, colour, domainOf, paint, load,
    /** The value formula's ramp as MapLibre stops. */
    stops: ([low, high]) => RAMP.flatMap((rgb, i) => [
      low + ((high - low) * i) / (RAMP.length - 1), `rgb(${rgb.join(',')})`,
    ]),
  };
})();
