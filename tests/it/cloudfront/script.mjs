// tilekeep.js beside CloudFront, in a page that is made up: its own clock, timers and server. Argument: the script.
import { readFileSync } from 'node:fs';
import vm from 'node:vm';

let now = 1_800_000_000_000;
let timers = [];
let asked = 0;
let nextTimer = 1;
const lasts = 870; // CloudFront's cookies
const exp = now / 1000 + 12 * 3600;
let edgeEnds = 0;
const status = new Map();
const tiles = [];
const listeners = {};
const answer = (code, json) => ({ ok: code < 400, status: code, headers: new Map(), json: async () => json, arrayBuffer: async () => {} });
const context = {
  console, URL, EventTarget, CustomEvent: class extends Event { constructor(type, { detail } = {}) { super(type); this.detail = detail; } },
  document: { currentScript: { src: 'https://tiles.example.com/tilekeep.js' }, visibilityState: 'visible', addEventListener: (type, does) => { listeners[type] = does; } },
  location: { href: 'https://tiles.example.com/map', origin: 'https://tiles.example.com', reload() {} },
  performance: { getEntriesByName: (url) => [{ responseStatus: status.get(url) ?? 0 }] },
  navigator: {},
  addEventListener: () => {},
  setTimeout: (does, wait) => { timers.push({ id: nextTimer, at: now + wait, does }); return nextTimer++; },
  clearTimeout: (id) => { timers = timers.filter((timer) => timer.id !== id); },
  fetch: async (url, { method = 'GET' } = {}) => {
    if (url.endsWith('/session') && method === 'GET') {
      asked += 1;
      edgeEnds = now + lasts * 1000;
      return answer(200, { sub: 'anna', exp, cloudfront: { domain: 'tiles.example.com', expires_in: lasts } });
    }
    tiles.push(url);
    return answer(now < edgeEnds ? 200 : 403);
  },
};
context.window = context;
context.globalThis = context;
context.Date = { now: () => now };
vm.runInNewContext(readFileSync(process.argv[2], 'utf8'), context);
const settle = async () => { for (let i = 0; i < 50; i += 1) await null; };
const pass = async (seconds) => {
  const until = now + seconds * 1000;
  for (;;) {
    timers.sort((a, b) => a.at - b.at);
    if (!timers.length || timers[0].at > until) break;
    const timer = timers.shift();
    now = Math.max(now, timer.at);
    timer.does();
    await settle();
  }
  now = until;
};
const check = (holds, what) => { if (!holds) { console.log(`not so: ${what}`); process.exit(1); } };

const session = context.Tilekeep.session();
await settle();
check(asked === 1, 'asked once at the start');

// An hour of looking at the map: asked anew before the cookies end, and no more often than that takes.
for (let minute = 0; minute < 60; minute += 1) {
  await pass(60);
  check(now < edgeEnds, `the cookies were good in minute ${minute}`);
}
check(asked >= 5 && asked <= 8, `asked ${asked} times in an hour`);

// Nobody looks: nothing is asked for.
context.document.visibilityState = 'hidden';
await pass(3600);
const before = asked;
await pass(3600);
check(asked === before, 'a page that nobody uses asks for nothing');

// Somebody is back, and the map was faster: CloudFront refuses its tiles. They are asked for again, once.
const url = 'https://tiles.example.com/world/3/4/2.png';
status.set(url, 403);
let retried = 0;
const fail = () => session.failed('tile', { url, retry: () => { retried += 1; if (now < edgeEnds) session.forget('tile'); else fail(); } });
fail();
await pass(5);
check(retried === 1 && asked === before + 1, `asked for again once (${retried}), with new cookies (${asked - before})`);

// What CloudFront refuses all the same is left alone.
retried = 0;
const forbidden = () => session.failed('other', { url, retry: () => { retried += 1; forbidden(); } });
forbidden();
await pass(60);
check(retried > 0 && retried <= 3, `a refusal that stays is not asked for ever: ${retried}`);
console.log('as it should be');
process.exit(0);
