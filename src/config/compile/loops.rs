//! Finds upstream servers that are wsguard itself: connections to them would come back to it.

use std::fs::canonicalize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::config::document::schema;
use crate::config::document::table::Named;
use crate::config::findings::{Finding, Findings};
use crate::config::notation::addresses;
use crate::config::policy::ListenerPolicy;
use crate::net::address::{Bind, Target, host_name, is_of_this_machine};

/// Adds a mistake for each server whose address is one of a listener or of the admin server, as far as that is known without
/// DNS.
pub fn check(
    upstreams: &Named<schema::Upstream>,
    listeners: &[ListenerPolicy],
    admin: Option<SocketAddr>,
    found: &mut Findings,
) {
    let admin = admin.map(Bind::Tcp);
    // Mistakes in the lists of servers are reported where the lists are compiled.
    let mut ignored = Findings::default();
    for (_, upstream) in &upstreams.tables {
        for text in upstream.servers.texts_or_none(&mut ignored).unwrap_or_default() {
            let Ok(server) = addresses::target(text.text) else {
                continue;
            };
            let mut binds = listeners.iter().flat_map(|listener| &listener.bind);
            let (what, hint) = if binds.any(|bind| is_at(&server, bind)) {
                let hint = "name the address of your own server; its port differs from that of `bind`";
                ("listener: every connection would come back to it", hint)
            } else if admin.as_ref().is_some_and(|bind| is_at(&server, bind)) {
                let hint = "name the address of your own server; its port differs from that of [admin] `listen`";
                ("admin listener: no connection could be opened there", hint)
            } else {
                continue;
            };
            let title = format!("\"{}\" is wsguard's own {what}", text.text);
            found.mistake(Finding::at(text.span, title).hint(hint));
        }
    }
}

/// Whether a connection to `server` arrives at `bind`.
fn is_at(server: &Target, bind: &Bind) -> bool {
    match (server, bind) {
        (Target::Tcp(server), Bind::Tcp(bind)) => server.port() == bind.port() && accepts(bind.ip(), server.ip()),
        (Target::Name { host, port }, Bind::Tcp(bind)) => *port == bind.port() && name_leads_to(host, bind.ip()),
        (Target::Unix(server), Bind::Unix(bind)) => server == bind || resolved(server) == resolved(bind),
        _ => false,
    }
}

/// Whether a listener at `bind` accepts connections to `server`. A connection to "any address" goes to this machine.
fn accepts(bind: IpAddr, server: IpAddr) -> bool {
    let (bind, server) = (bind.to_canonical(), server.to_canonical());
    let server = match server {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    let any = bind.is_unspecified() && bind.is_ipv4() == server.is_ipv4();
    bind == server || (any && is_of_this_machine(server))
}

/// Whether this name leads to a listener at `bind`, as far as that is known without DNS: "localhost" is loopback (RFC 6761),
/// and the machine's own name stands for one of the machine's addresses.
fn name_leads_to(host: &str, bind: IpAddr) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if host == "localhost" || host.ends_with(".localhost") {
        return accepts(bind, Ipv4Addr::LOCALHOST.into()) || accepts(bind, Ipv6Addr::LOCALHOST.into());
    }
    bind.is_unspecified() && host_name().is_some_and(|own| own.eq_ignore_ascii_case(&host))
}

/// The path without links and dot segments, as far as the path exists.
fn resolved(socket: &Path) -> PathBuf {
    let beside = || Some(canonicalize(socket.parent()?).ok()?.join(socket.file_name()?));
    let whole = canonicalize(socket).ok();
    whole.or_else(beside).unwrap_or_else(|| socket.to_path_buf())
}
