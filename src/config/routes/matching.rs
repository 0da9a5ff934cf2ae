//! Finds the route of a request: the first route whose host, path and client network match.
//!
//! A path is matched twice, as sent and in normal form, because a server may read it either way. If the two readings lead to
//! different routes, the request is refused: otherwise an unusual spelling could evade the limits or the `allow` of a route.
//! If there is a sensitive route, the path is matched a third time, as the most lenient servers read it. Only this third
//! reading allocates, and only if it changes the path.

use std::net::IpAddr;

use crate::wire::path::{PathReading, is_below, lax_forms};

use super::route::{Route, RoutePath};

/// The routes in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    list: Vec<Route>,
    /// Whether there are several routes and one of them is sensitive.
    is_sensitive: bool,
    /// Whether lenient servers read the path of every route as it is written. If so, a request needs no third match when
    /// lenient servers read its path as sent.
    is_settled: bool,
}

impl Routes {
    /// Makes the list from routes in the order in which they are tried.
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
            // A server may read a path that is not plain in its own way, so such a path never reaches an exempt zone.
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
            // Both readings are refused.
            (one, other) if [one, other].iter().flatten().all(|route| route.refuses) => Matched::None,
            (Some(one), Some(other))
                if std::ptr::eq(one, other) && !self.is_misread_by_lenient_servers(one, host, path, client) =>
            {
                Matched::Route(one)
            }
            _ => Matched::Ambiguous,
        }
    }

    /// Whether a lenient server reads this path as a path of another route, and one of the two routes is sensitive.
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
                // An exempt route, which is skipped for a path that is not plain, may still refuse clients.
                (path.plain || !route.exempt || route.restricts())
                    && route.selects(host, client)
                    && route.has_path(|prefix| is_below(lax, &prefix.lax))
            });
            other.is_some_and(|other| !std::ptr::eq(other, found) && (other.is_sensitive() || found.is_sensitive()))
        };
        let (cut, without) = lax_forms(path.as_sent);
        is_misread(&cut) || without.is_some_and(|without| is_misread(&without))
    }

    /// Why a request is [`Matched::None`]: the reason that the closest route does not take it.
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
    /// The readings of the path lead to different routes, or one of the first two readings leads to no route: 400.
    Ambiguous,
    /// No route takes the request, or a route refuses it: 404.
    None,
    /// This route.
    Route(&'a Route),
}

/// Why no route matches, from the farthest to the closest miss.
#[derive(Clone, Copy, Debug)]
pub enum Missed<'a> {
    /// No route is for the request's host.
    Host,
    /// No route for the request's host has the request's path.
    Path,
    /// The routes with the request's host and path are for clients of other networks.
    Network,
    /// A route matches, but it leads into an exempt zone, and the path is not plain.
    Spelling,
    /// This route takes the request and refuses it.
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
