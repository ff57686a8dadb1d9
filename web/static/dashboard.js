// The dashboard: asks `/metrics` every two seconds and shows what it says. The token stays in this tab's sessionStorage.
'use strict';
(() => {
  const { parse, History, quantile, words } = window.Tilekeep.figures;
  const SVG = 'http://www.w3.org/2000/svg';
  const EVERY = 2000;
  const PATIENCE = 5000;
  /** Looking through the memory tier costs something. */
  const CACHED_EVERY = 10_000;
  /** What "now" is, of rates; and of shares and latencies, which need more to say something. */
  const NOW = 10_000;
  const MINUTE = 60_000;
  /** From one sample to the next, which may come a little early. */
  const STEP = EVERY * 0.75;
  const TOKEN = 'tilekeep-admin-token';

  const byId = (id) => document.getElementById(id);
  const say = (id, text) => {
    const element = byId(id);
    if (element.textContent !== text) element.textContent = text;
  };

  // ---- asking ----

  class Refused extends Error {
    constructor(status, message) {
      super(message);
      this.status = status;
    }
  }

  const stored = {
    get: () => sessionStorage.getItem(TOKEN),
    set: (token) => sessionStorage.setItem(TOKEN, token),
    forget: () => sessionStorage.removeItem(TOKEN),
  };

  /** A header holds bytes, and `fetch` takes each for a character. */
  const bearer = (token) => `Bearer ${String.fromCharCode(...new TextEncoder().encode(token))}`;

  const ask = async (path) => {
    const token = stored.get();
    let response;
    try {
      response = await fetch(path, {
        headers: token === null ? {} : { Authorization: bearer(token) },
        cache: 'no-store', credentials: 'omit', redirect: 'error', signal: AbortSignal.timeout(PATIENCE),
      });
      // `/readyz` says with 503 that it is not ready.
      if (response.ok || (path === '/readyz' && response.status === 503)) return await response.text();
    } catch (error) {
      throw new Refused(0, error.name === 'TimeoutError' ? `no answer within ${PATIENCE / 1000} s` : 'the server does not answer');
    }
    const problem = await response.json().catch(() => ({}));
    throw new Refused(response.status, problem.detail ?? `the answer was ${response.status}`);
  };
  const askJson = async (path) => JSON.parse(await ask(path));

  // ---- tables and lines ----

  /** Fills a table; what has not changed is not touched, so that a selection in it stays. */
  const setRows = (table, heads, rows) => {
    const make = (tag, text, scope) => {
      const cell = document.createElement(tag);
      if (scope) cell.scope = scope;
      cell.textContent = text;
      return cell;
    };
    if (!table.tHead) {
      const row = table.createTHead().insertRow();
      row.append(...heads.map((text) => make('th', text, 'col')));
      table.createTBody();
    }
    const body = table.tBodies[0];
    rows.forEach(({ cells, className = '' }, n) => {
      let row = body.rows[n];
      if (!row) {
        row = body.insertRow();
        row.append(...cells.map((text, column) => (column === 0 ? make('th', text, 'row') : make('td', text))));
      }
      cells.forEach((text, column) => { if (row.cells[column].textContent !== text) row.cells[column].textContent = text; });
      if (row.className !== className) row.className = className;
    });
    while (body.rows.length > rows.length) body.deleteRow(-1);
  };

  const drawn = (name, attributes) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };

  /** The last two minutes as a line, from zero up. `null` is a gap. */
  const spark = (id, figures, top = 0) => {
    const [width, height] = [200, 36];
    const svg = drawn('svg', { class: 'dash-spark', viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' });
    const kept = figures.slice(-60);
    const most = Math.max(top, ...kept.filter((figure) => figure !== null && Number.isFinite(figure)), 1e-9);
    svg.append(drawn('line', { x1: 0, x2: width, y1: height - 0.5, y2: height - 0.5 }));
    const point = (figure, n) => [width - (kept.length - 1 - n) * (width / 59), height - 1 - (figure / most) * (height - 4)];
    let run = [];
    const end = () => {
      if (run.length > 1) {
        const line = run.map((at) => at.map((c) => c.toFixed(1)).join(',')).join(' ');
        svg.append(
          drawn('polygon', { points: `${run[0][0].toFixed(1)},${height} ${line} ${run.at(-1)[0].toFixed(1)},${height}` }),
          drawn('polyline', { points: line }),
        );
      }
      run = [];
    };
    kept.forEach((figure, n) => { if (figure === null || !Number.isFinite(figure)) end(); else run.push(point(figure, n)); });
    end();
    byId(id).replaceChildren(svg);
  };

  /** A bar of shares, each in the colour of its source. */
  const bar = (title, shares) => {
    const words_of = document.createElement('span');
    words_of.className = 'dash-bar-words';
    words_of.textContent = title;
    const svg = drawn('svg', { class: 'dash-bar', viewBox: '0 0 1000 1', preserveAspectRatio: 'none' });
    const whole = shares.reduce((sum, [, value]) => sum + value, 0);
    let at = 0;
    for (const [source, value] of shares) {
      const width = whole > 0 ? (value / whole) * 1000 : 0;
      if (width > 0) svg.append(drawn('rect', { x: at, y: 0, width, height: 1, class: `s-${source}` }));
      at += width;
    }
    return [words_of, svg];
  };

  /** What is wider than its card can be scrolled by the keyboard; what is not is no stop on its way. */
  const reachable = () => {
    for (const box of document.querySelectorAll('.dash-scroll')) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0; else box.removeAttribute('tabindex');
    }
  };

  // ---- what is shown ----

  const SOURCES = [
    ['memory', 'Memory'], ['disk', 'Disk'], ['stale_memory', 'Memory, stale'], ['stale_disk', 'Disk, stale'],
    ['origin', 'Origin'], ['collapsed', 'Waited for another’s fetch'], ['revalidated', 'Origin confirmed it'], ['stale_if_error', 'Origin failed, stale stood in'],
  ];
  const HITS = ['memory', 'disk', 'stale_memory', 'stale_disk'];
  const OUTCOMES = [
    ['found', 'A tile'], ['not_modified', 'The held one is right'], ['not_found', 'No such tile'], ['denied', 'Denied'], ['throttled', 'Throttled'],
    ['server_error', 'It failed'], ['truncated', 'Truncated'], ['unreachable', 'Unreachable'], ['deadline', 'Too late'], ['held_back', 'Not asked: too busy or failing'],
  ];
  const FINE = ['found', 'not_modified', 'not_found'];
  const TROUBLE = [['corrupt', 'corrupt records'], ['io_error', 'failed reads and writes'], ['skipped', 'writes left out']];

  const is = (label, ...values) => (labels) => values.includes(labels[label]);
  const served = 'tilekeep_tiles_served_total';
  const answers = 'tilekeep_http_answers_total';
  const asked = 'tilekeep_origin_requests_total';
  const isAsked = (labels) => labels.outcome !== 'held_back';
  const plural = (n, one, many) => `${words.count(n)} ${n === 1 ? one : many}`;

  const showTiles = (h) => {
    say('requests', words.rate(h.rate(answers, NOW)));
    const bytes = h.rate('tilekeep_tile_body_bytes_total', NOW);
    const connections = h.now('tilekeep_connections');
    say('requests-more', `${plural(connections, 'connection', 'connections')}${bytes === null ? '' : `, ${words.bytes(bytes)}/s of tiles`}`);
    spark('requests-spark', h.each((n) => h.rate(answers, STEP, undefined, n)));

    const hits = h.growth(served, MINUTE, is('source', ...HITS)).grown;
    const all = h.growth(served, MINUTE).grown;
    const [hitsEver, allEver] = [h.now(served, is('source', ...HITS)), h.now(served)];
    say('hits', all > 0 ? words.share(hits, all) : words.share(hitsEver, allEver));
    say('hits-more', all > 0 ? `last minute; ${words.share(hitsEver, allEver)} since the start`
      : allEver > 0 ? 'since the start; no tiles in the last minute' : 'no tile was asked for yet');
    spark('hits-spark', h.each((n) => {
      const whole = h.growth(served, NOW, undefined, n).grown;
      return whole > 0 ? h.growth(served, NOW, is('source', ...HITS), n).grown / whole : null;
    }), 1);

    const buckets = h.buckets('tilekeep_fill_seconds', MINUTE);
    const median = quantile(buckets, 0.5);
    say('miss', words.latency(median));
    const ever = quantile(h.bucketsEver('tilekeep_fill_seconds'), 0.5);
    const misses = h.growth('tilekeep_fill_seconds_count', MINUTE).grown;
    say('miss-more', median ? `90 % ${words.latency(quantile(buckets, 0.9))}, 99 % ${words.latency(quantile(buckets, 0.99))} of ${words.count(misses)} in the last minute` : ever ? `none in the last minute; ${words.latency(ever)} since the start` : 'none yet');
    spark('miss-spark', h.each((n) => quantile(h.buckets('tilekeep_fill_seconds', NOW, n), 0.5)?.value ?? null));

    say('origin', words.rate(h.rate(asked, NOW, isAsked)));
    const body = h.rate('tilekeep_origin_body_bytes_total', NOW);
    say('origin-more', `${words.count(h.now('tilekeep_fills_in_flight'))} in flight${body === null ? '' : `, ${words.bytes(body)}/s of tiles`}`);
    spark('origin-spark', h.each((n) => h.rate(asked, STEP, isAsked, n)));
  };

  const showSources = (h) => {
    const ever = SOURCES.map(([source]) => [source, h.now(served, is('source', source))]);
    const minute = SOURCES.map(([source]) => [source, h.growth(served, MINUTE, is('source', source)).grown]);
    const sum = (shares) => shares.reduce((total, [, value]) => total + value, 0);
    const [allEver, allMinute] = [sum(ever), sum(minute)];
    byId('sources-bars').replaceChildren(...bar('Last minute', minute), ...bar('Since the start', ever));
    const rows = SOURCES.map(([source, name], n) => ({
      cells: [name, words.rate(h.rate(served, NOW, is('source', source))), words.share(minute[n][1], allMinute), words.share(ever[n][1], allEver), words.count(ever[n][1])],
      className: `s-${source}${source === 'stale_if_error' && minute[n][1] > 0 ? ' bad' : ever[n][1] === 0 ? ' zero' : ''}`,
    }));
    setRows(byId('sources'), ['Source', '/s', 'Last minute', 'Since the start', 'Tiles'], rows);
  };

  const showTiers = (h) => {
    const event = (...events) => is('event', ...events);
    const disk = 'tilekeep_disk_events_total';
    setRows(byId('tiers'), ['Figure', 'Memory', 'Disk'], [
      { cells: ['Bytes', words.bytes(h.now('tilekeep_memory_bytes')), words.bytes(h.now('tilekeep_disk_bytes'))] },
      { cells: ['Entries', words.count(h.now('tilekeep_memory_entries')), words.count(h.now('tilekeep_disk_entries'))] },
      { cells: ['Evictions /s', words.rate(h.rate('tilekeep_memory_evictions_total', NOW)), words.rate(h.rate(disk, NOW, event('eviction')))] },
      { cells: ['Evictions', words.count(h.now('tilekeep_memory_evictions_total')), words.count(h.now(disk, event('eviction')))] },
      { cells: ['Written /s', words.none, (() => { const r = h.rate('tilekeep_disk_written_bytes_total', NOW); return r === null ? words.none : words.bytes(r); })()] },
      ...TROUBLE.map(([word, name]) => {
        const ever = h.now(disk, event(word));
        const lately = h.growth(disk, MINUTE, event(word)).grown;
        return { cells: [`Disk: ${name}`, words.none, words.count(ever)], className: lately > 0 ? 'bad' : ever > 0 ? 'warn' : 'zero' };
      }),
    ]);
    const trouble = TROUBLE.map(([word, name]) => [name, h.growth(disk, MINUTE, event(word)).grown]).filter(([, n]) => n > 0);
    const unused = h.now('tilekeep_disk_bytes') === 0 && h.now('tilekeep_disk_entries') === 0;
    say('tiers-more', trouble.length > 0 ? `In the last minute: ${trouble.map(([name, n]) => `${words.count(n)} ${name}`).join(', ')}.` : unused ? 'Nothing is on disk: the tier is off or new.' : '');
  };

  const showOrigin = (h) => {
    setRows(byId('outcomes'), ['Outcome', '/s', 'Last minute', 'Since the start'], OUTCOMES.map(([outcome, name]) => {
      const [ever, lately] = [h.now(asked, is('outcome', outcome)), h.growth(asked, MINUTE, is('outcome', outcome)).grown];
      const bad = !FINE.includes(outcome);
      return { cells: [name, words.rate(h.rate(asked, NOW, is('outcome', outcome))), words.count(lately), words.count(ever)], className: bad && lately > 0 ? 'bad' : ever === 0 ? 'zero' : bad ? 'warn' : '' };
    }));
    const failed = h.now('tilekeep_revalidation_failures_total');
    say('outcomes-more', `${words.bytes(h.now('tilekeep_origin_body_bytes_total'))} of tiles since the start${failed > 0 ? `; ${plural(failed, 'revalidation', 'revalidations')} behind an answer failed` : ''}.`);
  };

  const showRefusals = (h) => {
    const row = (name, family, wanted) => {
      const [ever, lately] = [h.now(family, wanted), h.growth(family, MINUTE, wanted).grown];
      return { cells: [name, words.rate(h.rate(family, NOW, wanted)), words.count(lately), words.count(ever)], className: lately > 0 ? 'warn' : ever === 0 ? 'zero' : '' };
    };
    const failing = (shown) => (shown.className === 'warn' ? { ...shown, className: 'bad' } : shown);
    const quotas = h.family('tilekeep_quota_refusals_total').map(({ labels }) => row(
      `Over quota: ${labels.class}, ${labels.limit === 'rate' ? 'requests a second' : 'different tiles'}`, 'tilekeep_quota_refusals_total',
      (other) => other.class === labels.class && other.limit === labels.limit,
    ));
    setRows(byId('refusals'), ['Answer', '/s', 'Last minute', 'Since the start'], [
      row('401, no or bad session', answers, is('answer', 'unauthorized')),
      row('403, not allowed', answers, is('answer', 'forbidden')),
      row('429, over quota', answers, is('answer', 'over_quota')),
      ...quotas,
      row('Log-ins refused', 'tilekeep_login_failures_total'),
      row('Connections refused', 'tilekeep_connections_refused_total'),
      failing(row('502–504, the origin failed', answers, is('answer', 'origin_failed'))),
      failing(row('500, this server failed', answers, is('answer', 'internal'))),
      failing(row('Connections not accepted', 'tilekeep_accept_errors_total')),
    ]);
    say('refusals-more', `${plural(h.now('tilekeep_connections'), 'connection', 'connections')} open.`);
  };

  const showCredentials = (h) => {
    const rows = h.family('tilekeep_aws_credentials_expires_in_seconds').map(({ labels, value }) => ({
      cells: [labels.identity, value === Infinity ? 'no end' : value <= 0 ? 'none' : words.span(value)],
      className: value <= 0 || value < 240 ? 'bad' : '',
    }));
    setRows(byId('credentials'), ['Identity', 'Good for'], rows);
    const refreshes = 'tilekeep_aws_credentials_refreshes_total';
    const failed = is('outcome', 'not_found', 'denied', 'unavailable', 'deadline');
    const [bad, lately] = [h.now(refreshes, failed), h.growth(refreshes, MINUTE, failed).grown];
    say('credentials-more', `${plural(h.now(refreshes, is('outcome', 'refreshed')), 'renewal', 'renewals')}; ${plural(bad, 'attempt', 'attempts')} failed${lately > 0 ? `, ${words.count(lately)} in the last minute` : ''}.`);
  };

  const showOthers = (h, ready) => {
    const shown = ready?.cluster !== undefined || ready?.events !== undefined;
    byId('others-card').hidden = !shown;
    if (!shown) return;
    const rows = [];
    if (ready.cluster !== undefined) {
      rows.push({ cells: ['Redis', ready.cluster.replaceAll('_', ' ')], className: h.now('tilekeep_cluster_connected') === 1 ? '' : 'bad' });
      rows.push({ cells: ['Messages sent, received', ['sent', 'received'].map((way) => words.count(h.now('tilekeep_cluster_messages_total', is('direction', way)))).join(', ')] });
      for (const { labels, value } of h.family('tilekeep_cluster_events_total')) {
        if (value > 0) rows.push({ cells: [`Trouble: ${labels.event.replaceAll('_', ' ')}`, words.count(value)], className: 'warn' });
      }
    }
    if (ready.events !== undefined) {
      rows.push({ cells: ['Queue of S3 events', ready.events.replaceAll('_', ' ')], className: h.now('tilekeep_events_receiving') === 1 ? '' : 'bad' });
      rows.push({ cells: ['Tiles dropped by events', words.count(h.now('tilekeep_events_total', is('outcome', 'purged')))] });
      rows.push({ cells: ['Last change to its purge', words.span(h.now('tilekeep_events_lag_seconds'))] });
    }
    setRows(byId('others'), ['What', 'Now'], rows);
  };

  const showReady = (ready) => {
    const state = byId('state');
    const text = !ready ? 'Live' : ready.ending ? 'Ending' : !ready.ready ? 'Not ready: no AWS credentials yet'
      : ready.degraded.length > 0 ? `Live, in trouble: ${ready.degraded.join(', ').replaceAll('_', ' ')}` : 'Live';
    state.classList.toggle('bad', text !== 'Live');
    say('state', history.restarts > 0 && text === 'Live' ? `Live, restarted at ${restartedAt}` : text);
  };

  // ---- the loop ----

  let history = new History();
  let restartedAt = '';
  let failingSince = null;
  let timer = null;
  let round = 0;
  let cachedAt = -Infinity;
  const cached = window.Tilekeep.cachedMap(askJson, setRows);
  const clock = () => new Date().toLocaleTimeString('en-GB');

  const wantToken = (wrong) => {
    if (wrong) stored.forget();
    history = new History();
    byId('figures').hidden = true;
    byId('forget').hidden = true;
    byId('trouble').hidden = true;
    failingSince = null;
    const form = byId('token-form');
    const error = byId('token-error');
    error.hidden = !wrong;
    error.textContent = wrong ? 'This is not the admin token.' : '';
    say('state', 'Waiting for the token');
    byId('state').classList.remove('bad');
    form.hidden = false;
    byId('token').focus();
    byId('token').select();
  };

  const failed = (error) => {
    failingSince ??= { at: performance.now(), clock: clock() };
    const trouble = byId('trouble');
    // Said once, not every two seconds: it is read aloud.
    const text = `No figures since ${failingSince.clock}: ${error.message}. Asked again every two seconds; what is below is from before.`;
    if (trouble.textContent !== text) trouble.textContent = text;
    trouble.hidden = false;
    byId('figures').classList.add('dash-old');
    byId('state').classList.add('bad');
    say('state', `No figures since ${failingSince.clock}`);
  };

  const came = (families, ready) => {
    const before = history.restarts;
    history.add(performance.now(), families);
    if (history.restarts > before) restartedAt = clock();
    failingSince = null;
    byId('trouble').hidden = true;
    if (!byId('token-form').hidden) {
      byId('token-form').hidden = true;
      byId('token').value = '';
      byId('title').focus();
    }
    byId('forget').hidden = stored.get() === null;
    byId('figures').hidden = false;
    byId('figures').classList.remove('dash-old');
    showReady(ready);
    for (const show of [showTiles, showSources, showTiers, showOrigin, showRefusals, showCredentials]) show(history);
    showOthers(history, ready);
    reachable();
  };

  const cachedTurn = async (started) => {
    if (document.hidden || started - cachedAt < CACHED_EVERY) return;
    cachedAt = started;
    try {
      await cached.refresh();
    } catch (error) {
      // Somebody else's look is under way: with the next figures.
      if (error.status === 503) cachedAt = started - CACHED_EVERY;
      else cached.say(`What is cached is not known: ${error.message}`);
    }
  };

  const tick = async () => {
    clearTimeout(timer);
    const mine = ++round;
    const started = performance.now();
    let again = true;
    try {
      const [text, ready] = await Promise.all([ask('/metrics'), askJson('/readyz').catch(() => null)]);
      if (mine !== round) return;
      came(parse(text), ready);
      void cachedTurn(started);
    } catch (error) {
      if (mine !== round) return;
      if (error.status === 401) {
        wantToken(stored.get() !== null);
        again = false;
      } else if (error instanceof Refused) failed(error);
      else throw error;
    } finally {
      if (mine === round && again) timer = setTimeout(tick, Math.max(200, EVERY - (performance.now() - started)));
    }
  };

  byId('token-form').addEventListener('submit', (event) => {
    event.preventDefault();
    const token = byId('token').value.trim();
    if (token === '') return;
    stored.set(token);
    cachedAt = -Infinity;
    tick();
  });
  addEventListener('resize', reachable);
  byId('forget').addEventListener('click', () => {
    round += 1;
    clearTimeout(timer);
    stored.forget();
    wantToken(false);
  });
  document.addEventListener('visibilitychange', () => { if (!document.hidden && byId('token-form').hidden) tick(); });
  tick();
})();
