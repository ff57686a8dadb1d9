// The dashboard on the admin side: figures come, fit and are accessible; it says when they do not come, and asks for the token.
import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, describe, test } from 'node:test';
import { Browser, LAPTOP, PHONE } from '../lib/browser.js';
import { checkPage } from '../lib/page-check.js';
import { Demo } from '../lib/server.js';
import { until } from '../lib/until.js';

/** Asks for tiles as a map does: some again and again, some once, some that are not there. */
const ask = async (origin, { from = 0, to = 4, times = 1 } = {}) => {
  const signedIn = await fetch(`${origin}/session`, {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ username: 'demo', password: 'demo' }),
  });
  const cookie = signedIn.headers.get('set-cookie').split(';')[0];
  for (let time = 0; time < times; time++) {
    for (let z = from; z <= to; z++) {
      // The west more often than the east.
      for (let x = 0; x < 2 ** z / (time + 1); x++) {
        const column = Array.from({ length: 2 ** z }, (_, y) => fetch(`${origin}/world/${z}/${x}/${y}.png`, { headers: { Cookie: cookie } }).then((answer) => answer.arrayBuffer()));
        await Promise.all(column);
      }
    }
  }
  // Without a session, and outside of the tileset.
  await fetch(`${origin}/world/0/0/0.png`);
};

/** A server before the admin side that wants a token, as one that is not on loopback does. */
const guarded = (admin, token) => new Promise((resolve) => {
  const state = { up: true, asked: [] };
  const front = http.createServer((request, response) => {
    const open = request.url === '/' || request.url.startsWith('/assets/') || request.url === '/readyz';
    if (!open) state.asked.push(request.headers.authorization);
    if (!state.up) return request.socket.destroy();
    if (!open && request.headers.authorization !== `Bearer ${token}`) {
      response.writeHead(401, { 'Content-Type': 'application/problem+json', 'WWW-Authenticate': 'Bearer' });
      return response.end('{}');
    }
    const { host, ...headers } = request.headers;
    const onward = http.request(`${admin}${request.url}`, { headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    onward.on('error', () => request.socket.destroy());
    onward.end();
    return undefined;
  }).listen(0, '127.0.0.1', () => resolve({ state, origin: `http://127.0.0.1:${front.address().port}`, close: () => { front.closeAllConnections(); front.close(); } }));
});

const textOf = (page, id) => page.evaluate((of) => document.getElementById(of).textContent, id);
const shows = (page, id, pattern) => until(`#${id} shows ${pattern}`, async () => pattern.test(await textOf(page, id)));

describe('the dashboard', { timeout: 900_000 }, () => {
  let demo;
  before(async () => {
    demo = await Demo.start();
    await ask(demo.origin, { times: 3 });
  });
  after(async () => { await demo?.stop(); });

  const check = (page, what, t) => checkPage(page, what, t, { fullPage: true });

  for (const [device, size] of [['laptop', LAPTOP], ['phone', PHONE]]) {
    for (const colorScheme of ['light', 'dark']) {
      test(`shows figures and the map of what is cached: ${device}, ${colorScheme}`, async (t) => {
        const browser = await Browser.launch({ ...size, colorScheme });
        try {
          const page = await browser.page();
          await page.goto(`${demo.admin}/`);
          await shows(page, 'hits', /^\d+\.\d %$/);
          await page.waitForSelector('#cached-map rect');
          // What comes while it is looked at.
          await ask(demo.origin, { from: 0, to: 3 });
          await shows(page, 'hits-more', /^last minute; /);
          await shows(page, 'requests', /^[\d,.]+$/);
          await until('there is a line', () => page.evaluate(() => document.querySelectorAll('#requests-spark polyline').length > 0));
          await check(page, `dashboard-${device}-${colorScheme}`, t);

          const rows = await page.evaluate(() => [...document.querySelectorAll('#cached-zooms tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent)));
          assert.deepEqual(rows.map(([zoom, tiles]) => [zoom, tiles]), [['0', '1'], ['1', '4'], ['2', '16'], ['3', '64'], ['4', '256']]);
          assert.equal(await page.locator('#cached-map rect').count(), 256, 'the zoom with the most tiles');
          // By the keyboard alone.
          await page.focus('#cached-zoom');
          await page.keyboard.press('ArrowUp');
          await until('zoom 3 is drawn', async () => await page.locator('#cached-map rect').count() === 64);
          await page.focus('input[name=by]:checked');
          await page.keyboard.press('ArrowRight');
          await until('it is coloured by heat', () => page.evaluate(() => document.querySelectorAll('#cached-map rect[class^=heat]').length === 64));
          await shows(page, 'cached-caption', /how often its tiles were found/);
          await check(page, `dashboard-heat-${device}-${colorScheme}`, t);
          assert.deepEqual(browser.errors(), []);
        } finally { await browser.close(); }
      });
    }
  }

  test('says since when there are no figures, and comes back by itself; a restarted server starts anew', async (t) => {
    const browser = await Browser.launch(LAPTOP);
    try {
      const page = await browser.page();
      await page.goto(`${demo.admin}/`);
      await shows(page, 'hits', /%/);
      await demo.stop();
      await shows(page, 'trouble', /^No figures since \d\d:\d\d:\d\d: the server does not answer/);
      assert.ok(await page.isVisible('#trouble') && await page.isVisible('#figures'), 'with what was known before');
      await check(page, 'dashboard-gone', t);
      await demo.start();
      await page.waitForSelector('#trouble', { state: 'hidden' });
      await shows(page, 'state', /^Live, restarted at /);
      assert.doesNotMatch(await page.evaluate(() => document.getElementById('figures').textContent), /-\d|NaN|undefined|Infinity/);
    } finally {
      await browser.close();
      if (!(await fetch(`${demo.admin}/healthz`).catch(() => null))?.ok) await demo.start();
    }
  });

  test('asks for the token where there is one, keeps it for the tab, and forgets it when told to', async (t) => {
    const front = await guarded(demo.admin, 'the token of a test');
    const browser = await Browser.launch(PHONE);
    try {
      const page = await browser.page();
      await page.goto(`${front.origin}/`);
      await page.waitForSelector('#token-form:not([hidden])');
      assert.equal(await page.evaluate(() => document.activeElement.id), 'token');
      await check(page, 'dashboard-token', t);
      await page.keyboard.type('another token');
      await page.keyboard.press('Enter');
      await page.waitForSelector('#token-error:not([hidden])');
      await check(page, 'dashboard-token-wrong', t);
      await page.keyboard.type('the token of a test');
      await page.keyboard.press('Enter');
      await page.waitForSelector('#figures:not([hidden])');
      await page.reload();
      await page.waitForSelector('#figures:not([hidden])');
      assert.deepEqual(await page.evaluate(() => [sessionStorage.length, localStorage.length, document.cookie]), [1, 0, '']);
      assert.ok(!page.url().includes('token'));
      await page.click('#forget');
      await page.waitForSelector('#token-form:not([hidden])');
      assert.equal(await page.evaluate(() => sessionStorage.length), 0);
      assert.deepEqual(browser.errors({ provoked: [401] }), []);
    } finally {
      await browser.close();
      front.close();
    }
  });
});
