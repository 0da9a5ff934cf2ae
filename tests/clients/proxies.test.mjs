// Real nginx and real HAProxy in front of the guard: the limits count the true client, the server behind learns the true
// client, and what a client writes into forwarding headers changes nothing for either.
//
// Clients stand on 127.0.0.5 and 127.0.0.6, the proxies on 127.0.0.1, which alone is trusted.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { wsServer } from './ends.mjs';
import { folder, freePort, guard, listening, need, program, settled, until, within } from './rig.mjs';

const WebSocket = need('ws');

const PROXY = '127.0.0.1';
const FORGED = {
  'X-Forwarded-For': '203.0.113.9, 203.0.113.10',
  'X-Real-IP': '203.0.113.11',
  Forwarded: 'for=203.0.113.12',
  'X-Client-IP': '203.0.113.13',
  'X-Cluster-Client-IP': '203.0.113.14',
  'True-Client-IP': '203.0.113.15',
  'CF-Connecting-IP': '203.0.113.16',
  X_Forwarded_For: '203.0.113.17',
  X_Real_IP: '203.0.113.18',
};
const TRUSTED = `[client_ip]\ntrusted_proxies = ["${PROXY}/32"]\n`;

const fronts = [
  {
    name: 'nginx with X-Real-IP',
    // The other two are nginx's to clear: whatever a trusted proxy passes on counts as its own word.
    start: (t, port) => nginx(t, port, ['X-Real-IP $remote_addr', 'X-Forwarded-For ""', 'Forwarded ""']),
    rest: `${TRUSTED}headers = ["x-real-ip"]\n`,
    // The hop, nginx, is appended to what nginx said: nothing.
    forwardedFor: () => PROXY,
  },
  {
    name: 'nginx with X-Forwarded-For',
    start: (t, port) => nginx(t, port, ['X-Forwarded-For $proxy_add_x_forwarded_for']),
    rest: TRUSTED,
    // Read from the right, past the trusted hop, the first address is the client, whatever it wrote to the left.
    forwardedFor: (client, forged) => [...(forged ? [forged['X-Forwarded-For']] : []), client, PROXY].join(', '),
  },
  ...['tcp', 'http'].map((mode) => ({
    name: `HAProxy in mode ${mode} with PROXY v2`,
    start: (t, port) => haproxy(t, port, mode),
    listener: 'accept_proxy_protocol = true',
    rest: TRUSTED,
    forwardedFor: (client) => client,
    clientIsHop: true,
  })),
  {
    name: 'no proxy at all, and nothing trusted',
    start: async (_, port) => port,
    rest: '',
    forwardedFor: (client) => client,
    clientIsHop: true,
  },
];

for (const { name, start, listener, rest, forwardedFor, clientIsHop } of fronts) {
  test(`behind ${name}`, { timeout: 60_000 }, async (t) => {
    const server = await recorder(t);
    const front = await guard(t, { backend: server.port, listener, rest: `${rest}[limits]\nper_ip = 2\n` });
    const port = await start(t, front.port);
    /** Opens a socket from `address`; gives it, or the status that refused it. */
    const dial = async (address, headers = {}) => {
      const socket = new WebSocket(`ws://127.0.0.1:${port}/ws?a=1`, { localAddress: address, headers });
      const opened = once(socket, 'open').then(() => ({ socket }));
      const refused = once(socket, 'unexpected-response').then(([, response]) => {
        response.resume();
        return { status: response.statusCode, reason: response.headers['x-wsguard-reason'] };
      });
      socket.on('error', () => {});
      opened.catch(() => {});
      refused.catch(() => {});
      return within(`an answer to ${address}`, Promise.race([opened, refused]));
    };
    const admitted = async (address, headers) => {
      const before = server.heads.length;
      const { socket, status } = await dial(address, headers);
      assert.ok(socket, `${address} was refused with ${status}`);
      assert.equal(server.heads.length, before + 1);
      return { socket, head: server.heads.at(-1) };
    };
    const open = [];

    await t.test('the server learns the true client, whatever the client writes', async () => {
      for (const forged of [null, FORGED, { 'X-Forwarded-For': '127.0.0.6' }]) {
        const { socket, head } = await admitted('127.0.0.5', forged ?? {});
        const told = {
          'x-forwarded-for': [forwardedFor('127.0.0.5', forged)],
          'x-real-ip': ['127.0.0.5'],
          'x-forwarded-proto': ['http'],
        };
        for (const [header, values] of Object.entries(told)) assert.deepEqual(head.values(header), values, header);
        // An honest proxy that names its client in one header leaves the others' truth to itself.
        if (clientIsHop || !forged) {
          for (const header of ['forwarded', 'x-client-ip', 'x-cluster-client-ip', 'true-client-ip', 'cf-connecting-ip']) {
            assert.deepEqual(head.values(header), [], header);
          }
        }
        for (const header of ['x_forwarded_for', 'x_real_ip']) assert.deepEqual(head.values(header), [], header);
        assert.equal(head.target, '/ws?a=1');
        socket.close();
        await once(socket, 'close');
      }
      await settled(front);
    });

    await t.test('the third connection of one client is refused, with and without forged headers', async () => {
      for (let i = 0; i < 2; i++) open.push((await admitted('127.0.0.5')).socket);
      const heads = server.heads.length;
      for (const headers of [{}, FORGED, { 'X-Forwarded-For': '198.51.100.7' }, { 'X-Real-IP': '198.51.100.8' }, { Forwarded: 'for=198.51.100.9' }]) {
        assert.deepEqual(await dial('127.0.0.5', headers), { status: 429, reason: 'per_ip' });
      }
      assert.equal(server.heads.length, heads, 'the server never hears of them');
    });

    await t.test('another client gets in, also when it forges the address of the first', async () => {
      open.push((await admitted('127.0.0.6')).socket);
      open.push((await admitted('127.0.0.6', { 'X-Forwarded-For': '127.0.0.5', 'X-Real-IP': '127.0.0.5', Forwarded: 'for=127.0.0.5' })).socket);
      assert.deepEqual(await dial('127.0.0.6'), { status: 429, reason: 'per_ip' });
      assert.equal(await front.metric('wsguard_clients{zone="default"}'), 2);
    });

    await t.test('a freed slot is the next one of the same client', async () => {
      open.shift().close();
      await until('one less is open', async () => (await front.metric('wsguard_connections{zone="default"}')) === 3);
      open.push((await admitted('127.0.0.5')).socket);
      for (const socket of open) socket.close();
      await settled(front);
    });
  });
}

for (const { name, start, listener, rest } of fronts) {
  test(`behind ${name}: who says too much at once hears 1008 each time, and before it what was let through`, { timeout: 60_000 }, async (t) => {
    const server = await wsServer(t);
    const limits = '[limits]\nper_ip_rate = "off"\n[limits.messages]\nrate = "2/s"\nnotice = "slow down"\n';
    const front = await guard(t, { backend: server.port, listener, rest: rest + limits });
    const port = await start(t, front.port);
    for (let round = 0; round < 20; round++) {
      const socket = new WebSocket(`ws://127.0.0.1:${port}/ws`, { localAddress: '127.0.0.5' });
      const heard = [];
      socket.on('message', (text) => heard.push(`${text}`));
      socket.on('error', () => {});
      await within('an open socket', once(socket, 'open'));
      for (let n = 0; n < 5; n++) socket.send(`m${n}`);
      const [code] = await within('a close', once(socket, 'close'));
      assert.equal(code, 1008, `round ${round}, having heard ${heard}`);
      assert.equal(heard.at(-1), 'slow down');
    }
    await settled(front);
  });
}

/** A server that keeps the head of every request that reaches it. */
async function recorder(t) {
  const server = await wsServer(t);
  server.heads = [];
  server.on('connection', (socket, request) => {
    const lines = request.rawHeaders;
    server.heads.push({
      target: request.url,
      values: (name) => lines.flatMap((line, at) => (at % 2 === 0 && line.toLowerCase() === name ? [lines[at + 1]] : [])),
    });
    socket.on('error', () => {});
  });
  return server;
}

/** nginx before the guard on port `to`, setting `headers`; its own port. */
async function nginx(t, to, headers) {
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
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass http://127.0.0.1:${to};
      proxy_http_version 1.1;
      proxy_set_header Host $host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "upgrade";
      ${headers.map((header) => `proxy_set_header ${header};`).join('\n      ')}
    }
  }
}
`,
  );
  await listening(program(t, 'nginx', ['-e', 'stderr', '-p', where, '-c', file]), port);
  return port;
}

/** HAProxy before the guard on port `to`, announcing each client by PROXY v2; its own port. */
async function haproxy(t, to, mode) {
  const [where, port] = [folder(t), await freePort()];
  const file = join(where, 'haproxy.cfg');
  writeFileSync(
    file,
    `global
  maxconn 256
defaults
  mode ${mode}
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 60s
frontend front
  bind 127.0.0.1:${port}
  default_backend guard
backend guard
  server guard 127.0.0.1:${to} send-proxy-v2
`,
  );
  await listening(program(t, 'haproxy', ['-db', '-f', file]), port);
  return port;
}
