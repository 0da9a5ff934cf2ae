//! WebSocket: the handshake, its extensions, and frames (RFC 6455).

mod bits;
pub(crate) mod engine_io;
pub mod extensions;
pub mod frame;
pub mod header;
pub mod scanner;
pub mod sequence;
pub mod upgrade_request;
