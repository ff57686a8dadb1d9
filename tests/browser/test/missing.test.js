// What people see where there is no tile, and what a program reads where there is one: each library, on another host
// than the tiles, for each answer that a tileset can be told to give.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, before, describe, test } from 'node:test';
import { PNG } from 'pngjs';
import { application } from '../lib/application.js';
import { Browser, screenshot } from '../lib/browser.js';
import { bucket } from '../lib/bucket.js';
import { settled } from '../lib/map.js';
import { APP, MISSING, Serve } from '../lib/serve.js';
import { temporaryFolder } from '../lib/server.js';
import { homeThatTrusts, issue } from '../lib/tls.js';
import { until } from '../lib/until.js';

const DIALOG = 'tilekeep-login dialog';
const LIBRARIES = (process.env.LIBRARIES ?? 'leaflet,maplibre,openlayers').split(',');
const ZOOM = 4;
const samples = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../../tiles-sample');
/** What is behind a map where nothing is drawn. */
const BACKGROUND = { leaflet: [221, 221, 221], maplibre: [255, 255, 255], openlayers: [255, 255, 255] };
// MapLibre puts the tile above, enlarged, where a picture is not to be had; a blank one is a picture. Leaflet never does, and
// OpenLayers only if it has that tile already.
const SEEN = {
  leaflet: { 404: 'background', 204: 'background', 410: 'background', blank: 'background' },
  maplibre: { 404: 'parent', 204: 'parent', 410: 'parent', blank: 'background' },
  openlayers: { 404: 'background', 204: 'background', 410: 'background', blank: 'background' },
};

describe('missing tiles and exact ones', { timeout: 900_000 }, () => {
  let store;
  let serve;
  let app;
  let browser;
  let page;
  before(async () => {
    const tls = issue(temporaryFolder('tls'), ['app.example.test', 'tiles.example.test']);
    store = await bucket();
    serve = await Serve.start({ tls, bucket: store });
    app = await application({ tls, tiles: serve.origin });
    browser = await Browser.launch({
      viewport: { width: 1000, height: 800 },
      env: { ...process.env, HOME: homeThatTrusts(tls.caFile) },
      args: [`--host-resolver-rules=MAP app.example.test:443 127.0.0.1:${app.port},MAP tiles.example.test:443 127.0.0.1:${serve.ports.port}`],
    });
    page = await browser.page();
    await page.goto(`${APP}/map/leaflet.html`);
    await page.fill(`${DIALOG} #username`, 'anna');
    await page.fill(`${DIALOG} #password`, 'annas password');
    await page.keyboard.press('Enter');
    await page.waitForSelector(DIALOG, { state: 'hidden' });
  });
  after(async () => {
    await browser?.close();
    await app?.close();
    await serve?.stop();
    await store?.close();
  });

  /** The tiles whose middle is in sight, away from buttons at the edges, and where on the screen that is. */
  const inSight = (box, { lat, lng }) => {
    const size = 256 * 2 ** ZOOM;
    const sin = Math.sin((lat * Math.PI) / 180);
    const left = ((lng + 180) / 360) * size - box.width / 2;
    const top = (0.5 - Math.log((1 + sin) / (1 - sin)) / (4 * Math.PI)) * size - box.height / 2;
    const tiles = [];
    for (let x = Math.floor(left / 256); x * 256 < left + box.width; x++) {
      for (let y = Math.floor(top / 256); y * 256 < top + box.height; y++) {
        const [dx, dy] = [x * 256 + 128 - left, y * 256 + 128 - top];
        if (dx < 120 || dx > box.width - 120 || dy < 70 || dy > box.height - 100) continue;
        tiles.push({ x, y, hole: (x + y) % 2 === 1, at: [box.x + dx, box.y + dy] });
      }
    }
    return tiles;
  };
  /** Whether a tile's middle, 120 pixels wide, shows nothing but what is behind the map. */
  const empty = (picture, [x, y], background) => {
    for (let dx = -60; dx < 60; dx += 3) {
      for (let dy = -60; dy < 60; dy += 3) {
        const at = (Math.round(y + dy) * picture.width + Math.round(x + dx)) * 4;
        if (background.some((value, channel) => Math.abs(picture.data[at + channel] - value) > 2)) return false;
      }
    }
    return true;
  };

  for (const library of LIBRARIES) {
    for (const missing of MISSING) {
      test(`${library}: where a tile is missing (${missing}), ${SEEN[library][missing] === 'parent' ? 'the one above shows' : 'nothing shows, and no broken picture'}`, async (t) => {
        await page.goto(`${APP}/map/${library}.html?tileset=holes${missing}`);
        const settles = () => settled(page, library);
        await settles();
        const box = await page.locator('#map').boundingBox();
        const view = await page.evaluate((name) => window.testPanes[name].view(), library);
        const tiles = inSight(box, view);
        assert.ok(tiles.filter(({ hole }) => hole).length >= 2 && tiles.filter(({ hole }) => !hole).length >= 2, `${tiles.length} tiles in sight`);
        let seen;
        await until('the map looks as it is to look', async () => {
          const picture = PNG.sync.read(await screenshot(page, `missing-${library}-${missing}`));
          const emptyOnes = (hole) => tiles.filter((tile) => tile.hole === hole && empty(picture, tile.at, BACKGROUND[library])).length;
          seen = { holes: tiles.filter(({ hole }) => hole).length, emptyHoles: emptyOnes(true), emptyTiles: emptyOnes(false) };
          return seen.emptyTiles === 0 && seen.emptyHoles === (SEEN[library][missing] === 'parent' ? 0 : seen.holes);
        }, { every: 500, within: 20_000 }).catch((error) => { throw new Error(`${error.message} ${JSON.stringify(seen)}`); });
        t.diagnostic(`${library}, ${missing}: ${JSON.stringify(seen)}`);
        assert.equal(await page.isVisible(DIALOG), false, 'nobody is asked to sign in for it');
      });
    }
  }

  for (const library of LIBRARIES.filter((name) => name !== 'maplibre')) { // whose pixels are in textures: see values.test.js
    test(`${library}: every pixel of tiles that encode data is the one in the bucket`, async (t) => {
      await page.goto(`${APP}/map/${library}.html?tileset=values`);
      await settled(page, library);
      const read = await page.evaluate((name) => {
        const { map, layer } = window.testPanes[name];
        const images = [];
        if (name === 'openlayers') layer.getRenderer().tileCache_.forEach((tile) => images.push([tile.getTileCoord().join('/'), tile.getImage()]));
        else map.eachLayer(({ _tiles }) => Object.values(_tiles ?? {}).forEach(({ el, coords: { z, x, y } }) => images.push([`${z}/${x}/${y}`, el])));
        return images.map(([place, image]) => {
          const canvas = Object.assign(document.createElement('canvas'), { width: 256, height: 256 });
          const context = canvas.getContext('2d', { willReadFrequently: true });
          context.drawImage(image, 0, 0);
          const { data } = context.getImageData(0, 0, 256, 256);
          let text = '';
          for (let at = 0; at < data.length; at += 8192) text += String.fromCharCode(...data.subarray(at, at + 8192));
          return [place, btoa(text)];
        });
      }, library);
      assert.ok(read.length >= 12, `${read.length} tiles`);
      for (const [place, pixels] of read) {
        const stored = PNG.sync.read(readFileSync(path.join(samples, 'values', `${place}.png`)));
        assert.ok(Buffer.from(pixels, 'base64').equals(stored.data), `${place} differs`);
      }
      t.diagnostic(`${library}: ${read.length} tiles, ${read.length * 65536} pixels`);
    });
  }

  test('no console error and no policy violation but for the tiles that are missing', () => {
    assert.deepEqual(browser.errors({ provoked: [401, 404, 410] }).filter((line) => !line.includes('/favicon.ico')), []);
  });
});
