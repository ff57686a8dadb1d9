// A person's browser: Debian's Chromium with a profile of its own, and so with an HTTP cache on disk.
import { chromium } from 'playwright-core';
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Network } from './network.js';
import { temporaryFolder } from './server.js';

export const out = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../out');

export const LAPTOP = { viewport: { width: 1280, height: 800 } };
export const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };

const TILE = /\/\d+\/\d+\/\d+(@2x)?(\.[a-z]+)?$/;
export const isTile = (url) => TILE.test(url.pathname);

/**
 * Runs in every page before its own scripts: keeps the panes that the map page makes where tests find
 * them, and says aloud what the content security policy forbade.
 */
const instrument = () => {
  const panes = (window.testPanes = {});
  const TK = (window.Tilekeep = window.Tilekeep || {});
  for (const name of ['leaflet', 'maplibre']) {
    let make;
    Object.defineProperty(TK, `${name}Pane`, {
      set(made) { make = made; },
      get: () => make && ((...parameters) => (panes[name] = make(...parameters))),
    });
  }
  document.addEventListener('securitypolicyviolation', (event) => {
    console.error(`CSP violation: ${event.violatedDirective} forbids ${event.blockedURI} (${event.sourceFile}:${event.lineNumber})`);
  });
};

export class Browser {
  static async launch({ args = [], bfcache = false, ...options } = {}) {
    const executablePath = process.env.CHROMIUM || '/usr/bin/chromium';
    if (!existsSync(executablePath)) {
      throw new Error(`There is no Chromium at ${executablePath}. Install it ("apt-get install chromium") or set CHROMIUM.`);
    }
    const browser = new Browser();
    browser.profile = temporaryFolder('profile');
    browser.complaints = [];
    browser.context = await chromium.launchPersistentContext(browser.profile, {
      executablePath,
      headless: true,
      colorScheme: 'light',
      locale: 'en-GB',
      ...LAPTOP,
      ...options,
      timeout: 120_000,
      ...(bfcache ? { ignoreDefaultArgs: ['--disable-back-forward-cache'] } : {}),
      args: [
        '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
        '--disable-component-update', '--disable-sync',
        '--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader', ...args,
      ],
    });
    browser.context.setDefaultTimeout(60_000);
    browser.context.setDefaultNavigationTimeout(60_000);
    await browser.context.addInitScript(instrument);
    const listen = (page) => {
      page.on('pageerror', (error) => browser.complaints.push({ page, text: `uncaught: ${error.stack || error}` }));
      page.on('console', (message) => {
        if (message.type() !== 'error') return;
        browser.complaints.push({ page, text: message.text(), url: message.location().url });
      });
    };
    browser.context.pages().forEach(listen);
    browser.context.on('page', listen);
    return browser;
  }

  /** A new page whose requests are counted: `page.network`. */
  async page() {
    const page = await this.context.newPage();
    page.network = await Network.watch(page, isTile);
    return page;
  }

  /** Console errors and policy violations so far, but for loads that fail with a status in `provoked`. */
  errors({ provoked = [] } = {}) {
    return this.complaints
      .filter(({ text }) => !provoked.some((status) => new RegExp(`^Failed to load resource: .*status of ${status}\\b`).test(text)))
      .map(({ text, url }) => (url ? `${text} (${url})` : text));
  }

  async cookieHeader(origin) {
    return (await this.context.cookies(origin)).map(({ name, value }) => `${name}=${value}`).join('; ');
  }

  async close() {
    await this.context.close();
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** Signs in on the log-in page as a person does. Ends on the page that `next` names. */
export const signIn = async (page, origin, next = '/map', { password = 'demo' } = {}) => {
  await page.goto(`${origin}${next}`);
  await page.fill('#username', 'demo');
  await page.fill('#password', password);
  await Promise.all([page.waitForEvent('load'), page.click('#login-form button[type=submit]')]);
};

export const screenshot = async (page, name, options = {}) => {
  mkdirSync(out, { recursive: true });
  return page.screenshot({ path: path.join(out, `${name}.png`), animations: 'disabled', timeout: 120_000, ...options });
};
