// Real servers of Express, Fastify and Socket.IO behind real nginx and the guard: whom they take for the client, by `send` and
// by their own setting of trust; and that no spelling which Express takes for a guarded path gets past its route.
//
// Clients stand on 127.0.0.5, the proxies on 127.0.0.1.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { ioConnected, ioServer } from './ends.mjs';
import { atEnd, folder, freePort, guard, listening, need, program, settled, within } from './rig.mjs';

const WebSocket = need('ws');
const CLIENT = '127.0.0.5';
const PROXY = '127.0.0.1';
const FORGED = { 'X-Forwarded-For': '203.0.113.9', 'X-Real-IP': '203.0.113.10', Forwarded: 'for=203.0.113.11' };

/** Who asks for a page and for a WebSocket, as Express has it with each setting of `trust proxy`. */
const seen = [
  { send: 'client', trust: 1, page: CLIENT, socket: CLIENT },
  { send: 'client', trust: 'loopback', page: CLIENT, socket: CLIENT },
  { send: 'append', trust: 2, page: CLIENT, socket: CLIENT },
  { send: 'append', trust: 'loopback', page: CLIENT, socket: CLIENT },
  // One hop too few: every user of a WebSocket is nginx.
  { send: 'append', trust: 1, page: CLIENT, socket: PROXY },
  { send: 'none', trust: 1, page: CLIENT, socket: PROXY },
];

for (const send of ['client', 'append', 'none']) {
  test(`behind nginx and send = "${send}" Express takes for the client whom its trust proxy says`, { timeout: 60_000 }, async (t) => {
    const { app, port: server } = await expressApp(t);
    const front = await guard(t, { backend: server, rest: `[client_ip]\ntrusted_proxies = ["${PROXY}"]\nsend = "${send}"\n` });
    const port = await nginx(t, front.port, server);
    const rows = seen.filter((row) => row.send === send);
    assert.ok(rows.length > 0);
    for (const { trust, page, socket } of rows) {
      app.set('trust proxy', trust);
      for (const headers of [{}, FORGED]) {
        assert.equal((await get(port, '/who', headers)).text, page, `a page, trust proxy = ${trust}`);
        const heard = await greeting(port, '/who', headers);
        assert.equal(heard.ip, socket, `a WebSocket, trust proxy = ${trust}`);
        const { 'x-forwarded-for': hops, 'x-real-ip': real, 'x-forwarded-proto': proto, forwarded } = heard.headers;
        const told = { client: [CLIENT, CLIENT, 'http'], append: [`${CLIENT}, ${PROXY}`, CLIENT, 'http'], none: [undefined, undefined, undefined] };
        assert.deepEqual([hops, real, proto, forwarded], [...told[send], undefined]);
      }
    }
    await settled(front);
  });
}

test('behind nginx Fastify takes for the client whom its trustProxy says', { timeout: 60_000 }, async (t) => {
  for (const [send, trustProxy, expected] of [
    ['client', 'loopback', CLIENT],
    ['append', 'loopback', CLIENT],
    // A number of hops trusts nobody, since it can't look at who connects.
    ['client', 1, PROXY],
  ]) {
    const app = need('fastify')({ trustProxy });
    app.get('/who', { handler: (request) => request.ip });
    // What an upgrade's handler asks: the same request, before its socket is taken over.
    const asked = [];
    app.addHook('onRequest', (request, reply, done) => {
      asked.push(request.ip);
      done();
    });
    await app.listen({ host: '127.0.0.1', port: 0 });
    atEnd(t, () => app.close());
    const server = app.server.address().port;
    const front = await guard(t, { backend: server, rest: `[client_ip]\ntrusted_proxies = ["${PROXY}"]\nsend = "${send}"\n` });
    const port = await nginx(t, front.port, server);
    assert.equal((await get(port, '/who')).text, expected);
    const heads = new Promise((resolve) => app.server.once('upgrade', (request, socket) => resolve({ request, socket })));
    const socket = new WebSocket(`ws://127.0.0.1:${port}/who`, { localAddress: CLIENT, headers: FORGED });
    socket.on('error', () => {});
    const { request, socket: raw } = await within('an upgrade', heads);
    // As fastify's own plugin for WebSockets does it.
    const reply = new http.ServerResponse(request);
    app.routing(request, reply);
    raw.destroy();
    assert.equal(asked.at(-1), expected, `send = ${send}, trustProxy = ${trustProxy}`);
  }
});

test('behind nginx Socket.IO hears the client in X-Real-IP, and not in its address', { timeout: 60_000 }, async (t) => {
  for (const send of ['client', 'append']) {
    const { server, port: app } = await ioServer(t);
    const front = await guard(t, { backend: app, rest: `[client_ip]\ntrusted_proxies = ["${PROXY}"]\nsend = "${send}"\n` });
    const port = await nginx(t, front.port, app);
    const met = once(server, 'connection');
    const agent = new http.Agent({ localAddress: CLIENT });
    atEnd(t, () => agent.destroy());
    await ioConnected(t, port, { agent, extraHeaders: FORGED });
    const [{ handshake }] = await within('a socket', met);
    assert.deepEqual([handshake.headers['x-real-ip'], handshake.address], [CLIENT, PROXY]);
  }
});

test('no spelling that Express takes for a guarded path gets past its route', { timeout: 60_000 }, async (t) => {
  const { port: server } = await expressApp(t);
  const front = await guard(t, {
    backend: server,
    rest: '[[route]]\nname = "admin"\npaths = ["/admin"]\nallow = ["192.0.2.0/24"]\n[[route]]\nname = "rest"\n',
  });
  const spellings = ['/Admin', '/ADMIN', '/aDMIN/', '/%41dmin', '/Admin/x'];
  const folded = [];
  for (const path of spellings) {
    if ((await upgrade(server, path)).includes('hello, admin')) folded.push(path);
    const answer = await upgrade(front.port, path);
    assert.match(answer, /^HTTP\/1\.1 400 .*the path reads as two different ones/s, path);
  }
  // It is Express that makes them one: the test is about something.
  assert.deepEqual(folded, ['/Admin', '/ADMIN', '/aDMIN/']);
  assert.match(await upgrade(front.port, '/admin'), /^HTTP\/1\.1 403 /);
  assert.match(await upgrade(front.port, '/who'), /^HTTP\/1\.1 101 /);
  await settled(front);
});

/** Express 4 with express-ws: `/who` says who asks, `/admin` is what is guarded. */
async function expressApp(t) {
  const app = need('express')();
  const web = http.createServer(app);
  need('express-ws')(app, web);
  app.get('/who', (request, response) => response.send(request.ip));
  app.ws('/who', (socket, request) => socket.send(JSON.stringify({ ip: request.ip, headers: request.headers })));
  app.ws('/admin', (socket) => socket.send('hello, admin'));
  web.listen(0, '127.0.0.1');
  await once(web, 'listening');
  atEnd(t, () => {
    web.closeAllConnections();
    web.close();
  });
  return { app, port: web.address().port };
}

async function get(port, path, headers = {}) {
  const [answer] = await within('an answer', once(http.get({ host: '127.0.0.1', port, path, headers, localAddress: CLIENT, agent: false }), 'response'));
  let text = '';
  for await (const more of answer.setEncoding('utf8')) text += more;
  return { status: answer.statusCode, text };
}

/** The first message that the server says. */
async function greeting(port, path, headers) {
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, { localAddress: CLIENT, headers });
  const [text] = await within('a greeting', once(socket, 'message'));
  socket.close();
  await once(socket, 'close');
  return JSON.parse(text);
}

/** All that is answered to an upgrade request for this path, byte for byte as it is written here, within half a second of silence. */
async function upgrade(port, path) {
  const socket = net.connect(port, '127.0.0.1');
  let heard = '';
  socket.setEncoding('latin1').on('data', (more) => (heard += more)).on('error', () => {});
  const key = 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n';
  socket.write(`GET ${path} HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n${key}`);
  const ended = once(socket, 'close');
  socket.setTimeout(500, () => socket.destroy());
  await within('an end', ended);
  return heard;
}

/** nginx, which has the pages of the server on port `app` and passes upgrades on to the guard; its port. */
async function nginx(t, to, app) {
  const [where, port] = [folder(t), await freePort()];
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${join(where, kind)};`);
  const file = join(where, 'nginx.conf');
  writeFileSync(
    file,
    `daemon off;
master_process off;
worker_processes 1;
pid ${join(where, 'pid')};
error_log stderr;
events { worker_connections 256; }
http {
  access_log off;
  ${temporary.join('\n  ')}
  map $http_upgrade $to { "" 127.0.0.1:${app}; default 127.0.0.1:${to}; }
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass http://$to;
      proxy_http_version 1.1;
      proxy_set_header Host $host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $http_connection;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header Forwarded "";
    }
  }
}
`,
  );
  await listening(program(t, 'nginx', ['-e', 'stderr', '-p', where, '-c', file]), port);
  return port;
}
