// Where a tile came from: reads Cache-Status (RFC 9211), names it, and draws it.
'use strict';
(() => {
  const TK = (window.Tilekeep = window.Tilekeep || {});

  // Told apart by word, glyph and pattern as well as by colour; the colours are Okabe and Ito's.
  const KINDS = [
    { id: 'memory', label: 'Memory', hint: 'a hit in the server\u2019s memory', colour: '#009e73', pattern: 'plain' },
    { id: 'disk', label: 'Disk', hint: 'a hit on the server\u2019s disk', colour: '#0072b2', pattern: 'dots' },
    { id: 'origin', label: 'Origin', hint: 'fetched from the bucket', colour: '#d55e00', pattern: 'rising' },
    { id: 'collapsed', label: 'Collapsed', hint: 'shared another request\u2019s fetch', colour: '#e69f00', pattern: 'cross' },
    { id: 'revalidated', label: 'Revalidated', hint: 'the bucket said: unchanged', colour: '#56b4e9', pattern: 'level' },
    { id: 'stale', label: 'Stale', hint: 'past its time; refreshed behind, or the bucket fails', colour: '#cc79a7', pattern: 'falling' },
    { id: 'browser', label: 'Browser cache', hint: 'no request left this computer', colour: '#8b949e', pattern: 'plain' },
    { id: 'absent', label: 'No tile', hint: 'the tileset has none here', colour: '#6b7280', pattern: 'void' },
    { id: 'refused', label: 'Refused', hint: 'not signed in, not allowed, over quota or failed', colour: '#c2272d', pattern: 'grid' },
    { id: 'other', label: 'Not said', hint: 'the answer has no Cache-Status of this server', colour: '#8b949e', pattern: 'dots' },
  ];
  const kind = Object.fromEntries(KINDS.map((k) => [k.id, k]));

  /** The parameters of this server's member of a Cache-Status list, or null. */
  const parse = (header) => {
    // Members are divided by commas, outside quoted strings only.
    const members = (header || '').match(/(?:"(?:\\.|[^"\\])*"|[^,])+/g) || [];
    for (const member of members) {
      const [name, ...rest] = (member.match(/(?:"(?:\\.|[^"\\])*"|[^;])+/g) || []).map((part) => part.trim());
      if (!/^"?tilekeep"?$/.test(name)) continue;
      const parameters = {};
      for (const part of rest) {
        const equals = part.indexOf('=');
        if (equals < 0) parameters[part] = true;
        else parameters[part.slice(0, equals)] = part.slice(equals + 1).replace(/^"|"$/g, '');
      }
      return parameters;
    }
    return null;
  };

  /** Names what a status and a Cache-Status say. */
  const classify = (status, header) => {
    const said = parse(header);
    const ttl = said && said.ttl !== undefined ? Number(said.ttl) : null;
    const is = (id) => ({ kind: id, ttl, status, detail: said && said.detail !== true ? said.detail : undefined });
    if (status === 404 || status === 204 || status === 410) return is('absent');
    if (status >= 400 || status === 0) return is('refused');
    if (!said) return is('other');
    if (said.hit) return is(ttl !== null && ttl < 0 ? 'stale' : said.detail === 'disk' ? 'disk' : 'memory');
    if (said.detail === 'stale-if-error') return is('stale');
    if (said.collapsed) return is('collapsed');
    if (said.fwd === 'stale' && said['fwd-status'] === '304') return is('revalidated');
    return is(said.fwd ? 'origin' : 'other');
  };

  // The browser stops recording requests when its list is full, and a busy map fills it.
  performance.setResourceTimingBufferSize?.(500);
  performance.addEventListener?.('resourcetimingbufferfull', () => performance.clearResourceTimings());

  const timing = async (url, since) => {
    const href = new URL(url, location.href).href;
    for (let attempt = 0; attempt < 3; attempt++) {
      const entry = performance.getEntriesByName(href, 'resource').filter((e) => e.startTime >= since - 1).pop();
      if (entry) return entry;
      await new Promise((resolve) => { setTimeout(resolve, attempt * 15); });
    }
    return null;
  };
  const fromBrowser = (entry) => Boolean(entry)
    && (entry.deliveryType === 'cache' || (entry.transferSize === 0 && entry.decodedBodySize > 0));

  const told = new Set();
  // Whether this page may have loaded tiles other than through `load`, that is without the overlay.
  let unwatched = false;
  /**
   * Loads a tile in the ordinary way, browser cache included, and tells where it came from.
   *
   * When the overlay is switched on, the tiles on the screen are read back from the browser's cache.
   * What is asked then is where they came from when this page first showed them; the stored answer
   * says it, if it is younger than the page. After that, and when the overlay was on from the start,
   * the browser's cache is the browser's cache.
   */
  const load = async (url, signal) => {
    const since = performance.now();
    let response;
    try {
      response = await fetch(url, { signal });
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      return { record: { kind: 'refused', status: 0, ttl: null }, response: null, body: null };
    }
    const body = await response.arrayBuffer();
    const record = classify(response.status, response.headers.get('Cache-Status'));
    if (fromBrowser(await timing(url, since))) {
      // Dates are whole seconds, so the stored answer has to be no more than a little older.
      const age = Date.parse(response.headers.get('Date') || '') - (performance.timeOrigin - 1500);
      if (told.has(url) || !unwatched || !(age >= 0)) {
        record.before = record.kind;
        record.kind = 'browser';
        record.ttl = null;
      }
    }
    told.add(url);
    return { record, response, body };
  };

  const duration = (seconds) => {
    const abs = Math.abs(seconds);
    if (abs < 90) return `${Math.round(abs)} s`;
    if (abs < 5400) return `${Math.round(abs / 60)} min`;
    return `${Math.round(abs / 3600)} h`;
  };
  /** A record in words. */
  const words = (record) => {
    const name = kind[record.kind].label;
    if (record.kind === 'refused') return record.status ? `${name} (${record.status})` : `${name} (no answer)`;
    if (record.kind === 'browser' && record.before && kind[record.before]) return `${name}, before: ${kind[record.before].label.toLowerCase()}`;
    if (record.ttl === null || Number.isNaN(record.ttl)) return name;
    return record.ttl < 0 ? `${name}, ${duration(record.ttl)} past its time` : `${name}, fresh for ${duration(record.ttl)}`;
  };

  // --- drawing ---

  const PATTERN = 16;
  const patterns = new Map();
  const pattern = (context, { id, colour, pattern: shape }) => {
    const there = patterns.get(id);
    if (there) return there;
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = PATTERN * 2;
    const c = canvas.getContext('2d');
    c.scale(2, 2);
    c.fillStyle = c.strokeStyle = colour;
    c.globalAlpha = shape === 'void' ? 0.12 : id === 'browser' ? 0.2 : 0.3;
    c.fillRect(0, 0, PATTERN, PATTERN);
    c.globalAlpha = 0.75;
    c.lineWidth = 1.6;
    const line = (x1, y1, x2, y2) => { c.beginPath(); c.moveTo(x1, y1); c.lineTo(x2, y2); c.stroke(); };
    const rising = () => { line(-4, 20, 20, -4); line(-4, 4, 4, -4); line(12, 20, 20, 12); };
    const falling = () => { line(-4, -4, 20, 20); line(12, -4, 20, 4); line(-4, 12, 4, 20); };
    if (shape === 'dots') for (const [x, y] of [[4, 4], [12, 12]]) { c.beginPath(); c.arc(x, y, 1.7, 0, 7); c.fill(); }
    if (shape === 'rising' || shape === 'cross') rising();
    if (shape === 'falling' || shape === 'cross') falling();
    if (shape === 'level') { line(0, 4, 16, 4); line(0, 12, 16, 12); }
    if (shape === 'grid') { line(0, 8, 16, 8); line(8, 0, 8, 16); line(0, 0, 0, 16); line(0, 0, 16, 0); }
    if (shape === 'void') { c.globalAlpha = 0.5; c.setLineDash([3, 5]); falling(); }
    const made = context.createPattern(canvas, 'repeat');
    made.setTransform(new DOMMatrix([0.5, 0, 0, 0.5, 0, 0]));
    patterns.set(id, made);
    return made;
  };

  /**
   * Draws one tile's record over the square at `x`, `y`, in CSS pixels; its label further in by
   * `labelX`, `labelY`.
   */
  const paint = (context, x, y, size, record, name, labelX = 0, labelY = 0) => {
    const what = record ? kind[record.kind] : null;
    context.save();
    context.beginPath();
    context.rect(x, y, size, size);
    context.clip();
    context.translate(x, y);
    if (what) {
      context.fillStyle = pattern(context, what);
      context.fillRect(0, 0, size, size);
    }
    context.strokeStyle = what ? what.colour : 'rgba(120,130,140,.6)';
    context.lineWidth = what ? 3 : 1.5;
    if (!what) context.setLineDash([4, 4]);
    context.strokeRect(0, 0, size, size);
    context.setLineDash([]);
    if (size >= 92) {
      context.translate(labelX, labelY);
      const title = what ? (record.kind === 'refused' && record.status ? `Refused ${record.status}` : what.label) : '\u2026';
      const more = size >= 150 ? name : '';
      context.font = '600 11.5px system-ui, sans-serif';
      const width = Math.max(context.measureText(title).width + 17, more ? context.measureText(more).width : 0) + 14;
      context.fillStyle = 'rgba(14,20,24,.84)';
      context.beginPath();
      if (context.roundRect) context.roundRect(7, 7, width, more ? 37 : 22, 6);
      else context.rect(7, 7, width, more ? 37 : 22);
      context.fill();
      context.fillStyle = what ? what.colour : '#9aa4ad';
      context.fillRect(14, 13, 10, 10);
      context.strokeStyle = 'rgba(255,255,255,.85)';
      context.lineWidth = 1;
      context.strokeRect(14, 13, 10, 10);
      context.fillStyle = '#fff';
      context.fillText(title, 30, 22);
      if (more) {
        context.font = '11px ui-monospace, monospace';
        context.fillStyle = '#c5ced6';
        context.fillText(more, 14, 37);
      }
    }
    context.restore();
  };

  /** A legend's square, drawn as the map draws it. */
  const swatch = (id) => {
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = 44;
    canvas.className = 'swatch';
    const context = canvas.getContext('2d');
    context.scale(2, 2);
    paint(context, 0, 0, 22, { kind: id }, '');
    return canvas;
  };

  TK.provenance = { watched: (isWatched) => { unwatched ||= !isWatched; }, KINDS, classify, load, words, paint, swatch };
})();
