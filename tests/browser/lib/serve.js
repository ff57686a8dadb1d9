// `tilekeep serve` over TLS, as https://tiles.example.test, for an application on https://app.example.test.
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import https from 'node:https';
import path from 'node:path';
import { Demo, binary } from './server.js';

export const TILES = 'https://tiles.example.test';
export const APP = 'https://app.example.test';

/** What a tileset can answer where there is no tile; `holes404` and its like are tilesets with holes. */
export const MISSING = ['404', '204', '410', 'blank'];

export class Serve extends Demo {
  static async start({ tls, bucket, publicUrl = TILES, corsOrigins = [APP] }) {
    const serve = new Serve();
    await serve.prepare();
    Object.assign(serve, { origin: publicUrl, tls, keys: bucket.keys ?? { AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test' }, config: path.join(serve.dataDir, 'tilekeep.toml') });
    const { port, adminPort } = serve.ports;
    const users = path.join(serve.dataDir, 'users.toml');
    const tileset = (name, rest) => `[tilesets.${name}]\nbucket = "${bucket.name ?? 'tiles'}"\nmaxzoom = 5\nattribution = "Made with Natural Earth"\n${rest}\n`;
    writeFileSync(serve.config, `
[server]
listen = "127.0.0.1:${port}"
admin_listen = "127.0.0.1:${adminPort}"
public_url = "${publicUrl}"
tls = { cert = "${tls.certFile}", key = "${tls.keyFile}" }
cors_origins = ${JSON.stringify(corsOrigins)}
default_tileset = "world"

[session]
keys = [{ id = "test", secret = "not a secret, but at least 32 bytes long" }]

[login]
users_file = "${users}"

[aws]
region = "us-east-1"
endpoint_url = "${bucket.origin}"
path_style = true

${tileset('world', 'key = "world/{z}/{x}/{y}.png"')}
${tileset('brief', 'key = "world/{z}/{x}/{y}.png"\nbrowser = { max_age = "3s", stale_while_revalidate = "1h" }')}
${tileset('values', 'key = "values/{z}/{x}/{y}.png"')}
${MISSING.map((missing) => tileset(`holes${missing}`, `key = "holes/{z}/{x}/{y}.png"\nmissing = "${missing}"`)).join('\n')}
`);
    for (const name of ['anna', 'bert']) {
      const added = spawnSync(binary(), ['user', 'add', name, '--tilesets', '*', '--users-file', users, '--password-stdin'], { input: `${name}s password\n`, encoding: 'utf8' });
      if (added.status !== 0) throw new Error(`tilekeep user add: ${added.stderr}`);
    }
    await serve.start();
    return serve;
  }

  command() {
    return [['serve', '--config', this.config], { ...this.keys, AWS_EC2_METADATA_DISABLED: 'true' }];
  }

  /** A request that is not the browser's. Answers the status. */
  request(method, where, headers = {}) {
    const { hostname } = new URL(this.origin);
    return new Promise((resolve, reject) => {
      https.request({
        host: '127.0.0.1', port: this.ports.port, servername: hostname, ca: this.tls.ca, method, path: where, agent: false,
        headers: { Host: hostname, ...headers },
      }, (response) => { response.resume().on('end', () => resolve(response.statusCode)); }).on('error', reject).end();
    });
  }

  /** Ends a session behind the browser's back, as an administrator or another device would. */
  endSession(cookie) {
    return this.request('DELETE', '/session', { Cookie: cookie, Origin: this.origin, 'Sec-Fetch-Site': 'same-origin' });
  }
}
