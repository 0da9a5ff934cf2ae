//! wsguard stands before WebSocket servers, reads just enough of each upgrade request to know who is asking, admits or
//! refuses by exact per-client limits and budgets, and then moves bytes for hours at next to no cost.
//!
//! Folders are floors. A file imports from its own folder and from the floors below it that this table names, and
//! from nowhere else; `tests/floors.rs` fails on any other edge.
//!
//! | floor | folder | what lives there | may use |
//! |---|---|---|---|
//! | 7 | `main.rs`, `lib.rs` | the entry and this map | cli |
//! | 6 | `cli/` | one file a command; `cli/demo/` has the chat server, its page and the flood | admin guard config relay upstream net limit wire |
//! | 5 | `admin/` | a read-only window on the guard, on a thread of its own | guard config upstream limit |
//! | 4 | `guard/` | the story: accept, walk, identify, decide, handshake, refuse, ledger | config relay upstream net limit wire |
//! | 3 | `config/` | text to `Policy`; route matching | relay upstream net limit wire |
//! | 2 | `relay/` | two sockets in, totals out | net limit wire |
//! | 2 | `upstream/` | where to dial | net limit wire |
//! | 1 | `net/` | sockets: listen, client io with bytes read ahead, dial, sys (the only unsafe code) | |
//! | 1 | `limit/` | who may come in: client key, networks, token bucket, budgets, client table, admission. No I/O, no clock | |
//! | 1 | `wire/` | bytes to values and back: PROXY header, request head, upgrade, hops, frames, replies. Pure | |
//!
//! The life of a connection is read top-down in `guard/walk.rs`.

#![warn(missing_docs)]

pub mod admin;
pub mod cli;
pub mod config;
pub mod guard;
pub mod limit;
pub mod net;
pub mod relay;
pub mod upstream;
pub mod wire;
