// Limits on messages, and the question whether a client is still there, before real clients and servers: who says too much
// hears why, who is gone is ended, and nobody else notices anything.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { blankPage, browser, ioConnected, ioPair, ioServer, tab, wsServer } from './ends.mjs';
import { atEnd, guard, need, program, settled, sleep, until, within } from './rig.mjs';

const WebSocket = need('ws');

/** Everything on, and nothing that a chat comes near to. */
const EVERYTHING = `[limits.messages]
rate = "200/s"
per_ip_rate = "500/s"
bytes_rate = "64MiB/s"
max_size = "1MiB"
out_rate = "200/s"
out_per_ip_rate = "500/s"
out_bytes_rate = "64MiB/s"
strict_frames = true
ping = "1s"
pong_timeout = "2s"
`;
const NOTICE = `notice = '42["blocked",{"retry-ms":{retry_ms}}]'`;

test('of six messages at once under "5/s" five arrive, and both ends hear close 1008 with its reason', { timeout: 30_000 }, async (t) => {
  const server = await echo(t);
  const front = await guard(t, { backend: server.port, rest: '[limits.messages]\nrate = "5/s"' });
  const [hasty, neighbour] = [await opened(server, front.url), await opened(server, front.url)];
  const texts = ['0', '1', '2', '3', '4', '5'];

  for (const text of texts) hasty.client.send(text);
  for (const [code, reason] of await Promise.all([hasty.clientClosed, hasty.behindClosed])) {
    assert.deepEqual([code, String(reason)], [1008, 'message rate exceeded']);
  }
  assert.deepEqual(hasty.got.behind, texts.slice(0, 5), 'nothing of the sixth reaches the server');

  for (const text of texts.slice(0, 5)) neighbour.client.send(text);
  await until('five echoes for the neighbour', () => neighbour.got.client.length === 5);
  assert.deepEqual(neighbour.got.client, texts.slice(0, 5));
  assert.equal(neighbour.client.readyState, WebSocket.OPEN, 'a neighbour of the same address is not ended');
  neighbour.client.close();
  await settled(front);
  assert.deepEqual(await nonzero(front, 'wsguard_message_limit_hits_total'), { '{action="close",limit="rate",zone="default"}': 1 });
  assert.deepEqual(await nonzero(front, 'wsguard_closes_total'), {
    '{reason="client",zone="default"}': 1,
    '{reason="message_rate",zone="default"}': 1,
  });
});

test('a socket.io client hears a notice as its own event, and then that it is disconnected', { timeout: 30_000 }, async (t) => {
  const { front, client, heard, said } = await told(t, 'rate = "5/s"');
  const gone = new Promise((resolve) => client.once('disconnect', (reason, details) => resolve([reason, details.context.code, details.context.reason])));
  const left = once(said.behind, 'disconnect');
  // A CONNECT came before them: four have room, and a fifth if a while has passed since.
  for (let n = 0; n < 12; n++) client.emit('say', n);
  assert.deepEqual(await within('disconnect', gone), ['transport close', 1008, 'message rate exceeded']);
  assert.deepEqual(heard.map(([event]) => event), ['blocked', 'disconnect'], 'one notice, before the end');
  assertNotice(heard[0][1], 200);
  assert.equal((await within('disconnect', left))[0], 'transport close');
  assert.ok(said.numbers.length === 4 || said.numbers.length === 5, `${said.numbers.length} passed`);
  assert.deepEqual(said.numbers, numbers(0, said.numbers.length));
  await settled(front);
});

test('under on_exceed = "delay" a socket.io client hears the notice once, loses nothing and works on', { timeout: 30_000 }, async (t) => {
  const { front, client, heard, said } = await told(t, 'rate = "10/s"\nburst = 5\non_exceed = "delay"');
  const start = performance.now();
  const answers = numbers(0, 25).map((n) => client.timeout(10_000).emitWithAck('say', n));
  assert.deepEqual(await Promise.all(answers), numbers(0, 25));
  // 25 and the CONNECT before them, less a burst of 5 and what came back to it meanwhile, a tenth of a second each.
  const took = performance.now() - start;
  assert.ok(took >= 1900 && took < 8000, `${took} ms`);
  assert.deepEqual(heard.map(([event]) => event), ['blocked']);
  assertNotice(heard[0][1], 100);

  for (const n of numbers(25, 30)) assert.equal(await client.timeout(5000).emitWithAck('say', n), n);
  assert.deepEqual(said.numbers, numbers(0, 30), 'each arrives once, in order');
  assert.ok(client.connected && said.behind.connected);
  client.disconnect();
  await settled(front);
  assert.deepEqual(await nonzero(front, 'wsguard_closes_total'), { '{reason="client",zone="default"}': 1 });
});

test('a minute of chat through limits, pings and deflate disturbs nobody', { timeout: 120_000 }, async (t) => {
  const deflate = { threshold: 0 };
  const chat = await ioServer(t, { perMessageDeflate: deflate, pingInterval: 5000, pingTimeout: 5000 });
  chat.server.on('connection', (socket) => socket.on('back', (message, answer) => answer(message)));
  // With context takeover: a frame that is lost or doubled would garble all that follow.
  const server = await wsServer(t, { perMessageDeflate: deflate });
  const agreed = [];
  server.on('headers', (headers) => agreed.push(headers.find((line) => line.startsWith('Sec-WebSocket-Extensions')) ?? ''));
  server.on('connection', (socket) => {
    socket.pongs = socket.pings = 0;
    socket.on('pong', () => socket.pongs++).on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
  });
  const fronts = [await guard(t, { backend: chat.port, rest: EVERYTHING }), await guard(t, { backend: server.port, rest: EVERYTHING })];

  const socket = await ioConnected(t, fronts[0].port);
  const plain = new WebSocket(fronts[1].url, { perMessageDeflate: deflate });
  let ours = 0;
  plain.on('ping', (payload) => (ours += payload.length === 16 ? 1 : 0));
  await within('open', once(plain, 'open'));
  const page = await tab(await browser(t), await blankPage(t));
  await page.evaluate((url) => new Promise((resolve, reject) => {
    globalThis.socket = Object.assign(new WebSocket(url), { onopen: resolve, onerror: reject });
  }), fronts[1].url);

  const echoed = (text) => {
    plain.send(text);
    return within('echo', once(plain, 'message')).then(([data]) => String(data));
  };
  const echoedInPage = (text) => page.evaluate((text) => new Promise((resolve, reject) => {
    globalThis.socket.onmessage = (event) => resolve(event.data);
    globalThis.socket.onclose = (event) => reject(new Error(`closed: ${event.code}`));
    globalThis.socket.send(text);
  }), text);
  const talk = async (say, end) => {
    for (let n = 0; performance.now() < end; n++) {
      const text = `${n} `.repeat([0, 1, 60, 500, 20_000][n % 5]);
      assert.ok((await say(text)) === text, `message ${n} comes back as it was`);
      // Now and then long enough to be asked.
      await sleep(n % 40 === 39 ? 3000 : 50);
    }
  };
  const asks = setInterval(() => server.clients.forEach((client) => client.ping("the server's", undefined, () => client.pings++)), 1500);
  atEnd(t, () => clearInterval(asks));
  const end = performance.now() + 60_000;
  await Promise.all([talk((text) => socket.timeout(5000).emitWithAck('back', text), end), talk(echoed, end), talk(echoedInPage, end)]);

  assert.ok(ours > 5, `wsguard asked ${ours} times`);
  assert.equal(server.clients.size, 2);
  clearInterval(asks);
  await until('its own pongs, and no others', () => [...server.clients].every((client) => client.pings > 0 && client.pongs === client.pings));
  assert.equal(agreed.length, 2);
  for (const line of agreed) {
    assert.match(line, /permessage-deflate/);
    assert.doesNotMatch(line, /no_context_takeover/);
  }
  assert.ok(socket.connected && plain.readyState === WebSocket.OPEN);
  socket.disconnect();
  plain.close();
  await page.close();
  for (const front of fronts) {
    await settled(front);
    for (const family of ['wsguard_message_limit_hits_total', 'wsguard_ghosts_total']) assert.deepEqual(await nonzero(front, family), {});
  }
});

test('a client that stops is ended pong_timeout after the ping, while its neighbours talk and listen on', { timeout: 60_000 }, async (t) => {
  const server = await echo(t);
  const front = await guard(t, { backend: server.port, rest: '[limits.messages]\nping = "1s"\npong_timeout = "2s"' });
  const [talker, listener] = [await opened(server, front.url), await opened(server, front.url)];
  let pings = 0;
  listener.client.on('ping', () => pings++);

  const accepted = once(server, 'connection');
  // Before it is let in, so before it can have spoken: the last of the guard's silence cannot have begun earlier.
  let earliest;
  server.once('headers', () => { earliest = performance.now(); });
  const child = program(t, process.execPath, ['-e', CHILD, need.resolve('ws'), front.url]);
  const [behind] = await within('the child opens', accepted);
  // It is stopped as soon as it has spoken, before it could be asked.
  await within('the child speaks', once(behind, 'message'));
  child.kill('SIGSTOP');
  const latest = performance.now();
  const closed = once(behind, 'close');

  const texts = [];
  const talk = (async () => {
    for (let over = false; !over; await sleep(100)) {
      over = await Promise.race([closed, null]);
      texts.push(`message ${texts.length}`);
      talker.client.send(texts.at(-1));
    }
  })();
  const [code, reason] = await within('the server hears that the child is gone', closed, 15_000);
  const [least, most] = [latest, earliest].map((instant) => performance.now() - instant);
  assert.deepEqual([code, String(reason)], [1001, 'no pong']);
  // A second of silence, and two for an answer.
  assert.ok(most >= 2900 && least < 8000, `${least} to ${most} ms`);
  assert.ok(!child.ended(), 'it was stopped, not ended');

  await talk;
  await until('every echo for the neighbour', () => talker.got.client.length === texts.length);
  assert.deepEqual(talker.got.client, texts);
  assert.ok(texts.length > 10, `${texts.length} messages meanwhile`);
  assert.ok(pings >= 2, `${pings} pings for a neighbour that only listens`);
  for (const { client } of [talker, listener]) assert.equal(client.readyState, WebSocket.OPEN, 'a neighbour of the same address stays');
  await until('only the neighbours are counted', async () => (await front.metric('wsguard_connections{zone="default"}')) === 2, 10_000);
  assert.deepEqual(await nonzero(front, 'wsguard_closes_total'), { '{reason="ghost",zone="default"}': 1 });
  assert.deepEqual(await nonzero(front, 'wsguard_ghosts_total'), { '{outcome="reaped",zone="default"}': 1 });

  child.kill('SIGCONT');
  await until('the child, awake again, hears why', () => child.lines.includes('close 1001 no pong'));
  for (const { client } of [talker, listener]) client.close();
  await settled(front);
  assert.deepEqual(await nonzero(front, 'wsguard_message_limit_hits_total'), {});
});

/** A program with a client of its own, which says one thing and then tells how it ended. */
const CHILD = `
  const [, ws, url] = process.argv;
  const socket = new (require(ws))(url);
  socket.on('open', () => socket.send('here'));
  socket.on('close', (code, reason) => console.log('close', code, String(reason)));
`;

/** A socket.io client under these limits: what it `heard` from others than itself, and the `numbers` it `said` that arrived. */
async function told(t, limits) {
  const { server, port } = await ioServer(t);
  const front = await guard(t, { backend: port, rest: `[limits.messages]\n${limits}\n${NOTICE}` });
  const said = { numbers: [] };
  server.on('connection', (socket) => socket.on('say', (n, answer) => {
    said.numbers.push(n);
    answer?.(n);
  }));
  const { client, behind } = await ioPair(server, () => ioConnected(t, front.port));
  said.behind = behind;
  const heard = [];
  client.onAny((...event) => heard.push(event));
  client.on('disconnect', () => heard.push(['disconnect']));
  return { front, client, heard, said };
}

function assertNotice(payload, most) {
  const ms = payload['retry-ms'];
  assert.deepEqual(payload, { 'retry-ms': ms });
  assert.ok(Number.isInteger(ms) && ms > 0 && ms <= most, `retry-ms ${ms}`);
}

/** The integers from `from` up to `to`, which is not among them. */
const numbers = (from, to) => Array.from({ length: to - from }, (_, n) => from + n);

/** The series of one family that are not 0. */
async function nonzero(front, family) {
  const series = Object.entries(await front.family(family));
  assert.ok(series.length > 0, `${family} is there`);
  return Object.fromEntries(series.filter(([, value]) => value !== 0));
}

/** A server that compresses everything and echoes every message. */
async function echo(t) {
  const server = await wsServer(t, { perMessageDeflate: { threshold: 0 } });
  server.on('connection', (socket) => socket.on('message', (data, binary) => socket.send(data, { binary })));
  return server;
}

/** An open client, the server's side `behind`, the texts that each of them `got`, and their closes to come. */
async function opened(server, url) {
  const accepted = once(server, 'connection');
  const client = new WebSocket(url);
  await within('open', once(client, 'open'));
  const [behind] = await accepted;
  const ends = { client, behind, got: { client: [], behind: [] } };
  for (const name of ['client', 'behind']) {
    ends[name].on('message', (data) => ends.got[name].push(String(data)));
    ends[`${name}Closed`] = once(ends[name], 'close');
  }
  return ends;
}
