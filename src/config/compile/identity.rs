//! Compiles `[client_ip]`.

use ipnet::IpNet;

use crate::config::defaults;
use crate::config::document::schema;
use crate::config::document::table::Entry;
use crate::config::findings::Findings;
use crate::config::notation::addresses;
use crate::config::notation::invalid::Invalid;
use crate::config::policy::IdentityPolicy;
use crate::config::routes::clients::ClientSet;
use crate::limit::key::{Prefixes, TranslationPrefix, TranslationPrefixes};
use crate::wire::hops::ForwardHeader;
use crate::wire::http::server_request::SendMode;

use super::clients;

pub fn compile(written: &schema::ClientIp, found: &mut Findings) -> IdentityPolicy {
    let trusted = written.trusted_proxies.texts_or_none(found).unwrap_or_default();
    let ClientSet { networks, unix } = clients::set(&trusted, found);
    let empty = "leave it out for [\"x-forwarded-for\"]; headers are read from trusted_proxies only";
    let headers = written.headers.header_names(&HEADERS, empty, found);
    let built_in = Prefixes::default();
    IdentityPolicy {
        trusted: networks,
        trust_unix: unix,
        headers: headers.unwrap_or_else(|| defaults::HEADERS.to_vec()),
        prefixes: Prefixes {
            v4: written.ipv4_prefix.number(&(0..=32), found).unwrap_or(built_in.v4),
            v6: written.ipv6_prefix.number(&(0..=128), found).unwrap_or(built_in.v6),
        },
        translations: translations(&written.translation_prefixes, found),
        send: written.send.word(&SEND, found).unwrap_or_default(),
    }
}

fn translations(entry: &Entry, found: &mut Findings) -> TranslationPrefixes {
    let mut prefixes = Vec::new();
    for text in entry.texts_or_none(found).unwrap_or_default() {
        match translation(text.text) {
            Ok(prefix) => prefixes.push(prefix),
            Err(invalid) => found.invalid(text.span, invalid),
        }
    }
    TranslationPrefixes::new(prefixes)
}

fn translation(text: &str) -> Result<TranslationPrefix, Invalid> {
    let why = || format!("\"{text}\" is not a NAT64 prefix");
    let network = match addresses::network(text) {
        Ok(IpNet::V6(network)) => network,
        Ok(IpNet::V4(_)) => {
            return Err(Invalid::new(
                why(),
                "NAT64 prefixes are IPv6, such as \"2001:db8:64::/96\"",
            ));
        }
        Err(invalid) if addresses::has_host_bits(text) => return Err(invalid),
        Err(_) => return Err(Invalid::new(why(), "an IPv6 network, such as \"2001:db8:64::/96\"")),
    };
    TranslationPrefix::new(network).ok_or_else(|| {
        let hint = match network.prefix_len() {
            96 => "bits 64 to 71 of a translated address are 0 (RFC 6052, section 2.2)",
            _ => "its length is 32, 40, 48, 56, 64 or 96 (RFC 6052, section 2.2)",
        };
        Invalid::new(why(), hint)
    })
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
