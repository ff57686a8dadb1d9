// Why Tilekeep: the same page, the same library, the same private bucket and the same hand on the mouse, once with
// Tilekeep in between and once with a presigned URL for each tile. What is counted are tiles that were seen before,
// have not changed, and come over the network all the same. The figures and the picture in the README are these.
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { application } from '../lib/application.js';
import { Browser, out, screenshot } from '../lib/browser.js';
import { drag, loadedTiles, settled, tilesOfView, viewOf } from '../lib/map.js';
import { picture } from '../lib/picture.js';
import { bucketFront, embeddedBucket, presign } from '../lib/presign.js';
import { APP, Serve } from '../lib/serve.js';
import { temporaryFolder } from '../lib/server.js';
import { homeThatTrusts, issue } from '../lib/tls.js';
import { until } from '../lib/until.js';

const BUCKET = 'bucket.example.test';
const HOSTS = ['app.example.test', 'tiles.example.test', BUCKET];
const DIALOG = 'tilekeep-login dialog';
const LIBRARIES = (process.env.LIBRARIES ?? 'leaflet,maplibre,openlayers').split(',');
const NAMES = { leaflet: 'Leaflet', maplibre: 'MapLibre', openlayers: 'OpenLayers' };
/** What is done, and as what it is told. */
const DONE = { back: 'pan away and back', reload: 'reload', renewed: 'session renewed, server restarted, reload', stale: 'reload past max-age' };

describe('Tilekeep and presigned URLs', { timeout: 900_000 }, () => {
  let store;
  let front;
  let serve;
  let app;
  let browser;
  const figures = {};
  before(async () => {
    const tls = issue(temporaryFolder('tls'), HOSTS);
    store = await embeddedBucket();
    front = await bucketFront({ tls, bucket: store, allow: APP });
    serve = await Serve.start({ tls, bucket: store });
    // As fair as can be: the bucket says how long a tile may be kept, as Tilekeep does.
    const link = (age, rest) => presign({
      host: BUCKET, path: `/${store.name}/world/${rest}`, keys: store.keys, answer: { 'response-cache-control': `private, max-age=${age}` },
    });
    app = await application({ tls, tiles: serve.origin, link });
    browser = await Browser.launch({
      viewport: { width: 900, height: 640 },
      env: { ...process.env, HOME: homeThatTrusts(tls.caFile) },
      args: [`--host-resolver-rules=MAP app.example.test:443 127.0.0.1:${app.port},MAP tiles.example.test:443 127.0.0.1:${serve.ports.port},MAP ${BUCKET}:443 127.0.0.1:${front.port}`],
    });
  });
  after(async () => {
    await browser?.close();
    await app?.close();
    await serve?.stop();
    await front?.close();
    await store?.close();
  });

  const signIn = async (page) => {
    await page.waitForSelector(`${DIALOG}[open]`);
    await page.fill(`${DIALOG} #username`, 'anna');
    await page.fill(`${DIALOG} #password`, 'annas password');
    await page.keyboard.press('Enter');
    await page.waitForSelector(DIALOG, { state: 'hidden' });
  };
  /** A page's way through all of it: how many tiles each step brings over the network, by the servers' own account. */
  const walk = async (page, library, kind, t) => {
    const address = (brief) => `${APP}/map/${library}.html${kind === 'presigned' ? `?tileset=presigned${brief ? '-brief' : ''}` : brief ? '?tileset=brief' : ''}`;
    const whole = async () => {
      await settled(page, library);
      await until('all tiles are there', async () => {
        const loaded = new Set(await loadedTiles(page, library));
        return tilesOfView(await viewOf(page, library), await page.locator(`#pane-${library}`).boundingBox()).every((name) => loaded.has(name));
      });
    };
    const asked = async () => {
      if (kind === 'presigned') return { tiles: front.requests, moved: front.requests };
      const { served, answered } = await serve.tileRequests();
      return { tiles: answered, moved: served };
    };
    const during = async (work) => {
      await new Promise((done) => { setTimeout(done, 1100); }); // a link is dated in whole seconds
      const mark = page.network.mark();
      const earlier = await asked();
      await work();
      const later = await asked();
      const reached = (await page.network.since(mark)).network.filter(({ url }) => !url.startsWith(`${APP}/link/`));
      const seen = {
        tiles: later.tiles - earlier.tiles,
        // With a body: an answer that the browser's copy is right moves none.
        moved: reached.filter(({ revalidated, state }) => !revalidated && state === 'done').length,
        kilobytes: Math.round(reached.reduce((sum, { headers, revalidated }) => sum + (revalidated ? 0 : Number(headers?.['content-length'] ?? 0)), 0) / 1000),
      };
      assert.equal(reached.length, seen.tiles, 'browser and server count alike');
      return seen;
    };
    const legs = async (leg) => { for (let n = 0; n < 4; n++) await drag(page, library, leg); };
    const seen = {};
    await page.network.clearBrowserCache();
    await page.goto(address());
    if (kind === 'tilekeep') await signIn(page);
    await whole();
    await legs(-500);
    seen.back = await during(async () => { await legs(500); await whole(); });
    await screenshot(page, `contrast-${library}-${kind}`);
    seen.reload = await during(async () => { await page.reload(); await whole(); });
    if (kind === 'tilekeep') {
      await page.evaluate(() => window.eval('session').renew());
      await serve.restart();
    }
    seen.renewed = await during(async () => { await page.reload(); await whole(); });
    await page.goto(address(true));
    await whole();
    await new Promise((done) => { setTimeout(done, 4000); }); // max-age is 3 s
    seen.stale = await during(async () => { await page.reload(); await whole(); });
    for (const [what, { tiles, moved, kilobytes }] of Object.entries(seen)) {
      t.diagnostic(`${library}, ${kind}, ${DONE[what]}: requests ${tiles}, tiles moved ${moved}, ${kilobytes} kB`);
    }
    return seen;
  };

  for (const library of LIBRARIES) {
    test(`${library}: none again with Tilekeep, each again with presigned URLs`, async (t) => {
      figures[library] = {};
      for (const kind of ['tilekeep', 'presigned']) {
        await browser.context.clearCookies();
        const page = await browser.page();
        figures[library][kind] = await walk(page, library, kind, t);
        await page.close();
      }
      const { tilekeep, presigned } = figures[library];
      for (const what of ['back', 'reload', 'renewed']) assert.equal(tilekeep[what].tiles, 0, `Tilekeep, ${DONE[what]}`);
      assert.equal(tilekeep.stale.moved, 0, 'past max-age tiles are confirmed, not moved');
      assert.equal(front.refused, 0, 'the bucket took every link');
      // MapLibre and OpenLayers keep the tiles of a short way themselves, whatever their URLs; a reload shows them as they are.
      for (const what of Object.keys(DONE)) if (what !== 'back' || library === 'leaflet') assert.ok(presigned[what].moved >= 12, `presigned, ${DONE[what]}: ${presigned[what].moved}`);
    });
  }

  test('the figures and the picture are left in out/', { skip: LIBRARIES.length < 3 }, () => {
    const rows = LIBRARIES.flatMap((library) => ['back', 'reload'].map((what) => ({
      library: NAMES[library], what: DONE[what], tilekeep: figures[library].tilekeep[what].moved, presigned: figures[library].presigned[what].moved,
    })));
    mkdirSync(out, { recursive: true });
    writeFileSync(path.join(out, 'contrast.json'), JSON.stringify(figures, null, 2));
    writeFileSync(path.join(out, 'contrast.svg'), picture(rows));
  });

  test('no console error and no policy violation but for who has no session yet', () => {
    assert.deepEqual(browser.errors({ provoked: [401] }).filter((line) => !line.includes('/favicon.ico')), []);
  });
});
