//! Compiles `[[network]]`.

use std::num::NonZeroU32;
use std::ops::Range;

use ipnet::IpNet;

use crate::config::document::schema;
use crate::config::document::setting::Setting;
use crate::config::document::table::List;
use crate::config::document::value::MAX_TOKENS;
use crate::config::findings::{Finding, Findings};
use crate::config::policy::NetworkPolicy;
use crate::limit::network::NetworkMap;
use crate::limit::rules::Rate;

use super::clients;
use super::names::Names;
use super::server::MAX_CONNECTIONS;

pub fn compile(networks: &List<schema::Network>, found: &mut Findings) -> NetworkMap<NetworkPolicy> {
    let mut map = NetworkMap::default();
    let mut names = Names::new("network");
    let mut places: Vec<(IpNet, Range<usize>)> = Vec::new();
    for (nth, (header, written)) in networks.tables.iter().enumerate() {
        if !written.networks.is_written() {
            let mistake = Finding::at(header.clone(), "a network without `networks`");
            found.mistake(mistake.hint("networks = [\"203.0.113.0/28\"]"));
        }
        if !written.per_ip.is_written() && !written.per_ip_rate.is_written() {
            let mistake = Finding::at(header.clone(), "a network without a limit of its own");
            found.mistake(mistake.hint("per_ip = 400, or per_ip_rate = \"50/s\", or \"off\""));
        }
        let texts = written
            .networks
            .texts("such as [\"203.0.113.0/28\"]", found)
            .unwrap_or_default();
        let or = texts
            .first()
            .map_or_else(|| format!("network-{}", nth + 1), |text| text.text.to_owned());
        let policy = NetworkPolicy {
            name: names.add(&written.name, or, header.clone(), found),
            per_ip: written.per_ip.number_or("off", &(1..=MAX_CONNECTIONS), found).written(),
            rate: rate(written, found).written(),
        };
        for text in &texts {
            if text.text == "unix" {
                let title = "\"unix\" can't be in a [[network]]: Unix peers have no address";
                found.mistake(
                    Finding::at(text.span.clone(), title).hint("a route with networks = [\"unix\"] selects them"),
                );
                continue;
            }
            for (network, span) in clients::networks(text, found) {
                if map.insert(network, policy.clone()).is_err() {
                    let mut mistake = Finding::at(span.clone(), format!("\"{network}\" is listed twice"))
                        .hint("the longest prefix decides, and these are equally long");
                    if let Some((_, first)) = places.iter().find(|(other, _)| same(*other, network)) {
                        mistake = mistake.beside(first.clone(), "the first");
                    }
                    found.mistake(mistake);
                }
                places.push((network, span));
            }
        }
    }
    map
}

fn rate(written: &schema::Network, found: &mut Findings) -> Setting<Rate> {
    let burst = written
        .per_ip_burst
        .number(&(1..=MAX_TOKENS), found)
        .and_then(NonZeroU32::new);
    if !written.per_ip_rate.is_written() {
        if let Some(span) = written.per_ip_burst.span() {
            let title = "`per_ip_burst` has no rate: each zone has its own";
            found.mistake(Finding::at(span, title).hint("set per_ip_rate = \"50/s\" in the same table"));
        }
        return Setting::Unwritten;
    }
    match written.per_ip_rate.rate_or_off(found) {
        Setting::Value(rate) => Setting::Value(Rate {
            burst: burst.unwrap_or(rate.burst),
            ..rate
        }),
        other => other,
    }
}

/// Whether these are the same network. An IPv4 network and its v4-mapped IPv6 form are the same.
fn same(one: IpNet, other: IpNet) -> bool {
    one.addr().to_canonical() == other.addr().to_canonical()
        && one.max_prefix_len() - one.prefix_len() == other.max_prefix_len() - other.prefix_len()
}
