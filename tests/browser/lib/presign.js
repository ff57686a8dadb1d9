// What applications do without a tile server: a link to the private bucket, presigned for one request (SigV4 in the
// query, "Authenticating Requests: Using Query Parameters", Amazon S3 API Reference).
import { createHash, createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { createSecureServer } from 'node:http2';
import { Demo } from './server.js';

const hmac = (key, text) => createHmac('sha256', key).update(text).digest();
const encode = (text) => encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);

/** A link to an object, dated now. `answer` says what S3 is to send along, like `response-cache-control`. */
export const presign = ({ host, path, keys, region = 'us-east-1', expires = 300, answer = {} }) => {
  const date = new Date().toISOString().replace(/[-:]|\.\d+/g, '');
  const scope = `${date.slice(0, 8)}/${region}/s3/aws4_request`;
  const query = Object.entries({
    ...answer,
    'X-Amz-Algorithm': 'AWS4-HMAC-SHA256', 'X-Amz-Credential': `${keys.AWS_ACCESS_KEY_ID}/${scope}`, 'X-Amz-Date': date,
    'X-Amz-Expires': expires, 'X-Amz-SignedHeaders': 'host', 'X-Amz-Security-Token': keys.AWS_SESSION_TOKEN,
  }).map(([name, value]) => `${encode(name)}=${encode(value)}`).sort().join('&');
  const canonical = ['GET', path, query, `host:${host}`, '', 'host', 'UNSIGNED-PAYLOAD'].join('\n');
  const toSign = ['AWS4-HMAC-SHA256', date, scope, createHash('sha256').update(canonical).digest('hex')].join('\n');
  const key = scope.split('/').reduce((secret, part) => hmac(secret, part), `AWS4${keys.AWS_SECRET_ACCESS_KEY}`);
  return `https://${host}${path}?${query}&X-Amz-Signature=${hmac(key, toSign).toString('hex')}`;
};

/** The demo's own S3 endpoint with its private bucket, and keys that may read `world/` there. */
export const embeddedBucket = async () => {
  const demo = await Demo.start();
  const post = async (where, body, cookie) => {
    const headers = { 'Content-Type': 'application/json', 'Sec-Fetch-Site': 'same-origin', ...(cookie && { Cookie: cookie }) };
    const response = await fetch(`${demo.origin}${where}`, { method: 'POST', headers, body: JSON.stringify(body) });
    if (!response.ok) throw new Error(`${where}: ${response.status} ${await response.text()}`);
    return response;
  };
  const cookie = (await post('/session', { username: 'demo', password: 'demo' })).headers.getSetCookie()[0].split(';')[0];
  const { url } = await (await post('/sign/world/0/0/0.png', {}, cookie)).json();
  const lent = await (await post('/credentials', { tileset: 'world' }, cookie)).json();
  const { origin, pathname } = new URL(url);
  return {
    origin,
    name: pathname.split('/')[1],
    keys: { AWS_ACCESS_KEY_ID: lent.AccessKeyId, AWS_SECRET_ACCESS_KEY: lent.SecretAccessKey, AWS_SESSION_TOKEN: lent.SessionToken },
    close: () => demo.stop(),
  };
};

/** The bucket as browsers reach it: over TLS, on a host of its own, with CORS for the application. Counts what comes. */
export const bucketFront = async ({ tls, bucket, allow }) => {
  const state = { requests: 0, bytes: 0, refused: 0 };
  const server = createSecureServer({ cert: tls.cert ?? readFileSync(tls.certFile), key: tls.key, allowHTTP1: true }, (request, response) => {
    state.requests += 1;
    const host = request.authority ?? request.headers.host;
    const onward = http.request(`${bucket.origin}${request.url}`, { method: request.method, headers: { host } }, (answer) => {
      if (answer.statusCode !== 200) state.refused += 1;
      const { connection, 'keep-alive': alive, 'transfer-encoding': coding, ...rest } = answer.headers;
      response.writeHead(answer.statusCode, { ...rest, 'access-control-allow-origin': allow });
      answer.on('data', (chunk) => { state.bytes += chunk.length; });
      answer.pipe(response);
    });
    onward.on('error', () => { response.writeHead(502); response.end(); });
    onward.end();
  });
  const sessions = new Set();
  server.on('session', (session) => { sessions.add(session); session.on('close', () => sessions.delete(session)); });
  await new Promise((done) => { server.listen(0, '127.0.0.1', done); });
  state.port = server.address().port;
  state.close = () => new Promise((done) => { for (const session of sessions) session.destroy(); server.close(done); });
  return state;
};
