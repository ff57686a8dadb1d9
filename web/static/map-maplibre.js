// The MapLibre half of the map page.
'use strict';
(() => {
  const TK = (window.Tilekeep = window.Tilekeep || {});

  // MapLibre counts zoom in tiles of 512 pixels, everybody else in tiles of 256.
  const STEP = 1;
  const SCHEME = 'tilekeep';

  /** A MapLibre map in `element`, with the same face as the Leaflet one. */
  TK.maplibrePane = (element, events, worker) => {
    if (worker) maplibregl.setWorkerUrl(worker);
    const map = new maplibregl.Map({
      container: element,
      style: { version: 8, sources: {}, layers: [] },
      attributionControl: { compact: false, customAttribution: '<a href="https://maplibre.org/">MapLibre</a>' },
      dragRotate: false,
      pitchWithRotate: false,
      touchPitch: false,
      fadeDuration: 120,
      minZoom: -2,
    });
    map.touchZoomRotate.disableRotation();
    map.keyboard.disableRotation();
    map.addControl(new maplibregl.NavigationControl({ showCompass: false }), 'top-right');

    let current = null;
    let overlay = false;
    let records = new Map();

    // With the overlay on, tiles come by this protocol: it runs in the page, where answers' headers
    // can be read. Without it MapLibre fetches them itself.
    maplibregl.addProtocol(SCHEME, async ({ url }, abort) => {
      const address = url.replace(`${SCHEME}:`, location.protocol);
      const { record, response, body } = await TK.provenance.load(address, abort.signal);
      const name = current && current.nameOf(address);
      if (name) { records.set(name, record); map.triggerRepaint(); events.changed(); }
      if (response && response.ok) {
        return { data: body, cacheControl: response.headers.get('Cache-Control'), expires: response.headers.get('Expires') };
      }
      throw Object.assign(new Error(`${record.status} for ${address}`), { status: record.status, url: address });
    });
    events.session.maplibre(map, ['tiles']);
    map.on('error', ({ error }) => { if (!error || !error.status) console.error(error); });

    const marks = document.createElement('canvas');
    marks.className = 'maplibre-overlay';
    map.getCanvasContainer().append(marks);
    const covering = () => (current ? map.coveringTiles({
      tileSize: current.kind === 'vector' ? 512 : 256,
      minzoom: current.minzoom,
      maxzoom: current.maxzoom,
      roundZoom: current.kind !== 'vector',
    }).filter((tile) => current.covers(tile.canonical)) : []);
    const nameOf = ({ canonical: { z, x, y } }) => `${z}/${x}/${y}`;
    const drawMarks = () => {
      if (!overlay) return;
      const ratio = window.devicePixelRatio || 1;
      const { clientWidth: width, clientHeight: height } = map.getContainer();
      if (marks.width !== Math.round(width * ratio) || marks.height !== Math.round(height * ratio)) {
        marks.width = Math.round(width * ratio);
        marks.height = Math.round(height * ratio);
        marks.style.width = `${width}px`;
        marks.style.height = `${height}px`;
      }
      const context = marks.getContext('2d');
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, width, height);
      for (const tile of covering()) {
        const { z, x, y } = tile.canonical;
        const side = 2 ** z;
        const longitude = (column) => (column / side) * 360 - 180 + tile.wrap * 360;
        const latitude = (row) => (Math.atan(Math.sinh(Math.PI * (1 - (2 * row) / side))) * 180) / Math.PI;
        const from = map.project([longitude(x), latitude(y)]);
        const to = map.project([longitude(x + 1), latitude(y + 1)]);
        const size = to.x - from.x;
        // A label whose corner is out of sight slides into it, as far as its tile goes.
        const slide = (at, room) => Math.max(0, Math.min(-at, size - room));
        TK.provenance.paint(context, from.x, from.y, size, records.get(nameOf(tile)), nameOf(tile), slide(from.x, 130), slide(from.y, 52));
      }
    };
    map.on('render', drawMarks);

    const view = () => {
      const { lat, lng } = map.getCenter();
      return { lat, lng, zoom: map.getZoom() + STEP };
    };
    // Our own movements are marked, and not reported back to where they came from.
    map.on('move', (event) => { if (!event.byOther) events.moved(view(), event.type !== 'moveend'); });
    map.on('moveend', (event) => { if (!event.byOther) events.settled(view()); events.changed(); });
    // A pointer names the corner of a screen pixel; what shines there is a tile's pixel at its middle.
    map.on('mousemove', ({ point }) => events.pointed(map.unproject([point.x + 0.5, point.y + 0.5]), point, false));
    map.on('click', ({ point }) => events.pointed(map.unproject([point.x + 0.5, point.y + 0.5]), point, true));
    map.on('mouseout', () => events.pointed(null));

    return {
      name: 'maplibre',
      map,
      draws: () => true,
      show(tileset, withOverlay) {
        current = tileset;
        overlay = withOverlay;
        TK.provenance.watched(overlay);
        records = new Map();
        marks.hidden = !overlay;
        const absolute = new URL(tileset.template.replace(/[{}]/g, encodeURIComponent), location.href).href
          .replace(/%7B/gi, '{').replace(/%7D/gi, '}');
        const tiles = overlay ? absolute.replace(/^https?:/, `${SCHEME}:`) : absolute;
        map.setMinZoom(Math.max(-2, tileset.minzoom - STEP));
        map.setMaxZoom(Math.min(23, tileset.maxzoom - STEP + (tileset.kind === 'vector' ? 4 : 3)));
        map.setStyle(TK.mapStyle(tileset, tiles), { diff: false });
      },
      view,
      follow({ lat, lng, zoom }) {
        map.jumpTo({ center: [lng, lat], zoom: zoom - STEP }, { byOther: true });
      },
      glide({ lat, lng, zoom }) {
        map.easeTo({ center: [lng, lat], zoom: zoom - STEP, duration: 250 }, { byOther: true });
      },
      jump({ lat, lng, zoom }) { map.jumpTo({ center: [lng, lat], zoom: zoom - STEP }, { byOther: true }); },
      fit([west, south, east, north]) { map.fitBounds([[west, south], [east, north]], { animate: false }, { byOther: true }); },
      together() {},
      resize() { map.resize({ byOther: true }); },
      tileZoom: (zoom) => (current && current.kind === 'vector' ? Math.floor(zoom - STEP) : Math.round(zoom)),
      record: (name) => records.get(name),
      visible: () => covering().map((tile) => records.get(nameOf(tile))).filter(Boolean),
    };
  };
})();
