// Node's `ws`, client and server, once directly and once through the guard: what holds without the guard holds with it.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { test } from 'node:test';
import { wsServer } from './ends.mjs';
import { guard, need, settled, sleep, until, within } from './rig.mjs';

const WebSocket = need('ws');

const MIB = 1024 * 1024;

for (const way of ['directly', 'through the guard']) {
  test(`ws ${way}`, { timeout: 60_000 }, async (t) => {
    const server = await echo(t);
    const front = way === 'directly' ? null : await guard(t, { backend: server.port });
    const url = front?.url ?? `ws://127.0.0.1:${server.port}`;
    /** An open client, and the server's side of the same connection. */
    const open = async (path = '/', protocols = [], options = {}) => {
      const accepted = once(server, 'connection');
      const client = new WebSocket(url + path, protocols, options);
      await within('open', once(client, 'open'));
      const [behind, request] = await accepted;
      return { client, behind, request };
    };

    await t.test('echoes text and binary, from nothing to 1 MiB', async () => {
      const { client } = await open();
      for (const message of ['hello', '', 'größer als ein Byte: 🙂', 'x'.repeat(125), 'x'.repeat(126), 'x'.repeat(65_535), 'x'.repeat(65_536), 'x'.repeat(MIB)]) {
        assert.deepEqual(await answerTo(client, message), { text: true, bytes: Buffer.from(message) });
      }
      for (const size of [0, 1, 16_384, MIB]) {
        const bytes = randomBytes(size);
        assert.deepEqual(await answerTo(client, bytes), { text: false, bytes });
      }
      client.close();
    });

    await t.test('a burst of messages keeps its order', async () => {
      const { client } = await open();
      const got = [];
      client.on('message', (data) => got.push(Number(data)));
      for (let i = 0; i < 2000; i++) client.send(String(i));
      await until('2000 answers', () => got.length === 2000);
      assert.deepEqual(got, Array.from({ length: 2000 }, (_, i) => i));
      client.close();
    });

    await t.test('permessage-deflate is negotiated end to end', async () => {
      const { client, behind } = await open('/', [], { perMessageDeflate: { threshold: 0 } });
      assert.match(client.extensions, /permessage-deflate/);
      assert.equal(client.extensions, behind.extensions);
      const message = 'compress me '.repeat(90_000);
      assert.deepEqual(await answerTo(client, message), { text: true, bytes: Buffer.from(message) });
      client.close();
      const plain = await open('/', [], { perMessageDeflate: false });
      assert.equal(plain.client.extensions, '');
      plain.client.close();
    });

    await t.test('pings are answered by the other end, both ways', async () => {
      const { client, behind } = await open();
      for (const [asking, asked] of [[client, behind], [behind, client]]) {
        const [pinged, ponged] = [once(asked, 'ping'), once(asking, 'pong')];
        asking.ping('are you there?');
        assert.equal(String((await within('ping', pinged))[0]), 'are you there?');
        assert.equal(String((await within('pong', ponged))[0]), 'are you there?');
      }
      client.close();
    });

    await t.test('close codes and reasons arrive unchanged, both ways', async () => {
      for (const [code, reason] of [[1000, ''], [1000, 'done'], [4001, 'signed in elsewhere']]) {
        for (const from of ['client', 'behind']) {
          const ends = await open();
          const closes = [ends.client, ends.behind].map((end) => within('close', once(end, 'close')));
          ends[from].close(code, reason);
          for (const [heard, why] of await Promise.all(closes)) assert.deepEqual([heard, String(why)], [code, reason]);
        }
      }
    });

    await t.test('an end without a close frame is one without a close frame', async () => {
      for (const from of ['client', 'behind']) {
        const ends = await open();
        const other = from === 'client' ? ends.behind : ends.client;
        const closed = within('close', once(other, 'close'));
        ends[from].terminate();
        assert.equal((await closed)[0], 1006);
      }
    });

    await t.test('the server chooses the subprotocol', async () => {
      const { client, behind } = await open('/', ['chat.v1', 'chat.v2']);
      assert.equal(client.protocol, 'chat.v2');
      assert.equal(behind.protocol, 'chat.v2');
      client.close();
    });

    await t.test('path, query and headers reach the server as they were sent', async () => {
      const path = '/Raum%20eins/?a=%2F&b=1+2&b';
      const headers = { Cookie: 'sid=a; theme=b', Authorization: 'Bearer x.y.z', 'X-App': 'one, two', Origin: 'https://chat.example.org' };
      const { client, request } = await open(path, [], { headers });
      assert.equal(request.url, path);
      for (const [name, value] of Object.entries(headers)) assert.equal(request.headers[name.toLowerCase()], value);
      client.close();
    });

    await t.test('nothing is left behind', async () => {
      await until('the server has no connection', () => server.clients.size === 0);
      if (!front) return;
      await settled(front);
      assert.equal(await front.metric('wsguard_handshakes_total{outcome="rejected",reason="per_ip",zone="default"}'), 0);
      for (const direction of ['in', 'out']) {
        const counted = await front.metric(`wsguard_messages_total{direction="${direction}",zone="default"}`);
        assert.equal(counted, 8 + 4 + 2000 + 1, `messages ${direction}`);
      }
    });
  });
}

test('a refused ws client hears which rule spoke, and the server never hears of it', { timeout: 30_000 }, async (t) => {
  const server = await echo(t);
  const front = await guard(t, { backend: server.port, rest: '[limits]\nper_ip = 2' });
  const clients = [new WebSocket(front.url), new WebSocket(front.url)];
  await Promise.all(clients.map((client) => within('open', once(client, 'open'))));

  const third = new WebSocket(front.url);
  third.on('error', () => {});
  const [, response] = await within('an answer', once(third, 'unexpected-response'));
  assert.equal(response.statusCode, 429);
  assert.equal(response.headers['x-wsguard-reason'], 'per_ip');
  const wait = Number(response.headers['retry-after']);
  assert.ok(wait >= 5 && wait <= 10, `Retry-After: ${wait}`);
  assert.equal(String(Buffer.concat(await response.toArray())), 'Too many connections from this IP\r\n');
  assert.equal(server.clients.size, 2);

  clients[0].close();
  await once(clients[0], 'close');
  await until('its slot is free', async () => (await front.metric('wsguard_connections{zone="default"}')) === 1, 1000);
  const next = new WebSocket(front.url);
  await within('open in the freed slot', once(next, 'open'));
  for (const client of [clients[1], next]) client.close();
  await settled(front);
});

test('under reject_with = "close" a refused ws client hears close 1013', { timeout: 30_000 }, async (t) => {
  const server = await echo(t);
  const front = await guard(t, { backend: server.port, rest: '[limits]\nper_ip = 1\nreject_with = "close"' });
  const first = new WebSocket(front.url);
  await within('open', once(first, 'open'));
  const second = new WebSocket(front.url, ['chat.v1', 'chat.v2']);
  await within('open', once(second, 'open'));
  assert.equal(second.protocol, 'chat.v1');
  assert.equal(second.extensions, '');
  const [code, reason] = await within('close', once(second, 'close'));
  assert.deepEqual([code, String(reason)], [1013, 'Too many connections from this IP']);
  assert.equal(server.clients.size, 1);
  first.close();
  await settled(front);
});

// As y-websocket and Hocuspocus do: their wait doubles with each attempt that fails, and begins anew with each that opens.
test('under reject_with = "close" a client whose wait begins anew with each open does not hammer', { timeout: 60_000 }, async (t) => {
  const server = await echo(t);
  const front = await guard(t, { backend: server.port, rest: '[limits]\nper_ip = 1\nreject_with = "close"' });
  const first = new WebSocket(front.url);
  await within('open', once(first, 'open'));
  let [attempts, failed, opens] = [0, 0, 0];
  const end = Date.now() + 10_000;
  while (Date.now() < end) {
    attempts += 1;
    const client = new WebSocket(front.url);
    client.on('error', () => {});
    client.on('open', () => ([failed, opens] = [0, opens + 1]));
    await within('close', once(client, 'close'));
    await sleep(Math.min(100 * 2 ** failed, 2500));
    failed += 1;
  }
  assert.equal(opens, attempts);
  assert.ok(attempts >= 4 && attempts <= 10, `${attempts} attempts in 10 s`);
  first.close();
  await settled(front);
});

/** A server that echoes every message and, of the subprotocols offered, prefers chat.v2. */
async function echo(t) {
  const server = await wsServer(t, {
    perMessageDeflate: { threshold: 0 },
    handleProtocols: (offered) => (offered.has('chat.v2') ? 'chat.v2' : false),
  });
  server.on('connection', (socket) => socket.on('message', (data, binary) => socket.send(data, { binary })).on('error', () => {}));
  return server;
}

async function answerTo(client, message) {
  const answered = within('an answer', once(client, 'message'), 10_000);
  client.send(message);
  const [bytes, binary] = await answered;
  return { text: !binary, bytes };
}
