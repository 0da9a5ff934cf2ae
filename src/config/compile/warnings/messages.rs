//! Warnings about `[limits.messages]`: keys without effect, and limits that end connections by mistake.

use std::time::Duration;

use crate::config::document::schema::{File, Limits, Messages};
use crate::config::document::table::{Entry, Table};
use crate::config::findings::{Finding, Findings};
use crate::config::notation::units;
use crate::config::policy::{Policy, ZonePolicy};
use crate::limit::rules::Rate;
use crate::relay::rules::{MessageRules, OnExceed};

use super::places::first_span;

/// Adds every warning about messages.
pub fn check(file: &File, policy: &Policy, found: &mut Findings) {
    let nothing = Limits::empty();
    let limits = &file.limits;
    let mut shown: Vec<Finding> = Vec::new();
    let mut is_sent = false;
    for (nth, zone) in policy.zones.iter().enumerate() {
        if !policy.routes.iter().any(|route| route.leads_to(nth)) {
            continue;
        }
        let name_and_table = file.zone.tables.iter().find(|(name, _)| *name.text == *zone.name);
        let written = name_and_table.map_or(&nothing, |(_, table)| table);
        let tables = [written, limits];
        let warnings = [
            size_above_burst(zone, tables),
            ping_after_idle(zone, tables),
            ghosts_without_ping(zone, &written.messages),
        ];
        let notice = &written.messages.notice;
        let never_sent = (is_on(notice) && !is_limited(&zone.messages)).then(|| never_sent(notice));
        let warnings = warnings.into_iter().flatten().chain(never_sent);
        // Zones that inherit the same number share one warning.
        for warning in warnings.chain(delays_that_close(zone, tables)) {
            if !shown.contains(&warning) {
                shown.push(warning);
            }
        }
        is_sent |= zone.messages.notice.is_some() && is_limited(&zone.messages);
    }
    let notice = &limits.messages.notice;
    if is_on(notice) && !is_sent {
        shown.push(never_sent(notice));
    }
    let tables = file.zone.tables.iter().map(|(_, table)| table).chain([limits]);
    shown.extend(tables.filter_map(|table| preset_overridden(&table.messages)));
    for warning in shown {
        found.warn(warning);
    }
}

/// How many messages one client key may send per second on `per_ip` connections, rounded up. `None` if there is no limit.
pub fn max_per_second(per_ip: u32, rules: &MessageRules) -> Option<u64> {
    let most = |connections: u32, rate: Rate| {
        let seconds = rate.per.as_secs().max(1);
        (u64::from(connections) * u64::from(rate.tokens.get())).div_ceil(seconds)
    };
    let each = rules.rate.map(|rate| most(per_ip, rate));
    let together = rules.per_ip_rate.map(|rate| most(1, rate));
    each.into_iter().chain(together).min()
}

fn size_above_burst(zone: &ZonePolicy, [written, limits]: [&Limits; 2]) -> Option<Finding> {
    let rules = &zone.messages;
    let (most, burst) = (rules.max_size?, rules.bytes_rate?.burst.get());
    if rules.on_exceed != OnExceed::Close || most <= u64::from(burst) {
        return None;
    }
    let (own, common) = (&written.messages, &limits.messages);
    let entries = [own, common]
        .into_iter()
        .flat_map(|table| [&table.max_size, &table.bytes_burst, &table.bytes_rate]);
    let burst = units::show_size(burst.into());
    let title = format!(
        "a message of more than {burst} can never pass: `max_size` is {}, `bytes_burst` {burst}",
        units::show_size(most)
    );
    let hint = format!("max_size = \"{burst}\", or a larger `bytes_burst`; or on_exceed = \"delay\"");
    Some(Finding::at(first_span(entries)?, title).hint(hint))
}

/// Warns that `idle` closes a connection that is silent both ways before its first ping. Such connections need pings most.
fn ping_after_idle(zone: &ZonePolicy, [written, limits]: [&Limits; 2]) -> Option<Finding> {
    let (ping, idle) = (zone.messages.ping?, zone.timeouts.idle?);
    if ping < idle {
        return None;
    }
    let entries = [written, limits]
        .into_iter()
        .flat_map(|table| [&table.messages.ping, &table.timeouts.idle]);
    let title = format!(
        "`idle` {} closes a silent connection before its first `ping` after {}",
        units::show_duration(idle),
        units::show_duration(ping)
    );
    let hint = "make `ping` shorter than `idle`, or set idle = \"off\": `ping` detects dead clients";
    Some(Finding::at(first_span(entries)?, title).hint(hint))
}

/// Warns of `replace_ghosts` without effect, but only in a zone's own table: in `[limits]` the key may be written to show
/// the default.
fn ghosts_without_ping(zone: &ZonePolicy, own: &Messages) -> Option<Finding> {
    if !zone.messages.replace_ghosts {
        return None;
    }
    let (key, example) = match (zone.messages.ping, zone.client.per_ip) {
        (None, _) => ("ping", "ping = \"30s\""),
        (_, None) => ("per_ip", "per_ip = 16"),
        _ => return None,
    };
    let title = format!("`replace_ghosts` has no effect: `{key}` is off here");
    let hint =
        format!("at `per_ip`, a new connection takes the slot of one that left a `ping` unanswered; set {example}");
    Some(Finding::at(own.replace_ghosts.span()?, title).hint(hint))
}

fn delays_that_close(zone: &ZonePolicy, [written, limits]: [&Limits; 2]) -> Vec<Finding> {
    let rules = &zone.messages;
    let (own, common) = (&written.messages, &limits.messages);
    let rates = [
        (rules.rate, [&own.rate, &common.rate]),
        (rules.per_ip_rate, [&own.per_ip_rate, &common.per_ip_rate]),
    ];
    let ends = |rate: Rate| rules.on_exceed == OnExceed::Delay && rate.per > LONGEST_DELAY * rate.tokens.get();
    let warning = |(rate, entries): (Option<Rate>, [&Entry; 2])| {
        let rate = rate.filter(|rate| ends(*rate))?;
        let title = format!(
            "`{}` {} is less than one in {}, the longest delay: each message above it closes the connection",
            entries[0].key,
            units::show_rate(rate),
            units::show_duration(LONGEST_DELAY)
        );
        let hint = "raise the rate, or set on_exceed = \"close\"";
        Some(Finding::at(first_span(entries)?, title).hint(hint))
    };
    rates.into_iter().filter_map(warning).collect()
}

/// Warns of a preset and a `rate` in the same table. This happens when a preset is added to a file that has every key.
fn preset_overridden(table: &Messages) -> Option<Finding> {
    let rate = table.rate.span().filter(|_| is_on(&table.preset))?;
    let title = if is_on(&table.rate) {
        "`preset` has no effect: `rate` in the same table overrides it"
    } else {
        "`preset` has no effect: `rate` in the same table is off"
    };
    let warning = Finding::at(table.preset.span()?, title).beside(rate, "this one");
    Some(warning.hint("remove one of the two; a preset is a `rate` with its `burst`"))
}

fn never_sent(notice: &Entry) -> Finding {
    let title = "`notice` is never sent: no rate limits what clients send";
    Finding::at(notice.span().unwrap_or_default(), title)
        .hint("it is sent before `rate`, `per_ip_rate` or `bytes_rate` acts; set rate = \"10/s\" in the same table")
}

/// Whether clients are limited by rate.
fn is_limited(rules: &MessageRules) -> bool {
    rules.rate.is_some() || rules.per_ip_rate.is_some() || rules.bytes_rate.is_some()
}

fn is_on(entry: &Entry) -> bool {
    entry.is_written() && !entry.is("off")
}

/// The longest that the relay delays a message.
const LONGEST_DELAY: Duration = Duration::from_secs(5);
