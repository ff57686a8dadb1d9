// k6 with the tiles of a list: views of some twenty tiles, and a pause between them.
//
//   tilekeep urls --tileset world --format k6 --limit 20000 > urls.json
//   TILEKEEP_TOKEN=… k6 run -e URLS=$PWD/urls.json -e USERS=50 -e DURATION=1m benches/load/k6.js
//
// URLS is looked for from this script's folder, if it is no absolute path.
// k6 has no browser cache and asks for no 304s. For that, use `tilekeep loadtest`. Load only servers that are yours.

import http from 'k6/http';
import exec from 'k6/execution';
import { check, sleep } from 'k6';
import { SharedArray } from 'k6/data';
import { Counter, Trend } from 'k6/metrics';

const urls = new SharedArray('urls', () => JSON.parse(open(__ENV.URLS || 'urls.json')));

const TILES = Number(__ENV.TILES || 20);
const THINK = Number(__ENV.THINK || 4);

const fill = new Trend('view_fill', true);
const sources = {
  memory: new Counter('from_memory'),
  disk: new Counter('from_disk'),
  origin: new Counter('from_origin'),
};

export const options = {
  vus: Number(__ENV.USERS || 20),
  duration: __ENV.DURATION || '1m',
  // As a browser: six connections to a host over HTTP/1.1.
  batchPerHost: 6,
  batch: TILES,
  discardResponseBodies: true,
  thresholds: {
    http_req_failed: ['rate<0.01'],
    view_fill: ['p(95)<2000'],
  },
};

const headers = { 'Accept-Encoding': 'gzip, br' };
if (__ENV.TILEKEEP_TOKEN) headers.Authorization = `Bearer ${__ENV.TILEKEEP_TOKEN}`;

// A tile that is not there is no failure.
http.setResponseCallback(http.expectedStatuses(200, 204, 304, 404, 410));

export default function view() {
  // Each iteration of each user takes the next tiles of the list.
  const start = (exec.scenario.iterationInTest * TILES) % urls.length;
  const requests = [];
  for (let n = 0; n < Math.min(TILES, urls.length); n += 1) {
    const url = urls[(start + n) % urls.length];
    // One name for all tiles: a metric for each URL would fill the memory.
    requests.push({ method: 'GET', url, params: { headers, tags: { name: 'tile' } } });
  }
  const began = Date.now();
  const answers = http.batch(requests);
  fill.add(Date.now() - began);
  for (const answer of answers) {
    check(answer, { 'let in': (a) => a.status !== 401 && a.status !== 403 });
    const from = /detail=(memory|disk|origin)/.exec(answer.headers['Cache-Status'] || '');
    if (from) sources[from[1]].add(1);
  }
  sleep(THINK * (0.5 + Math.random()));
}
