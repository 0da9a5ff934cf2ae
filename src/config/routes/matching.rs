//! Which route a request takes: the first whose host, path and client network match.
//!
//! A path is matched twice, as sent and in normal form, because a server may read it either way. If the two lead to different
//! routes, the request is refused: otherwise a spelling could evade the limits or the `allow` of one of them. If there is a
//! sensitive route, the path is matched a third time, as the most lenient servers read it. Only that reading allocates, and
//! only for a path that differs in it.

use std::net::IpAddr;

use crate::wire::path::{PathReading, is_below, lax_forms};

use super::route::{Route, RoutePath};

/// The routes in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    list: Vec<Route>,
    /// There are several, and one of them is sensitive.
    is_sensitive: bool,
    /// Lenient servers read each path of theirs as it is written. Then a request whose path they read as sent needs no
    /// third look.
    is_settled: bool,
}

impl Routes {
    /// Routes in the order in which they are tried.
    pub fn new(routes: Vec<Route>) -> Self {
        let settled = |path: &RoutePath| path.lax == path.as_written;
        Self {
            is_sensitive: routes.len() > 1 && routes.iter().any(Route::is_sensitive),
            is_settled: routes.iter().flat_map(|route| &route.paths).all(settled),
            list: routes,
        }
    }

    /// The routes in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Route> {
        self.list.iter()
    }

    /// The route of a request. `host` has no port, and is `None` if the request has no Host; `client` is `None` for a Unix peer
    /// without an address.
    pub fn matching(&self, host: Option<&[u8]>, path: &PathReading<'_>, client: Option<IpAddr>) -> Matched<'_> {
        let (mut as_sent, mut normal) = (None, None);
        for route in &self.list {
            // Another server may read a path that is not plain in its own way, so such a path never lifts limits.
            if (route.exempt && !path.plain) || !route.selects(host, client) {
                continue;
            }
            if as_sent.is_none() && route.has_path(|prefix| is_below(path.as_sent, &prefix.as_written)) {
                as_sent = Some(route);
            }
            if normal.is_none() && route.has_path(|prefix| is_below(&path.normal, &prefix.normal)) {
                normal = Some(route);
            }
            if as_sent.is_some() && normal.is_some() {
                break;
            }
        }
        match (as_sent, normal) {
            // Refused in either reading.
            (one, other) if [one, other].iter().flatten().all(|route| route.refuses) => Matched::None,
            (Some(one), Some(other))
                if std::ptr::eq(one, other) && !self.is_misread_by_lenient_servers(one, host, path, client) =>
            {
                Matched::Route(one)
            }
            _ => Matched::Ambiguous,
        }
    }

    /// Whether a lenient server reads this path as one of another route, and one of the two routes is sensitive.
    fn is_misread_by_lenient_servers(
        &self,
        found: &Route,
        host: Option<&[u8]>,
        path: &PathReading<'_>,
        client: Option<IpAddr>,
    ) -> bool {
        if !self.is_sensitive || (self.is_settled && path.is_settled()) {
            return false;
        }
        let is_misread = |lax: &[u8]| {
            let other = self.list.iter().find(|route| {
                // A route that is skipped because its zone is exempt may still refuse clients.
                (path.plain || !route.exempt || route.restricts())
                    && route.selects(host, client)
                    && route.has_path(|prefix| is_below(lax, &prefix.lax))
            });
            other.is_some_and(|other| !std::ptr::eq(other, found) && (other.is_sensitive() || found.is_sensitive()))
        };
        let (cut, without) = lax_forms(path.as_sent);
        is_misread(&cut) || without.is_some_and(|without| is_misread(&without))
    }

    /// Why a request is [`Matched::None`]: what keeps it from the route that is closest to it.
    pub fn missed(&self, host: Option<&[u8]>, path: &PathReading<'_>, client: Option<IpAddr>) -> Missed<'_> {
        let mut closest = Missed::Host;
        for route in self.list.iter().filter(|route| route.is_for_host(host)) {
            let has_path = route.has_path(|prefix| {
                is_below(path.as_sent, &prefix.as_written) || is_below(&path.normal, &prefix.normal)
            });
            closest = closest.max(if !has_path {
                Missed::Path
            } else if !route.is_for_client(client) {
                Missed::Network
            } else if route.refuses {
                return Missed::Refused(route);
            } else {
                Missed::Spelling
            });
        }
        closest
    }
}

impl<'a> IntoIterator for &'a Routes {
    type Item = &'a Route;
    type IntoIter = std::slice::Iter<'a, Route>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The result of matching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matched<'a> {
    /// The readings of the path lead to different routes, or one of the first two to none: 400.
    Ambiguous,
    /// No route, or one that refuses: 404.
    None,
    /// This route.
    Route(&'a Route),
}

/// Why no route matches, from the farthest to the closest miss.
#[derive(Clone, Copy, Debug)]
pub enum Missed<'a> {
    /// No route is for its host.
    Host,
    /// No route for its host has its path.
    Path,
    /// The routes with its host and path are for clients of other networks.
    Network,
    /// A route matches, but leads into an exempt zone, and the path is not plain.
    Spelling,
    /// This route takes it and refuses.
    Refused(&'a Route),
}

impl Missed<'_> {
    fn max(self, other: Self) -> Self {
        if other.rank() > self.rank() { other } else { self }
    }

    fn rank(self) -> u8 {
        match self {
            Self::Host => 0,
            Self::Path => 1,
            Self::Network => 2,
            Self::Spelling => 3,
            Self::Refused(_) => 4,
        }
    }
}
