// A web server that knows nothing of Tilekeep: files and ranges of them, as any host for static files has.
// Its page opens exports in MapLibre through the pmtiles plug-in, with the README's snippet as it is written there.
import { createReadStream, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
const modules = path.resolve(here, '../node_modules');
const readme = readFileSync(path.resolve(here, '../../../README.md'), 'utf8');

/** The README's snippet for an export, for the files of this test. */
export const snippet = (origin) => {
  const section = readme.slice(readme.indexOf('\n## Seeding and export'), readme.indexOf('\n## Load tests'));
  const found = [...section.matchAll(/```js\n([\s\S]*?)```/g)].filter(([, code]) => code.includes('addProtocol'));
  if (found.length !== 1) throw new Error(`The README has ${found.length} snippets for the pmtiles plug-in.`);
  return found[0][1].replaceAll('https://files.example.com', origin);
};

const PAGE = `<!doctype html><html lang="en"><meta charset="utf-8"><title>Exports, offline</title>
  <link rel="icon" href="data:,"><link rel="stylesheet" href="/lib/maplibre-gl/dist/maplibre-gl.css">
  <style>html, body, #map { margin: 0; height: 100% }</style>
  <div id="map"></div>
  <script src="/lib/maplibre-gl/dist/maplibre-gl.js"></script><script src="/lib/pmtiles/dist/pmtiles.js"></script>
  <script src="/run.js"></script>`;

/** Serves a folder's archives. Answers where, what was asked for, and how to end it. */
export const shelf = async (folder) => {
  const asked = [];
  let origin;
  const server = createServer((request, response) => {
    const send = (type, body) => { response.writeHead(200, { 'Content-Type': type }); response.end(body); };
    const name = new URL(request.url, origin).pathname;
    try {
      if (name === '/') return send('text/html', PAGE);
      if (name === '/run.js') return send('text/javascript', `${snippet(origin)}\nwindow.testPanes = { maplibre: { map } };`);
      if (name.startsWith('/lib/')) {
        const file = path.join(modules, name.slice(5));
        if (!file.startsWith(modules)) throw new Error('outside');
        return send(file.endsWith('.css') ? 'text/css' : 'text/javascript', readFileSync(file));
      }
      const file = path.join(folder, path.basename(name));
      const { size, mtimeMs } = statSync(file);
      const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
      asked.push({ name, range: range?.[0] });
      const [start, end] = range ? [Number(range[1]), Math.min(Number(range[2]), size - 1)] : [0, size - 1];
      response.writeHead(range ? 206 : 200, {
        'Content-Type': 'application/octet-stream', 'Content-Length': end - start + 1, 'Accept-Ranges': 'bytes', ETag: `"${size}-${mtimeMs}"`,
        ...(range ? { 'Content-Range': `bytes ${start}-${end}/${size}` } : {}),
      });
      return createReadStream(file, { start, end }).pipe(response);
    } catch (error) {
      response.writeHead(error.code === 'ENOENT' ? 404 : 500);
      return response.end(String(error));
    }
  });
  await new Promise((done) => { server.listen(0, '127.0.0.1', done); });
  origin = `http://127.0.0.1:${server.address().port}`;
  return { origin, asked, close: () => new Promise((done) => { server.closeAllConnections(); server.close(done); }) };
};
