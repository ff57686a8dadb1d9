// The dashboard's map of what is cached in memory: `/cached`, a square of cells, a legend, and a table by zoom.
'use strict';
(() => {
  const TK = window.Tilekeep;
  const { words } = TK.figures;
  const SVG = 'http://www.w3.org/2000/svg';
  const STEPS = 7;
  const SIDE = 64;

  const drawn = (name, attributes = {}, text) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };

  /** How many tiles: each step is the same factor. The first figure of each step, and which step a figure is in. */
  const byCount = (most) => {
    const starts = [];
    for (let step = 0; step < STEPS; step++) {
      const start = most <= STEPS ? step + 1 : Math.ceil(most ** (step / STEPS));
      if (start <= most && start > (starts.at(-1) ?? 0)) starts.push(start);
    }
    return { starts, step: (n) => starts.findLastIndex((start) => n >= start) };
  };
  /** How often a tile was found, on average. */
  const byHeat = (most) => {
    const starts = [0, 0.01, 1, 2, 4, 8, most];
    return { starts, step: (n) => Math.max(0, starts.findLastIndex((start) => n >= start)) };
  };
  /** Colours go from the first to the last also where there are fewer steps. */
  const colour = (kind, step, steps) => `${kind}-${steps > 1 ? Math.round((step * (STEPS - 1)) / (steps - 1)) : 3}`;

  const longitude = (x, cells) => (x / cells) * 360 - 180;
  const latitude = (y, cells) => (Math.atan(Math.sinh(Math.PI * (1 - (2 * y) / cells))) * 180) / Math.PI;
  const degrees = (value, plus, minus) => `${Math.abs(value).toFixed(Math.abs(value) < 100 ? 2 : 1)}° ${value < 0 ? minus : plus}`;

  /** Which square of cells is shown: the world, or 64 by 64 around what is cached. */
  const view = (grid) => {
    const cells = 2 ** grid.cell_zoom;
    if (cells <= SIDE) return { cells, left: 0, top: 0, side: cells };
    const middle = (places) => {
      const from = places.reduce((a, b) => Math.min(a, b), Infinity);
      const to = places.reduce((a, b) => Math.max(a, b), 0);
      return Math.min(Math.max(0, Math.floor((from + to + 1 - SIDE) / 2)), cells - SIDE);
    };
    return { cells, left: middle(grid.cells.map(({ x }) => x)), top: middle(grid.cells.map(({ y }) => y)), side: SIDE };
  };

  const byId = (id) => document.getElementById(id);

  /** `ask` fetches a path of this server as JSON; `setRows` fills a table. */
  TK.cachedMap = (ask, setRows) => {
    const [tilesets, zooms, map, legend, caption, note, shown] = ['cached-tileset', 'cached-zoom', 'cached-map', 'cached-legend', 'cached-caption', 'cached-note', 'cached-shown'].map(byId);
    let asked = 0;
    let latest = null;

    const options = (select, wanted) => {
      const same = select.options.length === wanted.length && wanted.every(([value, text], n) => select.options[n].value === value && select.options[n].text === text);
      if (same) return;
      const chosen = select.value;
      select.replaceChildren(...wanted.map(([value, text]) => new Option(text, value)));
      if (wanted.some(([value]) => value === chosen)) select.value = chosen;
    };

    const say = (text) => {
      if (note.textContent !== text) note.textContent = text;
      note.hidden = text === '';
    };

    const draw = () => {
      const { grid, found_at_most: most } = latest;
      const kind = document.querySelector('input[name=by]:checked').value;
      const figure = ({ tiles, found }) => (kind === 'tiles' ? tiles : found / tiles);
      const scale = kind === 'tiles' ? byCount(grid.cells.reduce((a, { tiles }) => Math.max(a, tiles), 0)) : byHeat(most);
      const steps = scale.starts.length;
      const { cells, left, top, side } = view(grid);
      const marks = grid.cells.map((cell) => {
        const { x, y, tiles, found } = cell;
        const mark = drawn('rect', { x: x - left, y: y - top, width: 1, height: 1, class: colour(kind, scale.step(figure(cell)), steps) });
        mark.append(drawn('title', {}, `${grid.cell_zoom}/${x}/${y}: ${words.count(tiles)} ${tiles === 1 ? 'tile' : 'tiles'}, found ${(found / tiles).toFixed(1)} times each`));
        return mark;
      });
      // The equator and Greenwich, to know where one is; they are half-way at any zoom.
      const half = cells / 2;
      const lines = [];
      if (half > left && half < left + side) lines.push(drawn('line', { x1: half - left, x2: half - left, y1: 0, y2: side }));
      if (half > top && half < top + side) lines.push(drawn('line', { y1: half - top, y2: half - top, x1: 0, x2: side }));
      map.setAttribute('viewBox', `0 0 ${side} ${side}`);
      map.setAttribute('shape-rendering', 'crispEdges');
      map.replaceChildren(...marks, ...lines);

      const label = (n) => {
        const start = scale.starts[n];
        if (kind === 'heat') return n === 0 ? 'never found' : n === 1 ? 'less than once' : n === steps - 1 ? `${start} times or more` : `${start}–${scale.starts[n + 1]}`;
        const end = n === steps - 1 ? grid.cells.reduce((a, { tiles }) => Math.max(a, tiles), 0) : scale.starts[n + 1] - 1;
        return end > start ? `${words.count(start)}–${words.count(end)}` : words.count(start);
      };
      legend.replaceChildren(...scale.starts.map((_, n) => {
        const row = document.createElement('li');
        const swatch = drawn('svg', { viewBox: '0 0 1 1', 'aria-hidden': 'true' });
        swatch.append(drawn('rect', { width: 1, height: 1, class: colour(kind, n, steps) }));
        row.append(swatch, label(n));
        return row;
      }));
      const where = side === cells ? 'The world'
        : `${degrees(longitude(left, cells), 'E', 'W')} to ${degrees(longitude(left + side, cells), 'E', 'W')}, ${degrees(latitude(top + side, cells), 'N', 'S')} to ${degrees(latitude(top, cells), 'N', 'S')}`;
      const each = grid.zoom === grid.cell_zoom ? 'a cell is a tile' : `a cell is a tile of zoom ${grid.cell_zoom}, with room for ${words.count(4 ** (grid.zoom - grid.cell_zoom))}`;
      const text = `${where}, in Web Mercator. Zoom ${grid.zoom}: ${each}; ${words.count(grid.cells.length)} of ${words.count(side * side)} cells hold something. Coloured by ${kind === 'tiles' ? 'how many tiles a cell holds' : 'how often its tiles were found'}; empty cells are the ground.`;
      if (caption.textContent !== text) caption.textContent = text;
    };

    const table = (memory) => {
      const rows = memory.zooms.map(({ zoom, tiles, absent, found }) => ({
        cells: [String(zoom), words.count(tiles), words.count(absent), tiles > 0 ? (found / tiles).toFixed(1) : words.none],
        className: String(zoom) === zooms.value ? 'chosen' : '',
      }));
      setRows(byId('cached-zooms'), ['Zoom', 'Tiles', 'Known to be missing', 'Found, times'], rows);
    };

    /** Asks for what is chosen; an answer that comes after another question is nobody's. */
    const load = async () => {
      const mine = ++asked;
      const tileset = tilesets.value;
      if (!tileset) return;
      const question = `/cached?tileset=${encodeURIComponent(tileset)}`;
      let answer = null;
      if (zooms.value === '') {
        answer = await ask(question);
        const fullest = answer.memory?.zooms.reduce((best, at) => (at.tiles > (best?.tiles ?? 0) ? at : best), null);
        if (mine !== asked) return;
        if (fullest) options(zooms, [[String(fullest.zoom), '']]);
      }
      if (zooms.value !== '') answer = await ask(`${question}&zoom=${zooms.value}`);
      if (mine !== asked) return;
      const { memory } = answer;
      const held = memory?.zooms ?? [];
      const words_of = (zoom, tiles) => `${zoom} (${words.count(tiles)})`;
      const known = held.map(({ zoom, tiles }) => [String(zoom), words_of(zoom, tiles)]);
      if (zooms.value !== '' && known.every(([value]) => value !== zooms.value)) known.push([zooms.value, words_of(zooms.value, 0)]);
      options(zooms, known);
      zooms.disabled = known.length === 0;
      latest = memory?.grid ? memory : null;
      shown.hidden = held.length === 0 || !latest;
      if (!memory) say('There is no memory tier: [cache] memory is 0.');
      else if (held.length === 0) say(`Nothing of ${tileset} is in memory.`);
      else say('');
      if (shown.hidden) return;
      byId('cached-most').textContent = memory.found_at_most;
      draw();
      table(memory);
    };

    const now = () => load().catch((error) => say(`What is cached is not known: ${error.message}`));
    tilesets.addEventListener('change', () => { zooms.replaceChildren(); now(); });
    zooms.addEventListener('change', now);
    for (const by of document.querySelectorAll('input[name=by]')) by.addEventListener('change', () => { if (latest) draw(); });

    return {
      /** Brings it up to date; the tilesets too. */
      refresh: async () => {
        const known = await ask('/version');
        options(tilesets, known.map(({ tileset, version }) => [tileset, version ? `${tileset} (${version})` : tileset]));
        await load();
      },
      say,
    };
  };
})();
