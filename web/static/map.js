// The map page: one view, one tileset, one or two libraries that draw it.
'use strict';
(() => {
  const TK = window.Tilekeep;
  const session = TK.here;
  const $ = (id) => document.getElementById(id);
  const stage = $('stage');
  const picker = $('tileset');
  if (!picker.options.length) return;

  const wide = matchMedia('(min-width: 760px)');
  const state = { tileset: picker.value, library: 'maplibre', overlay: false, view: null };
  const tilesets = new Map();
  const panes = {};
  let current = null;

  // --- the address keeps the view, so that a reload or a log-in comes back to it ---

  const readHash = () => {
    const hash = new URLSearchParams(location.hash.slice(1));
    if ([...picker.options].some((option) => option.value === hash.get('tileset'))) state.tileset = hash.get('tileset');
    if (['leaflet', 'maplibre', 'both'].includes(hash.get('library'))) state.library = hash.get('library');
    state.overlay = hash.get('overlay') === '1';
    const [zoom, lat, lng] = (hash.get('view') || '').split('/').map(Number);
    if ([zoom, lat, lng].every(Number.isFinite) && hash.get('view')) {
      state.view = { zoom, lat: Math.max(-85, Math.min(85, lat)), lng };
    }
  };
  let written = '';
  const writeHash = () => {
    const parts = [`tileset=${encodeURIComponent(state.tileset)}`];
    if (state.view) {
      const { zoom, lat, lng } = state.view;
      const around = ((((lng + 180) % 360) + 360) % 360) - 180;
      parts.push(`view=${+zoom.toFixed(2)}/${lat.toFixed(4)}/${around.toFixed(4)}`);
    }
    parts.push(`library=${state.library}`);
    if (state.overlay) parts.push('overlay=1');
    written = `#${parts.join('&')}`;
    history.replaceState(null, '', written);
    document.querySelector('[data-sign-in]')?.setAttribute('href', `/login?next=${encodeURIComponent(`/map${written}`)}`);
  };

  // --- tilesets ---

  const describe = (name, json) => {
    // Addresses in TileJSON are absolute, for other people's pages; this page stays on its own origin.
    const absolute = json.tiles[0];
    const template = absolute.replace(/^[a-z]+:\/\/[^/]+/i, '');
    const [before, after] = [template.indexOf('{z}'), template.lastIndexOf('}') + 1];
    const pattern = new RegExp(`^${template.replace(/[.*+?^$()|[\]\\]/g, '\\$&').replace(/\{([zxy])\}/g, '(?<$1>\\d+)')}$`);
    const bounds = json.bounds || [-180, -85.0511, 180, 85.0511];
    const isVector = Boolean(json.vector_layers) || json.format === 'mvt' || json.format === 'pbf' || /\.(mvt|pbf)\b/.test(template.slice(after > before ? after : 0));
    const isValues = !isVector && TK.values.supports(json.encoding);
    const edge = (lat) => (1 - Math.asinh(Math.tan((lat * Math.PI) / 180)) / Math.PI) / 2;
    const box = [(bounds[0] + 180) / 360, edge(bounds[3]), (bounds[2] + 180) / 360, edge(bounds[1])];
    return {
      ...json,
      name, template, bounds,
      kind: isVector ? 'vector' : isValues ? 'values' : 'raster',
      minzoom: json.minzoom ?? 0,
      maxzoom: json.maxzoom ?? 22,
      attribution: json.attribution || '',
      address: (z, x, y) => template.replace('{z}', z).replace('{x}', ((x % 2 ** z) + 2 ** z) % 2 ** z).replace('{y}', y),
      nameOf: (address) => {
        const url = new URL(address, location.href);
        const found = pattern.exec(url.pathname + url.search);
        return found ? `${found.groups.z}/${found.groups.x}/${found.groups.y}` : null;
      },
      covers: ({ z, x, y }) => {
        const side = 2 ** z;
        return (x + 1) / side > box[0] && x / side < box[2] && (y + 1) / side > box[1] && y / side < box[3];
      },
    };
  };

  const fetchTileset = async (name) => {
    if (tilesets.has(name)) return tilesets.get(name);
    const option = [...picker.options].find((o) => o.value === name);
    const response = await fetch(option.dataset.tilejson, { headers: { Accept: 'application/json' } });
    if (response.status === 401) session.failed('tileset', { url: response.url, status: 401, retry: apply });
    else session.forget('tileset');
    if (!response.ok) throw new Error(`The tileset answers ${response.status}.`);
    const tileset = describe(name, await response.json());
    if (tileset.kind === 'values') {
      // The ramp spans what is there; one tile of the lowest zoom shows it.
      const { value = {} } = tileset;
      const middle = [(tileset.bounds[0] + tileset.bounds[2]) / 2, (tileset.bounds[1] + tileset.bounds[3]) / 2];
      const at = locate(middle[0], middle[1], tileset.minzoom);
      const tile = await TK.values.load(tileset.address(at.z, at.x, at.y));
      const found = tile ? TK.values.domainOf(tile, tileset.encoding) : [0, 1000];
      tileset.domain = [value.min ?? found[0], value.max ?? found[1]];
    }
    tilesets.set(name, tileset);
    return tileset;
  };

  const locate = (lng, lat, z) => {
    const side = 2 ** z;
    const px = ((((lng + 180) / 360) % 1) + 1) % 1 * side;
    const py = (1 - Math.asinh(Math.tan((Math.max(-85.0511, Math.min(85.0511, lat)) * Math.PI) / 180)) / Math.PI) / 2 * side;
    const x = Math.min(side - 1, Math.floor(px));
    const y = Math.max(0, Math.min(side - 1, Math.floor(py)));
    return { z, x, y, inX: Math.min(0.999999, px - x), inY: Math.max(0, Math.min(0.999999, py - y)) };
  };

  // --- panes ---

  const active = () => (state.library === 'both' && wide.matches ? ['leaflet', 'maplibre']
    : [state.library === 'both' ? 'maplibre' : state.library]);

  const others = (name) => active().filter((one) => one !== name).map((one) => panes[one]).filter(Boolean);
  const eventsOf = (name) => ({
    moved: (view) => { if (active().includes(name)) for (const pane of others(name)) pane.follow(view, true); },
    zooming: (view) => { for (const pane of others(name)) pane.glide?.(view); },
    settled: (view) => {
      // A map that has just been hidden is told of its new size, and says that it moved.
      if (!active().includes(name)) return;
      for (const pane of others(name)) pane.follow(view, false);
      state.view = view;
      writeHash();
      count();
    },
    pointed: (place, point, tapped) => point_(name, place, point, tapped),
    changed: () => count(),
    session,
  });
  const paneOf = (name) => {
    if (!panes[name]) {
      const element = $(`pane-${name}`).querySelector('.pane-map');
      try {
        panes[name] = name === 'leaflet' ? TK.leafletPane(element, eventsOf(name))
          : TK.maplibrePane(element, eventsOf(name), stage.dataset.worker);
      } catch (error) {
        console.error(error);
        note(name, 'MapLibre needs WebGL 2, and this browser does not offer it.', 'Use Leaflet', () => setLibrary('leaflet'));
        return null;
      }
    }
    return panes[name];
  };
  const note = (name, text, action, act) => {
    const box = $(`pane-${name}`).querySelector('.pane-note');
    box.replaceChildren();
    box.hidden = !text;
    if (!text) return;
    const words = document.createElement('p');
    words.textContent = text;
    box.append(words);
    if (action) {
      const button = document.createElement('button');
      button.type = 'button';
      button.className = 'button small primary';
      button.textContent = action;
      button.addEventListener('click', act);
      box.append(button);
    }
  };

  let turn = 0;
  const apply = async () => {
    const mine = ++turn;
    picker.value = state.tileset;
    for (const button of document.querySelectorAll('[data-library]')) {
      const chosen = button.dataset.library === state.library;
      button.setAttribute('aria-checked', String(chosen));
      button.tabIndex = chosen ? 0 : -1;
    }
    $('overlay').setAttribute('aria-checked', String(state.overlay));
    $('legend').hidden = !state.overlay;
    const names = active();
    stage.classList.toggle('both', names.length > 1);
    for (const name of ['leaflet', 'maplibre']) $(`pane-${name}`).hidden = !names.includes(name);
    let tileset;
    try {
      tileset = await fetchTileset(state.tileset);
    } catch (error) {
      if (mine === turn) for (const name of names) note(name, `${error.message || 'The tileset does not answer.'}`, 'Try again', apply);
      return;
    }
    if (mine !== turn) return;
    const changed = current && current.name !== tileset.name;
    current = tileset;
    for (const name of names) {
      note(name, '');
      const pane = paneOf(name);
      if (!pane) continue;
      pane.together(names.length > 1);
      pane.resize();
      if (state.view) pane.jump(state.view); else pane.fit(tileset.bounds);
      pane.show(tileset, state.overlay);
      if (!pane.draws(tileset)) {
        note(name, `Leaflet draws raster tiles only, and \u201c${tileset.name}\u201d holds vector tiles.`,
          names.length > 1 ? '' : 'Show it with MapLibre', () => setLibrary('maplibre'));
      }
    }
    const lead = panes[names[names.length - 1]];
    if (lead) {
      state.view = lead.view();
      for (const pane of others(lead.name)) pane.follow(state.view, false);
    }
    if (changed) point_(null, null);
    showRamp();
    writeHash();
    count();
  };
  const setLibrary = (library) => { state.library = library; apply(); };

  // --- what is under the pointer ---

  const showRamp = () => {
    const isValues = current.kind === 'values';
    for (const id of ['readout-value', 'ramp', 'ramp-ends']) $(id).hidden = !isValues;
    if (!isValues) return;
    const { label = 'Value', unit = '' } = current.value || {};
    $('readout-label').textContent = label || 'Value';
    const ramp = $('ramp').getContext('2d');
    for (let x = 0; x < 256; x++) {
      ramp.fillStyle = `rgb(${TK.values.colour(x / 255).join(',')})`;
      ramp.fillRect(x, 0, 1, 1);
    }
    const [low, high] = $('ramp-ends').children;
    const short = (value) => `${Math.round(value).toLocaleString('en').replace('-', '\u2212')}${unit ? `\u00a0${unit}` : ''}`;
    low.textContent = `\u2264 ${short(current.domain[0])}`;
    high.textContent = `\u2265 ${short(current.domain[1])}`;
  };

  const cross = document.createElement('div');
  cross.className = 'tap-mark';
  let asked = 0;
  let last = null;
  const point_ = async (name, place, point, tapped) => {
    const mine = ++asked;
    last = place ? { name, place, point, tapped } : null;
    if (!tapped) cross.remove();
    $('readout-lines').hidden = !place;
    $('readout-hint').hidden = Boolean(place);
    if (!place || !current) {
      $('readout-number').textContent = '\u2013';
      return;
    }
    const pane = panes[name];
    if (tapped && matchMedia('(hover: none)').matches) {
      cross.style.left = `${point.x}px`;
      cross.style.top = `${point.y}px`;
      $(`pane-${name}`).append(cross);
    }
    const z = Math.max(current.minzoom, Math.min(current.maxzoom, pane.tileZoom(pane.view().zoom)));
    const at = locate(place.lng, place.lat, z);
    const tileName = `${at.z}/${at.x}/${at.y}`;
    const around = ((((place.lng + 180) % 360) + 360) % 360) - 180;
    const degrees = (value, plus, minus) => `${Math.abs(value).toFixed(4)}\u00b0\u00a0${value < 0 ? minus : plus}`;
    $('readout-tile').textContent = tileName;
    $('readout-place').textContent = `${degrees(place.lat, 'N', 'S')}, ${degrees(around, 'E', 'W')}`;
    $('readout-from-line').hidden = !state.overlay;
    if (state.overlay) {
      const record = pane.record(tileName);
      $('readout-from').textContent = record ? TK.provenance.words(record) : '\u2013';
    }
    if (current.kind !== 'values') return;
    const tile = await TK.values.load(current.address(at.z, at.x, at.y));
    if (mine !== asked) return;
    const value = tile && TK.values.valueAt(tile, current.encoding, Math.floor(at.inX * tile.width), Math.floor(at.inY * tile.height));
    const unit = current.value && current.value.unit ? `\u00a0${current.value.unit}` : '';
    $('readout-number').textContent = value === null ? 'no value' : TK.values.format(value, current.encoding) + unit;
  };

  // --- the legend ---

  const rows = new Map();
  for (const kind of TK.provenance.KINDS) {
    const row = document.createElement('li');
    row.title = kind.hint;
    const label = document.createElement('span');
    label.className = 'legend-label';
    label.textContent = kind.label;
    const number = document.createElement('span');
    number.className = 'legend-count';
    row.append(TK.provenance.swatch(kind.id), label, number);
    $('legend-list').append(row);
    rows.set(kind.id, { row, number });
  }
  let counting = 0;
  const count = () => {
    if (counting) return;
    counting = setTimeout(() => {
      counting = 0;
      if (!state.overlay) return;
      const records = active().flatMap((name) => (panes[name] ? panes[name].visible() : []));
      for (const [id, { row, number }] of rows) {
        const n = records.filter((record) => record.kind === id).length;
        number.textContent = n;
        row.classList.toggle('none', n === 0);
        if (id === 'other') row.hidden = n === 0;
      }
      $('legend-total').textContent = `${records.length} ${records.length === 1 ? 'tile' : 'tiles'}`;
      if (last) point_(last.name, last.place, last.point, last.tapped);
    }, 120);
  };
  if (!matchMedia('(min-width: 760px)').matches) $('legend').open = false;

  // --- controls ---

  picker.addEventListener('change', () => { state.tileset = picker.value; apply(); });
  $('overlay').addEventListener('click', () => { state.overlay = !state.overlay; apply(); });
  $('library').addEventListener('click', (event) => {
    const button = event.target.closest('[data-library]');
    if (button) setLibrary(button.dataset.library);
  });
  $('library').addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const choices = [...document.querySelectorAll('[data-library]')].filter((button) => button.offsetParent);
    const at = choices.findIndex((button) => button.dataset.library === state.library);
    const button = choices[(at + step + choices.length) % choices.length];
    setLibrary(button.dataset.library);
    button.focus();
  });
  wide.addEventListener('change', apply);
  addEventListener('hashchange', () => {
    if (location.hash === written) return;
    readHash();
    apply();
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', apply);

  readHash();
  apply();
})();
