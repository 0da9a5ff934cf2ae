//! The compiled configuration: immutable, fully parsed, each name resolved.

use std::sync::Arc;
use std::time::Duration;

use crate::limit::key::{Prefixes, TranslationPrefixes};
use crate::limit::network::{NetworkMap, NetworkSet};
use crate::limit::rules::{ClientRules, Rate, ZoneRules};
use crate::net::address::Bind;
use crate::relay::rules::RelayMode;
use crate::relay::rules::{MessageRules, Timeouts};
use crate::upstream::rules::UpstreamRules;
use crate::wire::hops::ForwardHeader;
use crate::wire::http::server_request::SendMode;

use crate::config::routes::Routes;

/// A whole configuration.
#[derive(Debug)]
pub struct Policy {
    /// `[server]`.
    pub server: ServerPolicy,
    /// `[[listener]]`, in the order written; at least one, names unique.
    pub listeners: Vec<Arc<ListenerPolicy>>,
    /// `[client_ip]`.
    pub identity: IdentityPolicy,
    /// The zones: `default`, `exempt`, then the others in the order written. Each [`crate::config::routes::Route`] has an
    /// index into this list.
    pub zones: Vec<Arc<ZonePolicy>>,
    /// `[[network]]`, by address: of the networks that contain the client, the one with the longest prefix decides.
    pub networks: NetworkMap<NetworkPolicy>,
    /// `[[route]]`. If no route is written, there is one that sends every request to zone `default` and the only upstream.
    pub routes: Routes,
    /// `[upstream.*]`, in the order written; at least one.
    pub upstreams: Vec<UpstreamPolicy>,
    /// `[admin]`.
    pub admin: AdminPolicy,
    /// `[log]`.
    pub log: LogPolicy,
}

/// `[server]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerPolicy {
    /// Worker threads; `None` ("auto"): one per CPU.
    pub workers: Option<u16>,
    /// The most open connections of the process; `None` ("auto"): as many as there are descriptors for.
    pub max_connections: Option<u32>,
    /// The most client keys that are remembered.
    pub table_size: u32,
    /// How long connections are still accepted after SIGTERM, while `/readyz` answers 503.
    pub drain_delay: Duration,
    /// How long open connections may take to end after `drain_delay`.
    pub drain_timeout: Duration,
    /// Whether a changed file is applied without a signal.
    pub watch_config: bool,
}

/// `[[listener]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerPolicy {
    /// The listener's name; by default, its first bind.
    pub name: Arc<str>,
    /// The addresses that the listener is bound to; at least one.
    pub bind: Vec<Bind>,
    /// The length of the accept queue.
    pub backlog: u32,
    /// Whether connections must come from trusted proxies and begin with a PROXY header (v1 or v2).
    pub accept_proxy_protocol: bool,
    /// The timeout for PROXY header and request head together.
    pub handshake_timeout: Duration,
    /// The largest request head, in bytes.
    pub max_head_size: usize,
    /// The most header lines of a request.
    pub max_headers: usize,
    /// The most pending sockets.
    pub max_pending: u32,
    /// The most pending sockets of one client key; `None` is "off".
    pub max_pending_per_ip: Option<u32>,
    /// The path whose GET is answered 200 for load balancers; `None` is "off".
    pub health_path: Option<Arc<str>>,
}

/// `[client_ip]`.
#[derive(Debug, PartialEq, Eq)]
pub struct IdentityPolicy {
    /// Peers that may name the client's address in a header.
    pub trusted: NetworkSet,
    /// Whether peers on Unix sockets may do so.
    pub trust_unix: bool,
    /// The headers that name the client; the first one that is present is read.
    pub headers: Vec<ForwardHeader>,
    /// The prefixes to which addresses are cut. A cut address is a client key.
    pub prefixes: Prefixes,
    /// NAT64 prefixes. The client key of such an address is the IPv4 address inside it.
    pub translations: TranslationPrefixes,
    /// Which forwarding headers go to the server.
    pub send: SendMode,
}

/// `[upstream.*]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamPolicy {
    /// The upstream's servers, and how one of them is chosen.
    pub rules: UpstreamRules,
    /// How bytes are moved.
    pub relay: RelayMode,
}

/// `[zone.*]`, with the settings that it inherits from `[limits]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZonePolicy {
    /// The name in the log and the metrics.
    pub name: Arc<str>,
    /// Whether the zone is exempt: then its `connections` are reserved out of the process's.
    pub exempt: bool,
    /// The limits of the zone as a whole.
    pub rules: ZoneRules,
    /// The limits of one client key in the zone.
    pub client: ClientRules,
    /// The form of a refusal.
    pub reject_with: RejectWith,
    /// The least Retry-After. Jitter adds at most the same time again.
    pub retry_after: Duration,
    /// Timeout of one attempt to connect to one server; `None` is "off".
    pub dial: Option<Duration>,
    /// Timeout from the request's last byte to the server's 101; `None` is "off".
    pub upgrade: Option<Duration>,
    /// The timeouts of an open connection.
    pub timeouts: Timeouts,
    /// The limits on messages, and the pings; `strict_frames` is resolved.
    pub messages: MessageRules,
}

/// `reject_with`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RejectWith {
    /// 429 or 503.
    #[default]
    Http,
    /// 101, then a close frame with 1013 and the reason.
    Close,
    /// A reset without a byte.
    Drop,
}

/// `[[network]]`: overrides of [`ClientRules`] in every zone that is not exempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// The name in the log and the metrics.
    pub name: Arc<str>,
    /// `per_ip`. The outer `None` means "not written"; the inner `None` is "off".
    pub per_ip: Option<Option<u32>>,
    /// `per_ip_rate` with its burst. The outer `None` means "not written"; the inner `None` is "off".
    pub rate: Option<Option<Rate>>,
}

impl NetworkPolicy {
    /// The `zone`'s rules for one client, with the overrides of this network.
    pub fn over(&self, zone: ClientRules) -> ClientRules {
        ClientRules {
            per_ip: self.per_ip.unwrap_or(zone.per_ip),
            rate: self.rate.unwrap_or(zone.rate),
        }
    }
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminPolicy {
    /// The address of the admin server; `None` is "off".
    pub listen: Option<std::net::SocketAddr>,
    /// Further host names that the admin server answers to, in lower case.
    pub hosts: Vec<String>,
    /// How client addresses are shown.
    pub clients: ShowClients,
}

/// `admin.clients`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ShowClients {
    /// Addresses are shown in full.
    #[default]
    Show,
    /// Addresses are cut to /24 or /48.
    Prefix,
    /// Addresses are left out.
    Hide,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPolicy {
    /// The form of a line.
    pub format: LogFormat,
    /// The lowest level that is written.
    pub level: LogLevel,
    /// Which connections get a line.
    pub access: LogAccess,
    /// The rate above which equal lines are summed into one; `None` is "off".
    pub sample: Option<Rate>,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text on a terminal, JSON lines otherwise.
    #[default]
    Auto,
    /// Readable text.
    Text,
    /// One JSON object per line.
    Json,
}

/// `log.level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// Events.
    #[default]
    Info,
    /// What an operator should look at.
    Warn,
    /// Failures.
    Error,
}

/// `log.access`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogAccess {
    /// Every connection.
    #[default]
    All,
    /// Refused and failed connections.
    Rejected,
    /// None.
    Off,
}
