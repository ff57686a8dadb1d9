// What a page asks of the network, by Chromium's own account (the DevTools protocol), workers included.
//
// Listening leaves the HTTP cache on; intercepting (`page.route`) would switch it off.
import { until } from './until.js';

/** An answer's origin in the browser: 'network', 'disk' (the HTTP cache) or 'memory' (the page's images). */
export class Network {
  static async watch(page, isTile) {
    const network = new Network();
    network.isTile = isTile;
    network.session = await page.context().newCDPSession(page);
    network.entries = [];
    network.byId = new Map();
    network.statusOnTheWire = new Map();
    const workers = new Map();
    const on = (method, parameters, where = '') => network.#event(where, method, parameters);
    for (const event of ['requestWillBeSent', 'requestServedFromCache', 'responseReceived', 'responseReceivedExtraInfo', 'loadingFinished', 'loadingFailed']) {
      network.session.on(`Network.${event}`, (parameters) => on(`Network.${event}`, parameters));
    }
    // A worker is a target of its own, spoken to through this one.
    network.session.on('Target.attachedToTarget', ({ sessionId, targetInfo }) => {
      if (targetInfo.type !== 'worker') return;
      workers.set(sessionId, targetInfo);
      const send = (id, method) => network.session.send('Target.sendMessageToTarget', {
        sessionId, message: JSON.stringify({ id, method, params: {} }),
      }).catch(() => {});
      send(1, 'Network.enable');
      send(2, 'Runtime.runIfWaitingForDebugger');
    });
    network.session.on('Target.receivedMessageFromTarget', ({ sessionId, message }) => {
      if (!workers.has(sessionId)) return;
      const { method, params } = JSON.parse(message);
      if (method) on(method, params, sessionId);
    });
    await network.session.send('Network.enable');
    await network.session.send('Target.setAutoAttach', { autoAttach: true, waitForDebuggerOnStart: true, flatten: false });
    return network;
  }

  #event(where, method, parameters) {
    const id = `${where}/${parameters.requestId}`;
    if (method === 'Network.requestWillBeSent') {
      const { request: { url, method: verb } } = parameters;
      const entry = { requestId: parameters.requestId, url, verb, source: 'network', status: 0, state: 'open', worker: Boolean(where) };
      this.byId.set(id, entry);
      this.entries.push(entry);
      return;
    }
    // The extra info is told by another process: in no order with the rest, and of a worker's requests to whom it likes.
    if (method === 'Network.responseReceivedExtraInfo') { this.statusOnTheWire.set(parameters.requestId, parameters.statusCode); return; }
    const entry = this.byId.get(id);
    if (!entry) return;
    if (method === 'Network.requestServedFromCache') entry.source = 'memory';
    if (method === 'Network.responseReceived') {
      const { response } = parameters;
      entry.status = response.status;
      entry.headers = Object.fromEntries(Object.entries(response.headers).map(([name, value]) => [name.toLowerCase(), value]));
      if (response.fromDiskCache) entry.source = 'disk';
      entry.hasExtraInfo = parameters.hasExtraInfo;
    }
    if (method === 'Network.loadingFinished') entry.state = 'done';
    if (method === 'Network.loadingFailed') entry.state = parameters.canceled ? 'cancelled' : 'failed';
  }

  /** From here on: what was asked since. */
  mark() { return this.entries.length; }

  async since(mark = 0) {
    const tiles = this.entries.slice(mark).filter((entry) => this.isTile(new URL(entry.url)));
    // The images of a page before, and what workers ask for, are said to have it, and may have none.
    const awaited = tiles.filter(({ hasExtraInfo, source, worker }) => hasExtraInfo && source !== 'memory' && !worker);
    await until('the extra info of all answers is there', () => awaited.every(({ requestId }) => this.statusOnTheWire.has(requestId)), { every: 20 });
    // A revalidated answer shows itself in the extra info alone: the page sees the stored 200.
    for (const entry of tiles) if (this.statusOnTheWire.get(entry.requestId) === 304) Object.assign(entry, { source: 'network', revalidated: true });
    const network = tiles.filter((entry) => entry.source === 'network');
    return {
      tiles,
      network,
      /** Tiles that are in the browser's cache and were asked of the network once more. */
      again: network.filter((entry) => this.entries.slice(0, this.entries.indexOf(entry))
        .some((earlier) => earlier.url === entry.url && earlier.state === 'done' && earlier.status === 200)),
      count: {
        network: network.length,
        cancelled: network.filter((entry) => entry.state === 'cancelled').length,
        notModified: tiles.filter((entry) => entry.revalidated).length,
        diskCache: tiles.filter((entry) => entry.source === 'disk').length,
        memoryCache: tiles.filter((entry) => entry.source === 'memory').length,
      },
    };
  }

  clearBrowserCache() { return this.session.send('Network.clearBrowserCache'); }
}
