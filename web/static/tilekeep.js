// Tilekeep's session in a page with a map: renewed in good time, its end noticed, a log-in asked for
// without losing the view, and the tiles that failed meanwhile loaded again. Nothing else is touched:
// a tile that is on the screen stays there.
//
//   <script src="https://tiles.example.com/tilekeep.js"></script>
//   const session = Tilekeep.session();
//   session.leaflet(layer);  session.maplibre(map);  session.openlayers(source);
//
// No library, no build step, nothing inline: it works under a strict Content-Security-Policy, which has
// to allow the tile server in script-src, img-src and connect-src.
'use strict';
(() => {
  const home = document.currentScript ? new URL(document.currentScript.src).origin : null;

  const TEXTS = {
    first: 'Sign in to see the map',
    title: 'Your session has ended',
    lead: 'Sign in to go on. The map stays where it is.',
    username: 'User name',
    password: 'Password',
    submit: 'Sign in',
    popup: 'Sign in in another window',
    cancel: 'Not now',
    wrong: 'That name and password do not match.',
    wait: 'Too many attempts. Try again in {seconds} seconds.',
    unreachable: 'The tile server does not answer. Try again.',
  };
  // Answers that asking again does not change.
  const FINAL = new Set([200, 204, 400, 403, 404, 405, 410]);
  const MOST_WAITING = 4096;
  const MOST_ROUNDS = 12;
  const MOST_REFUSALS = 3; // by CloudFront, of one tile: its cookies were renewed meanwhile

  const retryAfter = (response) => Math.min(Number(response?.headers.get('Retry-After')) || 0, 3600);
  /**
   * The status of a request that failed, where the browser tells; an image's error does not. The browser's
   * list may be full, so a success in it may be an old one.
   */
  const statusOf = (url) => {
    const status = performance.getEntriesByName(url, 'resource').pop()?.responseStatus || 0;
    return status >= 400 ? status : 0;
  };

  class Session extends EventTarget {
    #server;
    #options;
    #state = 'unknown';
    #claims = null;
    #last = null; // the last claims there were, so that another person is noticed
    #life = 0; // of the session as it was last extended, in milliseconds
    #noLater = false; // it cannot be extended further
    #edgeDue = Infinity; // when CloudFront's cookies, which live for minutes, are to be renewed
    #usedAt = Date.now();
    #held = false; // a pointer is down
    #released = () => {};
    #checking = null;
    #renewing = null;
    #timer = 0;
    #channel = null;
    #prompt = null;
    #asking = false;
    #failed = new Map();
    #soon = 0;
    #mending = false;
    #nudge = () => {};
    #layers = new Set(); // { empty, refill, shown: the address of a tile of it }
    #empty = false;

    constructor({ server = home, login = 'auto', texts, onExpired, onRestored, onEnded } = {}) {
      super();
      if (!server) throw new Error('Tilekeep.session needs { server: "https://…" } where tilekeep.js is no classic script.');
      this.#server = new URL(server, location.href).origin;
      this.#options = { login, texts: { ...TEXTS, ...texts } };
      if (onExpired) this.addEventListener('expired', onExpired);
      if (onRestored) this.addEventListener('restored', onRestored);
      if (onEnded) this.addEventListener('ended', onEnded);
      /** For MapLibre's `transformRequest`: sends the cookie with requests to the tile server. */
      this.transformRequest = (url) => (this.#owns(url) ? { url, credentials: 'include' } : { url });

      for (const type of ['pointerdown', 'pointerup', 'pointercancel', 'wheel', 'keydown']) {
        addEventListener(type, () => {
          this.#usedAt = Date.now();
          this.#held = type === 'pointerdown';
          if (!this.#held) this.#released();
        }, { passive: true, capture: true });
      }
      // A timer sleeps with the laptop; these tell that it is awake, or that somebody is back from a log-in.
      const look = () => { if (document.visibilityState === 'visible') this.check(); };
      document.addEventListener('visibilitychange', look);
      addEventListener('focus', look);
      addEventListener('online', () => { look(); this.#nudge(); });
      addEventListener('pageshow', (event) => { if (event.persisted) this.#cameBack(); });
      if (window.BroadcastChannel) {
        this.#channel = new BroadcastChannel(`tilekeep ${this.#server}`);
        this.#channel.onmessage = ({ data }) => { if (data.claims) this.#settle(data.claims); else this.#end(); };
      }
      this.check();
    }

    /** 'valid', 'expired', 'ended' (signed out), 'none' (there was none so far) or 'unknown'. */
    get state() { return this.#state; }

    /** What the server says of the session (`sub`, `exp`, `tilesets`, …), or null. */
    get claims() { return this.#claims; }

    /** Asks the server: true, false, or undefined when it does not answer. Many callers, one request. */
    check() {
      this.#checking ??= this.#read().then((claims) => {
        this.#checking = null;
        if (claims !== undefined) this.#settle(claims);
        return claims === undefined ? undefined : claims !== null;
      });
      return this.#checking;
    }

    /** Extends the session now. It happens by itself in good time, while the page is visible or in use. */
    renew() {
      const work = async () => {
        const known = this.#claims?.exp;
        // Another tab, or a tile's answer, may have done it already.
        if (!await this.check() || this.#claims.exp !== known) return;
        const response = await this.#ask('POST', '/session/renew').catch(() => null);
        if (response?.status === 401) this.#settle(null);
        // 403: not one of the server's own; whoever made the token makes the next one too.
        if (response?.status === 403) this.#noLater = true;
        if (!response?.ok) return;
        const claims = await response.json();
        this.#settle(claims);
        this.#noLater = claims.exp <= known;
        this.#channel?.postMessage({ claims });
      };
      // One tab at a time, where the browser has Web Locks.
      this.#renewing ??= Promise.resolve(navigator.locks ? navigator.locks.request(`tilekeep ${this.#server}`, work) : work())
        .finally(() => { this.#renewing = null; });
      return this.#renewing;
    }

    /** Signs out, in all tabs; private tiles go from the map. Rejects when the server could not be told. */
    async end() {
      const response = await this.#ask('DELETE', '/session');
      if (!response.ok && response.status !== 401) throw new Error(`The session has not ended: the server answers ${response.status}.`);
      this.#channel?.postMessage({ claims: null });
      this.#end();
    }

    /** Asks for a log-in, as an expired session does by itself. */
    async signIn() {
      const { login } = this.#options;
      if (this.#asking || login === false) return;
      this.#asking = true;
      try {
        if (await this.check()) return;
        if (typeof login === 'function') {
          await login(this);
          await this.check();
        } else {
          // Not into the hand of somebody who is dragging the map.
          if (this.#held) await new Promise((done) => { this.#released = done; });
          this.#prompt ??= new Prompt(this, this.#server, this.#options);
          await this.#prompt.ask(this.#last !== null);
        }
      } finally {
        this.#asking = false;
      }
    }

    // --- tiles ---

    /**
     * A tile failed: `retry` is called once that is worth it. The adapters below do this, and so can a loader
     * of your own. `key` stands for the tile; `status` as far as it is known.
     */
    failed(key, { url, status, retry }) {
      const address = new URL(url, location.href).href;
      const known = status || statusOf(address);
      const rounds = (this.#failed.get(key)?.rounds ?? 0) + 1;
      this.#failed.delete(key);
      const final = this.#edgeRefuses(address, known) ? rounds > MOST_REFUSALS : FINAL.has(known);
      if (final || rounds > MOST_ROUNDS) return;
      this.#failed.set(key, { url: address, status: known, retry, rounds, waits: true });
      if (this.#failed.size > MOST_WAITING) this.#failed.delete(this.#failed.keys().next().value);
      // Tiles fail in flocks.
      this.#soon ||= setTimeout(() => { this.#soon = 0; this.#mend(); }, 60);
    }

    /** The tile is there, or nobody wants it any more. */
    forget(key) { this.#failed.delete(key); }

    /** A Leaflet tile layer, before it is added to the map. Returns it. */
    leaflet(layer) {
      layer.options.crossOrigin ||= 'use-credentials';
      const urls = new WeakMap();
      layer.on({
        tileloadstart: ({ tile }) => { if (tile.src) urls.set(tile, tile.src); },
        tileerror: ({ tile }) => {
          const url = urls.get(tile);
          if (url) this.failed(tile, { url, retry: () => { tile.src = url; } });
        },
        tileload: ({ tile }) => {
          if (!urls.has(tile)) return; // a layer that draws says so itself
          this.forget(tile);
          this.#shows(mine, urls.get(tile));
        },
        tileunload: ({ tile }) => this.forget(tile),
      });
      // Loading anew would not do: browsers keep a page's images, whatever becomes of the cache.
      let map = null;
      const mine = {
        empty: () => { map = layer._map; layer.remove(); },
        refill: () => { if (map) layer.addTo(map); },
      };
      this.#layers.add(mine);
      return layer;
    }

    /**
     * A MapLibre map, made with `transformRequest: session.transformRequest`. Looks after the sources named,
     * else after those whose tiles come from the tile server. Returns the map.
     */
    maplibre(map, sourceIds) {
      const ours = (id, url) => (sourceIds ? sourceIds.includes(id) : this.#owns(url));
      const again = (id, tiles) => {
        if (map.refreshTiles) map.refreshTiles(id, tiles);
        else map.getSource(id)?.setTiles?.(map.getSource(id).tiles); // an older MapLibre: all of them
      };
      const keyOf = (id, tile) => `${id} ${tile?.tileID.key ?? ''}`;
      map.on('error', ({ error, sourceId, tile }) => {
        const source = sourceId && map.getSource(sourceId);
        if (!source) return;
        const { z, x, y } = tile?.tileID.canonical ?? {};
        const template = (tile ? source.tiles?.[0] : source.url) ?? '';
        const url = error?.url || template.replace('{z}', z).replace('{x}', x).replace('{y}', y);
        // Without its TileJSON a source is empty until it is asked for anew.
        const retry = () => {
          if (!tile) return map.getSource(sourceId)?.setUrl?.(source.url);
          again(sourceId, [{ z, x, y }]);
          // MapLibre takes it for one that can be drawn meanwhile, and stumbles over its missing texture.
          if (tile.state === 'expired') tile.state = 'loading';
          return undefined;
        };
        if (ours(sourceId, url)) this.failed(keyOf(sourceId, tile), { url, status: error?.status, retry });
      });
      map.on('data', ({ dataType, sourceId, sourceDataType, tile }) => {
        if (dataType === 'source' && (tile || sourceDataType === 'metadata')) this.forget(keyOf(sourceId, tile));
      });
      const hidden = new Set();
      const layer = {
        empty: () => {
          for (const { id, source } of map.getStyle()?.layers ?? []) {
            if (!source || !ours(source, map.getSource(source).tiles?.[0] ?? '') || map.getLayoutProperty(id, 'visibility') === 'none') continue;
            map.setLayoutProperty(id, 'visibility', 'none');
            hidden.add(id);
          }
        },
        refill: () => {
          for (const id of hidden) if (map.getLayer(id)) map.setLayoutProperty(id, 'visibility', 'visible');
          hidden.clear();
        },
      };
      this.#layers.add(layer);
      map.on('remove', () => this.#layers.delete(layer));
      return map;
    }

    /** An OpenLayers tile source, before its layer is on a map. Returns it. */
    openlayers(source) {
      // Sources of images have it; vector tiles use `setWithCredentials` of ol/featureloader.js.
      if ('crossOrigin' in source) source.crossOrigin ??= 'use-credentials';
      source.on('tileloaderror', ({ tile }) => this.failed(tile, {
        url: tile.src_ ?? tile.key ?? '',
        retry: () => {
          if (tile.disposed || tile.getState() !== 3) return;
          if (!tile.getImage) tile.setState(0); // an image goes from failed to idle by itself
          tile.load();
        },
      }));
      source.on('tileloadend', ({ tile }) => {
        this.forget(tile);
        this.#shows(mine, tile.src_);
      });
      let load = null;
      const mine = {
        empty: () => { load = source.getTileLoadFunction(); source.setTileLoadFunction((tile) => tile.setState(3)); source.refresh(); },
        refill: () => source.setTileLoadFunction(load),
      };
      this.#layers.add(mine);
      return source;
    }

    // --- inside ---

    #owns(url) { return url.startsWith(`${this.#server}/`) || this.#atEdge(url); }
    /** Whether CloudFront answers there. Its cookies come with each answer to `GET /session`. */
    #atEdge(url) {
      const edge = this.#claims?.cloudfront;
      return edge !== undefined && url.startsWith(`https://${edge.domain}/`);
    }
    /** CloudFront says 403 where its cookies are over; the server itself never means that by it. */
    #edgeRefuses(url, status) { return status === 403 && this.#atEdge(url); }
    #ask(method, path) { return fetch(this.#server + path, { method, credentials: 'include', cache: 'no-store' }); }

    /** The session's claims, null when there is no session, undefined when nobody answers. */
    async #read() {
      try {
        const response = await this.#ask('GET', '/session');
        if (response.ok) return await response.json();
        return response.status === 401 ? null : undefined;
      } catch {
        if (this.#state === 'unknown') {
          console.warn(`Tilekeep: no answer from ${this.#server}. Is it up, is ${location.origin} in its cors_origins, and does this page's Content-Security-Policy let it connect?`);
        }
        return undefined;
      }
    }

    #settle(claims) {
      clearTimeout(this.#timer);
      const had = this.#claims;
      this.#claims = claims;
      // By how long they last, not by when they end: the clock may be wrong. With a third of it left.
      this.#edgeDue = claims?.cloudfront ? Date.now() + claims.cloudfront.expires_in * 667 : Infinity;
      if (!claims) {
        if (this.#state === 'unknown') {
          this.#state = 'none';
          for (const layer of this.#layers) this.#shows(layer, layer.shown);
        } else if (had) this.#expire();
        return;
      }
      if (claims.exp !== had?.exp) {
        this.#life = claims.exp * 1000 - Date.now();
        this.#noLater = false;
      }
      const back = this.#state !== 'valid' && this.#state !== 'unknown';
      // Somebody else's map is another one, from the start.
      if (this.#last && this.#last.sub !== claims.sub) location.reload();
      this.#last = claims;
      this.#state = 'valid';
      this.#plan();
      if (!back) return;
      if (this.#empty) for (const layer of this.#layers) layer.refill();
      this.#empty = false;
      for (const tile of this.#failed.values()) tile.rounds = 0;
      this.#prompt?.done();
      this.#channel?.postMessage({ claims });
      this.dispatchEvent(new CustomEvent('restored', { detail: claims }));
      this.#nudge();
      this.#mend();
    }

    #expire() {
      if (this.#state === 'ended') return;
      const first = this.#state !== 'expired';
      this.#state = 'expired';
      if (first) this.dispatchEvent(new CustomEvent('expired'));
      // A tab that nobody looks at waits; when it is looked at, it checks first.
      if (document.visibilityState === 'visible') this.signIn();
      else document.addEventListener('visibilitychange', () => { if (this.#state === 'expired') this.signIn(); }, { once: true });
    }

    #end() {
      clearTimeout(this.#timer);
      if (this.#state === 'ended') return;
      this.#claims = null;
      this.#state = 'ended';
      this.#prompt?.done();
      this.#clear();
      this.dispatchEvent(new CustomEvent('ended'));
    }

    /** Out of the back-forward cache: what the page shows may be somebody's who has signed out since. */
    async #cameBack() {
      if (await this.check() !== false) return;
      this.#clear();
      this.#expire();
    }

    /**
     * A layer shows an image. Where there is no session it may be one out of the browser's memory, which keeps
     * images for minutes after a log-out, whatever the server tells it to clear; or one of a public tileset.
     * The server is asked for one of them.
     */
    async #shows(layer, url) {
      layer.shown ??= url;
      if (this.#state !== 'none' || !layer.shown || layer.asked) return;
      layer.asked = true;
      const response = await fetch(layer.shown, { credentials: 'include', cache: 'no-store' }).catch(() => null);
      if (response?.status !== 401 || this.#state !== 'none') return;
      this.#clear();
      this.#expire();
    }

    /** No tile is left on the screen, until there is a session again. */
    #clear() {
      this.#failed.clear();
      if (!this.#empty) for (const layer of this.#layers) layer.empty();
      this.#empty = true;
    }

    /** Renews in the last quarter of the session's life, ten minutes before the end at most. */
    #plan() {
      const lead = this.#noLater ? 0 : Math.min(this.#life / 4, 600e3);
      const left = () => this.#claims.exp * 1000 - Date.now();
      // Looked at every minute, as a timer does not count the time that a laptop sleeps; rarely, where the
      // clock is so wrong that the session seems over.
      const wait = left() > lead ? Math.min(left() - lead, 60e3) + 250 : this.#life > 0 ? 15e3 : 300e3;
      this.#timer = setTimeout(async () => {
        const used = document.visibilityState === 'visible' || Date.now() - this.#usedAt < 15 * 60e3;
        if (left() <= lead && used && !this.#noLater) await this.renew();
        else if (left() <= 0 || (Date.now() >= this.#edgeDue && used)) await this.check();
        clearTimeout(this.#timer);
        if (this.#claims) this.#plan();
      }, wait);
    }

    /** Gets the tiles that failed: with the session, or else one after the other and ever more patiently. */
    async #mend() {
      if (this.#mending) return;
      this.#mending = true;
      let pause = 0;
      for (;;) {
        const waiting = [...this.#failed.values()].filter((tile) => tile.waits);
        if (!waiting.length || this.#state === 'ended') break;
        const refused = ({ status, url }) => status === 401 || this.#edgeRefuses(url, status);
        if (waiting.some((tile) => !tile.status || refused(tile)) && await this.check() === false) {
          this.#expire();
          break; // until it is restored
        }
        // Refused before the session was back.
        if (this.#claims) for (const tile of waiting) if (refused(tile)) this.#retry(tile);
        const [key, tile] = [...this.#failed].find(([, one]) => one.waits) ?? [];
        if (!tile) break;
        // It failed for a reason of its own. An answer to fetch tells more than an image's error.
        if (tile.status >= 429) pause ||= 1000 + 1000 * Math.random();
        if (pause) await new Promise((done) => { this.#nudge = done; setTimeout(done, pause); });
        if (this.#failed.get(key) !== tile) continue;
        const response = await fetch(tile.url, { credentials: 'include' }).catch(() => null);
        await response?.arrayBuffer().catch(() => {}); // now it is in the browser's cache
        tile.status = response?.status ?? 0;
        tile.rounds += 1;
        pause = 0;
        if (response?.ok && tile.rounds < 5) this.#retry(tile);
        else if (FINAL.has(tile.status) || tile.rounds > MOST_ROUNDS) this.#failed.delete(key);
        else if (tile.status !== 401) pause = 1000 * (retryAfter(response) || Math.min(2 ** tile.rounds, 60) * (0.75 + Math.random() / 2));
      }
      this.#mending = false;
    }

    #retry(tile) {
      tile.waits = false;
      try {
        tile.retry();
      } catch (error) {
        console.warn('Tilekeep: a tile could not be asked for again', error); // its source may be gone
      }
    }
  }

  // --- the log-in ---

  const SHEET = `
    :host { all: initial; color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; --line: #7c8890; --error: #a3161c; --focus: #1a73c9 }
    @media (prefers-color-scheme: dark) { :host { --error: #ff9d9d; --focus: #7ab8f5 } }
    dialog { box-sizing: border-box; width: min(23rem, 100vw - 2rem); padding: 1.4rem 1.5rem 1.5rem; background: Canvas; color: CanvasText;
      border: 1px solid var(--line); border-radius: 12px; box-shadow: 0 18px 50px rgb(0 0 0 / .35) }
    dialog::backdrop { background: rgb(10 18 22 / .45) }
    h2 { margin: 0 0 .3rem; font-size: 1.15rem }
    p { margin: 0 0 1rem }
    label { display: block; margin: .8rem 0 .25rem; font-weight: 600 }
    input, button { box-sizing: border-box; padding: .55rem .7rem; font: inherit; color: inherit; background: transparent; border: 1px solid var(--line); border-radius: 7px }
    input { width: 100% }
    .error { margin: .9rem 0 0; color: var(--error) }
    .actions { display: flex; flex-wrap: wrap; gap: .6rem; margin-top: 1.2rem }
    button { flex: 1 1 auto; font-weight: 600; cursor: pointer }
    button.primary { color: #fff; background: #0b6e63; border-color: #0b6e63 }
    button:disabled { opacity: .6; cursor: progress }
    .again { position: fixed; bottom: 1.4rem; left: 50%; translate: -50%; z-index: 2147483647; padding: .6rem 1.2rem; border-radius: 99px; box-shadow: 0 6px 20px rgb(0 0 0 / .3) }
    :focus-visible { outline: 3px solid var(--focus); outline-offset: 2px }
    [hidden], .error:empty { display: none !important }`;

  const element = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };

  /** A dialog in a shadow root: the page's styles do not reach in, its own do not reach out. */
  class Prompt {
    #session;
    #server;
    #options;
    #dialog;
    #parts;
    #closed = () => {};

    constructor(session, server, options) {
      this.#session = session;
      this.#server = server;
      this.#options = options;
      const { texts } = options;
      const field = (id, type, autocomplete) => element('input', { id, name: id, type, autocomplete, required: true, autocapitalize: 'none', spellcheck: false });
      const label = (htmlFor) => element('label', { htmlFor, textContent: texts[htmlFor] });
      const button = (text, properties) => element('button', { type: 'button', textContent: texts[text], ...properties });
      const parts = this.#parts = {
        title: element('h2', { id: 'title' }),
        lead: element('p', { textContent: texts.lead }),
        username: field('username', 'text', 'username'),
        password: field('password', 'password', 'current-password'),
        error: element('p', { className: 'error', role: 'alert' }),
        submit: button('submit', { type: 'submit', className: 'primary' }),
        popup: button('popup', { onclick: () => this.#open() }),
        again: button('submit', { className: 'primary again', hidden: true, onclick: () => session.signIn() }),
      };
      parts.fields = element('div', {}, label('username'), parts.username, label('password'), parts.password);
      this.#dialog = element('dialog', {}, element('form', { onsubmit: (event) => { event.preventDefault(); this.#send(); } },
        parts.title, parts.lead, parts.fields, parts.error,
        element('div', { className: 'actions' }, parts.submit, parts.popup, button('cancel', { onclick: () => this.#dialog.close() }))));
      this.#dialog.setAttribute('aria-labelledby', 'title');
      this.#dialog.addEventListener('close', () => {
        // Who says "not now" still has a way.
        parts.again.hidden = session.state !== 'expired';
        this.#closed();
      });
      // The map's shortcuts are not for somebody who types a name.
      for (const type of ['keydown', 'keyup', 'keypress', 'wheel']) this.#dialog.addEventListener(type, (event) => event.stopPropagation());

      const host = element('tilekeep-login');
      const root = host.attachShadow({ mode: 'open' });
      const sheet = new CSSStyleSheet(); // allowed where a Content-Security-Policy forbids inline styles
      sheet.replaceSync(SHEET);
      root.adoptedStyleSheets = [sheet];
      root.append(this.#dialog, parts.again);
      document.body.append(host);
    }

    /** Resolves when the dialog is gone, signed in or not. */
    async ask(again) {
      const { title, lead, fields, username, password, submit, popup, error } = this.#parts;
      title.textContent = again ? this.#options.texts.title : this.#options.texts.first;
      lead.hidden = !again;
      error.textContent = '';
      const ways = await this.#ways();
      if (this.#session.claims) return;
      fields.hidden = submit.hidden = username.disabled = password.disabled = !ways.password;
      popup.hidden = !ways.page;
      popup.classList.toggle('primary', !ways.password);
      this.#parts.again.hidden = true;
      this.#dialog.showModal();
      await new Promise((closed) => { this.#closed = closed; });
    }

    /** Nothing to ask for any more. */
    done() {
      this.#parts.password.value = '';
      this.#parts.again.hidden = true;
      this.#dialog.close();
    }

    /** How one signs in, by the server's own page: with a name and a password, elsewhere, or both. */
    async #ways() {
      if (this.#options.login === 'popup') return { password: false, page: true };
      const page = await fetch(`${this.#server}/login`, { credentials: 'omit' }).then((response) => response.text(), () => 'id="login-form"');
      const password = page.includes('id="login-form"');
      return { password, page: !password || page.includes('id="login-oidc"') };
    }

    async #send() {
      const { username, password, submit, error } = this.#parts;
      const { texts } = this.#options;
      submit.disabled = true;
      error.textContent = '';
      const response = await fetch(`${this.#server}/session`, {
        method: 'POST',
        credentials: 'include',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ username: username.value, password: password.value }),
      }).catch(() => null);
      submit.disabled = false;
      if (response?.ok && await this.#session.check()) return;
      error.textContent = response?.status === 401 ? texts.wrong
        : response?.status === 429 ? texts.wait.replace('{seconds}', retryAfter(response) || 60) : texts.unreachable;
      password.value = '';
      password.focus();
    }

    /** The server's own log-in in a window of its own. Whether it worked is seen in the session alone. */
    async #open() {
      const popup = window.open(`${this.#server}/login?next=/`, 'tilekeep-login', 'popup,width=480,height=680');
      // A window that an identity provider cut off from this one looks closed. Coming back is noticed too.
      while (popup && !popup.closed && this.#dialog.open) {
        await new Promise((done) => { setTimeout(done, 1000); });
        if (await this.#session.check()) popup.close();
      }
    }
  }

  const Tilekeep = (window.Tilekeep ??= {});
  /** All options may be left out: `server`, `login`, `texts`, `onExpired`, `onRestored`, `onEnded`. */
  Tilekeep.session = (options) => new Session(options);
})();
