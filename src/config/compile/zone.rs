//! Compiles `[limits]` and `[zone.*]`: a zone has the rules of `[limits]`, overridden by its own table.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::config::defaults;
use crate::config::document::schema::{self, File, Limits};
use crate::config::document::table::Entry;
use crate::config::findings::{Finding, Findings};
use crate::config::policy::{RejectWith, ZonePolicy};
use crate::limit::rules::ClientRules;

use super::server::MAX_CONNECTIONS;
use super::{messages, names, rate};

/// All zones: `default`, `exempt`, then the others in the order written.
pub fn compile(file: &File, found: &mut Findings) -> Vec<ZonePolicy> {
    let limits = &file.limits;
    if let Some(span) = limits.exempt.span() {
        let hint = "[zone.NAME] exempt = true, and a [[route]] whose `zone` is that name";
        found.mistake(Finding::at(span, "`exempt` is for a zone, not for [limits]").hint(hint));
    }
    let strict = limits.messages.strict_frames.flag_or("auto", found).or(None);
    let mut common = apply(defaults::zone("default"), limits, found);
    messages::resolve_strict_frames(&mut common.messages, strict, false);
    let mut zones = vec![common.clone(), exempt(&common)];
    for (name, written) in &file.zone.tables {
        names::check(name, found);
        let at = zones.iter().position(|zone| *zone.name == *name.text);
        let built_in = at.map(|at| zones[at].clone());
        let is_exempt = match written.exempt.flag(found) {
            Some(false) if built_in.as_ref().is_some_and(|zone| zone.exempt) => {
                let span = written.exempt.span().unwrap_or_default();
                found.mistake(
                    Finding::at(span, "zone `exempt` is always exempt").hint("choose another name for this zone"),
                );
                true
            }
            Some(flag) => flag,
            None => built_in.as_ref().is_some_and(|zone| zone.exempt),
        };
        let base = match built_in {
            Some(zone) if zone.exempt => zone,
            _ => ZonePolicy {
                name: name.text.into(),
                ..common.clone()
            },
        };
        let base = if is_exempt { unlimited(base) } else { base };
        let strict = if is_exempt { None } else { strict };
        let strict = written.messages.strict_frames.flag_or("auto", found).or(strict);
        let mut zone = apply(base, written, found);
        messages::resolve_strict_frames(&mut zone.messages, strict, zone.exempt);
        if zone.exempt && zone.rules.connections.is_none() {
            let span = written.connections.span().unwrap_or_else(|| name.span.clone());
            found.mistake(
                Finding::at(
                    span,
                    "an exempt zone needs a limit on `connections`: that many are reserved for it",
                )
                .hint(format!(
                    "[zone.{}] connections = {}",
                    zone.name,
                    defaults::EXEMPT_CONNECTIONS
                )),
            );
        }
        match at {
            Some(at) => zones[at] = zone,
            None => zones.push(zone),
        }
    }
    zones
}

/// The built-in zone `exempt`; `common` has the rules of `[limits]`.
pub fn exempt(common: &ZonePolicy) -> ZonePolicy {
    let mut zone = common.clone();
    zone.name = Arc::from("exempt");
    zone.rules.connections = Some(defaults::EXEMPT_CONNECTIONS);
    unlimited(zone)
}

/// The zone without limits on clients and messages. Timeouts and pings stay.
fn unlimited(zone: ZonePolicy) -> ZonePolicy {
    ZonePolicy {
        exempt: true,
        client: ClientRules::default(),
        messages: messages::unlimited(zone.messages),
        ..zone
    }
}

/// `base`, overridden by the `written` keys.
fn apply(base: ZonePolicy, written: &Limits, found: &mut Findings) -> ZonePolicy {
    let mut zone = base;
    if let Some(observe) = written.mode.word(&[("enforce", false), ("observe", true)], found) {
        zone.rules.observe = observe;
    }
    let count = |entry: &Entry, found: &mut Findings| entry.number_or("off", &(1..=MAX_CONNECTIONS), found);
    zone.rules.connections = count(&written.connections, found).or(zone.rules.connections);
    zone.rules.rate = written.rate.rate_or_off(found).or(zone.rules.rate);
    zone.client.per_ip = count(&written.per_ip, found).or(zone.client.per_ip);
    zone.client.rate = rate::apply(zone.client.rate, &written.per_ip_rate, &written.per_ip_burst, found);
    if let Some(style) = written.reject_with.word(&REJECT_WITH, found) {
        zone.reject_with = style;
    }
    // Retry-After counts whole seconds. With 0, all refused clients would come back at once.
    let retry = Duration::from_secs(1)..=Duration::from_secs(86_400);
    zone.retry_after = written.retry_after.duration(&retry, found).unwrap_or(zone.retry_after);
    timeouts(&mut zone, &written.timeouts, found);
    messages::apply(&mut zone.messages, &written.messages, found);
    zone
}

fn timeouts(zone: &mut ZonePolicy, written: &schema::Timeouts, found: &mut Findings) {
    let mut set = |slot: &mut Option<Duration>, entry: &Entry, range: RangeInclusive<Duration>| {
        *slot = entry.duration_or_off(&range, found).or(*slot);
    };
    let (ms, second, hour) = (
        Duration::from_millis(1),
        Duration::from_secs(1),
        Duration::from_secs(3600),
    );
    set(&mut zone.dial, &written.dial, ms..=hour);
    set(&mut zone.upgrade, &written.upgrade, ms..=hour);
    set(&mut zone.timeouts.idle, &written.idle, ms..=YEAR);
    set(&mut zone.timeouts.half_close, &written.half_close, ms..=YEAR);
    // `stalled` becomes TCP_USER_TIMEOUT, a signed number of milliseconds. `keepalive` becomes TCP_KEEPIDLE, at most 32 767
    // s.
    set(&mut zone.timeouts.stalled, &written.stalled, ms..=24 * 24 * hour);
    set(&mut zone.timeouts.keepalive, &written.keepalive, second..=9 * hour);
    set(&mut zone.timeouts.lifetime, &written.lifetime, ms..=YEAR);
    set(&mut zone.messages.first_message, &written.first_message, ms..=hour);
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

const REJECT_WITH: [(&str, RejectWith); 3] = [
    ("http", RejectWith::Http),
    ("close", RejectWith::Close),
    ("drop", RejectWith::Drop),
];
