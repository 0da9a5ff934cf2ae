// Both ends of the tests' connections, as their libraries make them: servers of `ws` and socket.io, clients of socket.io,
// and Chromium. Each ends with its test.

import { once } from 'node:events';
import http from 'node:http';
import { atEnd, folder, need, within } from './rig.mjs';

const CHROMIUM = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** A server of `ws` on a `port` of the kernel's choice. */
export async function wsServer(t, options) {
  const server = new (need('ws').WebSocketServer)({ host: '127.0.0.1', port: 0, ...options });
  await once(server, 'listening');
  server.port = server.address().port;
  atEnd(t, () => {
    for (const client of server.clients) client.terminate();
    server.close();
  });
  return server;
}

/** A server of socket.io that speaks WebSocket alone unless told otherwise, its port and its web server. */
export async function ioServer(t, options) {
  const web = http.createServer();
  const server = new (need('socket.io').Server)(web, { transports: ['websocket'], ...options });
  const port = await listen(web);
  atEnd(t, () => server.close());
  return { server, port, web };
}

/** A client of socket.io that speaks WebSocket alone. */
export function ioClient(t, port, options) {
  const socket = need('socket.io-client').io(`http://127.0.0.1:${port}`, { transports: ['websocket'], forceNew: true, ...options });
  atEnd(t, () => socket.disconnect());
  return socket;
}

/** One that is connected, and does not connect again. */
export async function ioConnected(t, port, options) {
  const socket = ioClient(t, port, { reconnection: false, ...options });
  await within('connect', new Promise((resolve, reject) => socket.once('connect', resolve).once('connect_error', reject)));
  return socket;
}

/** A connected client as `join` makes it, and the server's side of the same connection. */
export async function ioPair(server, join) {
  const accepted = new Promise((resolve) => server.once('connection', resolve));
  return { client: await join(), behind: await within('connection', accepted) };
}

/** Debian's Chromium with a profile of its own. */
export async function browser(t) {
  const started = await need('playwright-core').chromium.launchPersistentContext(folder(t), {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    args: CHROMIUM,
  });
  atEnd(t, () => started.close());
  return started;
}

/** A tab of it that shows this address. */
export async function tab(browser, address) {
  const page = await browser.newPage();
  page.on('pageerror', (error) => console.error(`page error: ${error}`));
  await page.goto(address);
  return page;
}

/** The address of an empty page: a WebSocket wants an origin. */
export async function blankPage(t) {
  const web = http.createServer((_, response) => response.setHeader('Content-Type', 'text/html').end('<!doctype html><title>-</title>'));
  const port = await listen(web);
  atEnd(t, () => {
    web.closeAllConnections();
    web.close();
  });
  return `http://127.0.0.1:${port}/`;
}

async function listen(web) {
  web.listen(0, '127.0.0.1');
  await once(web, 'listening');
  return web.address().port;
}
