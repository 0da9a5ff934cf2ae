// The documents, followed to the letter: real nginx and HAProxy are set up from their blocks alone, with real servers behind
// them and real clients in front; and each command in them is run here or by .ci/run.
//
// A block that is used here has a title after its language. What must differ from what people paste is given as `as`, pairs
// of a text and its replacement: addresses, ports and paths. Each pair must match, or the test fails.
//
// Clients connect from 127.0.0.x, the proxies run on 127.0.0.1.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, readlinkSync, symlinkSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ioServer } from './ends.mjs';
import { atEnd, demo, folder, freePort, guardOf, listening, need, program, running, settled, sleep, until, within } from './rig.mjs';

const WebSocket = need('ws');
const { io } = need('socket.io-client');

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const DOCUMENTS = ['README.md', 'benches/README.md', 'src/README.md', ...markdown('conf'), ...markdown('conf/deploy')];
const TEXT = DOCUMENTS.map((file) => readFileSync(join(ROOT, file), 'utf8')).join('\n');
const USERS = 500;
const FORGED = [
  {},
  { 'X-Forwarded-For': '203.0.113.9' },
  { 'X-Forwarded-For': '127.0.0.1, 203.0.113.9' },
  { 'X-Real-IP': '203.0.113.10' },
  { Forwarded: 'for=203.0.113.11' },
  { 'CF-Connecting-IP': '203.0.113.12' },
  { X_Forwarded_For: '203.0.113.13' },
  { Via: '1.1 x', 'X-Forwarded-For': '' },
];

const blocks = [...TEXT.matchAll(/^```(\w+)(?: title=(\S+))?\n(.*?)^```$/gms)].map(([, language, title, text]) => ({ language, title, text }));
const used = new Set();

/** The documents of a folder. */
function markdown(folder) {
  return readdirSync(join(ROOT, folder)).filter((name) => name.endsWith('.md')).sort().map((name) => `${folder}/${name}`);
}

/** The block of this title, with each pair of `as` put into it. */
function block(title, as = []) {
  const found = blocks.filter((block) => block.title === title);
  assert.equal(found.length, 1, `the documents have one block ${title}`);
  used.add(title);
  return as.reduce((text, [from, to]) => {
    assert.ok(text.includes(from), `${title} has ${from}`);
    return text.replaceAll(from, to);
  }, found[0].text);
}

/** A guard from a block, at a port of the kernel's choice. */
const guarded = (t, title, binds, server, as = []) =>
  guardOf(t, block(title, [[binds, '"127.0.0.1:0"'], ['127.0.0.1:3000', `127.0.0.1:${server}`], ...as]) + '[admin]\nlisten = "127.0.0.1:0"\n');

/** A guard from a file of conf/examples, with each pair of `as` put into it. */
const example = (t, name, as) =>
  guardOf(t, as.reduce((text, [from, to]) => {
    assert.equal(text.split(from).length, 2, `${name} has ${from} once`);
    return text.replace(from, to);
  }, readFileSync(join(ROOT, `conf/examples/${name}.toml`), 'utf8')) + '[admin]\nlisten = "127.0.0.1:0"\n');

const ways = [
  {
    name: 'behind nginx',
    start: async (t, app) => {
      const front = await guarded(t, 'conf/examples/behind-nginx.toml', '"127.0.0.1:8080"', app.port);
      const site = await nginxBefore(t, app, front);
      return { front, ...site, polls: site.plain, ...byDefault(site.secure) };
    },
    hops: (client) => `${client}, 127.0.0.1`,
    keepsPolling: true,
  },
  {
    name: 'beside nginx',
    start: async (t, app) => {
      const front = await guarded(t, 'conf/examples/beside-nginx.toml', '"0.0.0.0:8080"', app.port);
      const [where, port] = [folder(t), await freePort()];
      writeFileSync(join(where, 'index.html'), 'a page');
      const site = block('beside-nginx.conf', [['listen 80;', `listen 127.0.0.1:${port};`], ['/var/www/chat', where], ['127.0.0.1:3000', `127.0.0.1:${app.port}`]]);
      const reload = await nginx(t, site, port);
      const client = block('beside-nginx.js', [['chat.example.org:8080', `127.0.0.1:${front.port}`]]);
      return { front, plain: front.port, reload, polls: port, page: 'a page', client };
    },
    hops: (client) => client,
    origin: 'http://chat.example.org',
  },
  {
    name: 'in place of nginx',
    start: async (t, app) => {
      const front = await guarded(t, 'in-place-of-nginx.toml', '"0.0.0.0:80", "[::]:80"', app.port);
      const client = block('in-place-of-nginx.js', [['chat.example.org', `127.0.0.1:${front.port}`]]);
      const reload = async () => {
        const before = await front.metric('wsguard_config_reloads_total{outcome="success"}');
        front.child.kill('SIGHUP');
        await until('the guard has reloaded', async () => (await front.metric('wsguard_config_reloads_total{outcome="success"}')) === before + 1);
      };
      return { front, plain: front.port, client, reload };
    },
    hops: (client) => client,
    origin: 'http://chat.example.org',
  },
  {
    name: 'behind HAProxy',
    start: async (t, app) => {
      // Its clients would be trusted hops: these stand on loopback addresses, as those of the world do not.
      const front = await guarded(t, 'conf/examples/behind-haproxy.toml', '"127.0.0.1:8080"', app.port, [['"loopback"', '"127.0.0.1"']]);
      const site = await haproxyBefore(t, app, front);
      return { front, ...site, polls: site.plain, ...byDefault(site.secure) };
    },
    hops: (client) => client,
    // What HAProxy says in a header counts only from a trusted hop, and by PROXY protocol the client is the hop.
    saysProto: false,
    keepsPolling: true,
  },
  {
    name: 'behind HAProxy, without PROXY protocol',
    start: async (t, app) => {
      const front = await guarded(t, 'conf/examples/behind-haproxy.toml', '"127.0.0.1:8080"', app.port, [['accept_proxy_protocol = true\n', '']]);
      const site = await haproxyBefore(t, app, front, [[' send-proxy-v2', '']]);
      return { front, ...site, polls: site.plain, ...byDefault(site.secure) };
    },
    hops: (client) => `${client}, 127.0.0.1`,
    keepsPolling: true,
  },
];

/** Where a site has TLS: a client of socket.io on its defaults, which polls first. */
const byDefault = (secure) => ({ client: `const socket = io("https://127.0.0.1:${secure}");` });

describe('set up from the documents', { concurrency: 2 }, () => {
  for (const { name, start, hops, origin, saysProto = true, keepsPolling = false } of ways) {
    test(name, { timeout: 150_000 }, async (t) => {
      const app = await chatServer(t);
      const { front, plain, secure, polls, page, client, reload } = await start(t, app);
      const open = (address, headers = {}, path = '/ws') => dial(`ws://127.0.0.1:${plain}${path}`, address, headers);
      const admitted = () => front.metric('wsguard_handshakes_total{outcome="admitted",reason="-",zone="default"}');

      await t.test('a socket.io client talks by WebSocket through wsguard, and polling goes round it', async () => {
        const agent = new (secure ? https : http).Agent({ localAddress: '127.0.0.5', rejectUnauthorized: false });
        const told = { forceNew: true, reconnection: false, agent, rejectUnauthorized: false, extraHeaders: origin ? { Origin: origin } : {} };
        const socket = new Function('io', `${client} return socket;`)((url, options) => io(url, { ...told, ...options }));
        atEnd(t, () => socket.disconnect());
        await connected(socket);
        await until('it talks by WebSocket', () => socket.io.engine.transport.name === 'websocket');
        assert.deepEqual(await socket.timeout(5000).emitWithAck('add', 1, 2), 3);
        assert.equal(await front.metric('wsguard_connections{zone="default"}'), 1);
        const polled = app.requests.filter(({ url }) => url.includes('transport=polling'));
        assert.equal(polled.length > 0, keepsPolling);
        for (const { headers } of polled) assert.equal(headers['x-forwarded-for'], '127.0.0.5', 'polling has the true client too');
        assert.equal(app.upgrades.at(-1).headers['x-real-ip'], '127.0.0.5');
        if (polls) {
          const slow = io(`http://127.0.0.1:${polls}`, { ...told, agent: undefined, transports: ['polling'] });
          atEnd(t, () => slow.disconnect());
          await connected(slow);
          const heard = within('the message', new Promise((resolve) => slow.once('said', resolve)));
          socket.emit('say', 'hello');
          assert.equal(await heard, 'hello');
          assert.equal(await front.metric('wsguard_connections{zone="default"}'), 1, 'the one that polls is not among them');
          slow.disconnect();
        }
        socket.disconnect();
        agent.destroy();
        await settled(front);
      });

      await t.test('a plain WebSocket client talks, and the server learns who it is, whatever it writes', async () => {
        const ports = secure ? [['ws', plain, 'http'], ['wss', secure, 'https']] : [['ws', plain, 'http']];
        for (const [scheme, port, proto] of ports) for (const forged of FORGED) {
          const { socket } = await dial(`${scheme}://127.0.0.1:${port}/ws?a=1`, '127.0.0.5', { ...forged, 'X-Forwarded-Proto': 'gopher' });
          assert.equal(await echoed(socket, 'größer'), 'größer');
          const { url, headers } = app.upgrades.at(-1);
          assert.equal(url, '/ws?a=1');
          assert.equal(headers['x-forwarded-for'], hops('127.0.0.5'));
          assert.equal(headers['x-real-ip'], '127.0.0.5');
          assert.equal(headers['x-forwarded-proto'], saysProto ? proto : 'http');
          assert.equal(headers.forwarded, undefined);
          await ended(socket);
        }
        await settled(front);
      });

      await t.test('the server gets what conf/deploy/headers.md says', async () => {
        await hearsAsTold(name, app, { plain, secure }, '127.0.0.5', '127.0.0.5');
        await settled(front);
      });

      if (polls) await t.test('of polling, too, the server learns who it is, whatever the client writes', async () => {
        for (const forged of FORGED) {
          const headers = { ...forged, 'X-Forwarded-Proto': 'gopher' };
          const asked = http.get({ host: '127.0.0.1', port: polls, path: '/socket.io/?EIO=4&transport=polling', localAddress: '127.0.0.5', headers });
          const [answer] = await within('an answer', once(asked, 'response'));
          answer.resume();
          assert.equal(answer.statusCode, 200);
          const { headers: heard } = app.requests.at(-1);
          assert.equal(heard['x-forwarded-for'], '127.0.0.5');
          assert.equal(heard['x-real-ip'], '127.0.0.5');
          assert.equal(heard['x-forwarded-proto'], 'http');
          assert.equal(heard.forwarded, undefined);
        }
      });

      await t.test('what is no WebSocket', async () => {
        if (page) assert.equal(await (await fetch(`http://127.0.0.1:${polls}/`)).text(), page);
        else if (polls) assert.equal(await (await fetch(`http://127.0.0.1:${polls}/`)).text(), 'the app');
        else assert.equal((await fetch(`http://127.0.0.1:${plain}/socket.io/?EIO=4&transport=polling`)).status, 426);
        if (!origin) return;
        assert.deepEqual(await open('127.0.0.5', { Origin: 'http://evil.example' }), { status: 403, reason: 'origin' });
        (await open('127.0.0.5', { Origin: origin })).socket.terminate();
        await settled(front);
      });

      await t.test('who asks for another protocol is answered by the application, which hears of no upgrade', async () => {
        const [asked, upgraded] = [app.requests.length, app.upgrades.length];
        const others = ['Upgrade: h2c', 'Upgrade: h2c, TLS/1.0', 'Upgrade: h2c\r\nUpgrade: TLS/1.0', 'upgrade: H2C'];
        for (const other of others) {
          const head = `GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: chat.example.org\r\n${other}\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n`;
          const answer = await raw(polls ?? plain, head);
          if (polls) assert.match(answer, /^HTTP\/1\.1 200 /, other);
          else assert.match(answer, /^HTTP\/1\.1 426 [^]*\r\nX-Wsguard-Reason: not_upgrade\r\n/i, other);
        }
        const heard = app.requests.slice(asked);
        assert.equal(heard.length, polls ? others.length : 0);
        for (const { headers } of heard) {
          assert.equal(headers.upgrade, undefined);
          assert.doesNotMatch(headers.connection ?? '', /upgrade/i);
        }
        assert.equal(app.upgrades.length, upgraded);
        await settled(front);
      });

      await t.test('nobody is upgraded past wsguard', async () => {
        const [before, upgraded] = [await admitted(), app.upgrades.length];
        const key = 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n';
        for (const port of new Set([plain, polls].filter(Boolean))) for (const path of ['/ws', '/socket.io/?EIO=4&transport=websocket']) {
          for (const [version, upgrade, connection] of [
            ['1.1', 'websocket', 'Upgrade'], ['1.1', 'WebSocket', 'keep-alive, upgrade'], ['1.1', 'websocket, h2c', 'Upgrade'], ['1.1', 'h2c', 'Upgrade'],
            ['1.1', ' websocket', 'close'], ['1.0', 'websocket', 'Upgrade'], ['1.1', 'h2c\r\nUpgrade: websocket', 'Upgrade'], ['1.1', 'websocket\r\nUpgrade: h2c', 'Upgrade'],
          ]) await raw(port, `GET ${path} HTTP/${version}\r\nHost: chat.example.org\r\nUpgrade: ${upgrade}\r\nConnection: ${connection}\r\n${key}`);
        }
        assert.equal(app.upgrades.length - upgraded, (await admitted()) - before, 'the server was asked for as many upgrades as wsguard let pass');
        assert.ok(app.upgrades.length > upgraded);
        await settled(front);
      });

      await t.test('each client has its 50, and another one its own', async () => {
        const sockets = [];
        for (let n = 0; n < 50; n++) sockets.push((await open('127.0.0.7')).socket);
        assert.ok(sockets.every(Boolean));
        const asked = app.upgrades.length;
        for (const forged of FORGED) assert.deepEqual(await open('127.0.0.7', forged), { status: 429, reason: 'per_ip' });
        assert.equal(app.upgrades.length, asked, 'the server never hears of them');
        sockets.push((await open('127.0.0.8', { 'X-Forwarded-For': '127.0.0.7', 'X-Real-IP': '127.0.0.7' })).socket);
        assert.ok(sockets.at(-1));
        assert.equal(await front.metric('wsguard_clients{zone="default"}'), 2);
        for (const socket of sockets) socket.terminate();
        await settled(front);
      });

      if (reload) await t.test(`a reload with ${USERS} users ends nobody's session`, async () => {
        const closed = [];
        const users = [];
        for (let n = 0; n < USERS; n += 50) {
          users.push(...(await Promise.all(Array.from({ length: 50 }, (_, m) => open(`127.0.1.${1 + ((n + m) % 25)}`)))));
        }
        const sockets = users.map(({ socket }) => socket);
        assert.ok(sockets.every(Boolean));
        for (const socket of sockets) socket.once('close', (code) => closed.push(code));
        assert.equal(await front.metric('wsguard_connections{zone="default"}'), USERS);
        await reload();
        // At once, and when a worker that ends its connections in a hurry would have ended them.
        for (const wait of [0, 1500]) {
          await sleep(wait);
          assert.deepEqual(await Promise.all(sockets.map((socket, n) => echoed(socket, `after ${n}`))), sockets.map((_, n) => `after ${n}`));
        }
        assert.ok((await open('127.0.0.9')).socket, 'and the next one comes in');
        assert.deepEqual(closed, []);
        assert.equal(await front.metric('wsguard_connections{zone="default"}'), USERS + 1);
        for (const socket of app.sockets.clients) socket.terminate();
        await settled(front);
      });

      await t.test('wsguard probe finds nothing bad', async () => {
        const findings = JSON.parse(await output(process.env.WSGUARD, ['probe', `ws://127.0.0.1:${plain}/ws`, '--json']));
        assert.deepEqual(findings.filter(({ verdict }) => verdict !== 'ok'), []);
        const says = (check) => findings.filter((finding) => finding.check === check).map(({ says }) => says);
        assert.deepEqual(says('limit'), ['N = 50 from one address, exactly']);
        assert.deepEqual(says('forged header'), ['X-Forwarded-For', 'X-Real-IP', 'Forwarded', 'CF-Connecting-IP'].map((header) => `${header} changes nothing`));
        await settled(front);
      });
    });
  }

  for (const [proxy, before] of [
    ['nginx', (t, app, front) => nginxBefore(t, app, front)],
    ['HAProxy, without PROXY protocol,', (t, app, front) => haproxyBefore(t, app, front, [[' send-proxy-v2', '']])],
  ]) test(`a-chat.toml, which reads X-Real-IP, behind ${proxy} counts the true client`, { timeout: 60_000 }, async (t) => {
    const app = await chatServer(t);
    const front = await example(t, 'a-chat', [['"127.0.0.1:8080"', '"127.0.0.1:0"'], ['127.0.0.1:3000', `127.0.0.1:${app.port}`]]);
    const { plain } = await before(t, app, front);
    const open = (address, headers = {}) => dial(`ws://127.0.0.1:${plain}/ws`, address, headers);
    const sockets = [];
    for (let n = 0; n < 5; n++) sockets.push((await open('127.0.0.7', FORGED[n])).socket);
    assert.ok(sockets.every(Boolean));
    for (const forged of FORGED) assert.deepEqual(await open('127.0.0.7', forged), { status: 429, reason: 'per_ip' });
    sockets.push((await open('127.0.0.8', { 'X-Real-IP': '127.0.0.7' })).socket);
    assert.ok(sockets.at(-1));
    assert.equal(await front.metric('wsguard_clients{zone="default"}'), 2);
    for (const socket of sockets) socket.terminate();
    await settled(front);
  });

  test('of two Socket.IO servers the upgrade reaches the wrong one now and then, and clients that begin with WebSocket have none', { timeout: 60_000 }, async (t) => {
    const apps = [await chatServer(t), await chatServer(t)];
    const front = await example(t, 'socket-io', [
      ['"127.0.0.1:8080"', '"127.0.0.1:0"'],
      ...['127.0.0.1:3000', '127.0.0.1:3001'].map((server, n) => [server, `127.0.0.1:${apps[n].port}`]),
    ]);
    // nginx keeps who polls on one server, too.
    const both = apps.map(({ port }) => `server 127.0.0.1:${port};`).join(' ');
    const { plain } = await nginxBefore(t, apps[0], front, { servers: `hash $remote_addr consistent; ${both}` });
    const unknown = [];
    // Upgrades only: a client that goes on polling may poll once more when its session has just ended.
    for (const { server } of apps) server.engine.on('connection_error', ({ message, req }) => req.url.includes('transport=websocket') && unknown.push(message));
    const join = (n, options) => {
      const agent = new http.Agent({ localAddress: `127.0.0.${20 + n}` });
      const socket = io(`http://127.0.0.1:${plain}`, { forceNew: true, reconnection: false, agent, ...options });
      atEnd(t, () => {
        socket.disconnect();
        agent.destroy();
      });
      return socket;
    };
    const outcomes = [];
    for (let n = 0; n < 20; n++) {
      const socket = join(n);
      const { engine } = socket.io;
      const outcome = new Promise((resolve) => {
        for (const event of ['upgrade', 'upgradeError']) engine.once(event, () => resolve(event));
      });
      await connected(socket);
      outcomes.push(await within('an outcome', outcome));
      assert.equal(await socket.timeout(5000).emitWithAck('add', 1, 2), 3, 'it talks either way');
      socket.disconnect();
    }
    const failed = outcomes.filter((event) => event === 'upgradeError').length;
    assert.ok(failed > 0 && failed < outcomes.length, `${failed} of ${outcomes.length}`);
    assert.deepEqual(unknown, Array(failed).fill('Session ID unknown'));
    await settled(front);
    const sockets = outcomes.map((_, n) => join(n, { transports: ['websocket'] }));
    await Promise.all(sockets.map(connected));
    assert.equal(await front.metric('wsguard_connections{zone="default"}'), sockets.length);
    assert.equal(unknown.length, failed);
    for (const socket of sockets) socket.disconnect();
    await settled(front);
  });

  test('in place of nginx on sockets that systemd binds', { timeout: 30_000 }, async (t) => {
    const [app, port] = [await chatServer(t), await freePort()];
    const as = [['0.0.0.0:80', `127.0.0.1:${port}`], ['[::]:80', `[::1]:${port}`]];
    const file = join(folder(t), 'wsguard.toml');
    writeFileSync(file, block('in-place-of-nginx.toml', [...as, ['127.0.0.1:3000', `127.0.0.1:${app.port}`]]) + '[admin]\nlisten = "127.0.0.1:0"\n');
    const [none, ...bound] = [...block('override.conf', as).matchAll(/^ListenStream=(.*)$/gm)].map(([, address]) => address);
    assert.equal(none, '', 'those of the unit are taken away');
    const names = bound.map(() => readFileSync(join(ROOT, 'systemd/wsguard.socket'), 'utf8').match(/^FileDescriptorName=(.*)$/m)[1]);
    const told = [`--fdname=${names.join(':')}`, ...bound.map((address) => `--listen=${address}`)];
    await listening(program(t, 'systemd-socket-activate', [...told, process.env.WSGUARD, 'run', '-c', file]), port);
    for (const [host, client] of [['127.0.0.1', '127.0.0.5'], ['[::1]', '::1']]) {
      const { socket } = await dial(`ws://${host}:${port}/ws`, client, {});
      assert.equal(await echoed(socket, 'served'), 'served');
      assert.equal(app.upgrades.at(-1).headers['x-real-ip'], client);
      await ended(socket);
    }
  });

  test('nginx limits polling, and nothing else', { timeout: 60_000 }, async (t) => {
    const app = await chatServer(t);
    const front = await guarded(t, 'conf/examples/behind-nginx.toml', '"127.0.0.1:8080"', app.port);
    const { plain } = await nginxBefore(t, app, front, { more: block('polling.conf') });
    const get = async (address, path, headers = {}) => {
      const [answer] = await within('an answer', once(http.get({ host: '127.0.0.1', port: plain, path, localAddress: address, headers }), 'response'));
      answer.setEncoding('utf8');
      const text = await new Promise((resolve) => {
        let text = '';
        answer.on('data', (more) => (text += more)).on('end', () => resolve(text));
      });
      return { status: answer.statusCode, text };
    };
    const POLL = '/socket.io/?EIO=4&transport=polling';
    // A poll with a session waits at the server for something to say.
    const waiting = new Set();
    for (let n = 0; n < 50; n++) {
      const { sid } = JSON.parse((await get('127.0.0.5', POLL)).text.slice(1));
      waiting.add(http.get({ host: '127.0.0.1', port: plain, path: `${POLL}&sid=${sid}`, localAddress: '127.0.0.5' }).on('error', () => {}));
    }
    await until('all of them wait', () => app.requests.filter(({ url }) => url.includes('sid=')).length === 50);
    assert.equal((await get('127.0.0.5', POLL)).status, 429);
    assert.equal((await get('127.0.0.5', POLL, { Upgrade: 'h2c', Connection: 'Upgrade' })).status, 429);
    assert.equal((await get('127.0.0.6', POLL)).status, 200);
    for (const wait of waiting) wait.destroy();
    const statuses = [];
    const start = Date.now();
    while (!statuses.includes(429)) statuses.push((await get('127.0.0.6', POLL)).status);
    const passed = statuses.length - 1;
    const back = (20 * (Date.now() - start)) / 1000;
    assert.ok(passed >= 298 && passed <= 301 + back, `${passed} passed, ${back} came back`);
    assert.equal((await get('127.0.0.6', '/')).status, 200);
    const { socket } = await dial(`ws://127.0.0.1:${plain}/socket.io/?EIO=4&transport=websocket`, '127.0.0.6', {});
    assert.ok(socket);
    await ended(socket);
    assert.equal((await get('127.0.0.7', POLL)).status, 200);
    await settled(front);
  });

  test('behind nginx behind Cloudflare', { timeout: 60_000 }, async (t) => {
    const app = await chatServer(t);
    const front = await guarded(t, 'conf/examples/behind-nginx.toml', '"127.0.0.1:8080"', app.port);
    const cloudflare = block('cloudflare.conf', [['173.245.48.0/20', '127.0.0.9/32']]);
    const { plain, secure } = await nginxBefore(t, app, front, { more: cloudflare });
    for (const [from, header, client] of [
      ['127.0.0.9', '203.0.113.1', '203.0.113.1'],
      ['127.0.0.9', '2001:db8::1', '2001:db8::1'],
      ['127.0.0.5', '203.0.113.1', '127.0.0.5'],
    ]) {
      const { socket } = await dial(`ws://127.0.0.1:${plain}/ws`, from, { 'CF-Connecting-IP': header, 'X-Forwarded-For': '203.0.113.66' });
      assert.equal(app.upgrades.at(-1).headers['x-real-ip'], client);
      await ended(socket);
    }
    // Cloudflare stands on 127.0.0.9, and overwrites this header of its clients.
    const cloud = { 'CF-Connecting-IP': '203.0.113.1' };
    await hearsAsTold('behind nginx behind Cloudflare', app, { plain, secure }, '127.0.0.9', '203.0.113.1', cloud);
    const trusted = [...readFileSync(join(ROOT, 'conf/examples/behind-cloudflare.toml'), 'utf8').matchAll(/"([0-9a-f.:]+\/\d+)"/g)];
    const real = [...block('cloudflare.conf').matchAll(/set_real_ip_from (\S+);/g)];
    assert.deepEqual(real.map(([, network]) => network), trusted.map(([, network]) => network));
  });
});

const prose = TEXT.replace(/^```.*?^```$/gms, '');

/** What the documents tell people to type, in blocks and within lines. */
const commands = new Set([
  ...blocks.filter(({ language }) => language === 'sh').flatMap(({ text }) => text.split('\n').map((line) => line.replace(/\s+#.*$/, '').trim())),
  ...[...prose.matchAll(/`((?:cargo|wsguard|nginx|haproxy|systemctl|curl|npm|bash|\.ci\/run)\s[^`]*)`/g)].map(([, text]) => text.replace(/\s+/g, ' ')),
].filter(Boolean));
const ran = new Set();

/** A command of the documents, which is run now. */
function command(text) {
  assert.ok(commands.has(text), `the documents have the command ${text}`);
  ran.add(text);
  return text;
}

describe('each command of the documents', { concurrency: 1 }, () => {
  /** The words of a command behind the first, with each pair of `as` put into them. */
  const words = (text, as = []) => as.reduce((text, [from, to]) => {
    assert.ok(text.includes(from), `${text} has ${from}`);
    return text.replace(from, to);
  }, command(text)).split(' ').slice(1);

  for (const text of ['cargo run --release -- demo', 'wsguard demo --flood']) test(text, { timeout: 60_000 }, async (t) => {
    // `.ci/run release` builds it, and run.py names it.
    const args = words(text, text.startsWith('cargo') ? [['cargo run --release --', 'wsguard']] : []);
    const { child, page } = await demo(t, args);
    assert.match(await (await fetch(page)).text(), /<title>/);
    if (args.includes('--flood')) await until('the flood is over', () => child.lines.some((line) => /flood.* over/i.test(line)), 40_000);
  });

  test('wsguard check', async () => {
    for (const args of [words('wsguard check conf/minimal.toml'), words('wsguard check FILE', [['FILE', 'conf/wsguard.toml']])]) {
      assert.match(await output(process.env.WSGUARD, args, { cwd: ROOT }), /no mistakes/);
    }
  });

  test('what a package is made of', async () => {
    assert.match(await output(process.env.WSGUARD, words('wsguard --version')), /^wsguard [\d.]+ \(features: .+\)$/m);
    assert.match(await output(process.env.WSGUARD, words('wsguard man')), /^\.TH wsguard 1/m);
    assert.match(await output(process.env.WSGUARD, words('wsguard completions bash')), /complete .* wsguard$/m);
  });

  test('wsguard run and curl', { timeout: 30_000 }, async (t) => {
    const app = await chatServer(t);
    const file = join(folder(t), 'minimal.toml');
    writeFileSync(file, readFileSync(join(ROOT, 'conf/minimal.toml'), 'utf8').replace('127.0.0.1:8080', '127.0.0.1:0').replace('127.0.0.1:3000', `127.0.0.1:${app.port}`) + '[admin]\nlisten = "127.0.0.1:0"\n');
    const front = await running(t, words('wsguard run -c conf/minimal.toml', [['conf/minimal.toml', file]]));
    const { socket } = await dial(`${front.url}/ws`, '127.0.0.1', { 'X-Forwarded-For': '203.0.113.7' });
    const stats = JSON.parse(await output('curl', ['-sS', ...words('curl 127.0.0.1:9191/stats', [['127.0.0.1:9191', front.admin]])]));
    // The first sign that it works: the client is counted by its own address, and nothing is amiss.
    assert.equal(stats.connections, 1);
    assert.deepEqual(stats.top.map(({ key, open }) => [key, open]), [['203.0.113.7', 1]]);
    assert.deepEqual(stats.advice, []);
    await ended(socket);
  });

  test('wsguard run without a file', { timeout: 30_000 }, async (t) => {
    const app = await chatServer(t);
    const args = words('wsguard run --listen 127.0.0.1:8080 --upstream 127.0.0.1:3000 --trust loopback --per-ip 5 --connections 100', [
      ['127.0.0.1:8080', '127.0.0.1:0'],
      ['127.0.0.1:3000', `127.0.0.1:${app.port}`],
    ]);
    // The default admin port is one on this machine, and somebody may have it.
    for (const text of ['--admin 127.0.0.1:9192', '--admin off']) assert.ok(prose.includes(`\`${text}\``), text);
    const front = await running(t, [...args, '--admin', '127.0.0.1:0']);
    const open = (client = '203.0.113.7') => dial(`${front.url}/ws`, '127.0.0.1', { 'X-Forwarded-For': client });
    const sockets = [];
    for (let n = 0; n < 5; n++) sockets.push((await open()).socket);
    assert.ok(sockets.every(Boolean));
    assert.deepEqual(await open(), { status: 429, reason: 'per_ip' });
    sockets.push((await open('203.0.113.8')).socket);
    assert.ok(sockets.at(-1));
    for (const socket of sockets) await ended(socket);
  });

  test('what systemd is told', { timeout: 30_000 }, async (t) => {
    const root = folder(t);
    const units = join(root, 'usr/lib/systemd/system');
    mkdirSync(units, { recursive: true });
    for (const unit of ['wsguard.service', 'wsguard.socket']) copyFileSync(join(ROOT, 'systemd', unit), join(units, unit));
    await output('systemctl', words('systemctl enable --now wsguard', [['--now', `--root=${root}`]]));
    assert.equal(readlinkSync(join(root, 'etc/systemd/system/multi-user.target.wants/wsguard.service')), '/usr/lib/systemd/system/wsguard.service');
    await output('journalctl', words('journalctl -u wsguard'));
    await output('journalctl', words('journalctl -u wsguard -o cat --since 14:02 --until 14:05'));
    // These two need a systemd that runs.
    const help = await output('systemctl', ['--help']);
    for (const text of ['systemctl status wsguard', 'systemctl edit wsguard.socket']) {
      const [verb, unit] = words(text);
      assert.match(help, new RegExp(`^ +${verb} `, 'm'));
      assert.ok(existsSync(join(units, unit)) || existsSync(join(units, `${unit}.service`)), unit);
    }
  });

  test('a change', { timeout: 30_000 }, async (t) => {
    const [app, where] = [await chatServer(t), folder(t)];
    const file = join(where, 'wsguard.toml');
    const text = `[server]\nwatch_config = false\n[[listener]]\nbind = ["127.0.0.1:0"]\n[upstream.chat]\nservers = ["127.0.0.1:${app.port}"]\n[admin]\nlisten = "127.0.0.1:0"\n`;
    writeFileSync(file, text);
    const front = await running(t, ['run', '-c', file]);
    const reloads = () => front.metric('wsguard_config_reloads_total{outcome="success"}');
    const before = await reloads();
    // What systemd does then is what the unit says.
    const service = readFileSync(join(ROOT, 'systemd/wsguard.service'), 'utf8');
    const does = [...service.matchAll(/^ExecReload=(.*)$/gm)].map(([, line]) => line.replace('/usr/bin/wsguard', 'wsguard').replace('/etc/wsguard/wsguard.toml', file).replace('$MAINPID', front.child.pid));
    assert.equal(does.length, 2);
    writeFileSync(join(where, 'systemctl'), `#!/bin/sh\n[ "$*" = "reload wsguard" ] && ${does.join(' && ')}\n`, { mode: 0o755 });
    symlinkSync(process.env.WSGUARD, join(where, 'wsguard'));
    const env = { ...process.env, PATH: `${where}:${process.env.PATH}`, WSGUARD_CONFIG: file };
    await output('sh', ['-c', command('wsguard check && systemctl reload wsguard')], { env });
    await until('it is applied', async () => (await reloads()) === before + 1);
    writeFileSync(file, `${text}per_ipp = 1\n`);
    await assert.rejects(output('sh', ['-c', command('wsguard check && systemctl reload wsguard')], { env }), /per_ipp/);
    assert.equal(await reloads(), before + 1);
  });

  test('wsguard probe', { timeout: 100_000 }, async (t) => {
    const app = await chatServer(t);
    const front = await guarded(t, 'conf/examples/behind-nginx.toml', '"127.0.0.1:8080"', app.port);
    // Where port 80 does nothing but redirect.
    const own = await freePort();
    const redirects = `server_name chat.example.org;\n    if ($server_port != ${own}) { return 301 https://$host$request_uri; }`;
    const { plain } = await nginxBefore(t, app, front, { as: [['server_name chat.example.org;', `listen 127.0.0.1:${own};\n    ${redirects}`]] });
    const path = '/socket.io/?EIO=4&transport=websocket';
    const probe = (at) => output(process.env.WSGUARD, words('wsguard probe ws://chat.example.org/ --i-own-this', [['chat.example.org/', at]]));
    await assert.rejects(probe(`127.0.0.1:${plain}${path}`), /refused with 301/);
    for (const named of [path, 'listen 127.0.0.1:8081;', 'ws://127.0.0.1:8081/']) assert.ok(prose.includes(`\`${named}\``), named);
    const said = await probe(`127.0.0.1:${own}${path}`);
    const shown = blocks.find(({ language, text }) => language === 'text' && text.startsWith('ok  ')).text;
    const lines = (text) => text.trim().split('\n').map((line) => line.replace(/[\d.]+ m?s/g, 'N s'));
    for (const line of lines(shown)) assert.ok(lines(said).includes(line), `${line} in\n${said}`);
    assert.match(said, /, 0 bad, 0 unclear$/m);
    // Past the proxy, from an address that is trusted.
    await assert.rejects(probe(`127.0.0.1:${front.port}${path}`), /^BAD forged header: X-Forwarded-For is believed/m);
  });

  test('what .ci/run does', () => {
    const ci = readFileSync(join(ROOT, '.ci/run'), 'utf8');
    const steps = ci.match(/^STEPS=\((.*)\)$/m)[1].split(' ');
    const lines = ci.split('\n').map((line) => line.trim().replace(/^\w+\(\) \{ | ;? ?\}$/g, '').replace(/;$/, ''));
    for (const text of commands) {
      if (lines.some((line) => line === text || line.startsWith(`${text} --`))) ran.add(text);
      const [, own] = text.match(/^(?:bash )?\.ci\/run ?(.*)$/) ?? [];
      if (own !== undefined && own.split(' ').filter(Boolean).every((step) => steps.includes(step))) ran.add(text);
    }
  });

  test('what the benches explain, which take minutes', () => {
    for (const text of commands) {
      const [, bench] = text.match(/^cargo bench --bench (\w+)/) ?? [];
      if (bench && readFileSync(join(ROOT, 'benches', bench, 'main.rs'), 'utf8').split('\n').some((line) => line.startsWith(`//! ${text}`))) ran.add(text);
    }
  });

  test('and none besides', () => {
    // Those of nginx are run where nginx is; one that is merely named is run where its arguments are written.
    const isRun = (text) => ran.has(text) || [...ran].some((whole) => whole.startsWith(`${text} `));
    assert.deepEqual([...commands].filter((text) => !isRun(text)), [], 'commands that nothing runs');
  });
});

describe('each block of the documents', () => {
  for (const { title, text } of blocks.filter(({ language }) => language === 'toml')) test(`${title ?? text.split('\n')[0]} is a configuration without mistakes`, async (t) => {
    const file = join(folder(t), 'wsguard.toml');
    writeFileSync(file, text.includes('[[listener]]') ? text : readFileSync(join(ROOT, 'conf/minimal.toml'), 'utf8') + text);
    await output(process.env.WSGUARD, ['check', '--deny-warnings', file]);
    if (!title?.startsWith('conf/')) return;
    const bare = (text) => text.split('\n').filter((line) => line && !line.startsWith('#'));
    assert.deepEqual(bare(text), bare(readFileSync(join(ROOT, title), 'utf8')), `the block is what ${title} is but for comments`);
    used.add(title);
  });

  test('prometheus.yml is what Prometheus takes, with the rules beside it', async (t) => {
    const etc = folder(t);
    mkdirSync(join(etc, 'wsguard'));
    copyFileSync(join(ROOT, 'conf/prometheus/alerts.yml'), join(etc, 'wsguard/alerts.yml'));
    writeFileSync(join(etc, 'prometheus.yml'), block('prometheus.yml'));
    assert.match(await output('promtool', ['check', 'config', join(etc, 'prometheus.yml')]), /SUCCESS/);
  });

  test('that has a counterpart for wsguard is one that nginx and HAProxy take', async (t) => {
    const [where, port] = [folder(t), await freePort()];
    const [site, config] = [join(where, 'nginx.conf'), join(where, 'haproxy.cfg')];
    writeFileSync(site, `events {}\npid ${join(where, 'pid')};\nhttp {\n${block('from-nginx.conf', [['listen 8080', `listen 127.0.0.1:${port}`]])}}\n`);
    await output('nginx', ['-t', '-e', 'stderr', '-p', where, '-c', site]);
    writeFileSync(config, block('from-haproxy.cfg', [['bind :8080', `bind 127.0.0.1:${port}`]]));
    await output('haproxy', ['-c', '-f', config]);
  });

  test('that has a title was used, and none that a program reads is without', () => {
    assert.deepEqual(blocks.filter(({ title }) => title && !used.has(title)), []);
    assert.deepEqual(blocks.filter(({ language, title }) => !title && !['sh', 'text', 'toml'].includes(language)), []);
  });
});

/** A server of both: socket.io, and an echo at /ws; it keeps what it was asked. */
async function chatServer(t) {
  const { server, port, web } = await ioServer(t, { transports: ['polling', 'websocket'] });
  const sockets = new WebSocket.WebSocketServer({ noServer: true });
  const app = { port, server, sockets, requests: [], upgrades: [] };
  // First of all, since socket.io hides its own requests from those that come later.
  web.prependListener('request', ({ url, headers }) => app.requests.push({ url, headers }));
  web.on('request', ({ url }, response) => {
    if (url.startsWith('/ws')) response.writeHead(426).end();
    else if (!url.startsWith('/socket.io/')) response.end('the app');
  });
  web.prependListener('upgrade', ({ url, headers }) => app.upgrades.push({ url, headers }));
  web.on('upgrade', (request, socket, head) => request.url.startsWith('/ws') && sockets.handleUpgrade(request, socket, head, (open) => {
    open.on('error', () => {}).on('message', (message, isBinary) => open.send(message, { binary: isBinary }));
  }));
  server.on('connection', (socket) => {
    socket.on('add', (a, b, answer) => answer(a + b));
    socket.on('say', (what) => server.emit('said', what));
  });
  atEnd(t, () => {
    for (const socket of sockets.clients) socket.terminate();
  });
  return app;
}

/**
 * Asks for an upgrade from `address` with every header that conf/deploy/headers.md says a client sends, and
 * compares what the server hears with the column of this name. `client` is whom it is to hear of; `instead` are headers that
 * come otherwise.
 */
async function hearsAsTold(column, app, ports, address, client, instead = {}) {
  const text = readFileSync(join(ROOT, 'conf/deploy/headers.md'), 'utf8');
  const [head, , ...rows] = text.match(/^\| header \|[^]*?\n\n/m)[0].trim().split('\n').map((row) => row.split('|').slice(1, -1).map((cell) => cell.trim()));
  const at = head.indexOf(column);
  assert.ok(at > 1 && rows.length > 12, `a column ${column} in ${head}`);
  const sent = Object.fromEntries(rows.map(([header, value]) => [header.split(',')[0], value]));
  Object.assign(sent, instead, { Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==' });
  const schemes = { http: [http, ports.plain], https: [https, ports.secure] };
  for (const [scheme, [library, port]] of Object.entries(schemes)) {
    if (!port) {
      assert.ok(rows.some((row) => row[at] === 'no TLS'), `${column} has no TLS`);
      continue;
    }
    const asked = library.request({ host: '127.0.0.1', port, path: '/ws', headers: sent, localAddress: address, agent: false, rejectUnauthorized: false }).end();
    const [, socket] = await within('an upgrade', once(asked, 'upgrade'));
    socket.destroy();
    const { headers: heard } = app.upgrades.at(-1);
    for (const row of rows) {
      const [header, of] = row[0].split(', of ');
      if (of && of !== `\`${scheme}://\``) continue;
      const told = { '-': undefined, 'as sent': sent[header] };
      const expected = row[at] in told ? told[row[at]] : row[at].replace('CLIENT', client).replace('PROXY', '127.0.0.1');
      assert.equal(heard[header.toLowerCase()], expected, `${header}, ${column}, by ${scheme}`);
    }
  }
}

/** nginx with the site of behind-nginx.md, with `more` before it; its ports, and how it is reloaded. */
async function nginxBefore(t, app, front, { more = '', servers = `server 127.0.0.1:${app.port};`, as = [] } = {}) {
  const [plain, secure, where] = [await freePort(), await freePort(), folder(t)];
  const { certificate, key } = certified(where);
  const site = block('behind-nginx.conf', [
    ...as,
    ['listen 80;', `listen 127.0.0.1:${plain};`],
    ['listen 443 ssl;', `listen 127.0.0.1:${secure} ssl;`],
    ['/etc/letsencrypt/live/chat.example.org/fullchain.pem', certificate],
    ['/etc/letsencrypt/live/chat.example.org/privkey.pem', key],
    ['server 127.0.0.1:3000;', servers],
    ['127.0.0.1:8080', `127.0.0.1:${front.port}`],
  ]);
  return { plain, secure, reload: await nginx(t, more + site, plain) };
}

/** Starts nginx with a site, as a master with workers; gives what reloads it, by the documents' command. */
async function nginx(t, site, port) {
  const where = folder(t);
  const file = join(where, 'nginx.conf');
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${join(where, kind)};`);
  writeFileSync(
    file,
    // Where it is root, its workers would be someone who may not enter this folder.
    `${process.getuid() === 0 ? 'user root;' : ''}
daemon off;
worker_processes 2;
pid ${join(where, 'pid')};
error_log stderr notice;
${block('nginx.conf')}
http {
  access_log off;
  ${temporary.join('\n  ')}
${site}
}
`,
  );
  const options = ['-e', 'stderr', '-p', where, '-c', file];
  const child = program(t, 'nginx', options);
  // A master that is killed leaves its workers behind.
  atEnd(t, async () => {
    if (child.ended()) return;
    const gone = once(child, 'exit');
    child.kill('SIGTERM');
    await within('nginx ends', gone);
  });
  await listening(child, port);
  return async () => {
    const begun = () => child.lines.filter((line) => /start worker process \d/.test(line)).length;
    const leaving = () => child.lines.filter((line) => /gracefully shutting down/.test(line)).length;
    const before = begun();
    await output('sh', ['-c', command('nginx -t && nginx -s reload').replaceAll('nginx -', `nginx ${options.join(' ')} -`)]);
    await until('old workers are leaving and new ones are there', () => begun() === before + 2 && leaving() === 2);
  };
}

/** HAProxy with the file of behind-haproxy.md. */
async function haproxyBefore(t, app, front, as = []) {
  const [plain, secure, where] = [await freePort(), await freePort(), folder(t)];
  const { certificate, key } = certified(where);
  writeFileSync(join(where, 'both.pem'), readFileSync(certificate, 'utf8') + readFileSync(key, 'utf8'));
  const file = join(where, 'haproxy.cfg');
  writeFileSync(file, block('haproxy.cfg', [
    ['bind :80\n', `bind 127.0.0.1:${plain}\n`],
    ['bind :443 ', `bind 127.0.0.1:${secure} `],
    ['/etc/haproxy/certs/chat.example.org.pem', join(where, 'both.pem')],
    ['127.0.0.1:3000', `127.0.0.1:${app.port}`],
    ['127.0.0.1:8080', `127.0.0.1:${front.port}`],
    ...as,
  ]));
  await listening(program(t, 'haproxy', ['-db', '-f', file]), plain);
  return { plain, secure };
}

function certified(where) {
  const [certificate, key] = [join(where, 'certificate.pem'), join(where, 'key.pem')];
  const asked = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=chat.example.org', '-out', certificate, '-keyout', key];
  execFileSync('openssl', asked, { stdio: 'ignore' });
  return { certificate, key };
}

/** Opens a socket from `address`; gives it, or the status that refused it. */
async function dial(url, address, headers) {
  const socket = new WebSocket(url, { localAddress: address, headers, rejectUnauthorized: false });
  const opened = once(socket, 'open').then(() => ({ socket }));
  const refused = once(socket, 'unexpected-response').then(([, response]) => {
    response.resume();
    return { status: response.statusCode, reason: response.headers['x-wsguard-reason'] };
  });
  socket.on('error', () => {});
  opened.catch(() => {});
  refused.catch(() => {});
  return within(`an answer to ${address} from ${url}`, Promise.race([opened, refused]), 10_000);
}

async function echoed(socket, text) {
  const heard = once(socket, 'message');
  socket.send(text);
  return String((await within('an echo', heard, 10_000))[0]);
}

async function ended(socket) {
  socket.close();
  await within('its end', once(socket, 'close'));
}

const connected = (socket) => within('connect', new Promise((resolve, reject) => socket.once('connect', resolve).once('connect_error', reject)));

/** Sends bytes, and waits for the first of an answer. */
function raw(port, bytes) {
  return within('an answer', new Promise((resolve, reject) => {
    const request = net.connect(port, '127.0.0.1', () => request.write(bytes));
    request.on('error', reject).on('close', () => resolve('')).on('data', (data) => (resolve(String(data)), request.destroy()));
  }));
}

/** What a program says on stdout; fails unless it ends well. */
async function output(name, args, options = {}) {
  const child = spawn(name, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
  const said = { stdout: '', stderr: '' };
  for (const stream of ['stdout', 'stderr']) child[stream].setEncoding('utf8').on('data', (data) => (said[stream] += data));
  const [status] = await within(`${name} ends`, once(child, 'close'), 90_000);
  assert.equal(status, 0, `${name} ${args.join(' ')}:\n${said.stdout}${said.stderr}`);
  return said.stdout;
}
