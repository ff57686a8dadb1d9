// The promise that the whole server is made for: what a person has seen is not asked for again.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Browser, LAPTOP, signIn } from '../lib/browser.js';
import { drag, loadedTiles, open, settled, tilesOfView, viewOf, zoom } from '../lib/map.js';
import { Demo } from '../lib/server.js';

const MAPS = [
  { library: 'leaflet', tileset: 'world' },
  { library: 'maplibre', tileset: 'world' },
  { library: 'leaflet', tileset: 'values' },
  { library: 'maplibre', tileset: 'values' },
  { library: 'maplibre', tileset: 'countries' },
  { library: 'leaflet', tileset: 'world', overlay: true },
  { library: 'maplibre', tileset: 'world', overlay: true },
];
const START = [4, 30, 10];

describe('tile requests', { timeout: 1_200_000 }, () => {
  let demo;
  before(async () => { demo = await Demo.start(); });
  after(async () => { await demo?.stop(); });

  for (const map of MAPS) {
    const { library, tileset, overlay } = map;
    describe(`${library}, ${tileset}${overlay ? ', overlay on' : ''}`, () => {
      let browser;
      let page;
      before(async () => {
        browser = await Browser.launch();
        page = await browser.page();
        await signIn(page, demo.origin);
        // The map that the log-in leads to must not go on asking while something else is counted.
        await page.goto('about:blank');
      });
      after(async () => { await browser?.close(); });

      /** What the browser and the server say was asked while `work` ran. */
      const during = async (work) => {
        const mark = page.network.mark();
        const earlier = await demo.tileRequests();
        await work();
        const later = await demo.tileRequests();
        const seen = await page.network.since(mark);
        return { ...seen, served: later.served - earlier.served, answered: later.answered - earlier.answered };
      };
      const say = (t, name, { count, served, answered, again }) => t.diagnostic(
        `${library}/${tileset}${overlay ? '+overlay' : ''} ${name}: network ${count.network} (cancelled ${count.cancelled}), 304 ${count.notModified}, `
        + `browser disk cache ${count.diskCache}, memory cache ${count.memoryCache}, again ${again.length}; server: tiles served ${served}, answered ${answered}`);
      const noneReached = (seen) => {
        assert.deepEqual(seen.network.map(({ url }) => url), [], 'tile requests that left the browser');
        assert.equal(seen.served, 0, 'tiles that the server says it served');
        assert.equal(seen.answered, 0, 'tile requests that the server says it answered');
      };

      test('all tiles of the view load, each asked for once', async (t) => {
        const seen = await during(() => open(page, demo.origin, { ...map, view: START }));
        say(t, 'first view', seen);
        const view = await viewOf(page, library);
        const box = await page.locator(`#pane-${library}`).boundingBox();
        const loaded = new Set(await loadedTiles(page, library));
        // MapLibre draws vector tiles at 512 pixels, so that a view needs those of the zoom below.
        const wanted = tileset === 'countries'
          ? tilesOfView({ ...view, zoom: view.zoom - 1 }, { width: box.width / 2, height: box.height / 2 })
          : tilesOfView(view, box);
        assert.ok(wanted.length >= (tileset === 'countries' ? 6 : 15), `${wanted.length} tiles make a view`);
        assert.deepEqual(wanted.filter((name) => !loaded.has(name)), [], 'tiles missing from the view');
        assert.ok(seen.network.length >= wanted.length, 'the first view comes from the network');
        assert.deepEqual(seen.network.filter(({ status }) => status !== 200), []);
        assert.deepEqual(seen.again.map(({ url }) => url), []);
        assert.equal(seen.answered, seen.network.length, 'browser and server count alike');
      });

      test('pan far away and back: no tile request', async (t) => {
        const from = await viewOf(page, library);
        // Each stop is less than a view from the last, so that nothing on the way stays unseen.
        const away = await during(async () => { for (let leg = 0; leg < 4; leg++) await drag(page, library, -600); });
        say(t, 'pan away', away);
        const far = await viewOf(page, library);
        const box = await page.locator(`#pane-${library}`).boundingBox();
        const there = tilesOfView(far, box);
        assert.deepEqual(tilesOfView(from, box).filter((name) => there.includes(name)), [], 'far away no tile of the first view is left');
        assert.ok(away.network.length > 10, 'going away shows new tiles');
        assert.deepEqual(away.again.map(({ url }) => url), []);
        const back = await during(async () => { for (let leg = 0; leg < 4; leg++) await drag(page, library, 600); });
        say(t, 'pan back', back);
        const now = await viewOf(page, library);
        assert.ok(Math.abs(now.lng - from.lng) < 1e-3 && Math.abs(now.lat - from.lat) < 1e-3, `back at ${now.lat},${now.lng}; from ${from.lat},${from.lng}`);
        noneReached(back);
      });

      test('zoom out and in: no request for a tile that was seen before', async (t) => {
        const first = await during(async () => { await zoom(page, library, -1); await zoom(page, library, 1); });
        say(t, 'zoom out and in', first);
        assert.deepEqual(first.again.map(({ url }) => url), []);
        const second = await during(async () => { await zoom(page, library, -1); await zoom(page, library, 1); });
        say(t, 'zoom out and in once more', second);
        assert.deepEqual(second.again.map(({ url }) => url), []);
        // MapLibre looks at the places between two zooms, and at others each time; Leaflet does not.
        if (library === 'leaflet') noneReached(second);
      });

      test('reload while fresh: no tile request', async (t) => {
        // A reload shows the same view; what the page had loaded for it is what it needs again.
        const seen = await during(async () => { await page.reload(); await settled(page, library); });
        say(t, 'reload', seen);
        noneReached(seen);
        assert.ok(seen.count.diskCache + seen.count.memoryCache >= 6, 'the tiles came from the browser\u2019s cache');
      });

      test('control: with the browser\u2019s cache emptied, a reload asks for each tile', async (t) => {
        await page.network.clearBrowserCache();
        const seen = await during(async () => { await page.reload(); await settled(page, library); });
        say(t, 'reload with an empty browser cache', seen);
        assert.ok(seen.network.length >= 6, 'the counters would have shown requests');
        assert.equal(seen.again.length, seen.network.length);
        assert.equal(seen.answered, seen.network.length, 'browser and server count alike');
      });

      test('no console error and no policy violation on the way', () => {
        assert.deepEqual(browser.errors(), []);
      });
    });
  }
});
