//! wsguard is a guard for WebSocket servers. It reads just enough of each upgrade request to identify the client, and admits
//! or refuses the client by exact limits and budgets. After that it only moves bytes, for hours, at almost no cost.
//!
//! Folders are floors. A file imports from its own folder and from the floors below it that this table names, and
//! from nowhere else; `tests/floors` fails on any other edge.
//!
//! | floor | folder | what lives there | may use |
//! |---|---|---|---|
//! | 12 | `main.rs`, `lib.rs` | the entry and this map | cli |
//! | 11 | `cli/` | one file a command; `probe/` tries a guard from outside | demo admin control engine live telemetry config relay upstream net limit wire |
//! | 10 | `demo/` | a chat server, its page and a flood | admin control live telemetry config reason net limit wire |
//! | 9 | `admin/` | the admin server: health checks, the text of `/metrics` and of `/stats` | control live telemetry config relay upstream reason net limit wire |
//! | 8 | `control/` | operating the process: start, reload, drain, systemd, descriptors (and what is set aside for exempt zones), names | engine walk live telemetry config relay upstream reason net limit |
//! | 7 | `engine/` | what runs connections: workers, listening sockets, the task of an open connection (`tunnel`, which parks it when idle), parked connections, timeouts, ghosts (`suspects` decides which old connection is dead) | walk live telemetry config relay upstream reason net limit |
//! | 6 | `walk/` | the life of a connection: preread, identify (which hop is trusted), decide, upgrade (the handshake with a server), refuse (Retry-After), record | live telemetry config relay upstream reason net limit wire |
//! | 5 | `live/` | what is in force: the policy with its zones, listeners and servers, and what outlives a reload | telemetry config relay upstream reason net limit wire |
//! | 4 | `telemetry/` | what is counted and logged of each connection: metrics, log lines (`connection_line` makes a connection's), samples; advice | config relay upstream reason net limit wire |
//! | 3 | `config/` | text to `Policy`; route matching | relay upstream net limit wire |
//! | 2 | `relay/` | two sockets in, totals out: flow (`splice` decides between copy and splice), police (message limits, pongs), close | reason net limit wire |
//! | 2 | `upstream/` | the choice among an upstream's servers, and the dial | net limit wire |
//! | 1 | `net/` | sockets: listen, client io with bytes read ahead, dial, the clock of timeouts, sys (the only unsafe code); random numbers | |
//! | 1 | `limit/` | who may come in: client key, networks, token bucket, budgets, client table, admission. No I/O, no clock | |
//! | 1 | `reason/` | why a client got no tunnel (with the HTTP status), and why a connection ended: two closed lists | |
//! | 1 | `wire/` | bytes to values and back: PROXY header, request head, upgrade request, hops (X-Forwarded-For), frames, the server's reply. Pure | |
//!
//! What follows is `README.md` of this folder: the life of a connection, and where to find what.
#![doc = include_str!("README.md")]
#![warn(missing_docs)]

pub mod admin;
pub mod cli;
pub mod config;
pub mod control;
#[cfg(feature = "demo")]
mod demo;
mod engine;
pub mod limit;
mod live;
pub mod net;
pub mod reason;
pub mod relay;
mod telemetry;
mod upstream;
mod walk;
pub mod wire;
