// tilekeep.js in an application on another host of the same site, with the README's snippets as written:
// signing in, looking around, and a session that ends and comes back.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { application } from '../lib/application.js';
import { Browser, screenshot } from '../lib/browser.js';
import { bucket } from '../lib/bucket.js';
import { drag, loadedTiles, settled, tilesOfView, viewOf, zoom } from '../lib/map.js';
import { APP, Serve, TILES } from '../lib/serve.js';
import { temporaryFolder } from '../lib/server.js';
import { homeThatTrusts, issue } from '../lib/tls.js';
import { until } from '../lib/until.js';

const HOSTS = ['app.example.test', 'tiles.example.test'];
const DIALOG = 'tilekeep-login dialog';
const LIBRARIES = (process.env.LIBRARIES ?? 'leaflet,maplibre,openlayers').split(',');
const SITES = [
  { name: 'an application on another host', page: APP, tiles: TILES, libraries: LIBRARIES },
  { name: 'an application on the same host, by a proxy', page: APP, tiles: APP, libraries: LIBRARIES },
];

for (const site of SITES) describe(site.name, { timeout: 900_000, skip: !site.libraries.length }, () => {
  let tls;
  let store;
  let serve;
  let app;
  let browser;
  let home;
  const launch = (options = {}) => Browser.launch({
    bfcache: true,
    // Chromium draws MapLibre's maps by software here, which takes its time with each pixel.
    viewport: { width: 900, height: 640 },
    env: { ...process.env, HOME: home },
    // An address with a port would be a different one in production; so both are at 443 for the browser.
    args: [`--host-resolver-rules=MAP app.example.test:443 127.0.0.1:${app.port},MAP tiles.example.test:443 127.0.0.1:${serve.ports.port}`],
    ...options,
  });
  before(async () => {
    tls = issue(temporaryFolder('tls'), HOSTS);
    home = homeThatTrusts(tls.caFile);
    store = await bucket();
    const proxied = site.tiles === site.page;
    serve = await Serve.start({ tls, bucket: store, publicUrl: site.tiles, corsOrigins: proxied ? [] : [site.page] });
    app = await application({ tls, tiles: site.tiles, proxied: proxied && serve });
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    await app?.close();
    await serve?.stop();
    await store?.close();
  });

  const signInByDialog = async (page, name = 'anna') => {
    await page.waitForSelector(`${DIALOG}[open]`);
    await page.fill(`${DIALOG} #username`, name);
    await page.fill(`${DIALOG} #password`, `${name}s password`);
    await page.keyboard.press('Enter');
    await page.waitForSelector(DIALOG, { state: 'hidden' });
  };
  const address = (library, query = '') => `${site.page}/map/${library}.html${query}`;
  const session = (page, work) => page.evaluate(work);
  const during = async (page, work) => {
    const mark = page.network.mark();
    const earlier = await serve.tileRequests();
    await work();
    const later = await serve.tileRequests();
    return { ...await page.network.since(mark), served: later.served - earlier.served, answered: later.answered - earlier.answered, whole: later.whole - earlier.whole };
  };
  const say = (t, library, name, { count, served, again }, more = '') => t.diagnostic(
    `${library} ${name}: network ${count.network} (304: ${count.notModified}), browser disk cache ${count.diskCache}, memory cache ${count.memoryCache}, again ${again.length}; server: tiles ${served}${more}`);
  const noneReached = (seen) => {
    assert.deepEqual(seen.network.map(({ url }) => url), [], 'tile requests that left the browser');
    assert.equal(seen.answered, 0, 'tile requests that the server says it answered');
  };
  const wanted = async (page, library) => tilesOfView(await viewOf(page, library), await page.locator(`#pane-${library}`).boundingBox());
  const allThere = async (page, library) => {
    const loaded = new Set(await loadedTiles(page, library));
    return (await wanted(page, library)).every((name) => loaded.has(name));
  };
  /** What the library took up anew since, and by whatever way, of tiles that it had. */
  const replaced = async (page, library, had, from) => (await page.evaluate(([name, at]) => window.testPanes[name].loads.slice(at), [library, from]))
    .filter((name) => had.includes(name));
  const loads = (page, library) => page.evaluate((name) => window.testPanes[name].loads.length, library);

  test('the browser trusts the certificates, without being told to overlook anything', async () => {
    const page = await browser.page();
    const response = await page.goto(`${site.tiles}/healthz`);
    assert.equal(response.status(), 200);
    assert.equal((await response.securityDetails()).issuer, 'Tilekeep browser tests');
    await page.close();
    const stranger = await launch({ env: { ...process.env, HOME: temporaryFolder('home') } });
    const refused = await (await stranger.page()).goto(`${site.tiles}/healthz`).catch((error) => error.message);
    await stranger.close();
    assert.match(String(refused), /ERR_CERT_AUTHORITY_INVALID/, 'a browser without our authority refuses');
  });

  for (const library of site.libraries) {
    describe(library, () => {
      let page;
      before(async () => {
        await browser.context.clearCookies();
        page = await browser.page();
        page.setDefaultTimeout(20_000);
        await page.network.clearBrowserCache();
      });
      after(async () => { await page?.close(); });

      test('a visitor signs in through the dialog and sees all tiles', async (t) => {
        await page.goto(address(library));
        await page.waitForSelector(`${DIALOG}[open]`);
        assert.equal(await page.evaluate(() => document.activeElement.shadowRoot.activeElement.id), 'username');
        if (library === 'leaflet') {
          await screenshot(page, 'application-sign-in');
          await page.fill(`${DIALOG} #username`, 'anna');
          await page.fill(`${DIALOG} #password`, 'not this');
          await page.keyboard.press('Enter');
          await page.waitForFunction(() => /do not match/.test(document.querySelector('tilekeep-login').shadowRoot.querySelector('[role=alert]').textContent));
        }
        const seen = await during(page, async () => {
          await signInByDialog(page);
          await until('all tiles are there', () => allThere(page, library));
          await settled(page, library);
        });
        say(t, library, 'sign in, first view', seen);
        assert.deepEqual(seen.again.map(({ url }) => url), []);
        const cookies = await browser.context.cookies(site.tiles);
        assert.deepEqual(cookies.map(({ name, domain, httpOnly, secure, sameSite }) => ({ name, domain, httpOnly, secure, sameSite })),
          [{ name: '__Host-tilekeep_session', domain: new URL(site.tiles).hostname, httpOnly: true, secure: true, sameSite: 'Lax' }]);
        await screenshot(page, `${site.tiles === site.page ? 'same-host' : 'application'}-${library}`);
      });

      test('pan far away and back: no tile request', async (t) => {
        const from = await viewOf(page, library);
        const away = await during(page, async () => { for (let leg = 0; leg < 4; leg++) await drag(page, library, -500); });
        say(t, library, 'pan away', away);
        assert.ok(away.network.length > 10);
        const back = await during(page, async () => { for (let leg = 0; leg < 4; leg++) await drag(page, library, 500); });
        say(t, library, 'pan back', back);
        const now = await viewOf(page, library);
        assert.ok(Math.abs(now.lng - from.lng) < 5, `back at ${now.lng}, from ${from.lng}`);
        assert.ok(await allThere(page, library));
        noneReached(back);
      });

      test('zoom out and in: nothing is asked for twice', async (t) => {
        const first = await during(page, async () => { await zoom(page, library, -1); await zoom(page, library, 1); });
        say(t, library, 'zoom out and in', first);
        const second = await during(page, async () => { await zoom(page, library, -1); await zoom(page, library, 1); });
        say(t, library, 'zoom out and in once more', second);
        assert.deepEqual([...first.again, ...second.again].map(({ url }) => url), []);
      });

      test('reload, after a renewal of the session and a restart of the server: no tile request', async (t) => {
        const claims = await session(page, () => window.eval('session').claims);
        await new Promise((done) => { setTimeout(done, 1100); }); // `exp` is in whole seconds
        await session(page, () => window.eval('session').renew());
        const renewed = await session(page, () => window.eval('session').claims);
        assert.ok(renewed.exp > claims.exp, 'renewed');
        await serve.restart();
        const had = await loadedTiles(page, library);
        const from = await loads(page, library);
        const still = await during(page, async () => { await drag(page, library, -200); await drag(page, library, 200); });
        say(t, library, 'short pan and back', still);
        noneReached(still);
        const again = await replaced(page, library, had, from);
        const seen = await during(page, async () => { await page.reload(); await settled(page, library); });
        say(t, library, 'reload', seen, `; replaced before it ${again.length}`);
        assert.deepEqual(again, [], 'tiles replaced by a short pan');
        noneReached(seen);
        assert.ok(await allThere(page, library));
      });

      test('the session ends under the map: what is there stays, what failed comes with the log-in', async (t) => {
        await settled(page, library);
        const had = await loadedTiles(page, library);
        const from = await loads(page, library);
        assert.equal(await serve.endSession(await browser.cookieHeader(site.tiles)), 204);
        const view = {};
        const failing = await during(page, async () => {
          await drag(page, library, 0, -450);
          Object.assign(view, await viewOf(page, library));
          await page.waitForSelector(`${DIALOG}[open]`);
        });
        const failed = failing.network.filter(({ status }) => status === 401);
        assert.ok(failed.length >= 4, `${failed.length} tiles failed`);
        assert.match(await page.textContent(`${DIALOG} h2`), /session has ended/i);
        await screenshot(page, `${site.tiles === site.page ? 'same-host' : 'application'}-${library}-ended`);
        assert.equal(await allThere(page, library), false);
        const back = await during(page, async () => {
          await signInByDialog(page);
          await until('the tiles that failed are there', () => allThere(page, library));
          await settled(page, library);
        });
        assert.deepEqual(await viewOf(page, library), view, 'the view is as it was');
        const again = await replaced(page, library, had, from);
        const retried = back.network.filter(({ url }) => failed.some((one) => one.url === url));
        say(t, library, 'session back', back, `; failed ${failed.length}, images replaced ${again.length}`);
        assert.deepEqual(again, [], 'tiles replaced that were there');
        assert.deepEqual(back.network.filter((one) => !retried.includes(one)).map(({ url }) => url), [], 'requests for other tiles');
        assert.equal(new Set(retried.map(({ url }) => url)).size, retried.length, 'each once');
      });

      test('tiles that failed for another reason come by themselves, once the bucket answers again', async (t) => {
        const had = await loadedTiles(page, library);
        const from = await loads(page, library);
        const asked = store.requests;
        store.broken = true;
        let failing;
        try {
          failing = await during(page, async () => {
            await drag(page, library, 0, -300);
            await new Promise((done) => { setTimeout(done, 3000); });
          });
        } finally {
          store.broken = false;
        }
        assert.ok(failing.network.some(({ status }) => status >= 500), 'tiles failed');
        assert.equal(await page.isVisible(DIALOG), false, 'nobody is asked to sign in');
        const mended = await during(page, () => until('the tiles that failed are there', () => allThere(page, library), { within: 60_000 }));
        say(t, library, 'bucket back', mended, `; requests while it was broken ${failing.network.length}, of the bucket ${store.requests - asked}`);
        assert.deepEqual(await replaced(page, library, had, from), [], 'tiles replaced that were there');
      });

      test('past max-age: an open map replaces nothing, a reload moves no tile that is unchanged', async (t) => {
        await page.goto(address(library, '?tileset=brief'));
        await settled(page, library);
        await until('all tiles are there', () => allThere(page, library));
        const had = await loadedTiles(page, library);
        const from = await loads(page, library);
        const open = await during(page, async () => {
          await new Promise((done) => { setTimeout(done, 4000); }); // max-age is 3 s
          await drag(page, library, -100);
          await drag(page, library, 100);
        });
        const again = await replaced(page, library, had, from);
        say(t, library, 'max-age over, short pan', open, `; images replaced ${again.length}`);
        assert.deepEqual(again, []);
        const moved = ({ again: answers }) => answers.filter(({ revalidated, state }) => !revalidated && state === 'done').map(({ url, status }) => `${status} ${url}`);
        assert.deepEqual(moved(open), [], 'tiles moved though unchanged');
        const seen = await during(page, async () => { await page.reload(); await settled(page, library); await until('all tiles are there', () => allThere(page, library)); });
        say(t, library, 'reload past max-age', seen);
        assert.deepEqual(moved(seen), [], 'tiles moved though unchanged');
        assert.equal(seen.whole, 0, 'tiles with a body, by the account of the server');
      });

      test('signing out empties the map, and the back button shows nothing', async () => {
        await page.goto(address(library));
        await settled(page, library);
        assert.ok(await allThere(page, library));
        await session(page, () => window.eval('session').end());
        await until('the tiles are gone', async () => (await loadedTiles(page, library)).length === 0);
        await screenshot(page, `${site.tiles === site.page ? 'same-host' : 'application'}-${library}-signed-out`);
        assert.equal(await page.isVisible(DIALOG), false, 'who signs out is not asked to sign in');
        await page.goto(`${site.page}/bye`);
        await page.evaluate(() => { history.back(); });
        await page.waitForURL((url) => url.pathname.startsWith('/map/'), { waitUntil: 'commit' });
        await page.waitForSelector(`#pane-${library}`);
        await until('the library is there', () => page.evaluate((name) => Boolean(window.testPanes?.[name]), library));
        await new Promise((done) => { setTimeout(done, 1000); }); // time enough to show something
        assert.deepEqual(await loadedTiles(page, library), []);
      });

      test('the README\u2019s snippet without tilekeep.js shows the map too', async () => {
        await page.goto(address(library, '?again'));
        await signInByDialog(page);
        await page.goto(address(library, '?plain'));
        await settled(page, library);
        await until('all tiles are there', () => allThere(page, library));
      });

      test('signed out elsewhere while in the browser\u2019s history: back shows nothing and asks', async (t) => {
        await page.goto(address(library, '?again'));
        await until('all tiles are there', () => allThere(page, library));
        await page.goto(`${site.page}/bye`);
        assert.equal(await serve.endSession(await browser.cookieHeader(site.tiles)), 204);
        await page.evaluate(() => { history.back(); });
        await page.waitForURL((url) => url.pathname.startsWith('/map/'), { waitUntil: 'commit' });
        await page.waitForSelector(`${DIALOG}[open]`);
        t.diagnostic(`${library}: out of the back-forward cache: ${await page.evaluate(() => performance.getEntriesByType('navigation')[0].notRestoredReasons?.reasons?.map(({ reason }) => reason).join() ?? 'yes')}`);
        await until('the tiles are gone', async () => (await loadedTiles(page, library)).length === 0);
        await signInByDialog(page);
        await until('all tiles are there', () => allThere(page, library));
      });
    });
  }

  test('an open page renews its session by itself before the end', { skip: !LIBRARIES.includes('leaflet') }, async () => {
    await browser.context.clearCookies();
    const page = await browser.context.newPage();
    await page.clock.install();
    await page.goto(address(site.libraries[0]));
    await signInByDialog(page);
    const renewals = [];
    page.on('request', (request) => { if (request.url().endsWith('/session/renew')) renewals.push(request.method()); });
    await page.clock.fastForward('11:45:00'); // of twelve hours
    assert.deepEqual(renewals, [], 'not too early');
    await page.clock.fastForward('00:06:00');
    await page.clock.fastForward('00:02:00');
    await until('it is renewed', () => renewals.length > 0);
    assert.equal(await page.evaluate(() => window.eval('session').state), 'valid');
    assert.equal(await page.isVisible(DIALOG), false);
    await page.close();
  });

  test('no console error and no policy violation but for the refused requests', () => {
    assert.deepEqual(browser.errors({ provoked: [401, 502, 503] }).filter((text) => !text.includes('/favicon.ico')), []);
  });
});
