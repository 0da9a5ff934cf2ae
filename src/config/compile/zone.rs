//! `[limits]` and `[zone.*]`: a zone is what the limits say, with what it names itself.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::config::defaults;
use crate::config::finding::{Finding, Findings};
use crate::config::policy::{RejectWith, ZonePolicy};
use crate::config::raw::{self, File, Limits};
use crate::config::read::MOST_TOKENS;
use crate::config::shape::Entry;
use crate::limit::rules::{ClientRules, Rate};

use super::names;
use super::server::MOST_CONNECTIONS;

/// `default`, `exempt`, then the others in the order written.
pub fn compile(raw: &File, found: &mut Findings) -> Vec<ZonePolicy> {
    let limits = raw.limits.get();
    if let Some(span) = limits.exempt.span() {
        let hint = "[zone.NAME] exempt = true, and a [[route]] whose `zone` is that name";
        found.mistake(Finding::at(span, "`exempt` is for a zone, not for [limits]").hint(hint));
    }
    let common = overlay(defaults::zone("default"), limits, found);
    let mut zones = vec![common.clone(), exempt(&common)];
    for (name, written) in raw.zone.iter() {
        names::check(name.get_ref(), &name.span(), found);
        let at = zones.iter().position(|zone| *zone.name == **name.get_ref());
        let built_in = at.map(|at| zones[at].clone());
        let is_exempt = match written.exempt.flag(found) {
            Some(false) if built_in.as_ref().is_some_and(|zone| zone.exempt) => {
                let span = written.exempt.span().unwrap_or_default();
                found.mistake(Finding::at(span, "zone `exempt` is exempt").hint("choose another name for this zone"));
                true
            }
            Some(flag) => flag,
            None => built_in.as_ref().is_some_and(|zone| zone.exempt),
        };
        let base = match built_in {
            Some(zone) if zone.exempt => zone,
            _ => ZonePolicy {
                name: name.get_ref().as_str().into(),
                ..common.clone()
            },
        };
        let client = if is_exempt { ClientRules::default() } else { base.client };
        let zone = overlay(
            ZonePolicy {
                exempt: is_exempt,
                client,
                ..base
            },
            written,
            found,
        );
        if zone.exempt && zone.rules.connections.is_none() {
            let span = written.connections.span().unwrap_or_else(|| name.span());
            found.mistake(
                Finding::at(
                    span,
                    "an exempt zone without a ceiling: its share could not be set aside",
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

/// The built-in zone `exempt`, over what every zone starts from.
pub fn exempt(common: &ZonePolicy) -> ZonePolicy {
    let mut zone = common.clone();
    zone.name = Arc::from("exempt");
    zone.exempt = true;
    zone.rules.connections = Some(defaults::EXEMPT_CONNECTIONS);
    zone.client = ClientRules::default();
    zone
}

/// `base` with what is written over it.
fn overlay(base: ZonePolicy, raw: &Limits, found: &mut Findings) -> ZonePolicy {
    let mut zone = base;
    if let Some(observe) = raw.mode.word(&[("enforce", false), ("observe", true)], found) {
        zone.rules.observe = observe;
    }
    let count = |entry: &Entry, found: &mut Findings| entry.number_or("off", &(1..=MOST_CONNECTIONS), found);
    zone.rules.connections = count(&raw.connections, found).over(zone.rules.connections);
    zone.rules.rate = raw.rate.rate_or_off(found).over(zone.rules.rate);
    zone.client.per_ip = count(&raw.per_ip, found).over(zone.client.per_ip);
    let burst = raw.per_ip_burst.number(&(1..=MOST_TOKENS), found);
    zone.client.rate = client_rate(zone.client.rate, raw, burst, found);
    if let Some(style) = raw.reject_with.word(&REJECT_WITH, found) {
        zone.reject_with = style;
    }
    // Retry-After counts in whole seconds, and 0 would ask the whole crowd back at once.
    let retry = Duration::from_secs(1)..=Duration::from_secs(86_400);
    zone.retry_after = raw.retry_after.duration(&retry, found).unwrap_or(zone.retry_after);
    timeouts(&mut zone, raw.timeouts.get(), found);
    zone
}

/// Who writes a rate without its burst gets the number in it, never an inherited burst.
fn client_rate(base: Option<Rate>, raw: &Limits, burst: Option<u32>, found: &mut Findings) -> Option<Rate> {
    let burst = burst.and_then(std::num::NonZeroU32::new);
    let with_burst = |rate: Rate| Rate {
        burst: burst.unwrap_or(rate.burst),
        ..rate
    };
    if base.is_none() && !raw.per_ip_rate.is_written() && burst.is_some() {
        let span = raw.per_ip_burst.span().unwrap_or_default();
        let title = "`per_ip_burst` without a rate: there is none that this zone takes over";
        found.mistake(Finding::at(span, title).hint("per_ip_rate = \"10/s\" beside it"));
    }
    raw.per_ip_rate.rate_or_off(found).over(base).map(with_burst)
}

fn timeouts(zone: &mut ZonePolicy, raw: &raw::Timeouts, found: &mut Findings) {
    let mut set = |slot: &mut Option<Duration>, entry: &Entry, range: RangeInclusive<Duration>| {
        *slot = entry.duration_or_off(&range, found).over(*slot);
    };
    let (ms, second, hour) = (
        Duration::from_millis(1),
        Duration::from_secs(1),
        Duration::from_secs(3600),
    );
    set(&mut zone.dial, &raw.dial, ms..=hour);
    set(&mut zone.upgrade, &raw.upgrade, ms..=hour);
    set(&mut zone.pace.idle, &raw.idle, ms..=YEAR);
    set(&mut zone.pace.half_close, &raw.half_close, ms..=YEAR);
    // TCP_USER_TIMEOUT is a signed number of milliseconds, TCP_KEEPIDLE at most 32 767 s.
    set(&mut zone.pace.stalled, &raw.stalled, ms..=24 * 24 * hour);
    set(&mut zone.pace.keepalive, &raw.keepalive, second..=9 * hour);
    set(&mut zone.pace.lifetime, &raw.lifetime, ms..=YEAR);
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

const REJECT_WITH: [(&str, RejectWith); 3] = [
    ("http", RejectWith::Http),
    ("close", RejectWith::Close),
    ("drop", RejectWith::Drop),
];
