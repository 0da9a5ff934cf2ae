// socket.io, client and server, in websocket mode, once directly and once through the guard.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { test } from 'node:test';
import { ioClient, ioConnected, ioPair, ioServer } from './ends.mjs';
import { atEnd, guard, need, settled, sleep, until, within } from './rig.mjs';

for (const way of ['directly', 'through the guard']) {
  test(`socket.io ${way}`, { timeout: 60_000 }, async (t) => {
    const { server, port } = await chat(t);
    const front = way === 'directly' ? null : await guard(t, { backend: port });
    const join = () => ioConnected(t, front?.port ?? port);

    await t.test('events and acknowledgements go both ways', async () => {
      const { client, behind } = await ioPair(server, join);
      assert.deepEqual(await client.timeout(5000).emitWithAck('add', 1, 2), 3);
      client.once('name?', (answer) => answer('ada'));
      assert.equal(await behind.timeout(5000).emitWithAck('name?'), 'ada');
      const bytes = randomBytes(200_000);
      assert.deepEqual(await client.timeout(5000).emitWithAck('back', { bytes, text: 'größer' }), { bytes, text: 'größer' });
      client.disconnect();
    });

    await t.test('a room hears what one of it says', async () => {
      const [ada, bob] = [await join(), await join()];
      for (const client of [ada, bob]) await client.timeout(5000).emitWithAck('join', 'garden');
      const heard = within('the message', new Promise((resolve) => bob.once('said', resolve)));
      ada.emit('say', 'garden', 'hello bob');
      assert.equal(await heard, 'hello bob');
      for (const client of [ada, bob]) client.disconnect();
    });

    await t.test('heartbeats keep a silent client', async () => {
      const { client, behind } = await ioPair(server, join);
      const counted = () => front?.metric('wsguard_messages_total{direction="in",zone="default"}');
      const before = await counted();
      await sleep(1500);
      assert.ok(client.connected && behind.connected, 'still there after five heartbeats');
      if (front) assert.ok((await counted()) >= before + 4, 'each of its answers is a message');
      client.disconnect();
    });

    await t.test('each end hears why the other disconnected', async () => {
      const one = await ioPair(server, join);
      const left = within('disconnect', once(one.behind, 'disconnect'));
      one.client.disconnect();
      assert.equal((await left)[0], 'client namespace disconnect');

      const two = await ioPair(server, join);
      const sent = within('disconnect', new Promise((resolve) => two.client.once('disconnect', resolve)));
      two.behind.disconnect(true);
      assert.equal(await sent, 'io server disconnect');
    });

    await t.test('nothing is left behind', async () => {
      await until('the server has no client', () => server.engine.clientsCount === 0);
      if (front) await settled(front);
    });
  });
}

test('a refused socket.io client gets in by its own retry once there is room', { timeout: 30_000 }, async (t) => {
  const { port } = await chat(t);
  const front = await guard(t, { backend: port, rest: '[limits]\nper_ip = 1' });
  const first = await ioConnected(t, front.port);
  const second = ioClient(t, front.port, { reconnection: true, reconnectionDelay: 100, reconnectionDelayMax: 200 });
  const error = await within('connect_error', new Promise((resolve) => second.once('connect_error', resolve)));
  assert.equal(error.message, 'websocket error');
  first.disconnect();
  await within('connect', new Promise((resolve) => second.once('connect', resolve)));
  second.disconnect();
  await settled(front);
});

// The wait between its attempts must grow: it is told an error and not that it was connected.
for (const version of ['socket.io-client-2', 'socket.io-client-3', 'socket.io-client']) {
  test(`under reject_with = "close" ${version} hears connect_error at once and gets in by its own retry`, { timeout: 60_000 }, async (t) => {
    const { port } = await chat(t, { allowEIO3: true });
    const front = await guard(t, { backend: port, rest: '[limits]\nper_ip = 1\nreject_with = "close"' });
    const first = await ioConnected(t, front.port);
    const io = need(version);
    for (const namespace of ['', '/room']) {
      const options = { transports: ['websocket'], forceNew: true, reconnectionDelay: 200 };
      const client = io(`http://127.0.0.1:${front.port}${namespace}`, options);
      atEnd(t, () => client.close());
      const [start, errors] = [Date.now(), []];
      client.on('connect_error', () => errors.push(Date.now() - start));
      client.on('connect', () => assert.equal(first.connected, false, 'it was never connected while it was refused'));
      // 200, 400 and 800 ms apart, each by half more or less.
      await until('its fourth error', () => errors.length >= 4, 10_000);
      assert.ok(errors[0] < 3000 && errors[3] >= 700, `${namespace} after ${errors} ms`);
      client.close();
    }
    const waits = io(`http://127.0.0.1:${front.port}`, { transports: ['websocket'], forceNew: true });
    atEnd(t, () => waits.close());
    await within('connect_error', new Promise((resolve) => waits.once('connect_error', resolve)));
    first.disconnect();
    await within('connect', new Promise((resolve) => waits.once('connect', resolve)), 10_000);
    waits.close();
    await settled(front);
  });
}

async function chat(t, options) {
  const { server, port } = await ioServer(t, { pingInterval: 300, pingTimeout: 2000, ...options });
  server.on('connection', (socket) => {
    socket.on('add', (a, b, answer) => answer(a + b));
    socket.on('back', (what, answer) => answer(what));
    socket.on('join', (room, answer) => (socket.join(room), answer()));
    socket.on('say', (room, what) => socket.to(room).emit('said', what));
  });
  return { server, port };
}
