//! Finds routes that never get a request, because the routes before them take them all.

use ipnet::IpNet;

use crate::config::routes::clients::ClientSet;
use crate::config::routes::host::HostPattern;
use crate::config::routes::{Route, RoutePath};
use crate::wire::path::is_below;

/// Whether the earlier routes, `before`, take every request that `route` would take.
///
/// Each combination of a host, a path and a network of `route` is looked up on its own: it is taken if one earlier route
/// takes all of it. Different earlier routes may take different combinations. If only several narrower routes together take
/// a combination, it counts as not taken.
pub fn is_shadowed(route: &Route, before: &[&Route]) -> bool {
    // An exempt route leaves paths that are not plain to the routes after it.
    let before: Vec<&Route> = before
        .iter()
        .copied()
        .filter(|earlier| !earlier.exempt || route.exempt)
        .collect();
    let clients = parts(route.networks.as_ref());
    if route.hosts.len().max(1) * route.paths.len().max(1) * clients.len() > MAX_COMBINATIONS {
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

/// The most combinations that are looked up. For a route with more, the warning is not worth the wait.
const MAX_COMBINATIONS: usize = 1000;

/// A part of a route's `networks`.
#[derive(Clone, Copy)]
enum Clients {
    Anyone,
    Network(IpNet),
    Unix,
}

fn parts(set: Option<&ClientSet>) -> Vec<Clients> {
    match set {
        None => vec![Clients::Anyone],
        Some(set) => set
            .networks
            .iter()
            .map(Clients::Network)
            .chain(set.unix.then_some(Clients::Unix))
            .collect(),
    }
}

/// Each item of `list`. An empty list gives one `None`, which stands for "any".
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

fn has_client(earlier: &Route, client: Clients) -> bool {
    match (&earlier.networks, client) {
        (None, _) => true,
        (Some(_), Clients::Anyone) => false,
        (Some(set), Clients::Unix) => set.unix,
        (Some(set), Clients::Network(network)) => set.networks.iter().any(|wide| wide.contains(&network)),
    }
}
