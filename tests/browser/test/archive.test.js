// Exports of the demo by the real `tilekeep prefetch --output`, read by npm's pmtiles and opened in MapLibre GL
// through its plug-in, when no Tilekeep is running any more.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { open as openFile, readFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { Compression, PMTiles, TileType } from 'pmtiles';
import { PNG } from 'pngjs';
import { Browser, screenshot } from '../lib/browser.js';
import { settled } from '../lib/map.js';
import { Demo, binary, temporaryFolder } from '../lib/server.js';
import { shelf } from '../lib/shelf.js';

const samples = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../../tiles-sample');
const NAMES = ['world', 'countries'];

/** The command as a person types it. */
const prefetch = (demo, tileset, output) => new Promise((resolve, reject) => {
  const child = spawn(binary(), ['prefetch', '--url', demo.origin, '--username', 'demo', '--tileset', tileset,
    '--bbox', '-180,-90,180,90', '--zoom', '0-5', '--concurrency', '32', '--output', output], {
    stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, TILEKEEP_PASSWORD: 'demo' },
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => { said += text; });
  child.once('error', reject).once('exit', (code) => { if (code === 0) resolve(said); else reject(new Error(`prefetch ended with ${code}:\n${said}`)); });
});

/** A file for npm's pmtiles, which reads from browsers' files and the network by itself. */
const source = async (file) => {
  const handle = await openFile(file);
  return {
    getKey: () => file,
    getBytes: async (offset, length) => {
      const { bytesRead, buffer } = await handle.read(new Uint8Array(length), 0, length, offset);
      return { data: buffer.buffer.slice(0, bytesRead) };
    },
    close: () => handle.close(),
  };
};

describe('exported archives, with no server behind them', { timeout: 600_000 }, () => {
  const folder = temporaryFolder('exports');
  const file = (name) => path.join(folder, `${name}.pmtiles`);
  let host;
  let browser;
  let page;
  before(async () => {
    const demo = await Demo.start();
    for (const name of NAMES) await prefetch(demo, name, file(name));
    await demo.stop();
    host = await shelf(folder);
    browser = await Browser.launch();
    page = await browser.page();
  });
  after(async () => { await browser?.close(); await host?.close(); });

  for (const [name, type, ending] of [['world', TileType.Png, 'png'], ['countries', TileType.Mvt, 'mvt']]) {
    test(`npm\u2019s pmtiles reads ${name}`, async () => {
      const from = await source(file(name));
      const archive = new PMTiles(from);
      const header = await archive.getHeader();
      assert.equal(header.tileType, type);
      assert.equal(header.tileCompression, type === TileType.Mvt ? Compression.Gzip : Compression.None);
      assert.deepEqual([header.minZoom, header.maxZoom, header.clustered], [0, 5, true]);
      assert.ok(header.numTileContents < header.numAddressedTiles, 'the same sea is there once');
      const about = await archive.getMetadata();
      assert.equal(about.attribution, 'Made with Natural Earth');
      if (type === TileType.Mvt) assert.deepEqual(about.vector_layers.map(({ id }) => id).sort(), ['borders', 'countries', 'labels']);
      for (const [z, x, y] of [[0, 0, 0], [3, 4, 2], [5, 17, 11]]) {
        const tile = Buffer.from((await archive.getZxy(z, x, y)).data);
        const sample = await readFile(path.join(samples, name, `${z}/${x}/${y}.${ending}`));
        // It unpacks what the header says is compressed.
        assert.ok(tile.equals(type === TileType.Mvt ? gunzipSync(sample) : sample), `${z}/${x}/${y}`);
      }
      assert.equal(await archive.getZxy(6, 0, 0), undefined);
      await from.close();
    });
  }

  test('MapLibre shows both through the pmtiles plug-in, with their attribution', async (t) => {
    await page.goto(host.origin);
    await settled(page, 'maplibre');
    const seen = await page.evaluate(() => {
      const { map } = window.testPanes.maplibre;
      const drawn = (layers) => map.queryRenderedFeatures({ layers });
      const tiles = (id) => map.style.tileManagers[id].getIds().map((one) => map.style.tileManagers[id].getTileByID(one).state);
      return {
        countries: [...new Set(drawn(['outlines']).map(({ properties }) => properties.name))],
        world: tiles('world'), vector: tiles('countries'),
        attribution: document.querySelector('.maplibregl-ctrl-attrib-inner').textContent,
        bounds: [map.getSource('world').maxzoom, map.getSource('countries').maxzoom],
      };
    });
    t.diagnostic(`${seen.world.length} raster tiles, ${seen.vector.length} vector tiles, ${seen.countries.length} countries; ${host.asked.length} ranges asked for`);
    await screenshot(page, 'archives-maplibre');
    assert.ok(seen.world.length > 0 && seen.world.every((state) => state === 'loaded'), JSON.stringify(seen));
    assert.ok(seen.vector.length > 0 && seen.vector.every((state) => state === 'loaded'), JSON.stringify(seen));
    for (const name of ['Switzerland', 'Italy']) assert.ok(seen.countries.includes(name), `${name} is drawn: ${seen.countries}`);
    assert.match(seen.attribution, /Made with Natural Earth/);
    assert.deepEqual(seen.bounds, [5, 5], 'zooms come from the archive');
    assert.ok(host.asked.length > 0 && host.asked.every(({ range }) => range), 'read by ranges alone');
    assert.deepEqual([...new Set(host.asked.map(({ name }) => name))].sort(), ['/countries.pmtiles', '/world.pmtiles']);
  });

  test('what is drawn is the map: land, sea and outlines', async () => {
    const picture = PNG.sync.read(await page.locator('#map canvas').screenshot());
    const colours = new Map();
    for (let at = 0; at < picture.data.length; at += 4) {
      const colour = picture.data.readUIntBE(at, 3);
      colours.set(colour, (colours.get(colour) ?? 0) + 1);
    }
    assert.ok(colours.size > 100, `${colours.size} colours`);
    assert.ok((colours.get(0xc2185b) ?? 0) > 100, 'outlines in their own colour');
    const most = Math.max(...colours.values()) / (picture.width * picture.height);
    assert.ok(most < 0.8, `one colour covers ${most}`);
  });

  test('no console error on the way', () => assert.deepEqual(browser.errors(), []));
});
