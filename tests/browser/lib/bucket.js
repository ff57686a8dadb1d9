// A private bucket: an S3 endpoint that knows GetObject, and answers to signed requests alone. It holds
// tiles-sample/. Its own account of what it was asked is `requests`.
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const samples = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../../tiles-sample');
// At zoom 4 every other tile of `holes/` is missing; the others are those of `world/`.
const filled = (where) => where.replace(/^\/tiles\/holes\/(\d+)\/(\d+)\/(\d+)\.png$/, (all, z, x, y) => (
  z === '4' && (Number(x) + Number(y)) % 2 ? all : `/tiles/world/${z}/${x}/${y}.png`));
const KEY = /^\/tiles\/((world|values|countries)\/\d+\/\d+\/\d+\.(png|mvt))$/;

export const bucket = async () => {
  const state = { requests: 0, broken: false };
  const server = createServer(async (request, response) => {
    state.requests += 1;
    const url = new URL(request.url, 'http://bucket.invalid');
    const signed = request.headers.authorization?.startsWith('AWS4-HMAC-SHA256 ') || url.searchParams.has('X-Amz-Signature');
    const refuse = (status, code) => response.writeHead(status, { 'Content-Type': 'application/xml' }).end(`<?xml version="1.0"?><Error><Code>${code}</Code></Error>`);
    if (state.broken) return refuse(500, 'InternalError');
    if (!signed) return refuse(403, 'AccessDenied');
    const key = KEY.exec(filled(url.pathname))?.[1];
    const body = key && await readFile(path.join(samples, key)).catch(() => null);
    if (!body) return refuse(404, 'NoSuchKey');
    const etag = `"${createHash('md5').update(body).digest('hex')}"`;
    const headers = { ETag: etag, 'Last-Modified': 'Thu, 09 Oct 2025 08:53:20 GMT', 'Access-Control-Allow-Origin': '*' };
    if (request.headers['if-none-match'] === etag) return response.writeHead(304, headers).end();
    return response.writeHead(200, { ...headers, 'Content-Type': key.endsWith('.png') ? 'image/png' : 'application/octet-stream', 'Content-Length': body.length }).end(body);
  });
  await new Promise((done) => { server.listen(0, '127.0.0.1', done); });
  state.origin = `http://127.0.0.1:${server.address().port}`;
  state.close = () => new Promise((done) => { server.closeAllConnections(); server.close(done); });
  return state;
};
