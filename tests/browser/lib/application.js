// An application on a host of its own, https://app.example.test, whose maps are the README's snippets as they
// are written there. Its pages have a strict content security policy.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createSecureServer } from 'node:http2';
import https from 'node:https';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
const modules = path.resolve(here, '../node_modules');
const readme = readFileSync(path.resolve(here, '../../../README.md'), 'utf8');

const NAMES = { leaflet: 'Leaflet', maplibre: 'MapLibre', openlayers: 'OpenLayers' };

/** The README's snippet for a library, with tilekeep.js or without, for the hosts of this test. */
export const snippet = (library, { plain = false, tiles, tileset = 'world' }) => {
  const section = readme.slice(readme.indexOf('\n## In your map'), readme.indexOf('\n## Sessions and tokens'));
  const found = [...section.matchAll(/\*\*(\w+)\*\*[^\n]*\n\n```js\n([\s\S]*?)```/g)]
    .filter(([, name, code]) => name === NAMES[library] && code.includes('Tilekeep.session') !== plain);
  if (found.length !== 1) throw new Error(`The README has ${found.length} snippets for ${NAMES[library]} ${plain ? 'without' : 'with'} tilekeep.js.`);
  return found[0][2].replaceAll('https://tiles.example.com', tiles).replaceAll('/world', `/${tileset}`);
};

const FILES = {
  leaflet: { scripts: ['leaflet/dist/leaflet.js'], style: 'leaflet/dist/leaflet.css' },
  maplibre: { scripts: ['maplibre-gl/dist/maplibre-gl.js'], style: 'maplibre-gl/dist/maplibre-gl.css' },
  openlayers: { scripts: [], style: 'ol/ol.css' },
};
// The README imports OpenLayers by its names in npm, as a bundler resolves them.
const IMPORTS = JSON.stringify({ imports: { 'ol/': '/lib/ol/', rbush: '/lib/rbush/index.js', quickselect: '/lib/quickselect/index.js' } });

// What comes before and after a snippet: the map that the README leaves to the reader, and places where tests
// look things up. `loads` tells each tile that a library takes up, and so each one that it replaces.
const AROUND = {
  leaflet: (code) => `const map = L.map('map', { fadeAnimation: false }).setView([30, 10], 4);\n${code}
    const layer = Object.values(map._layers).find((one) => one.getTileUrl);
    const wrap = ({ z, x, y }) => z + '/' + ((x % 2 ** z) + 2 ** z) % 2 ** z + '/' + y;
    const loads = [];
    layer.on('tileload', ({ coords }) => loads.push(wrap(coords)));
    window.testPanes = { leaflet: { map, loads, jump: (lat, lng, zoom) => map.setView([lat, lng], zoom, { animate: false }),
      view: () => ({ ...map.getCenter(), zoom: map.getZoom() }) } };`,
  maplibre: (code) => `${code}
    map.addControl(new maplibregl.NavigationControl());
    map.dragRotate.disable();
    const loads = [];
    map.on('data', ({ dataType, tile }) => {
      if (dataType === 'source' && tile) loads.push([tile.tileID.canonical.z, tile.tileID.canonical.x, tile.tileID.canonical.y].join('/'));
    });
    map.jumpTo({ center: [10, 30], zoom: 3 });
    window.testPanes = { maplibre: { map, loads, jump: (lat, lng, zoom) => map.jumpTo({ center: [lng, lat], zoom: zoom - 1 }),
      view: () => ({ lat: map.getCenter().lat, lng: map.getCenter().lng, zoom: map.getZoom() + 1 }) } };`,
  openlayers: (code) => `import { fromLonLat, toLonLat } from 'ol/proj.js';\n${code}
    const loads = [];
    const layer = map.getLayers().item(0);
    layer.getSource().on('tileloadend', ({ tile }) => loads.push(tile.getTileCoord().join('/')));
    const view = map.getView();
    const jump = (lat, lng, zoom) => { view.setCenter(fromLonLat([lng, lat])); view.setZoom(zoom); };
    jump(30, 10, 4);
    window.testPanes = { openlayers: { map, layer, loads, jump,
      view: () => { const [lng, lat] = toLonLat(view.getCenter()); return { lat, lng, zoom: view.getZoom() }; } } };
    ${code.includes('Tilekeep.session') ? 'window.session = session;' : ''}`,
};

/**
 * What Tilekeep is there to replace: the README's snippet as it is, but each time a library wants a tile, the page asks
 * its application for a link to the bucket, presigned for this one request.
 */
const presigned = (library, brief) => {
  const url = `https://app.example.test/link/${brief ? 'brief' : 'world'}/{z}/{x}/{y}.png`;
  const code = snippet(library, { plain: true, tiles: 'https://tiles.example.test' })
    .replace("url: 'https://tiles.example.test/world.json'", `tiles: ['${url}'], maxzoom: 5`)
    .replace('https://tiles.example.test/world/{z}/{x}/{y}.png', url)
    .replaceAll("'use-credentials'", "'anonymous'")
    .replace(/transformRequest: .*,\n/, 'transformRequest: async (url) => ({ url: await link(url) }),\n');
  return AROUND[library](`const link = async (url) => (await fetch(url)).text();\n${LINKED[library](code)}`);
};
const LINKED = {
  leaflet: (code) => `L.TileLayer.include({ createTile(coords, done) {
      const tile = document.createElement('img');
      tile.alt = '';
      tile.onload = () => this._tileOnLoad(done, tile);
      tile.onerror = (error) => this._tileOnError(done, tile, error);
      link(this.getTileUrl(coords)).then((url) => { tile.src = url; });
      return tile;
    } });\n${code}`,
  maplibre: (code) => code,
  openlayers: (code) => `${code}\nmap.getLayers().item(0).getSource().setTileLoadFunction((tile, url) => link(url).then((linked) => { tile.getImage().src = linked; }));`,
};

const page = ({ library, plain, tiles, tileset }) => {
  const { scripts, style } = FILES[library];
  const query = `?tileset=${tileset}${plain ? '&plain' : ''}`;
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>An application with ${NAMES[library]}</title>
    <meta name="viewport" content="width=device-width">
    <link rel="icon" href="data:,"><link rel="stylesheet" href="/lib/${style}"><link rel="stylesheet" href="/app.css">
    <script type="importmap">${IMPORTS}</script>
    <h1>Acme, inc.</h1>
    <div id="pane-${library}" class="pane"><div id="map"></div></div>
    ${plain ? '' : `<script src="${tiles}/tilekeep.js"></script>`}
    ${scripts.map((file) => `<script src="/lib/${file}"></script>`).join('')}
    <script ${library === 'openlayers' ? 'type="module" ' : ''}src="/run/${library}.js${query}"></script>`;
};
// `tiles` is the page's own origin where both are on one host.
const policy = (tiles) => [
  "default-src 'none'", `script-src 'self' ${tiles} 'sha256-${createHash('sha256').update(IMPORTS).digest('base64')}'`, "style-src 'self'",
  `img-src 'self' data: blob: ${tiles}`, `connect-src ${tiles}`, 'worker-src blob:',
].join('; ');
const STYLE = 'html, body { margin: 0; height: 100%; font: 16px sans-serif } h1 { font-size: 18px; margin: 0; padding: 12px; height: 20px } '
  + '.pane, #map { height: calc(100vh - 44px) } .pane { position: relative }';

/** Hands a request on to the tile server, as a reverse proxy in front of both does. */
const forward = (serve, request, response) => {
  const { hostname } = new URL(serve.origin);
  const headers = Object.fromEntries(Object.entries(request.headers).filter(([name]) => !name.startsWith(':')));
  const onward = https.request({
    host: '127.0.0.1', port: serve.ports.port, servername: hostname, ca: serve.tls.ca, method: request.method, path: request.url, headers: { ...headers, host: hostname },
  }, (answer) => {
    const { connection, 'keep-alive': alive, 'transfer-encoding': coding, ...rest } = answer.headers;
    response.writeHead(answer.statusCode, rest);
    answer.pipe(response);
  });
  onward.on('error', () => { response.writeHead(502); response.end(); });
  request.pipe(onward);
};

/** Starts it; answers its port and how to end it. With `proxied`, a tile server is on the same host. */
export const application = async ({ tls, tiles, proxied, link }) => {
  const server = createSecureServer({ cert: tls.cert, key: tls.key, allowHTTP1: true }, (request, response) => {
    const url = new URL(request.url, 'https://app.example.test');
    const [, folder, ...rest] = url.pathname.split('/');
    const library = rest.at(-1)?.replace(/\..*$/, '');
    const options = { library, tiles, plain: url.searchParams.has('plain'), tileset: url.searchParams.get('tileset') ?? 'world' };
    const send = (type, body, headers = {}) => { response.writeHead(200, { 'Content-Type': type, ...headers }); response.end(body); };
    try {
      if (url.pathname === '/app.css') return send('text/css', STYLE);
      if (url.pathname === '/bye') return send('text/html', '<!doctype html><title>Bye</title><h1>Signed out</h1>');
      if (options.tileset.startsWith('presigned')) {
        if (folder === 'map') return send('text/html', page({ ...options, plain: true }));
        if (folder === 'run') return send('text/javascript', presigned(library, options.tileset === 'presigned-brief'));
      }
      if (folder === 'link' && link) {
        return send('text/plain', link(rest[0] === 'brief' ? 3 : 3600, rest.slice(1).join('/')), { 'Cache-Control': 'no-store' });
      }
      if (folder === 'map') return send('text/html', page(options), { 'Content-Security-Policy': policy(tiles) });
      if (folder === 'run') return send('text/javascript', AROUND[library](snippet(library, options)), { 'Cache-Control': 'no-store' });
      if (folder === 'lib') {
        const file = path.join(modules, ...rest);
        if (!file.startsWith(modules)) throw new Error('outside');
        return send(file.endsWith('.css') ? 'text/css' : 'text/javascript', readFileSync(file), { 'Cache-Control': 'max-age=3600' });
      }
    } catch (error) {
      response.writeHead(error.code === 'ENOENT' ? 404 : 500);
      return response.end(String(error));
    }
    if (proxied) return forward(proxied, request, response);
    response.writeHead(404);
    return response.end();
  });
  const sessions = new Set();
  server.on('session', (session) => { sessions.add(session); session.on('close', () => sessions.delete(session)); });
  await new Promise((done) => { server.listen(0, '127.0.0.1', done); });
  return {
    port: server.address().port,
    close: () => new Promise((done) => { for (const session of sessions) session.destroy(); server.close(done); }),
  };
};
