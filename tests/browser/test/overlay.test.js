// The overlay says where each tile came from; a restart keeps the session and the disk tier.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Browser, signIn } from '../lib/browser.js';
import { open, settled } from '../lib/map.js';
import { Demo } from '../lib/server.js';
import { until } from '../lib/until.js';

describe('where tiles come from', { timeout: 900_000 }, () => {
  let demo;
  let browser;
  let page;
  before(async () => {
    demo = await Demo.start();
    browser = await Browser.launch();
    page = await browser.page();
    await signIn(page, demo.origin);
  });
  after(async () => { await browser?.close(); await demo?.stop(); });

  const legend = () => page.evaluate(() => Object.fromEntries([...document.querySelectorAll('#legend-list li')]
    .map((row) => [row.querySelector('.legend-label').textContent, Number(row.querySelector('.legend-count').textContent)])
    .filter(([, count]) => count)));
  /** The legend, once it has counted all of the view. */
  const counted = async (library) => {
    await settled(page, library);
    let seen;
    await until('the legend has counted the view', async () => {
      seen = await legend();
      return Object.values(seen).reduce((sum, count) => sum + count, 0) >= 20;
    });
    return seen;
  };

  for (const [library, tileset] of [['leaflet', 'world'], ['maplibre', 'values']]) {
    const where = { library, tileset, view: [4, 30, 10], overlay: true };
    test(`${library}: tiles from the bucket, then from memory, then from the browser`, async (t) => {
      await open(page, demo.origin, where);
      const first = await counted(library);
      t.diagnostic(`first: ${JSON.stringify(first)}`);
      assert.ok((first.Origin ?? 0) >= 15, JSON.stringify(first));
      const box = await page.locator(`#pane-${library}`).boundingBox();
      await page.mouse.move(box.x + box.width / 2 + 31, box.y + box.height / 2 + 17);
      await until('the readout names the origin', async () => /^Origin/.test(await page.textContent('#readout-from')));

      await page.network.clearBrowserCache();
      await open(page, demo.origin, where);
      const second = await counted(library);
      t.diagnostic(`with an empty browser cache: ${JSON.stringify(second)}`);
      assert.deepEqual(Object.keys(second), ['Memory']);

      await page.reload();
      const third = await counted(library);
      t.diagnostic(`reloaded: ${JSON.stringify(third)}`);
      assert.deepEqual(Object.keys(third), ['Browser cache']);
    });

    test(`${library}: after a restart the session goes on, and tiles come from disk`, async (t) => {
      await demo.restart();
      await page.network.clearBrowserCache();
      const mark = page.network.mark();
      await open(page, demo.origin, where);
      assert.equal(new URL(page.url()).pathname, '/map', 'no log-in was asked for');
      const seen = await counted(library);
      t.diagnostic(`after the restart: ${JSON.stringify(seen)}`);
      assert.deepEqual(Object.keys(seen), ['Disk']);
      const statuses = new Set((await page.network.since(mark)).network.map(({ headers }) => headers?.['cache-status'].replace(/ttl=\d+/, 'ttl=N')));
      assert.deepEqual([...statuses], ['tilekeep; hit; ttl=N; detail=disk']);
      const metrics = await demo.metrics();
      assert.equal(metrics.get('tilekeep_tiles_served_total{source="origin"}'), 0);
    });
  }

  test('no console error and no policy violation on the way', () => assert.deepEqual(browser.errors(), []));
});
