// The server under test: `tilekeep demo` on free loopback ports, with a data folder of its own.
//
// A server ends with the test that started it; should the test's process die first, the guardian ends
// it. Nothing here waits for a length of time: readiness and the end are conditions.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { guardian } from './guardian.js';
import { until } from './until.js';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');

/** The binary: TILEKEEP_BIN, else the release build, else the debug build of this repository. */
export const binary = () => {
  const named = process.env.TILEKEEP_BIN;
  const candidates = named ? [path.resolve(named)]
    : ['release', 'debug'].map((profile) => path.join(root, 'target', profile, 'tilekeep'));
  const found = candidates.find((file) => existsSync(file));
  if (!found) {
    throw new Error(named
      ? `TILEKEEP_BIN is ${named}, and there is no such file.`
      : `There is no tilekeep to test. Run "cargo build --release" in ${root}, or set TILEKEEP_BIN to a binary.`);
  }
  return found;
};

/** Loopback ports that were free a moment ago; taken together, so that they differ. */
export const freePorts = async (count) => {
  const holders = await Promise.all(Array.from({ length: count }, () => new Promise((resolve, reject) => {
    const holder = createServer().once('error', reject).listen(0, '127.0.0.1', () => resolve(holder));
  })));
  const ports = holders.map((holder) => holder.address().port);
  await Promise.all(holders.map((holder) => new Promise((done) => { holder.close(done); })));
  return ports;
};

/** A folder that is gone when this process is. */
export const temporaryFolder = (name) => {
  const folder = mkdtempSync(path.join(tmpdir(), `tilekeep-${name}-`));
  guardian('folder', folder);
  return folder;
};

export class Demo {
  /** Starts `tilekeep demo` and waits until it is ready. */
  static async start() {
    const demo = new Demo();
    await demo.prepare();
    demo.origin = `http://127.0.0.1:${demo.ports.port}`;
    await demo.start();
    return demo;
  }

  async prepare() {
    const [port, adminPort] = await freePorts(2);
    this.ports = { port, adminPort };
    this.admin = `http://127.0.0.1:${adminPort}`;
    this.dataDir = temporaryFolder('data');
  }

  /** The program's arguments, and what it needs in its environment. */
  command() {
    const { port, adminPort } = this.ports;
    return [['demo', '--listen', `127.0.0.1:${port}`, '--admin-listen', `127.0.0.1:${adminPort}`, '--data-dir', this.dataDir], {}];
  }

  async start() {
    this.output = '';
    const [parameters, environment] = this.command();
    const child = spawn(binary(), parameters, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...environment } });
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => { this.output = (this.output + text).slice(-20_000); });
    }
    this.child = child;
    this.ended = new Promise((resolve) => {
      child.once('exit', (code, signal) => resolve({ code, signal }));
      child.once('error', (error) => { this.output += error; resolve({ error }); });
    });
    let over = null;
    if (child.pid) guardian('start', child.pid);
    this.ended.then((how) => { over = how; if (child.pid) guardian('stop', child.pid); });
    await until('the server is ready', async () => {
      if (over) throw new Error(`tilekeep ended at once: ${JSON.stringify(over)}\n${this.output}`);
      const response = await fetch(`${this.admin}/readyz`).catch(() => null);
      return response?.ok;
    }, { every: 50, within: 60_000 });
  }

  /** Ends it as Ctrl-C does, and waits for the end. */
  async stop() {
    this.child.kill('SIGINT');
    const timer = setTimeout(() => this.child.kill('SIGKILL'), 60_000);
    const how = await this.ended;
    clearTimeout(timer);
    return how;
  }

  async restart() {
    await this.stop();
    await this.start();
  }

  /** The admin side's counters, as a map from `name{labels}` to a number. */
  async metrics() {
    const text = await (await fetch(`${this.admin}/metrics`)).text();
    return new Map(text.split('\n').filter((line) => line && !line.startsWith('#'))
      .map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]));
  }

  /**
   * How many tile requests the server has had, by its own account: tiles served from anywhere, those of them that
   * went out with their body (`whole`), and all answers about tiles.
   */
  async tileRequests() {
    const metrics = await this.metrics();
    const answers = ['tile', 'not_modified', 'missing', 'unauthorized', 'forbidden', 'over_quota', 'origin_failed', 'internal'];
    const answered = answers.reduce((sum, answer) => sum + (metrics.get(`tilekeep_http_answers_total{answer="${answer}"}`) ?? 0), 0);
    let served = 0;
    for (const [name, value] of metrics) if (name.startsWith('tilekeep_tiles_served_total')) served += value;
    return { served, answered, whole: metrics.get('tilekeep_http_answers_total{answer="tile"}') ?? 0 };
  }
}
