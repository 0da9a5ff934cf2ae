//! `[client_ip]`.

use crate::config::clients::ClientSet;
use crate::config::defaults;
use crate::config::finding::Findings;
use crate::config::policy::IdentityPolicy;
use crate::config::raw;
use crate::limit::key::Prefixes;
use crate::wire::hops::ForwardHeader;
use crate::wire::request::SendMode;

use super::clients;

pub fn compile(raw: &raw::ClientIp, found: &mut Findings) -> IdentityPolicy {
    let trusted = raw.trusted_proxies.texts_or_none(found).unwrap_or_default();
    let ClientSet { networks, unix } = clients::set(&trusted, found);
    let empty = "leave it out for [\"x-forwarded-for\"]; headers are read from trusted_proxies only";
    let headers = raw.headers.header_names(&HEADERS, empty, found);
    let built_in = Prefixes::default();
    IdentityPolicy {
        trusted: networks,
        trust_unix: unix,
        headers: headers.unwrap_or_else(|| defaults::HEADERS.to_vec()),
        prefixes: Prefixes {
            v4: raw.ipv4_prefix.number(&(0..=32), found).unwrap_or(built_in.v4),
            v6: raw.ipv6_prefix.number(&(0..=128), found).unwrap_or(built_in.v6),
        },
        send: raw.send.word(&SEND, found).unwrap_or_default(),
    }
}

const SEND: [(&str, SendMode); 3] = [
    ("append", SendMode::Append),
    ("client", SendMode::Client),
    ("none", SendMode::None),
];

const HEADERS: [(&str, ForwardHeader); 4] = [
    ("x-forwarded-for", ForwardHeader::XForwardedFor),
    ("x-real-ip", ForwardHeader::XRealIp),
    ("forwarded", ForwardHeader::Forwarded),
    ("cf-connecting-ip", ForwardHeader::CfConnectingIp),
];
