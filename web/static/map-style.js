// MapLibre styles for each kind of tileset, in the page's colours. No sprite and no glyph server:
// MapLibre draws letters with the browser's own fonts when a style names no glyphs.
'use strict';
(() => {
  const TK = (window.Tilekeep = window.Tilekeep || {});

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const political = () => {
    // Neighbours rarely get names of equal length; a colour column of the data's own is better.
    const colours = ['--map-a', '--map-b', '--map-c', '--map-d', '--map-e'].map(css);
    return (field) => {
      const number = field
        ? ['%', ['to-number', ['get', field], 0], colours.length]
        : ['%', ['+', ['length', ['to-string', ['get', 'name']]], ['length', ['to-string', ['get', 'iso_a3']]]], colours.length];
      return ['match', number, 0, colours[0], 1, colours[1], 2, colours[2], 3, colours[3], colours[4]];
    };
  };

  const vectorLayers = (tileset) => {
    const layers = tileset.vector_layers || [];
    const fills = [];
    const lines = [];
    const points = [];
    const fill = political();
    for (const { id, fields = {} } of layers) {
      const common = { source: 'tiles', 'source-layer': id };
      const names = Object.keys(fields);
      const colourField = names.find((name) => /^(map_?)?colou?r\d*$/i.test(name));
      const nameField = names.find((name) => /^name(_en|:en)?$/i.test(name));
      const isBoundary = /border|boundar/i.test(id);
      const isWater = /water|ocean|lake|sea/i.test(id);
      if (!isBoundary) {
        fills.push({
          id: `${id}-fill`, type: 'fill', ...common, filter: ['==', ['geometry-type'], 'Polygon'],
          paint: { 'fill-color': isWater ? css('--map-water') : colourField || nameField ? fill(colourField) : css('--map-land') },
        });
        // Two strokes of the sea's colour inside the coast give the land a soft edge.
        fills.push({
          id: `${id}-edge`, type: 'line', ...common, filter: ['==', ['geometry-type'], 'Polygon'],
          paint: { 'line-color': css('--map-coast'), 'line-width': ['interpolate', ['linear'], ['zoom'], 0, 0.5, 6, 1.4] },
        });
      }
      lines.push({
        id: `${id}-line`, type: 'line', ...common, filter: ['==', ['geometry-type'], 'LineString'],
        layout: { 'line-join': 'round', 'line-cap': 'round' },
        paint: {
          'line-color': css(isWater ? '--map-coast' : '--map-border'),
          'line-width': ['interpolate', ['linear'], ['zoom'], 0, isBoundary ? 0.6 : 0.8, 6, isBoundary ? 1.8 : 2],
          ...(isBoundary ? { 'line-dasharray': [3, 1.5] } : {}),
        },
      });
      const isPoint = ['==', ['geometry-type'], 'Point'];
      if (nameField) {
        points.push({
          id: `${id}-label`, type: 'symbol', ...common, filter: isPoint,
          layout: {
            'text-field': ['get', nameField],
            'text-font': ['sans-serif'],
            'text-size': ['interpolate', ['linear'], ['zoom'], 0, 11, 5, 15],
            'text-max-width': 7,
            'text-padding': 3,
            ...(names.includes('rank') ? { 'symbol-sort-key': ['to-number', ['get', 'rank'], 99] } : {}),
          },
          paint: { 'text-color': css('--map-text'), 'text-halo-color': css('--map-halo'), 'text-halo-width': 1.4 },
        });
      } else if (!isBoundary) {
        points.push({
          id: `${id}-point`, type: 'circle', ...common, filter: isPoint,
          paint: { 'circle-radius': 3, 'circle-color': css('--map-border'), 'circle-stroke-color': css('--map-halo'), 'circle-stroke-width': 1 },
        });
      }
    }
    return [...fills, ...lines, ...points];
  };

  /** The style that shows `tileset` alone. `tiles` is the address template, by whatever protocol. */
  TK.mapStyle = (tileset, tiles) => {
    const source = {
      tiles: [tiles],
      minzoom: tileset.minzoom,
      maxzoom: tileset.maxzoom,
      bounds: tileset.bounds,
      attribution: tileset.attribution,
    };
    const background = {
      id: 'background', type: 'background',
      paint: { 'background-color': css(tileset.kind === 'vector' ? '--map-water' : '--map-empty') },
    };
    if (tileset.kind === 'vector') {
      return { version: 8, sources: { tiles: { type: 'vector', ...source } }, layers: [background, ...vectorLayers(tileset)] };
    }
    if (tileset.kind === 'values') {
      return {
        version: 8,
        sources: { tiles: { type: 'raster-dem', tileSize: 256, encoding: tileset.encoding, ...source } },
        layers: [background, {
          id: 'tiles', type: 'color-relief', source: 'tiles',
          paint: { 'color-relief-color': ['interpolate', ['linear'], ['elevation'], ...TK.values.stops(tileset.domain)] },
        }],
      };
    }
    return {
      version: 8,
      sources: { tiles: { type: 'raster', tileSize: 256, ...source } },
      layers: [background, { id: 'tiles', type: 'raster', source: 'tiles', paint: { 'raster-fade-duration': 120 } }],
    };
  };
})();
