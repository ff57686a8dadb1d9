// What a page asks of the network, by Chromium's own account (the DevTools protocol), workers included.
//
// Listening leaves the HTTP cache on; intercepting (`page.route`) would switch it off.

/** An answer's origin in the browser: 'network', 'disk' (the HTTP cache) or 'memory' (the page's images). */
export class Network {
  static async watch(page, isTile) {
    const network = new Network();
    network.isTile = isTile;
    network.session = await page.context().newCDPSession(page);
    network.entries = [];
    network.open = new Map();
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
      const entry = { url, verb, source: 'network', status: 0, state: 'open', worker: Boolean(where) };
      this.open.set(id, entry);
      this.entries.push(entry);
      return;
    }
    const entry = this.open.get(id);
    if (!entry) return;
    if (method === 'Network.requestServedFromCache') entry.source = 'memory';
    if (method === 'Network.responseReceived') {
      const { response } = parameters;
      entry.status = response.status;
      entry.headers = Object.fromEntries(Object.entries(response.headers).map(([name, value]) => [name.toLowerCase(), value]));
      if (response.fromDiskCache) entry.source = 'disk';
    }
    // A revalidated answer shows itself in the extra info alone: the page sees the stored 200.
    if (method === 'Network.responseReceivedExtraInfo' && parameters.statusCode === 304) { entry.source = 'network'; entry.revalidated = true; }
    if (method === 'Network.loadingFinished') { entry.state = 'done'; this.open.delete(id); }
    if (method === 'Network.loadingFailed') { entry.state = parameters.canceled ? 'cancelled' : 'failed'; this.open.delete(id); }
  }

  /** From here on: what was asked since. */
  mark() { return this.entries.length; }

  since(mark = 0) {
    const tiles = this.entries.slice(mark).filter((entry) => this.isTile(new URL(entry.url)));
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
