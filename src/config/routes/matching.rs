//! Which route a request takes: the first whose host, path and client network match (design, section 6 "Routes").
//!
//! A path is read twice, as sent and in normal form, because the backend may read it either way: where the two lead to
//! different routes, no limit or `allow` of one may be slipped by a spelling that the other sees. Where a route guards
//! something, it is read as the laxest servers do, too. Only that allocates, and only for a path that reads otherwise there.

use std::net::IpAddr;

use crate::wire::path::{PathReading, is_below, lax_forms};

use super::route::{Route, RoutePath};

/// The routes in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    list: Vec<Route>,
    /// One of several guards something.
    is_guarded: bool,
    /// Every path of theirs reads the same in lax servers, so that a request's that does too leads to the same route.
    is_settled: bool,
}

impl Routes {
    /// These, the first of which is asked first.
    pub fn new(routes: Vec<Route>) -> Self {
        let settled = |path: &RoutePath| path.lax == path.as_written;
        Self {
            is_guarded: routes.len() > 1 && routes.iter().any(Route::guards),
            is_settled: routes.iter().flat_map(|route| &route.paths).all(settled),
            list: routes,
        }
    }

    /// In order.
    pub fn iter(&self) -> std::slice::Iter<'_, Route> {
        self.list.iter()
    }

    /// The route of a request. `host` is without its port, `None` where none was sent; `client` is `None` for a Unix
    /// peer without an address.
    pub fn matching(&self, host: Option<&[u8]>, path: &PathReading<'_>, client: Option<IpAddr>) -> Matched<'_> {
        let (mut as_sent, mut normal) = (None, None);
        for route in &self.list {
            // A proxy or backend may read a path that is not plain in its own way: no limits are lifted on its account.
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
            // Whatever it reads as, it is refused.
            (one, other) if [one, other].iter().flatten().all(|route| route.refuses) => Matched::None,
            (Some(one), Some(other))
                if std::ptr::eq(one, other) && !self.lead_lax_servers_past(one, host, path, client) =>
            {
                Matched::Route(one)
            }
            _ => Matched::Ambiguous,
        }
    }

    /// Whether a server that reads paths laxly takes this one for another route's, and one of the two guards something.
    fn lead_lax_servers_past(
        &self,
        found: &Route,
        host: Option<&[u8]>,
        path: &PathReading<'_>,
        client: Option<IpAddr>,
    ) -> bool {
        if !self.is_guarded || (self.is_settled && path.is_settled()) {
            return false;
        }
        let leads_past = |lax: &[u8]| {
            let other = self.list.iter().find(|route| {
                // A route that is skipped because it lifts limits still turns away.
                (path.plain || !route.exempt || route.turns_away())
                    && route.selects(host, client)
                    && route.has_path(|prefix| is_below(lax, &prefix.lax))
            });
            other.is_some_and(|other| !std::ptr::eq(other, found) && (other.guards() || found.guards()))
        };
        let (cut, without) = lax_forms(path.as_sent);
        leads_past(&cut) || without.is_some_and(|without| leads_past(&without))
    }

    /// Why a request is [`Matched::None`]: what the route that comes closest to it asks for, and it lacks.
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

/// Where a request belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matched<'a> {
    /// The readings of its path lead to different routes, or one of the first two nowhere: 400.
    Ambiguous,
    /// Nowhere, or to a route that refuses: 404.
    None,
    /// Here.
    Route(&'a Route),
}

/// What a request has that no route matches, from the farthest to the closest miss.
#[derive(Clone, Copy, Debug)]
pub enum Missed<'a> {
    /// No route is for its host.
    Host,
    /// Some are, and none has its path.
    Path,
    /// Some have both, for clients of other networks.
    Network,
    /// One has all, but leads into an exempt zone, and the path is not plain.
    Spelling,
    /// This one takes it, and refuses.
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
