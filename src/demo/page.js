'use strict';
const $ = id => document.getElementById(id);
const { guard, burst, rate } = document.documentElement.dataset;
const LINES = 300, POLL = 1000, BACKOFF = [1000, 15000];

// The chat

let socket = null, retry = null, attempts = 0, wanted = null;

function connect() {
  clearTimeout(retry);
  let opened = false;
  status('connecting', 'Connecting to the guard');
  const mine = socket = new WebSocket(guard);
  mine.onopen = () => {
    opened = true;
    attempts = 0;
    status('open', 'Connected through the guard');
    if (wanted) join();
    poll();
  };
  mine.onmessage = message => hear(JSON.parse(message.data));
  mine.onclose = async event => {
    if (socket !== mine) return;
    socket = null;
    canSay(false, 'Not connected');
    const delay = Math.min(BACKOFF[0] * 2 ** attempts++, BACKOFF[1]) * (0.75 + Math.random() / 2);
    retry = setTimeout(connect, delay);
    const soon = ` Trying again in ${Math.ceil(delay / 1000)} s.`;
    const reason = opened ? whyClosed(event) : await whyRefused();
    // The line stays when the next connection has long replaced the status.
    if (opened) write('error', reason);
    if (socket === null) status('closed', reason + soon);
  };
}

function whyClosed({ code, reason }) {
  const heard = `${code}${reason ? ' ' + reason : ''}`;
  switch (code) {
    case 1008: return `You were too fast: ${burst} messages at once and then ${rate} a second are let through, so the guard closed the connection (${heard}).`;
    case 1009: return `That message was too long, so the guard closed the connection (${heard}).`;
    case 1001: return `This browser did not answer the guard's ping, so the guard took the connection for dead (${heard}).`;
    default: return `The connection ended (${heard}).`;
  }
}

// A page is never told the status of a refused handshake, so this is read off the numbers.
async function whyRefused() {
  const now = await poll();
  if (!now) return 'Nobody answers: the demo has ended.';
  if (now.mine.open >= now.mine.limit) {
    return `The guard refused this socket with 429: your address holds ${now.mine.open} of ${now.mine.limit} already. Close another tab.`;
  }
  if (now.connections.open >= now.connections.limit) return 'The guard refused this socket with 503: every place is taken.';
  return 'The guard did not let this socket in: perhaps your address dials too often.';
}

function join() {
  socket.send(JSON.stringify({ join: wanted }));
}

function hear(told) {
  switch (told.event) {
    case 'welcome': {
      const others = told.people.filter(nick => nick !== told.nick);
      status('open', `In ${told.room} as ${told.nick}`);
      note(others.length ? `You joined ${told.room}. Also here: ${others.join(', ')}` : `You joined ${told.room}. Nobody else is here yet.`);
      canSay(true);
      break;
    }
    case 'joined': note(`${told.nick} joined`); break;
    case 'left': note(`${told.nick} left`); break;
    case 'said': write('said', told.text, told.nick); break;
    case 'error': write('error', told.text); break;
  }
}

function note(text) { write('note', text); }

function write(kind, text, nick) {
  const log = $('log');
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  const line = document.createElement('li');
  line.className = kind;
  if (nick !== undefined) {
    const who = document.createElement('b');
    who.dir = 'auto';
    who.textContent = nick;
    line.append(who);
  }
  // Its own direction, whatever somebody typed.
  const what = document.createElement('bdi');
  what.textContent = text;
  line.append(what);
  log.append(line);
  while (log.childElementCount > LINES) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function status(state, text) {
  $('status').dataset.state = state;
  $('status').textContent = text;
}

function canSay(can, whyNot = 'Join a room first') {
  $('text').disabled = $('say').disabled = !can;
  $('text').placeholder = can ? 'Say something' : whyNot;
}

$('join-form').addEventListener('submit', event => {
  event.preventDefault();
  wanted = { room: $('room').value.trim(), nick: $('nick').value.trim() };
  canSay(false);
  if (socket === null) connect();
  else if (socket.readyState === WebSocket.OPEN) join();
});

$('say-form').addEventListener('submit', event => {
  event.preventDefault();
  const text = $('text').value.trim();
  if (!text || socket === null || socket.readyState !== WebSocket.OPEN) return;
  socket.send(JSON.stringify({ say: text }));
  $('text').value = '';
});
