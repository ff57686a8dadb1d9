// The dashboard's arithmetic: Prometheus' text, rates, percentiles, and figures as people read them. No page here.
'use strict';
(() => {
  const TK = (window.Tilekeep = window.Tilekeep || {});

  const LINE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
  const LABEL = /([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"/g;
  /** Infinity is written `+Inf` or `inf`. */
  const number = (text) => (/^\+?inf$/i.test(text) ? Infinity : /^-inf$/i.test(text) ? -Infinity : Number(text));
  const unescape = (text) => text.replace(/\\(.)/g, (_, character) => (character === 'n' ? '\n' : character));

  /** Prometheus' text as a map from a family's name to its series: `{key, labels, value}`. */
  const parse = (text) => {
    const families = new Map();
    for (const line of text.split('\n')) {
      if (line === '' || line.startsWith('#')) continue;
      const parts = LINE.exec(line);
      if (!parts) continue;
      const labels = {};
      for (const [, name, value] of (parts[2] ?? '').matchAll(LABEL)) labels[name] = unescape(value);
      const series = { key: `${parts[1]}{${parts[2] ?? ''}}`, labels, value: number(parts[3]) };
      const family = families.get(parts[1]);
      if (family) family.push(series); else families.set(parts[1], [series]);
    }
    return families;
  };

  const COUNTS = /_(total|count|sum|bucket)$/;

  /** What was heard in the last minutes. A counter that went backwards is a server that started anew, and so is this. */
  class History {
    static KEEP = 150_000;

    constructor() {
      this.samples = [];
      this.restarts = 0;
    }

    /** `at` in milliseconds, of a clock that never goes back. */
    add(at, families) {
      const values = new Map();
      for (const family of families.values()) for (const { key, value } of family) values.set(key, value);
      const last = this.samples.at(-1);
      if (last && this.#wentBack(last, families)) {
        this.samples = [];
        this.restarts += 1;
      }
      this.samples.push({ at, families, values });
      while (at - this.samples[0].at > History.KEEP) this.samples.shift();
    }

    #wentBack(last, families) {
      for (const [name, family] of families) {
        if (COUNTS.test(name) && family.some(({ key, value }) => value < (last.values.get(key) ?? 0))) return true;
      }
      return false;
    }

    get latest() {
      return this.samples.at(-1);
    }

    /** The series of a family now. */
    family(name) {
      return this.latest?.families.get(name) ?? [];
    }

    /** The sum of a family's series now, those that `wanted` takes by their labels. */
    now(name, wanted = () => true) {
      return this.family(name).reduce((sum, { labels, value }) => (wanted(labels) ? sum + value : sum), 0);
    }

    /** The last sample that is at least so many milliseconds old, or the oldest. */
    before(span, from = this.samples.length - 1) {
      const end = this.samples[from]?.at;
      for (let n = from - 1; n > 0; n--) if (end - this.samples[n].at >= span) return this.samples[n];
      return this.samples[0];
    }

    /** How much a family grew within the last `span` milliseconds: `{grown, seconds}`. */
    growth(name, span, wanted = () => true, from = this.samples.length - 1) {
      const end = this.samples[from];
      const start = end && this.before(span, from);
      if (!start || start === end) return { grown: 0, seconds: 0 };
      let grown = 0;
      for (const { key, labels, value } of end.families.get(name) ?? []) {
        if (wanted(labels)) grown += value - (start.values.get(key) ?? 0);
      }
      return { grown, seconds: (end.at - start.at) / 1000 };
    }

    /** Growth a second; `null` as long as there is nothing to compare with. */
    rate(name, span, wanted, from) {
      const { grown, seconds } = this.growth(name, span, wanted, from);
      return seconds > 0 ? grown / seconds : null;
    }

    /** A figure for each sample but the first, for a sparkline. */
    each(figure) {
      return this.samples.slice(1).map((_, n) => figure(n + 1));
    }

    /** A histogram's buckets since the start. */
    bucketsEver(name) {
      return this.family(`${name}_bucket`).map(({ labels, value }) => [number(labels.le), value]).sort((a, b) => a[0] - b[0]);
    }

    /** A histogram's buckets over the last `span` milliseconds: `[bound, how many up to it]`, by bound. */
    buckets(name, span, from) {
      const bounds = this.family(`${name}_bucket`).map(({ labels }) => labels.le);
      const upTo = (le) => this.growth(`${name}_bucket`, span, (labels) => labels.le === le, from).grown;
      return bounds.map((le) => [number(le), upTo(le)]).sort((a, b) => a[0] - b[0]);
    }
  }

  /**
   * The value below which a share of a histogram lies, by a straight line within its bucket; `null` of nothing. Past
   * the last bound it is that bound, `beyond`.
   */
  const quantile = (buckets, share) => {
    const total = buckets.at(-1)?.[1] ?? 0;
    if (!(total > 0)) return null;
    const rank = share * total;
    let [low, below] = [0, 0];
    for (const [bound, upTo] of buckets) {
      if (upTo >= rank && upTo > below) {
        if (bound === Infinity) return { value: low, beyond: true };
        return { value: low + (bound - low) * ((rank - below) / (upTo - below)), beyond: false };
      }
      [low, below] = [bound, upTo];
    }
    return null;
  };

  const grouped = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
  const words = {
    none: '–',
    count: (n) => grouped.format(n),
    rate: (n) => (n === null ? '–' : n > 0 && n < 0.05 ? '<0.1' : n < 10 ? (Math.round(n * 10) / 10).toFixed(n === 0 ? 0 : 1) : grouped.format(n)),
    /** All is 100 %, and nothing else is. */
    share: (part, whole) => (whole > 0 ? `${(part < whole ? Math.min((part / whole) * 100, 99.9) : 100).toFixed(1)} %` : '–'),
    bytes: (n) => {
      const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
      let unit = 0;
      let left = n;
      while (left >= 1024 && unit < units.length - 1) { left /= 1024; unit += 1; }
      return `${unit === 0 || left >= 100 ? grouped.format(left) : left.toFixed(1)} ${units[unit]}`;
    },
    /** A latency in seconds, as `quantile` tells it. */
    latency: (found) => {
      if (found === null) return '–';
      const { value, beyond } = found;
      const more = beyond ? 'over ' : '';
      if (value < 0.001) return `${more}${(value * 1000).toFixed(2)} ms`;
      if (value < 1) return `${more}${(value * 1000).toPrecision(value < 0.1 ? 2 : 3)} ms`;
      return `${more}${value.toFixed(value < 10 ? 1 : 0)} s`;
    },
    span: (seconds) => {
      const whole = Math.floor(seconds);
      const [days, hours, minutes] = [Math.floor(whole / 86_400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
      if (days > 0) return `${days} d ${hours} h`;
      if (hours > 0) return `${hours} h ${minutes} min`;
      return minutes > 0 ? `${minutes} min ${whole % 60} s` : `${whole} s`;
    },
  };

  TK.figures = { parse, History, quantile, words };
})();
