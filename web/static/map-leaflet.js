// The Leaflet half of the map page.
'use strict';
(() => {
  const TK = (window.Tilekeep = window.Tilekeep || {});

  const lonely = (coords) => `${coords.z}/${coords.x}/${coords.y}`;

  /** Tiles that an <img> cannot show by itself: values through a ramp, or any with the overlay on. */
  const drawnLayer = (tileset, overlay, records, events, options) => {
    const Drawn = L.GridLayer.extend({
      createTile(coords, done) {
        const element = document.createElement('div');
        const size = this.getTileSize();
        const picture = document.createElement(tileset.kind === 'values' ? 'canvas' : 'img');
        picture.className = 'drawn-picture';
        if (picture.tagName === 'IMG') picture.alt = '';
        element.append(picture);
        element.abort = new AbortController();
        const name = lonely(coords);
        const url = tileset.address(coords.z, coords.x, coords.y);
        const mark = (record) => {
          if (!overlay) return;
          records.set(name, record);
          const canvas = document.createElement('canvas');
          const ratio = window.devicePixelRatio || 1;
          canvas.width = size.x * ratio;
          canvas.height = size.y * ratio;
          canvas.className = 'drawn-overlay';
          const context = canvas.getContext('2d');
          context.scale(ratio, ratio);
          TK.provenance.paint(context, 0, 0, size.x, record, name);
          element.querySelector('.drawn-overlay')?.remove();
          element.append(canvas);
          events.changed();
        };
        const failed = (status) => events.session.failed(element, { url, status, retry: () => draw().catch(() => {}) });
        const draw = async () => {
          if (!overlay) {
            const tile = await TK.values.load(url);
            if (tile) TK.values.paint(picture, tile, tileset.encoding, tileset.domain);
            if (tile) events.session.forget(element); else failed();
            return;
          }
          const { record, response, body } = await TK.provenance.load(url, element.abort.signal);
          if (response && response.ok && body.byteLength) {
            const blob = new Blob([body], { type: response.headers.get('Content-Type') || '' });
            if (tileset.kind === 'values') {
              TK.values.paint(picture, await TK.values.pixels(blob), tileset.encoding, tileset.domain);
            } else {
              const source = URL.createObjectURL(blob);
              picture.src = source;
              await picture.decode().catch(() => {});
              URL.revokeObjectURL(source);
            }
          }
          if (response && response.ok) events.session.forget(element); else failed(record.status);
          mark(record);
        };
        draw().then(() => done(null, element), (error) => { if (error.name !== 'AbortError') done(error, element); });
        return element;
      },
    });
    const layer = new Drawn(options);
    layer.on('tileunload', ({ tile }) => { tile.abort.abort(); });
    return layer;
  };

  /** A Leaflet map in `element`, with the same face as the MapLibre one. */
  TK.leafletPane = (element, events) => {
    const map = L.map(element, { zoomControl: false, worldCopyJump: true, maxBoundsViscosity: 1, minZoom: 1 });
    map.attributionControl.setPrefix('<a href="https://leafletjs.com/">Leaflet</a>');
    L.control.zoom({ position: 'topright' }).addTo(map);
    map.setMaxBounds([[-85.0511, -Infinity], [85.0511, Infinity]]);
    let layer = null;
    let current = null;
    let records = new Map();
    let quiet = 0;
    let gliding = false;

    const view = () => {
      const { lat, lng } = map.getCenter();
      return { lat, lng, zoom: map.getZoom() };
    };
    const quietly = (work) => {
      quiet += 1;
      try { work(); } finally { quiet -= 1; }
    };
    const limits = () => {
      if (!current) return;
      // Never smaller than the pane is high: there is nothing beyond the poles.
      const fills = Math.log2(Math.max(1, map.getSize().y) / 256);
      const floor = map.options.zoomSnap ? Math.ceil(fills - 0.05) : fills;
      map.setMinZoom(Math.max(current.minzoom, floor, 0));
      map.setMaxZoom(Math.min(24, current.maxzoom + 3));
    };

    map.on('move', () => { if (!quiet && !gliding) events.moved(view()); });
    map.on('zoomanim', ({ center, zoom }) => {
      if (!quiet && !gliding) events.zooming({ lat: center.lat, lng: center.lng, zoom });
    });
    map.on('moveend', () => { if (!quiet) events.settled(view()); });
    // A pointer names the corner of a screen pixel; what shines there is a tile's pixel at its middle.
    map.on('mousemove click', ({ containerPoint, type }) => {
      events.pointed(map.containerPointToLatLng(containerPoint.add([0.5, 0.5])), containerPoint, type === 'click');
    });
    map.on('mouseout', () => events.pointed(null));
    map.on('resize', () => quietly(limits));

    return {
      name: 'leaflet',
      map,
      draws: (tileset) => tileset.kind !== 'vector',
      show(tileset, overlay) {
        current = tileset;
        TK.provenance.watched(overlay);
        limits();
        if (layer) layer.remove();
        layer = null;
        records = new Map();
        if (tileset.kind === 'vector') return;
        const [west, south, east, north] = tileset.bounds;
        const options = {
          minZoom: tileset.minzoom,
          maxNativeZoom: tileset.maxzoom,
          maxZoom: 24,
          attribution: tileset.attribution,
          // A world-wide tileset repeats to the left and right; Leaflet would cut it at the date line.
          ...(east - west >= 359.9 ? {} : { bounds: [[south, west], [north, east]] }),
        };
        if (overlay || tileset.kind === 'values') {
          layer = drawnLayer(tileset, overlay, records, events, options);
        } else {
          layer = L.tileLayer(tileset.template, options);
        }
        events.session.leaflet(layer);
        layer.on('tileunload', ({ coords }) => { if (records.delete(lonely(coords))) events.changed(); });
        layer.addTo(map);
      },
      view,
      /** Follows the other map. `gliding` while that one moves, so that tiles are not thrown away. */
      follow({ lat, lng, zoom }, isGliding) {
        quietly(() => {
          const center = L.latLng(lat, lng);
          if (Math.abs(zoom - map.getZoom()) < 1e-6 && !gliding) {
            map.setView(center, zoom, { animate: false });
            return;
          }
          // What Leaflet's own pinch does: move by itself, and load tiles at the end only.
          if (!gliding) { map._stop(); map._moveStart(true, false); gliding = true; }
          map._move(center, zoom, isGliding ? { pinch: true, round: false } : undefined);
          if (!isGliding) { gliding = false; map._moveEnd(true); }
        });
      },
      jump({ lat, lng, zoom }) {
        gliding = false;
        quietly(() => { map._stop(); map.setView([lat, lng], zoom, { reset: true, animate: false }); });
      },
      fit([west, south, east, north]) { quietly(() => map.fitBounds([[south, west], [north, east]], { animate: false })); },
      together(isTogether) {
        map.options.zoomSnap = isTogether ? 0 : 1;
        map.options.zoomDelta = 1;
        quietly(limits);
      },
      resize() { quietly(() => { map.invalidateSize({ animate: false }); limits(); }); },
      tileZoom: (zoom) => Math.round(zoom),
      record: (name) => records.get(name),
      visible: () => [...records.values()],
    };
  };
})();
