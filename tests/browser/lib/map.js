// Driving the map page as a person does, and knowing when it has finished.
import assert from 'node:assert/strict';

/** Where the map looks, as the page's address says it; zoom in tiles of 256 pixels. */
export const address = (origin, { tileset = 'world', library, view, overlay = false }) =>
  `${origin}/map#tileset=${tileset}${view ? `&view=${view.join('/')}` : ''}&library=${library}${overlay ? '&overlay=1' : ''}`;

/** Opens the map afresh; another hash on the same document would not load anything. */
export const open = async (page, origin, what) => {
  await page.goto('about:blank');
  await page.goto(address(origin, what));
  await settled(page, what.library);
};

/** Waits until a library has all it wants: nothing moves, nothing loads. */
export const settled = async (page, library) => {
  const names = library === 'both' ? ['leaflet', 'maplibre'] : [library];
  await page.waitForFunction((libraries) => libraries.every((name) => {
    const map = window.testPanes?.[name]?.map;
    if (!map) return false;
    if (name === 'openlayers') {
      const queue = map.tileQueue_;
      return map.isRendered() && !map.getLoadingOrNotReady() && !map.getView().getAnimating() && !map.getView().getInteracting()
        && queue.getTilesLoading() === 0 && queue.getCount() === 0;
    }
    if (name === 'maplibre') return !map.isMoving() && map.isStyleLoaded() && map.loaded() && map.areTilesLoaded();
    if (!map._loaded || map._animatingZoom || map._panAnim?._inProgress) return false;
    const layers = [];
    map.eachLayer((layer) => { if (layer._tiles) layers.push(layer); });
    // A zoom leaves the old level until the new one has faded in.
    return layers.length > 0 && layers.every((layer) => !layer._loading
      && Object.values(layer._tiles).every((tile) => tile.loaded && tile.active && tile.current));
  }), names, { polling: 100, timeout: 120_000 });
};

/** The view, from the library itself. */
export const viewOf = (page, library) => page.evaluate((name) => window.testPanes[name].view(), library);

/** The tiles `z/x/y` that a view has to show, by arithmetic of our own. Whole zooms only. */
export const tilesOfView = ({ lat, lng, zoom }, { width, height }) => {
  const z = Math.round(zoom);
  assert.ok(Math.abs(zoom - z) < 1e-6, `a whole zoom, not ${zoom}`);
  const size = 256 * 2 ** z;
  const x = ((lng + 180) / 360) * size;
  const sin = Math.sin((lat * Math.PI) / 180);
  const y = (0.5 - Math.log((1 + sin) / (1 - sin)) / (4 * Math.PI)) * size;
  const names = new Set();
  // A hundredth of a pixel at the edge shows no tile.
  const [left, right] = [Math.floor((x - width / 2 + 0.01) / 256), Math.floor((x + width / 2 - 0.01) / 256)];
  const [top, bottom] = [Math.floor((y - height / 2 + 0.01) / 256), Math.floor((y + height / 2 - 0.01) / 256)];
  for (let column = left; column <= right; column++) {
    for (let row = Math.max(0, top); row <= Math.min(2 ** z - 1, bottom); row++) {
      names.add(`${z}/${((column % 2 ** z) + 2 ** z) % 2 ** z}/${row}`);
    }
  }
  return [...names].sort();
};

/** The tiles that a library holds, loaded and with a picture. */
export const loadedTiles = (page, library) => page.evaluate((name) => {
  const { map } = window.testPanes[name];
  const found = new Set();
  if (name === 'maplibre') {
    const managers = map.style.tileManagers || map.style.sourceCaches;
    for (const manager of Object.values(managers)) {
      for (const id of manager.getIds ? manager.getIds() : Object.keys(manager._tiles)) {
        const tile = manager.getTileByID(id);
        const { z, x, y } = tile.tileID.canonical;
        if (tile.state === 'loaded') found.add(`${z}/${x}/${y}`);
      }
    }
  } else if (name === 'openlayers') {
    const { layer } = window.testPanes[name];
    const cache = layer.getRenderer().tileCache_;
    cache.forEach((tile) => {
      const image = tile.getImage();
      if (tile.getState() === 2 && image.naturalWidth > 0) found.add(tile.getTileCoord().join('/'));
    });
  } else {
    map.eachLayer((layer) => {
      for (const { el, coords: { z, x, y }, loaded } of Object.values(layer._tiles || {})) {
        const picture = el.matches('img, canvas') ? el : el.querySelector('img, canvas');
        const drawn = picture.tagName === 'IMG' ? picture.complete && picture.naturalWidth > 0 : picture.width > 0;
        if (loaded && drawn) found.add(`${z}/${((x % 2 ** z) + 2 ** z) % 2 ** z}/${y}`);
      }
    });
  }
  return [...found].sort();
}, library);

const nextFrame = (page) => page.evaluate(() => new Promise((done) => { requestAnimationFrame(() => requestAnimationFrame(done)); }));

/** Drags the map by the mouse and lets go when it is at rest, so that it does not slide on. */
export const drag = async (page, library, dx, dy = 0) => {
  const box = await page.locator(`#pane-${library}`).boundingBox();
  const [x, y] = [Math.round(box.x + box.width / 2 - dx / 2), Math.round(box.y + box.height / 2 - dy / 2)];
  await page.mouse.move(x, y);
  await page.mouse.down();
  await page.mouse.move(x + dx, y + dy, { steps: 6 });
  // Both libraries judge speed by the last moments; a hand at rest gives them still ones.
  const still = Date.now() + 350;
  while (Date.now() < still) await nextFrame(page);
  await page.mouse.move(x + dx, y + dy);
  await page.mouse.up();
  await settled(page, library);
};

/** Presses the library's own + or - button. */
export const zoom = async (page, library, direction) => {
  const before = (await viewOf(page, library)).zoom;
  const name = direction > 0 ? 'in' : 'out';
  const button = { leaflet: '.leaflet-control-zoom-', maplibre: '.maplibregl-ctrl-zoom-', openlayers: '.ol-zoom-' }[library];
  await page.click(`#pane-${library} ${button}${name}`);
  await page.waitForFunction(([which, from, by]) => Math.abs(window.testPanes[which].view().zoom - from - by) < 1e-9,
    [library, before, direction], { polling: 100 });
  await settled(page, library);
};
