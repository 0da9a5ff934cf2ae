// Headless Chromium: two tabs chat with each other on the demo's page through the guard, and a page hears why it was
// refused.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { test } from 'node:test';
import { atEnd, demo, folder, guard, need, settled, until, within } from './rig.mjs';

const { chromium } = need('playwright-core');
const { WebSocketServer } = need('ws');

const ARGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

test('two tabs of the demo chat with each other, through a flood too', { timeout: 120_000 }, async (t) => {
  const { page: address } = await demo(t);
  const browser = await start(t);
  const [ada, bob] = [await tab(browser, address), await tab(browser, address)];
  const log = (page) => page.locator('#log').innerText();
  const shows = (page, id, wanted) => until(`${id} shows ${wanted}`, async () => wanted.test(await page.locator(id).innerText()), 15_000);
  const say = async (from, text) => {
    await from.fill('#text', text);
    await from.click('#say');
  };

  for (const [page, nick] of [[ada, 'Ada'], [bob, 'Bob']]) {
    await page.fill('#room', 'garden');
    await page.fill('#nick', nick);
    await page.click('#join');
    await shows(page, '#status', new RegExp(`garden as ${nick}`));
  }
  await shows(ada, '#log', /Bob joined/);
  await say(ada, 'hello Bob, größer 🙂');
  await shows(bob, '#log', /Ada\s*hello Bob, größer 🙂/);
  await say(bob, 'hello Ada');
  await shows(ada, '#log', /Bob\s*hello Ada/);
  await shows(ada, '#connections', /^2 \/ 100$/);
  await shows(ada, '#mine', /^2 \/ 5$/);

  await ada.click('#flood');
  await shows(ada, '#flood-result', /12 sockets.*5 opened, 7 heard 429/);
  await say(bob, 'still here');
  await shows(ada, '#log', /Bob\s*still here/);
  await shows(ada, '#connections', /^7 \/ 100$/);
  await shows(ada, '#refused', /^7$/);
  await shows(ada, '#connections', /^2 \/ 100$/);

  await bob.close();
  await shows(ada, '#log', /Bob left/);
  await shows(ada, '#mine', /^1 \/ 5$/);
  assert.equal((await log(ada)).match(/hello Ada/g).length, 1, 'each message comes once');
});

test('the sixth tab of the demo learns that it was refused', { timeout: 120_000 }, async (t) => {
  const { page: address } = await demo(t);
  const browser = await start(t);
  const tabs = [];
  for (let i = 0; i < 5; i++) {
    tabs.push(await tab(browser, address));
    await tabs[i].waitForSelector('#status[data-state=open]');
  }
  const sixth = await tab(browser, address);
  await sixth.waitForSelector('#status[data-state=closed]');
  assert.match(await sixth.locator('#status').innerText(), /429/);
  await tabs[0].close();
  await sixth.waitForSelector('#status[data-state=open]', { timeout: 30_000 });
});

for (const { limits, held, reason } of [
  { limits: '', held: 50, reason: 'Too many connections from this IP' },
  { limits: 'connections = 1\nper_ip = "off"', held: 1, reason: 'Server at capacity' },
]) {
  test(`under reject_with = "close" a page hears 1013 ${reason}`, { timeout: 60_000 }, async (t) => {
    const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
    await once(server, 'listening');
    atEnd(t, () => {
      for (const client of server.clients) client.terminate();
      server.close();
    });
    const front = await guard(t, { backend: server.address().port, rest: `[limits]\nreject_with = "close"\n${limits}` });
    const page = await tab(await start(t), await blankPage(t));

    const opened = await page.evaluate(async ([url, held]) => {
      globalThis.sockets = Array.from({ length: held }, () => new WebSocket(url));
      const opens = sockets.map((socket) => new Promise((resolve) => {
        socket.onopen = () => resolve(true);
        socket.onclose = () => resolve(false);
      }));
      return (await Promise.all(opens)).filter(Boolean).length;
    }, [front.url, held]);
    assert.equal(opened, held);
    await until('all of them are open behind the guard', () => server.clients.size === held);

    const refused = (protocols) => page.evaluate(([url, protocols]) => new Promise((resolve) => {
      const heard = [];
      const socket = new WebSocket(url, protocols);
      socket.onopen = () => heard.push(`open ${socket.protocol}`);
      socket.onmessage = () => heard.push('message');
      socket.onclose = ({ code, reason, wasClean }) => resolve([...heard, `close ${code} ${reason}`, `clean ${wasClean}`]);
    }), [front.url, protocols]);
    for (const [protocols, chosen] of [[['chat.v1', 'chat.v2'], 'chat.v1'], [[], '']]) {
      const heard = await within('a close', refused(protocols), 10_000);
      assert.deepEqual(heard, [`open ${chosen}`, `close 1013 ${reason}`, 'clean true']);
    }
    assert.equal(server.clients.size, held, 'the server never hears of them');

    await page.close();
    await settled(front);
  });
}

/** Debian's Chromium with a profile of its own. */
async function start(t) {
  const browser = await chromium.launchPersistentContext(folder(t), {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    args: ARGS,
  });
  atEnd(t, () => browser.close());
  return browser;
}

async function tab(browser, address) {
  const page = await browser.newPage();
  page.on('pageerror', (error) => console.error(`page error: ${error}`));
  await page.goto(address);
  return page;
}

/** The address of an empty page: a WebSocket wants an origin. */
async function blankPage(t) {
  const web = http.createServer((_, response) => response.setHeader('Content-Type', 'text/html').end('<!doctype html><title>-</title>'));
  web.listen(0, '127.0.0.1');
  await once(web, 'listening');
  atEnd(t, () => {
    web.closeAllConnections();
    web.close();
  });
  return `http://127.0.0.1:${web.address().port}/`;
}
