//! Compiles `[upstream.*]`.

use std::ops::Range;

use crate::config::document::schema;
use crate::config::document::table::{Named, Text};
use crate::config::findings::{Finding, Findings};
use crate::config::notation::addresses;
use crate::config::policy::UpstreamPolicy;
use crate::net::address::Target;
use crate::relay::rules::RelayMode;
use crate::upstream::rules::{Balance, UpstreamRules};

use super::names;

pub fn compile(upstreams: &Named<schema::Upstream>, found: &mut Findings) -> Vec<UpstreamPolicy> {
    if upstreams.is_missing {
        let hint = "[upstream.chat] and on the next line: servers = [\"127.0.0.1:3000\"]";
        found.mistake(Finding::nowhere("there is no [upstream.NAME]").hint(hint));
    }
    let compile = |(name, written): &(Text, schema::Upstream)| {
        names::check(name, found);
        UpstreamPolicy {
            rules: UpstreamRules {
                name: name.text.into(),
                servers: servers(written, &name.span, found),
                balance: written.balance.word(&BALANCE, found).unwrap_or_default(),
            },
            relay: written.relay.word(&RELAY, found).unwrap_or_default(),
        }
    };
    upstreams.tables.iter().map(compile).collect()
}

fn servers(written: &schema::Upstream, name: &Range<usize>, found: &mut Findings) -> Vec<Target> {
    if !written.servers.is_written() {
        let mistake = Finding::at(name.clone(), "an upstream without `servers`");
        found.mistake(mistake.hint("servers = [\"127.0.0.1:3000\"]"));
    }
    let mut servers: Vec<(Target, Range<usize>)> = Vec::new();
    for text in written
        .servers
        .texts("such as [\"127.0.0.1:3000\"]", found)
        .unwrap_or_default()
    {
        match addresses::target(text.text) {
            Ok(target) => {
                if let Some((_, first)) = servers.iter().find(|(other, _)| *other == target) {
                    let mistake = Finding::at(text.span.clone(), format!("\"{target}\" is listed twice"));
                    found.mistake(mistake.beside(first.clone(), "the first"));
                }
                servers.push((target, text.span));
            }
            Err(invalid) => found.invalid(text.span, invalid),
        }
    }
    servers.into_iter().map(|(target, _)| target).collect()
}

const RELAY: [(&str, RelayMode); 2] = [("auto", RelayMode::Auto), ("copy", RelayMode::Copy)];

const BALANCE: [(&str, Balance); 3] = [
    ("least-conn", Balance::LeastConn),
    ("round-robin", Balance::RoundRobin),
    ("hash-ip", Balance::HashIp),
];
