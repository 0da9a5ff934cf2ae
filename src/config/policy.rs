//! The whole configuration, compiled: immutable, no strings left to parse, every name resolved to its place.

use std::sync::Arc;
use std::time::Duration;

use crate::limit::key::{Prefixes, TranslationPrefixes};
use crate::limit::network::{NetworkMap, NetworkSet};
use crate::limit::rules::{ClientRules, Rate, ZoneRules};
use crate::net::address::Bind;
use crate::relay::mode::RelayMode;
use crate::relay::rules::MessageRules;
use crate::relay::timeouts::Timeouts;
use crate::upstream::rules::UpstreamRules;
use crate::wire::hops::ForwardHeader;
use crate::wire::http::request::SendMode;

use crate::config::routes::Routes;

/// Everything that a configuration says.
#[derive(Debug)]
pub struct Policy {
    /// `[server]`.
    pub server: ServerPolicy,
    /// `[[listener]]`, in the order written; at least one, names unique.
    pub listeners: Vec<Arc<ListenerPolicy>>,
    /// `[client_ip]`.
    pub identity: IdentityPolicy,
    /// `default`, `exempt`, then every other zone in the order written. A [`crate::config::routes::Route`] holds indexes into this.
    pub zones: Vec<Arc<ZonePolicy>>,
    /// `[[network]]`: the longest prefix that has the client decides.
    pub networks: NetworkMap<NetworkPolicy>,
    /// `[[route]]`; where none is written, one that takes everything to zone `default` and the one upstream.
    pub routes: Routes,
    /// `[upstream.*]`, in the order written; at least one.
    pub upstreams: Vec<UpstreamPolicy>,
    /// `[admin]`.
    pub admin: AdminPolicy,
    /// `[log]`.
    pub log: LogPolicy,
}

/// `[server]`. `None` is "auto".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerPolicy {
    /// Worker threads; one per CPU where none are written.
    pub workers: Option<u16>,
    /// The process-wide ceiling.
    pub max_connections: Option<u32>,
    /// Client keys remembered.
    pub table_size: u32,
    /// How long, when the process is told to stop, it goes on accepting while /readyz says 503.
    pub drain_delay: Duration,
    /// How long it then sees its connections off.
    pub drain_timeout: Duration,
    /// A changed file is applied by itself.
    pub watch_config: bool,
}

/// `[[listener]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerPolicy {
    /// Its name; by default its first bind.
    pub name: Arc<str>,
    /// Where it binds; at least one.
    pub bind: Vec<Bind>,
    /// The accept queue's length.
    pub backlog: u32,
    /// PROXY v1 and v2 are required from trusted proxies, and refused from anyone else.
    pub accept_proxy_protocol: bool,
    /// PROXY header, TLS and request head, in total.
    pub handshake_timeout: Duration,
    /// Bytes of a request head at most.
    pub max_head_size: usize,
    /// Header lines at most.
    pub max_headers: usize,
    /// Pending sockets at most.
    pub max_pending: u32,
    /// Pending sockets of one key at most; `None` is "off".
    pub max_pending_per_ip: Option<u32>,
    /// A GET of this path is answered 200; `None` is "off".
    pub health_path: Option<Arc<str>>,
}

/// `[client_ip]`.
#[derive(Debug)]
pub struct IdentityPolicy {
    /// Peers whose word on the client's address counts.
    pub trusted: NetworkSet,
    /// Whether a Unix peer is trusted.
    pub trust_unix: bool,
    /// Forwarding headers, in order: the first that is present is read.
    pub headers: Vec<ForwardHeader>,
    /// How an address is cut to a key.
    pub prefixes: Prefixes,
    /// Networks of translators, whose addresses make keys of the IPv4 addresses inside.
    pub translations: TranslationPrefixes,
    /// What servers are told of the client.
    pub send: SendMode,
}

/// `[upstream.*]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamPolicy {
    /// Its servers, and the choice among them.
    pub rules: UpstreamRules,
    /// How its connections are relayed.
    pub relay: RelayMode,
}

/// `[zone.*]`, with everything it inherits from `[limits]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZonePolicy {
    /// Its name.
    pub name: Arc<str>,
    /// Never counted in another zone; its ceiling is set aside from the process ceiling.
    pub exempt: bool,
    /// Limits of the zone as a whole.
    pub rules: ZoneRules,
    /// Limits of one client key in it.
    pub client: ClientRules,
    /// How a refusal is put.
    pub reject_with: RejectWith,
    /// Retry-After, before its jitter of up to as much again.
    pub retry_after: Duration,
    /// One attempt at one server; `None` is "off".
    pub dial: Option<Duration>,
    /// From the request's last byte to the server's 101; `None` is "off".
    pub upgrade: Option<Duration>,
    /// The timeouts of an open connection.
    pub timeouts: Timeouts,
    /// What its messages are held to, with the liveness of clients; `strict_frames` is resolved.
    pub messages: MessageRules,
}

/// `reject_with`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RejectWith {
    /// 429 or 503.
    #[default]
    Http,
    /// 101, then close 1013 with the text.
    Close,
    /// No bytes, reset.
    Drop,
}

/// `[[network]]`: what it overrides of [`ClientRules`], in every zone that is not exempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Its name.
    pub name: Arc<str>,
    /// `per_ip`, where written; the inner `None` is "off".
    pub per_ip: Option<Option<u32>>,
    /// `per_ip_rate` with its burst, where written; the inner `None` is "off".
    pub rate: Option<Option<Rate>>,
}

impl NetworkPolicy {
    /// The zone's rules for one client, with what this network overrides.
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
    /// Where it listens; `None` is "off".
    pub listen: Option<std::net::SocketAddr>,
    /// Further names under which it may be asked, in lower case.
    pub hosts: Vec<String>,
    /// How client addresses are shown.
    pub clients: ShowClients,
}

/// `admin.clients`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ShowClients {
    /// The key in full.
    #[default]
    Show,
    /// Cut to /24 or /48.
    Prefix,
    /// Left out.
    Hide,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPolicy {
    /// How lines are written.
    pub format: LogFormat,
    /// The least level that is written.
    pub level: LogLevel,
    /// Which connections get a line.
    pub access: LogAccess,
    /// Equal lines above this are summed into one; `None` is "off".
    pub sample: Option<Rate>,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text on a terminal, JSON lines otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `log.level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happens.
    #[default]
    Info,
    /// What should be looked at.
    Warn,
    /// What failed.
    Error,
}

/// `log.access`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogAccess {
    /// Every connection.
    #[default]
    All,
    /// Refused and failed ones.
    Rejected,
    /// None.
    Off,
}
