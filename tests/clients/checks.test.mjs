// The health checks that people have, as their programs make them: each finds the guard healthy, and none of them leaves a
// line in its log.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { wsServer } from './ends.mjs';
import { folder, freePort, guard, guardOf, listening, program, until } from './rig.mjs';

test('curl and wget find health_path, /healthz and /readyz well, by GET and by HEAD', { timeout: 60_000 }, async (t) => {
  const front = await healthy(t);
  for (const url of [`http://127.0.0.1:${front.port}/up`, ...['/healthz', '/readyz'].map((path) => `http://${front.admin}${path}`)]) {
    for (const [command, ...args] of [
      ['curl', '-fsS'],
      ['curl', '-fsSI'],
      ['curl', '-fsS0'],
      ['curl', '-fsS', '-H', 'Host: wsguard.internal'],
      ['wget', '-q', '--tries=1', '--spider'],
      ['wget', '-q', '--tries=1', '-O', '-'],
    ]) {
      const { status, stdout, stderr } = spawnSync(command, [...args, url], { encoding: 'utf8', timeout: 10_000 });
      assert.equal(status, 0, `${command} ${args.join(' ')} ${url}: ${stdout}${stderr}`);
    }
  }
  assert.deepEqual(rejected(front), []);
});

test('HAProxy finds it up by every check that it has', { timeout: 60_000 }, async (t) => {
  const front = await healthy(t);
  const backend = await wsServer(t);
  const behind = await guardOf(
    t,
    '[[listener]]\nname = "front"\nbind = ["127.0.0.1:0"]\naccept_proxy_protocol = true\nhealth_path = "/up"\n' +
      '[client_ip]\ntrusted_proxies = ["loopback"]\n[admin]\nlisten = "127.0.0.1:0"\n' +
      `[upstream.backend]\nservers = ["127.0.0.1:${backend.port}"]\n`,
  );
  const [public_, admin] = [`127.0.0.1:${front.port}`, front.admin];
  const checks = {
    connects: [public_, ''],
    get: [public_, 'option httpchk GET /up'],
    head: [public_, 'option httpchk HEAD /up'],
    options: [public_, 'option httpchk OPTIONS /up'],
    get11: [public_, 'option httpchk\n  http-check send meth GET uri /up ver HTTP/1.1 hdr Host ws.example.org'],
    admin_get: [admin, 'option httpchk GET /readyz'],
    admin_head: [admin, 'option httpchk HEAD /readyz'],
    admin_options: [admin, 'option httpchk OPTIONS /healthz'],
    proxy_connects: [`127.0.0.1:${behind.port}`, '', 'check-send-proxy send-proxy-v2'],
    proxy_get: [`127.0.0.1:${behind.port}`, 'option httpchk GET /up', 'check-send-proxy send-proxy-v2'],
    proxy_v1: [`127.0.0.1:${behind.port}`, 'option httpchk GET /up', 'check-send-proxy send-proxy'],
  };
  const [where, port] = [folder(t), await freePort()];
  const backends = Object.entries(checks).map(
    ([name, [address, option, how = '']]) => `backend ${name}\n  ${option}\n  server guard ${address} check inter 100ms fall 1 rise 2 ${how}\n`,
  );
  writeFileSync(
    join(where, 'haproxy.cfg'),
    `global\n  maxconn 256\n  stats socket ${join(where, 'stats')}\ndefaults\n  mode http\n  timeout connect 5s\n  timeout check 5s\n` +
      `  timeout client 5s\n  timeout server 5s\nfrontend front\n  bind 127.0.0.1:${port}\n  default_backend get\n${backends.join('')}`,
  );
  const child = program(t, 'haproxy', ['-db', '-f', join(where, 'haproxy.cfg')]);
  await listening(child, port);
  // Status and how many checks ended: a server counts as up before its first check.
  const stats = async () => {
    const lines = (await told(join(where, 'stats'), 'show stat\n')).split('\n').filter((line) => line.includes(',guard,'));
    return lines.map((line) => line.split(','));
  };
  const lastchk = async () => (await stats()).map((fields) => [fields[0], fields[17], fields[36]]);
  let last;
  await until(
    'every check has passed',
    async () => {
      last = await lastchk();
      return last.length === Object.keys(checks).length && last.every(([, status, check]) => status === 'UP' && /^L[47]OK$/.test(check));
    },
    10_000,
  ).catch((error) => assert.fail(`${error.message}: ${JSON.stringify(last)}\n${child.lines.join('\n')}`));
  await until('some more of them', async () => (await front.metric('wsguard_accepted_total{listener="front"}')) > 30, 10_000);
  for (const [name, status] of await lastchk()) assert.equal(status, 'UP', name);
  assert.deepEqual([rejected(front), rejected(behind)], [[], []]);
  // HAProxy resets a check that only connects before the guard's kernel has it; a PROXY header comes through.
  assert.ok((await behind.metric('wsguard_silent_closes_total{listener="front"}')) > 0, 'who sends a header alone is counted');
});

test('nginx passes health checks of others on', { timeout: 60_000 }, async (t) => {
  const front = await healthy(t);
  const [where, port] = [folder(t), await freePort()];
  writeFileSync(
    join(where, 'nginx.conf'),
    `daemon off; master_process off; pid ${where}/pid; error_log stderr;\nevents {}\nhttp { access_log off;\n` +
      ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${where}/${name};\n`).join('') +
      `server { listen 127.0.0.1:${port}; location / { proxy_pass http://127.0.0.1:${front.port}; } } }\n`,
  );
  await listening(program(t, 'nginx', ['-p', where, '-c', join(where, 'nginx.conf')]), port);
  for (const method of ['GET', 'HEAD', 'OPTIONS']) {
    const answer = await fetch(`http://127.0.0.1:${port}/up`, { method });
    assert.deepEqual([answer.status, await answer.text()], [200, method === 'HEAD' ? '' : 'OK\r\n'], method);
  }
  assert.deepEqual(rejected(front), []);
});

async function healthy(t) {
  const backend = await wsServer(t);
  return guard(t, { backend: backend.port, listener: 'health_path = "/up"' });
}

/** The lines of those that were not let in. */
function rejected(guard) {
  return guard.child.lines.filter((line) => line.includes('"rejected"'));
}

/** What a Unix socket answers to this. */
function told(path, question) {
  return new Promise((resolve, reject) => {
    let heard = '';
    net
      .connect(path)
      .on('data', (bytes) => (heard += bytes))
      .on('end', () => resolve(heard))
      .on('error', reject)
      .end(question);
  });
}
