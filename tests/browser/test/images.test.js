// No flicker: a picture that shows an unchanged tile stays, or comes back as the very same bytes.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Browser, signIn } from '../lib/browser.js';
import { drag, open, zoom } from '../lib/map.js';
import { Demo } from '../lib/server.js';

describe('Leaflet\u2019s images', { timeout: 600_000 }, () => {
  let demo;
  let browser;
  let page;
  before(async () => {
    demo = await Demo.start();
    browser = await Browser.launch();
    page = await browser.page();
    await signIn(page, demo.origin);
    await open(page, demo.origin, { library: 'leaflet', view: [4, 30, 10] });
    await page.evaluate(() => {
      const watch = (window.testWatch = { removedInView: [], loads: new WeakMap(), loadedTwice: [], blank: [] });
      const pane = document.querySelector('#pane-leaflet');
      // Where an image was is unknown once it is gone; so places are noted while it is there.
      const places = new WeakMap();
      const frame = pane.getBoundingClientRect();
      const note = () => {
        for (const image of pane.querySelectorAll('img.leaflet-tile')) {
          const box = image.getBoundingClientRect();
          places.set(image, box.right > frame.left && box.left < frame.right && box.bottom > frame.top && box.top < frame.bottom);
        }
        requestAnimationFrame(note);
      };
      note();
      new MutationObserver((changes) => {
        for (const { removedNodes } of changes) {
          for (const node of removedNodes) {
            const images = node.matches?.('img.leaflet-tile') ? [node] : [...(node.querySelectorAll?.('img.leaflet-tile') ?? [])];
            for (const image of images) if (places.get(image)) watch.removedInView.push(image.getAttribute('src'));
          }
        }
      }).observe(pane, { childList: true, subtree: true });
      pane.addEventListener('load', ({ target }) => {
        if (watch.loads.has(target)) watch.loadedTwice.push(target.src);
        watch.loads.set(target, true);
      }, true);
    });
  });
  after(async () => { await browser?.close(); await demo?.stop(); });

  /** Gives each image in sight a number that it keeps, and tells the numbers by address. */
  const mark = () => page.evaluate(() => {
    const frame = document.querySelector('#pane-leaflet').getBoundingClientRect();
    const marks = {};
    for (const image of document.querySelectorAll('#pane-leaflet img.leaflet-tile')) {
      const box = image.getBoundingClientRect();
      if (box.right <= frame.left || box.left >= frame.right || box.bottom <= frame.top || box.top >= frame.bottom) continue;
      image.testMark ??= (window.testMarks = (window.testMarks ?? 0) + 1);
      marks[image.src] = image.testMark;
    }
    return marks;
  });
  /** The bytes of the tiles in sight, out of the browser's cache alone, as one line of text for each. */
  const bytes = async () => page.evaluate(async (addresses) => {
    const hash = async (address) => {
      const body = await (await fetch(address, { cache: 'only-if-cached', mode: 'same-origin' })).arrayBuffer();
      return [address, body.byteLength, ...new Uint32Array((await crypto.subtle.digest('SHA-256', body)).slice(0, 8))].join(' ');
    };
    return Promise.all(addresses.sort().map(hash));
  }, Object.keys(await mark()));
  const watched = () => page.evaluate(() => {
    const { removedInView, loadedTwice } = window.testWatch;
    return { removedInView: removedInView.splice(0), loadedTwice: loadedTwice.splice(0) };
  });

  test('a short pan and back replaces none of the images in sight', async (t) => {
    const before = await mark();
    await drag(page, 'leaflet', -220, 90);
    await drag(page, 'leaflet', 220, -90);
    const now = await mark();
    assert.ok(Object.keys(before).length >= 15);
    assert.deepEqual(now, before, 'the same elements show the same tiles');
    const seen = await watched();
    t.diagnostic(`images in sight ${Object.keys(before).length}, removed in sight ${seen.removedInView.length}, loaded twice ${seen.loadedTwice.length}`);
    assert.deepEqual(seen, { removedInView: [], loadedTwice: [] });
  });

  test('a pan far away and back shows the same bytes, from the browser\u2019s cache', async (t) => {
    const before = await bytes();
    for (let leg = 0; leg < 4; leg++) await drag(page, 'leaflet', -600);
    for (let leg = 0; leg < 4; leg++) await drag(page, 'leaflet', 600);
    const now = await bytes();
    const seen = await watched();
    t.diagnostic(`tiles ${before.length}, same bytes ${before.filter((line) => now.includes(line)).length}, removed in sight ${seen.removedInView.length}, loaded twice ${seen.loadedTwice.length}`);
    assert.deepEqual(now, before);
    assert.deepEqual(seen.loadedTwice, []);
    assert.deepEqual(seen.removedInView, []);
  });

  test('zooming out and in ends with the same bytes', async () => {
    const before = await bytes();
    await zoom(page, 'leaflet', -1);
    await zoom(page, 'leaflet', 1);
    const now = await bytes();
    assert.deepEqual(now, before);
    assert.deepEqual((await watched()).loadedTwice, []);
  });

  test('no console error and no policy violation on the way', () => assert.deepEqual(browser.errors(), []));
});
