// Every page, light and dark, on a laptop and a phone: it renders, fits, and is accessible.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Browser, LAPTOP, PHONE, signIn } from '../lib/browser.js';
import { open, settled } from '../lib/map.js';
import { checkPage } from '../lib/page-check.js';
import { Demo } from '../lib/server.js';

describe('pages', { timeout: 1_800_000 }, () => {
  let demo;
  before(async () => { demo = await Demo.start(); });
  after(async () => { await demo?.stop(); });

  for (const [device, size] of [['laptop', LAPTOP], ['phone', PHONE]]) {
    for (const colorScheme of ['light', 'dark']) {
      describe(`${device}, ${colorScheme}`, () => {
        let browser;
        let page;
        let provoked = [];
        before(async () => {
          browser = await Browser.launch({ ...size, colorScheme });
          page = await browser.page();
        });
        after(async () => { await browser?.close(); });
        const check = (what, t, options) => checkPage(page, `${what}-${device}-${colorScheme}`, t, options);
        const choose = async (library) => {
          await page.click(`[data-library=${library}]`);
          await settled(page, library);
        };

        test('the log-in', async (t) => {
          await page.goto(`${demo.origin}/login`);
          await check('login', t);
        });
        test('the log-in after a wrong password', async (t) => {
          provoked = [401];
          await signIn(page, demo.origin, '/', { password: 'wrong' });
          await page.waitForSelector('#login-error');
          await check('login-error', t);
        });
        test('the list of tilesets', async (t) => {
          await signIn(page, demo.origin, '/');
          await page.waitForFunction(() => [...document.querySelectorAll('.preview canvas')].every((canvas) => {
            const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            return data.some((value) => value > 0);
          }), null, { polling: 200 });
          // A picture that waits to be scrolled to is not in a screenshot of the whole page.
          await page.evaluate(async () => {
            for (const image of document.querySelectorAll('.preview img')) { image.loading = 'eager'; await image.decode(); }
          });
          await check('index', t, { fullPage: true });
        });
        test('the map, Leaflet', async (t) => {
          await open(page, demo.origin, { library: 'leaflet', tileset: 'world' });
          await check('map-leaflet-world', t);
          await open(page, demo.origin, { library: 'leaflet', tileset: 'values', view: [3, 30, 10] });
          const box = await page.locator('#pane-leaflet').boundingBox();
          const [x, y] = [box.x + box.width / 2, box.y + box.height / 2 - 60];
          if (size.hasTouch) await page.touchscreen.tap(x, y); else await page.mouse.move(x, y);
          await page.waitForFunction(() => /\d.*km/.test(document.getElementById('readout-number').textContent), null, { polling: 100 });
          await check('map-leaflet-values', t);
          await open(page, demo.origin, { library: 'leaflet', tileset: 'world', view: [3, 30, 10], overlay: true });
          await check('map-leaflet-overlay', t);
        });
        test('the map, MapLibre', async (t) => {
          await open(page, demo.origin, { library: 'maplibre', tileset: 'world' });
          await check('map-maplibre-world', t);
          await open(page, demo.origin, { library: 'maplibre', tileset: 'values', view: [3, 30, 10] });
          await check('map-maplibre-values', t);
          await open(page, demo.origin, { library: 'maplibre', tileset: 'countries', view: [4, 48, 12] });
          await check('map-maplibre-countries', t);
          await open(page, demo.origin, { library: 'maplibre', tileset: 'countries', view: [4, 48, 12], overlay: true });
          await check('map-maplibre-overlay', t);
        });
        if (!size.isMobile) {
          test('the map, side by side', async (t) => {
            await open(page, demo.origin, { library: 'both', tileset: 'world', view: [3, 30, 10] });
            await check('map-both', t);
          });
        }
        test('the map, vector tiles in Leaflet and the way out', async (t) => {
          await page.goto('about:blank');
          await page.goto(`${demo.origin}/map#tileset=countries&library=leaflet&view=3/30/10`);
          await page.waitForSelector('#pane-leaflet .pane-note');
          await check('map-leaflet-vector', t);
          await page.click('#pane-leaflet .pane-note button');
          await settled(page, 'maplibre');
        });
        test('the map when the session has ended', async (t) => {
          provoked = [401];
          await open(page, demo.origin, { library: 'leaflet', tileset: 'world', view: [3, 30, 10] });
          await fetch(`${demo.origin}/session`, {
            method: 'DELETE', headers: { Cookie: await browser.cookieHeader(demo.origin), 'Sec-Fetch-Site': 'same-origin' },
          });
          await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
          await page.waitForSelector('tilekeep-login dialog[open]');
          await check('map-session-ended', t);
        });
        test('no console error but for the wrong password, and no policy violation', () => {
          assert.deepEqual(browser.errors({ provoked }), []);
        });
      });
    }
  }
});
