//! Warnings about which proxies are trusted.

use crate::config::document::schema::File;
use crate::config::findings::{Finding, Findings};
use crate::config::policy::Policy;
use crate::net::address::Bind;

use super::super::{clients, listener};

/// Adds every warning about trusted proxies.
pub fn check(file: &File, policy: &Policy, found: &mut Findings) {
    let client_ip = &file.client_ip;
    // The lists were compiled earlier, without a mistake.
    let mut ignored = Findings::default();
    for text in client_ip
        .trusted_proxies
        .texts_or_none(&mut ignored)
        .unwrap_or_default()
    {
        // The set turns an IPv4 network in v4-mapped notation into IPv4.
        let set = clients::set(std::slice::from_ref(&text), &mut Findings::default());
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
