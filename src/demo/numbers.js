// The numbers

const count = new Intl.NumberFormat('en');

async function poll() {
  try {
    const response = await fetch('numbers', { signal: AbortSignal.timeout(4000) });
    if (!response.ok) throw new Error(response.status);
    const now = await response.json();
    show(now);
    stale(false);
    return now;
  } catch {
    stale(true);
    return null;
  }
}

function stale(is) {
  for (const card of document.querySelectorAll('.live')) card.classList.toggle('stale', is);
}

function show(now) {
  $('connections').textContent = `${count.format(now.connections.open)} / ${count.format(now.connections.limit)}`;
  $('connections-bar').style.width = `${100 * now.connections.open / Math.max(now.connections.limit, 1)}%`;
  $('mine').textContent = `${now.mine.open} / ${now.mine.limit}`;
  $('mine-dots').replaceChildren(...Array.from({ length: Math.max(now.mine.limit, now.mine.open) }, (_, n) => element('i', '', n < now.mine.open ? 'good' : '')));
  const numbers = {
    admitted: now.admitted,
    refused: now.refused,
    ended: sum(now.ended),
    silent: now.silent,
    'limit-hits': sum(now.limit_hits),
    ghosts: now.ghosts.reaped + now.ghosts.replaced,
    heartbeats: now.heartbeats,
    'messages-in': now.last_minute.at(-1)?.messages.in ?? 0,
    'messages-out': now.last_minute.at(-1)?.messages.out ?? 0,
    drift: now.drift,
  };
  for (const [id, number] of Object.entries(numbers)) $(id).textContent = count.format(number);
  $('bytes-in').textContent = size(now.bytes.in);
  $('bytes-out').textContent = size(now.bytes.out);
  showOpen(now);
  showAway(now);
  showFlood(now.flood);
}

function sum(counts) {
  return Object.values(counts).reduce((sum, n) => sum + n, 0);
}

function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  const step = Math.min(Math.floor(Math.log10(bytes) / 3), 4);
  return `${(bytes / 1000 ** step).toFixed(1)} ${['', 'kB', 'MB', 'GB', 'TB'][step]}`;
}

function element(name, text, className = '') {
  const element = document.createElement(name);
  element.className = className;
  element.textContent = text;
  return element;
}

// The charts: the last minute, one column a second, the newest at the right

const SECONDS = 60;
const KINDS = [['speaking', 'Open and speaking'], ['silent', 'Open, silent so far'], ['pending', 'Not let in yet']];
// Warm: refused at the door. Cool: ended later.
const REASONS = {
  per_ip: ['a', 'Refused: too many open from one address'],
  per_ip_rate: ['b', 'Refused: one address dials too often'],
  head_timeout: ['c', 'Refused: connected and asked for nothing'],
  message_rate: ['d', 'Ended: too many messages'],
  message_size: ['e', 'Ended: a message too long'],
  ghost: ['f', 'Ended: did not answer a ping'],
};

function showOpen(now) {
  const open = { speaking: Math.max(now.connections.open - now.silent, 0), silent: now.silent, pending: now.pending };
  draw('open', now.last_minute, KINDS.map(([kind]) => [`k-${kind}`, second => second[kind]]));
  legend('open', KINDS.map(([kind, words]) => [`k-${kind}`, words, open[kind]]));
}

function showAway(now) {
  const totals = { ...now.reasons, ...now.ended };
  const others = Object.keys(totals).filter(reason => !(reason in REASONS));
  const rows = Object.entries(REASONS).map(([reason, [color, words]]) => [`k-${color}`, [reason], words]);
  rows.push(['k-other', others, 'Other']);
  const of = (counts, reasons) => reasons.reduce((sum, reason) => sum + (counts[reason] ?? 0), 0);
  draw('away', now.last_minute, rows.map(([color, reasons]) => [color, second => of(second.turned_away, reasons)]));
  const seen = rows.map(([color, reasons, words]) => [color, words, of(totals, reasons), reasons]).filter(([, , n]) => n > 0);
  legend('away', seen.length ? seen : [['none', 'Nobody so far']]);
}

// Stacked columns, one path for each of `layers`.
function draw(chart, seconds, layers) {
  const top = scale(Math.max(...seconds.map(second => layers.reduce((sum, [, of]) => sum + of(second), 0)), 0));
  const floor = seconds.map(() => 0);
  const paths = layers.map(([className, of]) => {
    const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
    path.setAttribute('class', className);
    path.setAttribute('d', seconds.map((second, n) => {
      const height = 100 * of(second) / top;
      floor[n] += height;
      return height && `M${SECONDS - seconds.length + n + 0.1} ${100 - floor[n]}h.8v${height}h-.8z`;
    }).filter(Boolean).join(''));
    return path;
  });
  const svg = $(`${chart}-chart`);
  svg.setAttribute('viewBox', `0 0 ${SECONDS} 100`);
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.replaceChildren(...paths);
  $(`${chart}-top`).textContent = count.format(top);
}

// The next round number: 5, 10, 20, 50, 100 and so on.
function scale(most) {
  for (let ten = 1; ; ten *= 10) for (const step of [5, 10, 20]) if (most <= step * ten) return step * ten;
}

function legend(chart, rows) {
  $(`${chart}-legend`).replaceChildren(...rows.map(([className, words, number, reasons]) => {
    const row = element('li', '', className);
    const what = element('span', `${words} `);
    if (reasons) what.append(element('code', reasons.join(', ')));
    row.append(what);
    if (number !== undefined) row.append(element('b', count.format(number)));
    return row;
  }));
}

// The flood

let flooding = false;

function showFlood(flood) {
  for (const fate of flood.shapes) {
    const row = document.querySelector(`[data-shape=${fate.shape}]`);
    const head = row.querySelector('th');
    const heard = Object.entries(fate.heard).map(([what, n]) => `${count.format(n)} heard ${what}`);
    head.replaceChildren(head.firstChild, element('small', [`from ${fate.from}`, ...heard].join(', ')));
    row.replaceChildren(head, ...[fate.dialled, fate.admitted, fate.open].map(n => element('td', count.format(n))));
  }
  const runs = flood.left_ms > 0;
  const button = $('flood');
  button.setAttribute('aria-disabled', runs);
  button.textContent = runs ? `Flooding, ${Math.ceil(flood.left_ms / 1000)} s left` : 'Flood the guard';
  if (flooding && !runs) $('flood-result').textContent = 'The flood is over. Its sockets are closed again.';
  if (!flooding && runs) $('flood-result').textContent = 'A flood is running. Go on chatting.';
  flooding = runs;
}

$('flood').addEventListener('click', async () => {
  if (flooding) return;
  try {
    const response = await fetch('flood', { method: 'POST', signal: AbortSignal.timeout(4000) });
    if (!response.ok) throw new Error((await response.text()).trim());
    showFlood(await response.json());
  } catch (error) {
    $('flood-result').textContent = `No flood: ${error.message}`;
  }
});

$('nick').value = `guest-${Math.floor(100 + Math.random() * 900)}`;
connect();
poll();
setInterval(() => { if (!document.hidden) poll(); }, POLL);
