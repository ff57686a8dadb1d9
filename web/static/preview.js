// The front page's previews of tiles that are no pictures: values through a ramp, vectors as a sketch.
'use strict';
(() => {
  const TK = window.Tilekeep;

  // As much of the Mapbox Vector Tile format as a sketch needs: geometry by layer, no attributes.
  const varints = (bytes, from, to) => {
    const numbers = [];
    for (let at = from; at < to;) {
      let value = 0;
      let scale = 1;
      let byte;
      do {
        byte = bytes[at++];
        value += (byte & 127) * scale;
        scale *= 128;
      } while (byte > 127 && at < to);
      numbers.push(value);
    }
    return numbers;
  };
  const fields = function* (bytes, from, to) {
    let at = from;
    const varint = () => {
      let value = 0;
      let scale = 1;
      let byte;
      do {
        byte = bytes[at++];
        value += (byte & 127) * scale;
        scale *= 128;
      } while (byte > 127 && at < to);
      return value;
    };
    while (at < to) {
      const key = varint();
      const wire = key & 7;
      const start = at;
      if (wire === 0) {
        yield { field: key >> 3, value: varint() };
      } else if (wire === 2) {
        const length = varint();
        yield { field: key >> 3, from: at, to: at + length };
        at += length;
      } else if (wire === 1 || wire === 5) {
        at = start + (wire === 1 ? 8 : 4);
      } else {
        return;
      }
    }
  };
  const layers = (bytes) => [...fields(bytes, 0, bytes.length)].filter((f) => f.field === 3).map((f) => {
    const layer = { extent: 4096, features: [] };
    for (const part of fields(bytes, f.from, f.to)) {
      if (part.field === 5) layer.extent = part.value;
      if (part.field !== 2) continue;
      const feature = { type: 0, geometry: [] };
      for (const inner of fields(bytes, part.from, part.to)) {
        if (inner.field === 3) feature.type = inner.value;
        if (inner.field === 4) feature.geometry = varints(bytes, inner.from, inner.to);
      }
      layer.features.push(feature);
    }
    return layer;
  });
  const trace = (context, geometry, scale) => {
    let x = 0;
    let y = 0;
    context.beginPath();
    for (let at = 0; at < geometry.length;) {
      const command = geometry[at] & 7;
      const count = geometry[at++] >> 3;
      if (command === 7) { context.closePath(); continue; }
      for (let i = 0; i < count; i++) {
        x += (geometry[at] >> 1) ^ -(geometry[at] & 1);
        y += (geometry[at + 1] >> 1) ^ -(geometry[at + 1] & 1);
        at += 2;
        if (command === 1) context.moveTo(x * scale, y * scale);
        else context.lineTo(x * scale, y * scale);
      }
    }
  };
  const sketch = (canvas, bytes) => {
    const context = canvas.getContext('2d');
    const style = getComputedStyle(canvas);
    const colour = (name) => style.getPropertyValue(name).trim();
    context.fillStyle = colour('--map-water');
    context.fillRect(0, 0, canvas.width, canvas.height);
    const all = layers(bytes);
    for (const type of [3, 2]) {
      for (const layer of all) {
        for (const feature of layer.features) {
          if (feature.type !== type) continue;
          trace(context, feature.geometry, canvas.width / layer.extent);
          if (type === 3) { context.fillStyle = colour('--map-land'); context.fill('evenodd'); }
          context.strokeStyle = colour('--map-border');
          context.lineWidth = 0.8;
          context.stroke();
        }
      }
    }
  };

  for (const canvas of document.querySelectorAll('canvas[data-values]')) {
    const { values: url, encoding } = canvas.dataset;
    if (!TK.values.supports(encoding)) continue;
    TK.values.load(url).then((tile) => {
      if (tile) TK.values.paint(canvas, tile, encoding, TK.values.domainOf(tile, encoding));
    });
  }

  const vectors = [...document.querySelectorAll('canvas[data-vector]')].map((canvas) => {
    const bytes = fetch(canvas.dataset.vector)
      .then((response) => (response.ok ? response.arrayBuffer() : null), () => null)
      .then((buffer) => buffer && new Uint8Array(buffer));
    return async () => {
      const tile = await bytes;
      if (tile) sketch(canvas, tile);
    };
  });
  const drawAll = () => vectors.forEach((draw) => draw());
  drawAll();
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawAll);
})();
