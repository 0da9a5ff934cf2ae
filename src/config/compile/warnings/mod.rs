//! Warnings: what is valid and probably not intended. Only a policy without mistakes is checked.

mod messages;
mod places;

use std::ops::Range;

use crate::config::document::schema::{File, Limits};
use crate::config::document::table::Table;
use crate::config::findings::{Finding, Findings};
use crate::config::notation::units;
use crate::config::policy::{Policy, RejectWith, ZonePolicy};
use crate::config::routes::{Route, RoutePath};
use crate::net::address::Bind;

use super::{listener, shadowed, zone};
use places::{first_span, is_first};

/// Adds every warning.
pub fn check(file: &File, policy: &Policy, found: &mut Findings) {
    trust(file, policy, found);
    routes(file, policy, found);
    zones(file, policy, found);
    messages::check(file, policy, found);
    known_networks(file, policy, found);
    ceiling(file, policy, found);
}

fn trust(file: &File, policy: &Policy, found: &mut Findings) {
    let client_ip = &file.client_ip;
    // The lists were read before, without a mistake.
    let mut ignored = Findings::default();
    for text in client_ip
        .trusted_proxies
        .texts_or_none(&mut ignored)
        .unwrap_or_default()
    {
        // As a set, so that IPv4 in v4-mapped notation counts as IPv4.
        let set = super::clients::set(std::slice::from_ref(&text), &mut Findings::default());
        if set.networks.iter().any(|network| network.prefix_len() == 0) {
            found.warn(
                Finding::at(
                    text.span,
                    format!("\"{}\" trusts every address: any client can forge its own", text.text),
                )
                .hint("per-client limits would count forged addresses; list only your proxies"),
            );
        }
    }
    let headers = client_ip.headers.texts_or_none(&mut ignored).unwrap_or_default();
    if let [_, second, ..] = headers.as_slice() {
        found.warn(
            Finding::at(second.span.clone(), "several headers are read for the client's address")
                .hint("clients can forge those that the proxy does not overwrite; list only the one it sets"),
        );
    }
    let is_local = policy
        .listeners
        .iter()
        .flat_map(|listener| &listener.bind)
        .all(listener::is_local);
    if is_local && policy.identity.trusted.is_empty() && !policy.identity.trust_unix {
        let bind = file
            .listener
            .tables
            .iter()
            .find_map(|(_, listener)| listener.bind.span())
            .unwrap_or_default();
        let is_unix = policy
            .listeners
            .iter()
            .all(|listener| listener.bind.iter().all(|bind| matches!(bind, Bind::Unix(_))));
        let word = if is_unix { "unix" } else { "loopback" };
        found.warn(
            Finding::at(
                bind,
                "all listeners are local and no proxy is trusted: all clients share one address",
            )
            .hint(format!(
                "behind a proxy on this machine: [client_ip] trusted_proxies = [\"{word}\"]"
            )),
        );
    }
}

fn routes(file: &File, policy: &Policy, found: &mut Findings) {
    let routes: Vec<&Route> = policy.routes.iter().collect();
    if let Some((header, _)) = file
        .route
        .tables
        .first()
        .filter(|_| routes.iter().all(|route| route.refuses))
    {
        found.warn(
            Finding::at(header.clone(), "every route refuses: no client gets in").hint("a [[route]] without `refuse`"),
        );
    }
    let mut last_header = None;
    for (nth, ((header, written), route)) in file.route.tables.iter().zip(&routes).enumerate() {
        if shadowed::is_shadowed(route, &routes[..nth]) {
            found.warn(
                Finding::at(header.clone(), format!("route \"{}\" can't be reached", route.name))
                    .hint("earlier routes take all of its requests; the first match wins"),
            );
        } else if route.exempt && !route.paths.is_empty() && !route.paths.iter().any(RoutePath::is_plain) {
            found.warn(
                Finding::at(
                    written.paths.span().unwrap_or_default(),
                    format!("route \"{}\" can't be reached", route.name),
                )
                .hint("only a plain path leads into an exempt zone: one without `%`, `;`, `\\`, `//` and dot segments"),
            );
        }
        if route.exempt && route.networks.is_none() && route.allow.is_none() {
            found.warn(
                Finding::at(
                    written.zone.span().unwrap_or(header.clone()),
                    "an exempt zone is open to everyone",
                )
                .hint("no per-client limit applies there; restrict the route: networks = [\"198.51.100.0/24\"]"),
            );
        }
        last_header = Some(header);
    }
    if let Some(header) = last_header.filter(|_| !routes.iter().any(|route| route.is_unconditional())) {
        found.warn(
            Finding::at(header.clone(), "requests that match no route get 404").hint(
                "add a last [[route]] without hosts, paths and networks to take them; where 404 is intended, give it \
                 `refuse = 404`",
            ),
        );
    }
}

fn zones(file: &File, policy: &Policy, found: &mut Findings) {
    let proxied = !policy.identity.trusted.is_empty() || policy.identity.trust_unix;
    let nothing = Limits::empty();
    let mut shown: Vec<Range<usize>> = Vec::new();
    for (nth, zone) in policy.zones.iter().enumerate() {
        let name_and_table = file.zone.tables.iter().find(|(name, _)| *name.text == *zone.name);
        let written = name_and_table.map_or(&nothing, |(_, table)| table);
        if !policy.routes.iter().any(|route| route.leads_to(nth)) {
            if let Some((name, _)) = name_and_table.filter(|_| !is_as_built_in(zone, policy)) {
                found.warn(
                    Finding::at(name.span.clone(), format!("no route leads to zone \"{}\"", zone.name)).hint(format!(
                        "add a [[route]] with zone = \"{}\", or remove the zone",
                        zone.name
                    )),
                );
            }
            continue;
        }
        let limits = &file.limits;
        if let Some(warning) = per_ip(zone, &[written, limits]).filter(|warning| is_first(warning, &mut shown)) {
            found.warn(warning);
        }
        if proxied && zone.reject_with == RejectWith::Drop {
            let span = first_span([&written.reject_with, &limits.reject_with]).unwrap_or_default();
            let warning = Finding::at(
                span,
                "`drop` behind a trusted proxy: the proxy sees the reset, not the client",
            )
            .hint(
                "clients get a 502 from the proxy, which may mark wsguard as down; \"http\" and \"close\" name the reason",
            );
            if is_first(&warning, &mut shown) {
                found.warn(warning);
            }
        }
        if name_and_table.is_some() && zone.exempt && file.route.tables.is_empty() {
            let span = written.exempt.span().unwrap_or_default();
            found.warn(
                Finding::at(span, "an exempt zone is open to everyone")
                    .hint("without a route everything goes to zone `default`; no per-client limit applies there"),
            );
        }
    }
}

/// A zone whose budget a few addresses can exhaust.
fn per_ip(zone: &ZonePolicy, written: &[&Limits]) -> Option<Finding> {
    let per_ip = zone.client.per_ip?;
    let entries = written.iter().flat_map(|limits| [&limits.per_ip, &limits.connections]);
    let span = first_span(entries).unwrap_or_default();
    let own = written
        .first()
        .is_some_and(|own| own.per_ip.is_written() || own.connections.is_written());
    let table = if own {
        format!("[zone.{}]", zone.name)
    } else {
        "[limits]".to_owned()
    };
    few_exhaust(per_ip, zone, &table).map(|title| Finding {
        span: Some(span),
        ..title
    })
}

/// The finding, if they can; `table` is where a smaller `per_ip` belongs.
fn few_exhaust(per_ip: u32, zone: &ZonePolicy, table: &str) -> Option<Finding> {
    let budget = zone.rules.connections?;
    if per_ip < budget.div_ceil(4) {
        return None;
    }
    let needed = budget.div_ceil(per_ip);
    let addresses = if needed == 1 {
        "1 address exhausts".to_owned()
    } else {
        format!("{needed} addresses exhaust")
    };
    let title = format!(
        "{addresses} zone \"{}\": `per_ip` {per_ip} of `connections` {budget}",
        zone.name
    );
    let cure = match budget.div_ceil(4) - 1 {
        0 => "raise `connections`".to_owned(),
        most => format!(
            "{table} per_ip = {}, or less: below a quarter of `connections`",
            units::show_number(most)
        ),
    };
    let send = match messages::max_per_second(per_ip, &zone.messages) {
        None => "they may send without a limit: [limits.messages] rate = \"10/s\"".to_owned(),
        Some(1) => "each may send 1 message a second".to_owned(),
        Some(most) => format!("each may send {most} messages a second"),
    };
    Some(Finding::nowhere(title).hint(format!("{cure}; {send}")))
}

fn known_networks(file: &File, policy: &Policy, found: &mut Findings) {
    let in_use = policy
        .routes
        .iter()
        .filter(|route| !route.refuses)
        .map(|route| &policy.zones[route.zone])
        .filter(|zone| !zone.exempt);
    let least = in_use
        .filter(|zone| zone.rules.connections.is_some())
        .min_by_key(|zone| (zone.rules.connections, &zone.name));
    let Some(zone) = least else {
        return;
    };
    for (_, network) in &file.network.tables {
        let per_ip = network
            .per_ip
            .number_or::<u32>("off", &(1..=u32::MAX), &mut Findings::default());
        if let Some(warning) = per_ip
            .or(None)
            .and_then(|per_ip| few_exhaust(per_ip, zone, "[[network]]"))
        {
            found.warn(Finding {
                span: network.per_ip.span(),
                ..warning
            });
        }
    }
}

fn ceiling(file: &File, policy: &Policy, found: &mut Findings) {
    let Some(most) = policy.server.max_connections else {
        return;
    };
    let in_use = |nth: usize| policy.routes.iter().any(|route| route.leads_to(nth));
    let budgets = policy.zones.iter().enumerate().filter(|(nth, _)| in_use(*nth));
    let sum: u64 = budgets
        .filter_map(|(_, zone)| zone.rules.connections)
        .map(u64::from)
        .sum();
    if sum > u64::from(most) {
        let span = file.server.max_connections.span().unwrap_or_default();
        found.warn(
            Finding::at(
                span,
                format!("the zones' budgets add up to {sum}, and the process may have {most}"),
            )
            .hint("one full zone can cause refusals in another; lower `connections`, or raise this"),
        );
    }
}

/// Whether a zone is written as it is built in, so that nothing is lost if no route leads to it.
fn is_as_built_in(written: &ZonePolicy, policy: &Policy) -> bool {
    *written.name == *"exempt" && {
        let built_in = zone::exempt(&policy.zones[0]);
        (written.rules.connections, written.client) == (built_in.rules.connections, built_in.client)
            && written.messages == super::messages::unlimited(written.messages.clone())
    }
}
