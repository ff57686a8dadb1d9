// Certificates that the browser really trusts: with certificate errors it keeps no HTTP cache, and what is
// tested here would not happen. An authority of our own, in the NSS store of a home folder of our own.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { temporaryFolder } from './server.js';

const run = (program, ...parameters) => {
  try {
    execFileSync(program, parameters, { stdio: ['ignore', 'ignore', 'pipe'] });
  } catch (error) {
    if (error.code === 'ENOENT') throw new Error(`There is no ${program}. "apt-get install ${program === 'certutil' ? 'libnss3-tools' : program}".`);
    throw new Error(`${program} ${parameters[0]}: ${error.stderr || error}`);
  }
};

/** An authority and one certificate for all the hosts; files in `folder`, and their text. */
export const issue = (folder, hosts) => {
  const at = (name) => path.join(folder, name);
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '7'];
  run('openssl', 'req', '-x509', ...key, '-keyout', at('ca-key.pem'), '-out', at('ca.pem'), '-subj', '/CN=Tilekeep browser tests',
    '-addext', 'keyUsage=critical,keyCertSign,cRLSign');
  writeFileSync(at('leaf.cnf'), `basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectAltName=${hosts.map((host) => `DNS:${host}`).join(',')}\n`);
  run('openssl', 'req', ...key.slice(0, 5), '-keyout', at('key.pem'), '-out', at('leaf.csr'), '-subj', `/CN=${hosts[0]}`);
  run('openssl', 'x509', '-req', '-in', at('leaf.csr'), '-CA', at('ca.pem'), '-CAkey', at('ca-key.pem'), '-CAcreateserial',
    '-days', '7', '-extfile', at('leaf.cnf'), '-out', at('cert.pem'));
  return { certFile: at('cert.pem'), keyFile: at('key.pem'), caFile: at('ca.pem'), cert: readFileSync(at('cert.pem')), key: readFileSync(at('key.pem')), ca: readFileSync(at('ca.pem')) };
};

/** A home folder whose browser trusts that authority. */
export const homeThatTrusts = (caFile) => {
  const home = temporaryFolder('home');
  const store = path.join(home, '.pki/nssdb');
  mkdirSync(store, { recursive: true });
  run('certutil', '-N', '--empty-password', '-d', `sql:${store}`);
  run('certutil', '-A', '-d', `sql:${store}`, '-t', 'C,,', '-n', 'tilekeep-tests', '-i', caFile);
  return home;
};
