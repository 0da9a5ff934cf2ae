// What the tests with real clients share: programs that end with their test, a guard started from TOML text on ports of
// the kernel's choice, its metrics, and waiting with an end.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

const installed = process.env.CLIENT_MODULES;
const wsguard = process.env.WSGUARD;
assert.ok(installed && wsguard, 'run these tests with tests/clients/run.py, which sets CLIENT_MODULES and WSGUARD');

/** `require` for the packages of package.json, which are installed outside the sources. */
export const need = createRequire(join(installed, 'package.json'));

export { sleep };

/** Waits until `look` gives something true, and gives that; fails with `what` after `ms`. */
export async function until(what, look, ms = 5000) {
  const end = Date.now() + ms;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > end) assert.fail(`waited ${ms} ms in vain: ${what}`);
    await sleep(20);
  }
}

/** The value that `promise` gives within `ms`; fails with `what` if it takes longer. */
export async function within(what, promise, ms = 5000) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms in vain: ${what}`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

const endings = new WeakMap();

/** Does `end` when the test `t` ends; what was begun last ends first. */
export function atEnd(t, end) {
  if (!endings.has(t)) {
    endings.set(t, []);
    t.after(async () => {
      const outcomes = [];
      for (const end of endings.get(t).reverse()) outcomes.push(...(await Promise.allSettled([Promise.resolve().then(end)])));
      for (const { status, reason } of outcomes) if (status === 'rejected') throw reason;
    });
  }
  endings.get(t).push(end);
}

/** A new folder, gone when the test `t` ends. */
export function folder(t) {
  const path = mkdtempSync(join(tmpdir(), 'wsguard-clients-'));
  atEnd(t, () => rmSync(path, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 }));
  return path;
}

/** Starts a program that is killed, by its own process id, when the test `t` ends. `lines` collects both its outputs. */
export function program(t, command, args, options = {}) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
  child.lines = [];
  for (const stream of [child.stdout, child.stderr]) createInterface({ input: stream }).on('line', (line) => child.lines.push(line));
  child.on('error', (error) => child.lines.push(String(error)));
  child.ended = () => child.pid === undefined || child.exitCode !== null || child.signalCode !== null;
  atEnd(t, async () => {
    if (child.ended()) return;
    const gone = once(child, 'exit');
    child.kill('SIGKILL');
    await gone;
  });
  return child;
}

/** A port that nothing listens on just now, for programs that can't be told to choose one themselves. */
export async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** Waits until a program listens on this port. */
export async function listening(child, port) {
  await until(`${child.spawnfile} listens on ${port}`, () => {
    assert.ok(!child.ended(), `${child.spawnfile} ended:\n${child.lines.join('\n')}`);
    return new Promise((resolve) => {
      const probe = net.connect(port, '127.0.0.1');
      probe.on('connect', () => resolve(Boolean(probe.destroy()))).on('error', () => resolve(false));
    });
  });
}

/**
 * Starts a guard before the backend on port `backend`. `listener` holds further lines of its one listener, `rest` further
 * tables. Its `port`, `url`, `metric` (one series) and `family` (all series of a name, by their labels) are what the tests ask.
 */
export async function guard(t, { backend, listener = '', rest = '' }) {
  return guardOf(
    t,
    `[[listener]]\nname = "front"\nbind = ["127.0.0.1:0"]\n${listener}\n` +
      `[upstream.backend]\nservers = ["127.0.0.1:${backend}"]\n[admin]\nlisten = "127.0.0.1:0"\n${rest}\n`,
  );
}

/** Starts a guard from the whole text of a configuration, whose ports are the kernel's choice. */
export async function guardOf(t, text) {
  const file = join(folder(t), 'wsguard.toml');
  writeFileSync(file, text);
  return running(t, ['run', '-c', file]);
}

/** Starts a guard by these arguments. */
export async function running(t, args) {
  const child = program(t, wsguard, args);
  const said = (event) => child.lines.map(parsed).find((line) => line?.event === event);
  await until('the guard is ready', () => {
    assert.ok(!child.ended(), `the guard ended:\n${child.lines.join('\n')}`);
    return said('ready');
  });
  const port = Number(said('listening').address.split(':').pop());
  const admin = said('admin').address;
  const metrics = async () => (await fetch(`http://${admin}/metrics`)).text();
  return {
    child,
    port,
    admin,
    url: `ws://127.0.0.1:${port}`,
    metric: async (series) => valueOf(await metrics(), series),
    family: async (name) => familyOf(await metrics(), name),
  };
}

/** Starts `wsguard demo` and gives the address of its page. */
export async function demo(t, args = ['demo']) {
  const child = program(t, wsguard, args);
  const line = await until('the demo names its page', () => {
    assert.ok(!child.ended(), `the demo ended:\n${child.lines.join('\n')}`);
    return child.lines.find((line) => line.startsWith('page '));
  });
  return { child, page: line.slice('page '.length).trim() };
}

/** Fails unless, within five seconds, nothing is counted as open, and every count agrees with what is alive. */
export async function settled(guard) {
  await until('no connection is counted any more', async () => (await guard.metric('wsguard_process_connections')) === 0);
  assert.equal(await guard.metric('wsguard_counter_drift'), 0);
  assert.equal(await guard.metric('wsguard_panics_total'), 0);
}

function parsed(line) {
  try {
    return JSON.parse(line);
  } catch {
    return null;
  }
}

/** The value of one series, named as /metrics names it (labels and all), or undefined. */
function valueOf(text, series) {
  const line = text.split('\n').find((line) => line.startsWith(`${series} `));
  return line && Number(line.slice(series.length + 1));
}

/** Every series of one name: its value by its labels, as /metrics writes them. */
function familyOf(text, name) {
  const lines = text.split('\n').filter((line) => line.startsWith(`${name}{`)).map((line) => line.slice(name.length));
  return Object.fromEntries(lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]));
}
