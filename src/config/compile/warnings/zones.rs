//! Warnings about zones: budgets that protect nothing, and zones without a route.

use std::ops::Range;

use crate::config::document::schema::{File, Limits};
use crate::config::document::table::Table;
use crate::config::findings::{Finding, Findings};
use crate::config::notation::units;
use crate::config::policy::{Policy, RejectWith, ZonePolicy};

use super::super::{messages as message_limits, zone as zones};
use super::messages;
use super::places::{first_span, is_first};

/// Adds every warning about zones and known networks.
pub fn check(file: &File, policy: &Policy, found: &mut Findings) {
    each(file, policy, found);
    known_networks(file, policy, found);
    ceiling(file, policy, found);
}

fn each(file: &File, policy: &Policy, found: &mut Findings) {
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

/// Warns if a few addresses can exhaust a zone's budget.
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

/// The warning, without its place, if a few addresses can exhaust the zone. `table` is where a smaller `per_ip` belongs.
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

/// Whether the written zone `exempt` has the same limits as the built-in one. Then nothing is lost if no route leads to it.
fn is_as_built_in(written: &ZonePolicy, policy: &Policy) -> bool {
    *written.name == *"exempt" && {
        let built_in = zones::exempt(&policy.zones[0]);
        (written.rules.connections, written.client) == (built_in.rules.connections, built_in.client)
            && written.messages == message_limits::unlimited(written.messages.clone())
    }
}
