//! The hints.

use enum_map::Enum;

/// A likely mistake in how wsguard is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum Hint {
    /// Clients are refused by the address of a proxy that is not trusted.
    UntrustedProxy,
    /// A trusted proxy sends no forwarding header.
    NoForwarding,
    /// All clients have one private address, and no forwarding header.
    OneAddress,
    /// Most connections that end hit a limit on messages.
    MessageLimits,
    /// Most dials of a server fail.
    ServerFails,
}

impl Hint {
    /// The word for the hint, which never changes.
    pub fn word(self) -> &'static str {
        match self {
            Self::UntrustedProxy => "untrusted_proxy",
            Self::NoForwarding => "no_forwarding_header",
            Self::OneAddress => "one_address",
            Self::MessageLimits => "message_limits",
            Self::ServerFails => "server_fails",
        }
    }

    /// The hint in words.
    pub fn text(self) -> &'static str {
        match self {
            Self::UntrustedProxy => "every client looks like 127.0.0.1: set [client_ip] trusted_proxies",
            Self::NoForwarding => {
                "a trusted proxy sends no forwarding header, so its clients share its address: \
                 have it set X-Forwarded-For, or take it out of [client_ip] trusted_proxies"
            }
            Self::OneAddress => {
                "nearly every client has the same private address, and none sends a forwarding header: \
                 if a proxy stands before wsguard, have it set X-Forwarded-For or send the PROXY protocol, and name it in \
                 [client_ip] trusted_proxies"
            }
            Self::MessageLimits => {
                "most connections that end have hit a limit on messages: see wsguard_message_limit_hits_total, and raise \
                 the limit if they are honest clients"
            }
            Self::ServerFails => "most dials of a server fail: start it, or take it out of `servers`",
        }
    }
}
