//! Whether a route can be reached past the routes before it.

use ipnet::IpNet;

use crate::config::routes::clients::ClientSet;
use crate::config::routes::host::HostPattern;
use crate::config::routes::{Route, RoutePath};
use crate::wire::path::is_below;

/// Whether every request that this route would take has been taken by the routes before it.
///
/// Every combination of its hosts, paths and networks is looked for among them, so that several that together have it
/// count as well; one that only many narrower ones add up to is not seen.
pub fn is_shadowed(route: &Route, before: &[&Route]) -> bool {
    // An exempt route leaves what is not plain to those behind it.
    let before: Vec<&Route> = before
        .iter()
        .copied()
        .filter(|earlier| !earlier.exempt || route.exempt)
        .collect();
    let clients = asked(route.networks.as_ref());
    if route.hosts.len().max(1) * route.paths.len().max(1) * clients.len() > MOST_LOOKED_AT {
        return false;
    }
    options(&route.hosts).all(|host| {
        options(&route.paths).all(|path| {
            clients.iter().all(|client| {
                before
                    .iter()
                    .any(|earlier| has_host(earlier, host) && has_path(earlier, path) && has_client(earlier, *client))
            })
        })
    })
}

/// More combinations than this are not gone through: a warning is not worth the wait.
const MOST_LOOKED_AT: usize = 1000;

/// One part of what a route's `networks` ask for.
#[derive(Clone, Copy)]
enum Asked {
    Anyone,
    Network(IpNet),
    Unix,
}

fn asked(set: Option<&ClientSet>) -> Vec<Asked> {
    match set {
        None => vec![Asked::Anyone],
        Some(set) => set
            .networks
            .iter()
            .map(Asked::Network)
            .chain(set.unix.then_some(Asked::Unix))
            .collect(),
    }
}

/// Each of them, or one `None` that stands for any.
fn options<T>(list: &[T]) -> impl Iterator<Item = Option<&T>> {
    list.iter().map(Some).chain(list.is_empty().then_some(None))
}

fn has_host(earlier: &Route, host: Option<&HostPattern>) -> bool {
    earlier.hosts.is_empty() || host.is_some_and(|host| earlier.hosts.iter().any(|wide| wide.covers(host)))
}

fn has_path(earlier: &Route, path: Option<&RoutePath>) -> bool {
    let covers = |wide: &RoutePath, path: &RoutePath| {
        is_below(&path.as_written, &wide.as_written) && is_below(&path.normal, &wide.normal)
    };
    earlier.paths.is_empty() || path.is_some_and(|path| earlier.paths.iter().any(|wide| covers(wide, path)))
}

fn has_client(earlier: &Route, client: Asked) -> bool {
    match (&earlier.networks, client) {
        (None, _) => true,
        (Some(_), Asked::Anyone) => false,
        (Some(set), Asked::Unix) => set.unix,
        (Some(set), Asked::Network(network)) => set.networks.iter().any(|wide| wide.contains(&network)),
    }
}
