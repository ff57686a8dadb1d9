// Signing in, signing out, and a session that ends while somebody looks at the map.
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { Browser, signIn } from '../lib/browser.js';
import { drag, loadedTiles, open, settled, tilesOfView, viewOf } from '../lib/map.js';
import { Demo } from '../lib/server.js';
import { until } from '../lib/until.js';

describe('sessions', { timeout: 900_000 }, () => {
  let demo;
  let browser;
  let page;
  let provoked;
  before(async () => { demo = await Demo.start(); });
  after(async () => { await demo?.stop(); });
  beforeEach(async () => {
    provoked = [];
    browser = await Browser.launch({ bfcache: true });
    page = await browser.page();
  });
  afterEach(async () => {
    const errors = browser.errors({ provoked });
    await browser.close();
    assert.deepEqual(errors, [], 'no console error but for those that the test provokes, and no policy violation');
  });

  const isMap = (url) => url.pathname === '/map';
  const isLogIn = async (what) => {
    await page.waitForSelector('#login-form');
    assert.equal(new URL(page.url()).pathname, '/login', what);
    assert.equal(await page.locator('.leaflet-tile, canvas').count(), 0);
  };
  const tileStatus = (cookie) => fetch(`${demo.origin}/world/2/1/1.png`, { headers: cookie ? { Cookie: cookie } : {} }).then(({ status }) => status);

  test('a visitor is sent to the log-in, fills in the form, and lands on the map', async () => {
    await page.goto(`${demo.origin}/map`);
    await isLogIn('the map wants a session');
    assert.equal(await tileStatus(), 401);
    await signIn(page, demo.origin, '/map');
    assert.equal(new URL(page.url()).pathname, '/map');
    await settled(page, 'maplibre');
    assert.ok((await loadedTiles(page, 'maplibre')).length > 0);
    const cookies = await browser.context.cookies(demo.origin);
    assert.deepEqual(cookies.map(({ name, httpOnly, sameSite, path }) => ({ name, httpOnly, sameSite, path })),
      [{ name: 'tilekeep_session', httpOnly: true, sameSite: 'Lax', path: '/' }]);
    assert.equal(await page.evaluate(() => document.cookie), '', 'scripts do not see it');
  });

  test('a wrong password is told, keeps the name, and the second attempt works', async () => {
    provoked = [401];
    await signIn(page, demo.origin, '/map', { password: 'not this' });
    const alert = page.locator('#login-error');
    await alert.waitFor();
    assert.match(await alert.textContent(), /password|name/i);
    assert.equal(await page.inputValue('#username'), 'demo');
    assert.equal(await page.inputValue('#password'), '');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'password', 'the cursor waits in the password');
    await page.fill('#password', 'demo');
    await Promise.all([page.waitForURL(isMap), page.keyboard.press('Enter')]);
    await settled(page, 'maplibre');
  });

  test('the log-in comes back to the view that was asked for', async () => {
    await page.goto(`${demo.origin}/map#tileset=values&view=4/10/20&library=leaflet`);
    await isLogIn('the map wants a session');
    await page.fill('#username', 'demo');
    await page.fill('#password', 'demo');
    await Promise.all([page.waitForURL(isMap), page.click('#login-form button[type=submit]')]);
    await settled(page, 'leaflet');
    assert.match(page.url(), /tileset=values&view=4\/10\.0000\/20\.0000&library=leaflet/);
  });

  test('signing out: no page and no tile afterwards, not by the back button either', async () => {
    await signIn(page, demo.origin);
    await open(page, demo.origin, { library: 'leaflet', view: [3, 20, 10] });
    const cookie = await browser.cookieHeader(demo.origin);
    assert.equal(await tileStatus(cookie), 200);
    await Promise.all([page.waitForURL('**/login*'), page.click('[data-sign-out]')]);
    await isLogIn('signing out ends at the log-in');
    assert.deepEqual(await browser.context.cookies(demo.origin), []);
    await page.goBack();
    await isLogIn('the back button leads to the log-in');
    await page.goto(`${demo.origin}/map`);
    await isLogIn('the map wants a session again');
    await page.goto(`${demo.origin}/`);
    await isLogIn('so does the list');
    // Neither the cookie that somebody kept nor the browser's cache shows a tile.
    assert.equal(await tileStatus(cookie), 401);
    assert.equal(await tileStatus(), 401);
    provoked = [401];
    const seen = await page.evaluate(async () => {
      const response = await fetch('/world/3/4/3.png');
      return [response.status, response.headers.get('cache-control')];
    });
    assert.deepEqual(seen, [401, 'no-store']);
  });

  test('signing out in one tab leaves no map in another', async () => {
    provoked = [401];
    await signIn(page, demo.origin);
    await open(page, demo.origin, { library: 'leaflet', view: [4, 30, 10] });
    const other = await browser.context.newPage();
    await other.goto(`${demo.origin}/`);
    const isLogInPage = (url) => url.pathname === '/login';
    await Promise.all([other.waitForURL(isLogInPage), page.waitForURL(isLogInPage), other.click('[data-sign-out]')]);
    await isLogIn('the map has gone');
    assert.match(page.url(), /next=%2Fmap#tileset=world&view=4\/30\.0000\/10\.0000/, 'and will be back where it was');
    await other.close();
  });

  for (const [library, overlay] of [['leaflet', false], ['leaflet', true], ['maplibre', false], ['maplibre', true]]) {
    test(`${library}${overlay ? ', overlay on' : ''}: the session ends under an open map, and comes back without a reload`, async () => {
      provoked = [401];
      await signIn(page, demo.origin);
      await open(page, demo.origin, { library, overlay, view: [4, 30, 10] });
      const shown = await loadedTiles(page, library);
      // On the server, as another device would: this browser learns of it from its tiles.
      const ended = await fetch(`${demo.origin}/session`, { method: 'DELETE', headers: { Cookie: await browser.cookieHeader(demo.origin), 'Sec-Fetch-Site': 'same-origin' } });
      assert.equal(ended.status, 204);
      const mark = page.network.mark();
      await drag(page, library, 0, -300);
      const view = await viewOf(page, library);
      const dialog = 'tilekeep-login dialog';
      await page.waitForSelector(`${dialog}[open]`);
      assert.match(await page.textContent(`${dialog} h2`), /session has ended/i);
      const refused = (await page.network.since(mark)).network.filter(({ status }) => status === 401).map(({ url }) => url);
      assert.ok(refused.length > 0 && shown.length > 0);
      const back = page.network.mark();
      await page.fill(`${dialog} #username`, 'demo');
      await page.fill(`${dialog} #password`, 'demo');
      await page.keyboard.press('Enter');
      await page.waitForSelector(dialog, { state: 'hidden' });
      const box = await page.locator(`#pane-${library}`).boundingBox();
      await until('the tiles that were refused are there', async () => {
        const loaded = new Set(await loadedTiles(page, library));
        return tilesOfView(view, box).every((name) => loaded.has(name));
      });
      await settled(page, library);
      assert.deepEqual(await viewOf(page, library), view);
      const asked = (await page.network.since(back)).tiles.map(({ url }) => url);
      assert.deepEqual(asked.filter((url) => !refused.includes(url)), [], 'only those were asked for again');
    });
  }
});
