//! HTTP/1.1 heads, bodies and replies (RFC 9112).

pub(crate) mod answer;
pub mod body;
pub mod client_headers;
pub mod head;
mod rule;
pub mod server_reply;
pub mod server_request;
