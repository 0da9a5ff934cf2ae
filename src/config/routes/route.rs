//! One route: which requests it selects, and which of them it allows.

use std::net::IpAddr;
use std::sync::Arc;

use crate::wire::path::{PathReading, lax_forms, normal_form};

use super::clients::ClientSet;
use super::host::HostPattern;
use super::origin::Origin;

/// `[[route]]`, its names resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its name.
    pub name: Arc<str>,
    /// Index into [`crate::config::policy::Policy::zones`].
    pub zone: usize,
    /// Index into [`crate::config::policy::Policy::upstreams`].
    pub upstream: usize,
    /// Whether that zone is exempt: only a plain path leads there.
    pub exempt: bool,
    /// Hosts it is for; empty: any, and requests without one.
    pub hosts: Vec<HostPattern>,
    /// Paths it is for; empty: any.
    pub paths: Vec<RoutePath>,
    /// Clients it is for; `None`: any. It only selects.
    pub networks: Option<ClientSet>,
    /// Clients that may use it; `None`: all. It refuses.
    pub allow: Option<ClientSet>,
    /// Origins that may use it; `None`: all.
    pub origins: Option<Vec<Origin>>,
    /// `refuse`: what it takes gets 404, and zone and upstream mean nothing.
    pub refuses: bool,
}

impl Route {
    /// Whether `allow` lets this client in; else it gets 403 network.
    pub fn allows(&self, client: Option<IpAddr>) -> bool {
        self.allow.as_ref().is_none_or(|allowed| allowed.has(client))
    }

    /// Whether `origins` lets this Origin in; else it gets 403 origin. A request without one passes: browsers always
    /// send it, apps need not.
    pub fn allows_origin(&self, origin: Option<&[u8]>) -> bool {
        match (&self.origins, origin) {
            (Some(allowed), Some(sent)) => allowed.iter().any(|origin| origin.is(sent)),
            _ => true,
        }
    }

    /// Whether what it takes goes to this zone.
    pub fn leads_to(&self, zone: usize) -> bool {
        !self.refuses && self.zone == zone
    }

    /// Whether it takes every request: no host, path or network is asked for.
    pub fn is_unconditional(&self) -> bool {
        self.hosts.is_empty() && self.paths.is_empty() && self.networks.is_none()
    }

    /// Whether it treats some requests or clients otherwise than the route that another spelling would lead to.
    pub(crate) fn guards(&self) -> bool {
        self.exempt || self.networks.is_some() || self.turns_away()
    }

    pub(crate) fn turns_away(&self) -> bool {
        self.refuses || self.allow.is_some() || self.origins.is_some()
    }

    pub(crate) fn selects(&self, host: Option<&[u8]>, client: Option<IpAddr>) -> bool {
        self.is_for_host(host) && self.is_for_client(client)
    }

    pub(crate) fn is_for_host(&self, host: Option<&[u8]>) -> bool {
        self.hosts.is_empty() || host.is_some_and(|host| self.hosts.iter().any(|pattern| pattern.matches(host)))
    }

    pub(crate) fn is_for_client(&self, client: Option<IpAddr>) -> bool {
        self.networks.as_ref().is_none_or(|networks| networks.has(client))
    }

    pub(crate) fn has_path(&self, matches: impl Fn(&RoutePath) -> bool) -> bool {
        self.paths.is_empty() || self.paths.iter().any(matches)
    }
}

/// One of a route's `paths`: that path and everything below it, by whole segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePath {
    /// As written, which is as clients send it; without a final slash.
    pub as_written: Box<[u8]>,
    /// In normal form.
    pub normal: Box<[u8]>,
    /// As lax servers read it.
    pub lax: Box<[u8]>,
}

impl RoutePath {
    /// `path` begins with `/`, and is ASCII and properly percent-encoded.
    pub fn new(path: &str) -> Self {
        // "/ws/" is meant as "/ws": a segment, and what is below it.
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

    /// Whether a request's path can be below it and plain, which is what leads into an exempt zone.
    pub fn is_plain(&self) -> bool {
        PathReading::of(&self.as_written, false).plain
    }
}
