// The numbers

const count = new Intl.NumberFormat('en');
let before = null;

async function poll() {
  try {
    const response = await fetch('numbers', { signal: AbortSignal.timeout(4000) });
    if (!response.ok) throw new Error(response.status);
    const now = await response.json();
    show(now);
    $('numbers').classList.remove('stale');
    return now;
  } catch {
    $('numbers').classList.add('stale');
    return null;
  }
}

function show(now) {
  $('connections').textContent = `${count.format(now.connections.open)} / ${count.format(now.connections.limit)}`;
  $('connections-bar').style.width = `${100 * now.connections.open / Math.max(now.connections.limit, 1)}%`;
  $('mine').textContent = `${now.mine.open} / ${now.mine.limit}`;
  dots($('mine-dots'), now.mine.open, 'good', Math.max(now.mine.limit - now.mine.open, 0), '');
  $('admitted').textContent = count.format(now.admitted);
  $('refused').textContent = count.format(now.refused);
  $('reasons').textContent = Object.entries(now.reasons).map(([reason, n]) => `${reason} ${count.format(n)}`).join(', ');
  $('bytes-in').textContent = size(now.bytes.in);
  $('bytes-out').textContent = size(now.bytes.out);
  $('drift').textContent = count.format(now.drift);
  rates(now);
}

function rates(now) {
  const at = performance.now();
  const seconds = before && (at - before.at) / 1000;
  // A poll right after another says nothing about a second.
  if (before && seconds < 0.9) return;
  for (const way of ['in', 'out']) {
    const rate = before ? (now.messages[way] - before.messages[way]) / seconds : 0;
    $(`messages-${way}`).textContent = rate && rate < 9.95 ? rate.toFixed(1) : Math.round(rate);
  }
  before = { at, messages: now.messages };
}

function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  const step = Math.min(Math.floor(Math.log10(bytes) / 3), 4);
  return `${(bytes / 1000 ** step).toFixed(1)} ${['', 'kB', 'MB', 'GB', 'TB'][step]}`;
}

function dots(into, first, firstClass, rest, restClass) {
  into.replaceChildren(...Array.from({ length: first + rest }, (_, n) => {
    const dot = document.createElement('i');
    dot.className = n < first ? firstClass : restClass;
    return dot;
  }));
}

// The flood

$('flood').addEventListener('click', async () => {
  const button = $('flood'), result = $('flood-result');
  button.disabled = true;
  result.textContent = 'Flooding';
  let held = 0;
  try {
    const response = await fetch('flood', { method: 'POST', signal: AbortSignal.timeout(9000) });
    if (!response.ok) throw new Error((await response.text()).trim());
    const outcome = await response.json();
    held = outcome.held_ms;
    result.replaceChildren(outcomeText(outcome), document.createElement('div'));
    result.lastChild.className = 'dots';
    result.lastChild.ariaHidden = 'true';
    dots(result.lastChild, outcome.opened, 'good', outcome.refused + outcome.failed, 'bad');
    poll();
  } catch (error) {
    result.textContent = `No flood: ${error.message}`;
  }
  setTimeout(() => { button.disabled = false; }, held + 300);
});

function outcomeText(outcome) {
  const parts = [`${outcome.opened} opened`];
  for (const [code, n] of Object.entries(outcome.statuses)) parts.push(`${n} heard ${code}`);
  if (outcome.failed) parts.push(`${outcome.failed} heard nothing`);
  return `${outcome.sockets} sockets from ${outcome.from} in ${outcome.took_ms} ms: ${parts.join(', ')}.`;
}

$('nick').value = `guest-${Math.floor(100 + Math.random() * 900)}`;
connect();
poll();
setInterval(() => { if (!document.hidden) poll(); }, POLL);
