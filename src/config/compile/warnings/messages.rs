//! Of `[limits.messages]`: what has no effect, and what hits where it should not.

use std::time::Duration;

use crate::config::document::schema::{File, Limits, Messages};
use crate::config::document::table::{Entry, Table};
use crate::config::findings::{Finding, Findings};
use crate::config::notation::units;
use crate::config::policy::{Policy, ZonePolicy};
use crate::limit::rules::Rate;
use crate::relay::rules::{MessageRules, OnExceed};

use super::places::first_span;

pub fn look(raw: &File, policy: &Policy, found: &mut Findings) {
    let nothing = Limits::empty();
    let limits = &raw.limits;
    let mut told: Vec<Finding> = Vec::new();
    let mut is_heard = false;
    for (nth, zone) in policy.zones.iter().enumerate() {
        if !policy.routes.iter().any(|route| route.leads_to(nth)) {
            continue;
        }
        let name_and_table = raw.zone.tables.iter().find(|(name, _)| *name.text == *zone.name);
        let written = name_and_table.map_or(&nothing, |(_, table)| table);
        let tables = [written, limits];
        let warnings = [
            larger_than_the_burst(zone, tables),
            asked_after_the_end(zone, tables),
            ghosts_that_nobody_asks(zone, &written.messages),
        ];
        let notice = &written.messages.notice;
        let unheard = (is_on(notice) && !is_limited(&zone.messages)).then(|| unheard(notice));
        let warnings = warnings.into_iter().flatten().chain(unheard);
        // Zones that inherit one number need not all be told of it.
        for warning in warnings.chain(delays_that_end(zone, tables)) {
            if !told.contains(&warning) {
                told.push(warning);
            }
        }
        is_heard |= zone.messages.notice.is_some() && is_limited(&zone.messages);
    }
    let notice = &limits.messages.notice;
    if is_on(notice) && !is_heard {
        told.push(unheard(notice));
    }
    let tables = raw.zone.tables.iter().map(|(_, table)| table).chain([limits]);
    told.extend(tables.filter_map(|table| overruled(&table.messages)));
    for warning in told {
        found.warn(warning);
    }
}

/// The messages a second, rounded up, that one client key may send on `per_ip` connections; `None`: as many as it likes.
pub fn a_second(per_ip: u32, rules: &MessageRules) -> Option<u64> {
    let most = |connections: u32, rate: Rate| {
        let seconds = rate.per.as_secs().max(1);
        (u64::from(connections) * u64::from(rate.tokens.get())).div_ceil(seconds)
    };
    let each = rules.rate.map(|rate| most(per_ip, rate));
    let together = rules.per_ip_rate.map(|rate| most(1, rate));
    each.into_iter().chain(together).min()
}

fn larger_than_the_burst(zone: &ZonePolicy, [written, limits]: [&Limits; 2]) -> Option<Finding> {
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

/// Of a connection that is silent both ways, which most are where pings are needed.
fn asked_after_the_end(zone: &ZonePolicy, [written, limits]: [&Limits; 2]) -> Option<Finding> {
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

/// In a zone's own table only: in `[limits]` it may be there to say what the default is.
fn ghosts_that_nobody_asks(zone: &ZonePolicy, own: &Messages) -> Option<Finding> {
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

fn delays_that_end(zone: &ZonePolicy, [written, limits]: [&Limits; 2]) -> Vec<Finding> {
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

/// In the same table, as happens to who adds a preset to a file that has every key.
fn overruled(table: &Messages) -> Option<Finding> {
    let rate = table.rate.span().filter(|_| is_on(&table.preset))?;
    let title = if is_on(&table.rate) {
        "`preset` has no effect: `rate` in the same table overrides it"
    } else {
        "`preset` has no effect: `rate` in the same table is off"
    };
    let warning = Finding::at(table.preset.span()?, title).beside(rate, "this one");
    Some(warning.hint("remove one of the two; a preset is a `rate` with its `burst`"))
}

fn unheard(notice: &Entry) -> Finding {
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

/// What the relay waits for at most.
const LONGEST_DELAY: Duration = Duration::from_secs(5);
