//! One route: which requests it selects, and which of them it allows.

use std::net::IpAddr;
use std::sync::Arc;

use crate::wire::path::{PathReading, lax_forms, normal_form};

use super::clients::ClientSet;
use super::host::HostPattern;
use super::origin::Origin;

/// `[[route]]` with its names resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The route's position among all routes.
    pub nth: usize,
    /// The route's name.
    pub name: Arc<str>,
    /// Index into [`crate::config::policy::Policy::zones`].
    pub zone: usize,
    /// Index into [`crate::config::policy::Policy::upstreams`].
    pub upstream: usize,
    /// Whether the zone is exempt. Only requests with plain paths reach an exempt zone.
    pub exempt: bool,
    /// The hosts that the route is for. If empty: any host, and requests without a host.
    pub hosts: Vec<HostPattern>,
    /// The paths that the route is for. If empty: any path.
    pub paths: Vec<RoutePath>,
    /// The clients that the route is for; `None`: any client. Other clients go to the next route.
    pub networks: Option<ClientSet>,
    /// The clients that may use the route; `None`: all clients. Other clients are refused.
    pub allow: Option<ClientSet>,
    /// The origins that may use the route; `None`: all origins. Other origins are refused.
    pub origins: Option<Vec<Origin>>,
    /// Whether `refuse` is written. Then requests get 404, and `zone` and `upstream` mean nothing.
    pub refuses: bool,
}

impl Route {
    /// Whether this client may use the route; if not, the client gets 403 `network`.
    pub fn allows(&self, client: Option<IpAddr>) -> bool {
        self.allow.as_ref().is_none_or(|allowed| allowed.contains(client))
    }

    /// Whether this origin may use the route; if not, the request gets 403 `origin`. A request without an Origin passes:
    /// browsers always send one, and apps need not.
    pub fn allows_origin(&self, origin: Option<&[u8]>) -> bool {
        match (&self.origins, origin) {
            (Some(allowed), Some(sent)) => allowed.iter().any(|origin| origin.matches(sent)),
            _ => true,
        }
    }

    /// Whether the route sends requests to the zone with this index.
    pub fn leads_to(&self, zone: usize) -> bool {
        !self.refuses && self.zone == zone
    }

    /// Whether the route takes every request: it is not restricted to hosts, paths or networks.
    pub fn is_unconditional(&self) -> bool {
        self.hosts.is_empty() && self.paths.is_empty() && self.networks.is_none()
    }

    /// Whether it matters that a request takes exactly this route: the route is exempt, or is not open to every client and
    /// origin.
    pub(crate) fn is_sensitive(&self) -> bool {
        self.exempt || self.networks.is_some() || self.restricts()
    }

    pub(crate) fn restricts(&self) -> bool {
        self.refuses || self.allow.is_some() || self.origins.is_some()
    }

    pub(crate) fn selects(&self, host: Option<&[u8]>, client: Option<IpAddr>) -> bool {
        self.is_for_host(host) && self.is_for_client(client)
    }

    pub(crate) fn is_for_host(&self, host: Option<&[u8]>) -> bool {
        self.hosts.is_empty() || host.is_some_and(|host| self.hosts.iter().any(|pattern| pattern.matches(host)))
    }

    pub(crate) fn is_for_client(&self, client: Option<IpAddr>) -> bool {
        self.networks.as_ref().is_none_or(|networks| networks.contains(client))
    }

    pub(crate) fn has_path(&self, matches: impl Fn(&RoutePath) -> bool) -> bool {
        self.paths.is_empty() || self.paths.iter().any(matches)
    }
}

/// One of a route's `paths`. It matches that path and everything below it, by whole segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePath {
    /// The path as written, without a final slash.
    pub as_written: Box<[u8]>,
    /// The path in normal form.
    pub normal: Box<[u8]>,
    /// The path as lenient servers read it.
    pub lax: Box<[u8]>,
}

impl RoutePath {
    /// Makes a route path. `path` begins with `/`, and is ASCII and properly percent-encoded.
    pub fn new(path: &str) -> Self {
        // "/ws/" means the same as "/ws": that path and everything below it.
        let as_written = match path.trim_end_matches('/') {
            "" => "/",
            trimmed => trimmed,
        };
        let normal = normal_form(as_written.as_bytes());
        Self {
            as_written: as_written.as_bytes().into(),
            normal: normal.as_ref().into(),
            lax: lax_forms(as_written.as_bytes()).0.into(),
        }
    }

    /// Whether some plain request path ([`PathReading::plain`]) matches it. Only plain paths lead into exempt zones.
    pub fn is_plain(&self) -> bool {
        PathReading::of(&self.as_written, false).plain
    }
}
