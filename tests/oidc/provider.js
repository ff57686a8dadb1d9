// A real OpenID provider on a free loopback port, for tests/it/oidc.rs.
//
// Prints {"issuer"} on a line, waits for {"redirect_uri", "methods"} on a line (until then it answers 503), prints {} and
// serves until its standard input ends: with the test, however that ends. Any name and password are right.
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { Provider } from 'oidc-provider';

let answer = (_request, response) => response.writeHead(503).end();
const server = createServer((request, response) => answer(request, response));
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
const issuer = `http://127.0.0.1:${server.address().port}`;

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
say({ issuer });

const lines = createInterface({ input: process.stdin });
lines.on('close', () => process.exit(0));
lines.once('line', (line) => {
  const { redirect_uri, methods } = JSON.parse(line);
  const client = { redirect_uris: [redirect_uri], response_types: ['code'], grant_types: ['authorization_code'] };
  const provider = new Provider(issuer, {
    clients: [
      {
        ...client,
        client_id: 'tilekeep',
        // Has to be escaped in the head (RFC 6749 §2.3.1).
        client_secret: 'a secret: with / and % in it',
        token_endpoint_auth_method: methods[0],
      },
      { ...client, client_id: 'tilekeep-public', token_endpoint_auth_method: 'none' },
    ],
    claims: { openid: ['sub', 'tilesets', 'scope'] },
    conformIdTokenClaims: false,
    findAccount: (_ctx, sub) => ({
      accountId: sub,
      claims: () => ({ sub, tilesets: ['*'], scope: 'tiles sign credentials explain' }),
    }),
    ttl: { IdToken: 60, AuthorizationCode: 60, AccessToken: 60, Grant: 600, Interaction: 600, Session: 600 },
    clientAuthMethods: [...methods, 'none'],
    pkce: { required: () => true },
    features: { devInteractions: { enabled: true } },
  });
  answer = provider.callback();
  say({});
});
