//! The PROXY protocol, versions 1 and 2, by `HAProxy`'s `doc/proxy-protocol.txt` (2020/03/05), sections 2.1 and 2.2.
//!
//! Both are read strictly from the left, so the first wrong byte decides, however the bytes were split. Where the
//! specification leaves the receiver a choice, this one refuses, because the header decides which client a connection
//! counts for.

mod fault;
mod header;
mod signature;
mod source;
mod v1;
mod v2;

pub use fault::ProxyFault;
pub use header::{MAX_PROXY_HEADER, parse_proxy};
pub use signature::{Announces, announces};
pub use source::Source;

#[cfg(test)]
mod tests;
