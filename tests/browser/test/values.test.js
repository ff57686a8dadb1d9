// Data-encoded pixels: what the page says under the pointer is what a PNG decoder of others reads.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { PNG } from 'pngjs';
import { Browser, signIn } from '../lib/browser.js';
import { open } from '../lib/map.js';
import { Demo } from '../lib/server.js';
import { until } from '../lib/until.js';

const ZOOM = 4;
const SIZE = 256 * 2 ** ZOOM;
// This pixel of the world is in the corner of the view, so that screen and tiles share their pixels.
const CORNER = { x: 1490, y: 1330 };
const longitude = (x) => (x / SIZE) * 360 - 180;
const latitude = (y) => (Math.atan(Math.sinh(Math.PI * (1 - (2 * y) / SIZE))) * 180) / Math.PI;
const STEPS = [[0, 0], [1, 0], [-213, -140], [301, 77], [-502, 210], [411, -260], [37, 298], [-77, 5], [255, -33], [120, 180], [-300, -290], [560, 330]];

describe('values under the pointer', { timeout: 600_000 }, () => {
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

  const tiles = new Map();
  /** The value at a pixel of the world, fetched by Node with the browser's cookie and decoded by pngjs. */
  const expected = async (x, y) => {
    const [column, row] = [Math.floor(x / 256), Math.floor(y / 256)];
    const name = `${ZOOM}/${column}/${row}`;
    if (!tiles.has(name)) {
      const response = await fetch(`${demo.origin}/values/${name}.png`, { headers: { Cookie: await browser.cookieHeader(demo.origin) } });
      assert.equal(response.status, 200);
      tiles.set(name, PNG.sync.read(Buffer.from(await response.arrayBuffer())));
    }
    const { width, data } = tiles.get(name);
    const at = (Math.floor(y - row * 256) * width + Math.floor(x - column * 256)) * 4;
    const [r, g, b, alpha] = data.subarray(at, at + 4);
    assert.equal(alpha, 255);
    return { name, value: (r * 65536 + g * 256 + b) / 10 - 10000 };
  };

  for (const library of ['leaflet', 'maplibre']) {
    test(`${library}: equal to an independent decode of the tile, at ${STEPS.length} places`, async (t) => {
      await open(page, demo.origin, { library, tileset: 'values', view: [ZOOM, 30, 10] });
      const box = await page.locator(`#pane-${library}`).boundingBox();
      const middle = { x: CORNER.x + box.width / 2, y: CORNER.y + box.height / 2 };
      await open(page, demo.origin, { library, tileset: 'values', view: [ZOOM, latitude(middle.y).toFixed(10), longitude(middle.x).toFixed(10)] });
      const seen = [];
      for (const [dx, dy] of STEPS) {
        const [x, y] = [Math.floor(box.width / 2) + dx, Math.floor(box.height / 2) + dy];
        const { name, value } = await expected(CORNER.x + x, CORNER.y + y);
        const text = `${value.toLocaleString('en', { minimumFractionDigits: 1, maximumFractionDigits: 1 }).replace('-', '\u2212')}\u00a0km`;
        await page.mouse.move(box.x + x, box.y + y);
        let shown;
        await until(`the page says ${text} at ${dx},${dy}`, async () => {
          shown = await page.evaluate(() => [document.getElementById('readout-tile').textContent, document.getElementById('readout-number').textContent]);
          return shown[0] === name && shown[1] === text;
        }, { within: 10_000 }).catch((error) => { throw new Error(`${error.message} It says ${shown.join(' ')}; the tile is ${name}.`); });
        seen.push(value);
      }
      t.diagnostic(`${library}: ${seen.join(', ')} km`);
      assert.ok(new Set(seen).size > 8 && Math.min(...seen) < 0 && Math.max(...seen) > 0, 'places on land and at sea, of many values');
    });
  }

  test('no console error and no policy violation on the way', () => assert.deepEqual(browser.errors(), []));
});
