//! Compiles `[[listener]]`.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::config::defaults;
use crate::config::document::schema;
use crate::config::document::table::{Entry, List};
use crate::config::findings::{Finding, Findings};
use crate::config::notation::addresses;
use crate::config::notation::paths;
use crate::config::policy::ListenerPolicy;
use crate::net::address::Bind;

use super::names::Names;

pub fn compile(
    listeners: &List<schema::Listener>,
    client_ip: &schema::ClientIp,
    found: &mut Findings,
) -> Vec<ListenerPolicy> {
    if listeners.is_missing {
        let hint = "[[listener]] and on the next line: bind = [\"0.0.0.0:8080\"]";
        found.mistake(Finding::nowhere("there is no [[listener]]").hint(hint));
    }
    let (mut names, mut bound) = (Names::new("listener"), Vec::new());
    let mut policies = Vec::new();
    for (header, written) in &listeners.tables {
        let bind = binds(written, header, &mut bound, found);
        let or = bind
            .first()
            .map_or_else(|| format!("listener-{}", policies.len() + 1), ToString::to_string);
        let name = names.add(&written.name, or, header.clone(), found);
        check_proxy_protocol(written, &bind, client_ip, found);
        policies.push(one(written, name, bind, found));
    }
    policies
}

fn one(written: &schema::Listener, name: Arc<str>, bind: Vec<Bind>, found: &mut Findings) -> ListenerPolicy {
    // "forward" is planned. Until it is built, "refuse" is the only word, so the policy has no field for it.
    let _: Option<()> = written.http.word(&[("refuse", ())], found);
    ListenerPolicy {
        name,
        bind,
        backlog: written
            .backlog
            .number(&(1..=1_000_000), found)
            .unwrap_or(defaults::BACKLOG),
        accept_proxy_protocol: written.accept_proxy_protocol.flag(found).unwrap_or(false),
        handshake_timeout: written
            .handshake_timeout
            .duration(&(Duration::from_millis(1)..=Duration::from_secs(3600)), found)
            .unwrap_or(defaults::HANDSHAKE_TIMEOUT),
        max_head_size: written
            .max_head_size
            .size(&(256..=1 << 20), found)
            .unwrap_or(defaults::MAX_HEAD_SIZE),
        max_headers: written
            .max_headers
            .number::<u16>(&(1..=256), found)
            .map_or(defaults::MAX_HEADERS, usize::from),
        max_pending: written
            .max_pending
            .number(&(1..=10_000_000), found)
            .unwrap_or(defaults::MAX_PENDING),
        max_pending_per_ip: written
            .max_pending_per_ip
            .number_or("off", &(1..=10_000_000), found)
            .or(defaults::MAX_PENDING_PER_IP),
        health_path: health_path(&written.health_path, found),
    }
}

fn binds(
    written: &schema::Listener,
    header: &Range<usize>,
    bound: &mut Vec<(Bind, Range<usize>)>,
    found: &mut Findings,
) -> Vec<Bind> {
    if !written.bind.is_written() {
        let mistake = Finding::at(header.clone(), "a listener without `bind`");
        found
            .mistake(mistake.hint("bind = [\"0.0.0.0:8080\"], or [\"127.0.0.1:8080\"] behind a proxy on this machine"));
    }
    let mut binds = Vec::new();
    for text in written
        .bind
        .texts("such as [\"0.0.0.0:8080\"]", found)
        .unwrap_or_default()
    {
        let bind = match addresses::bind(text.text) {
            Ok(bind) => bind,
            Err(invalid) => {
                found.invalid(text.span, invalid);
                continue;
            }
        };
        if let Some((first, span)) = bound.iter().find(|(other, _)| other.collides_with(&bind)) {
            let title = if *first == bind {
                format!("\"{bind}\" is bound twice")
            } else {
                format!("\"{bind}\" can't be bound beside \"{first}\", which has its port on every address")
            };
            found.mistake(Finding::at(text.span.clone(), title).beside(span.clone(), "the first"));
        }
        bound.push((bind.clone(), text.span));
        binds.push(bind);
    }
    binds
}

/// Whether only programs on this machine can connect to `bind`.
pub fn is_local(bind: &Bind) -> bool {
    match bind {
        Bind::Tcp(address) => {
            matches!(address.ip().to_canonical(), IpAddr::V4(v4) if v4.is_loopback()) || address.ip().is_loopback()
        }
        Bind::Unix(_) => true,
    }
}

fn health_path(entry: &Entry, found: &mut Findings) -> Option<Arc<str>> {
    if entry.is("off") {
        return None;
    }
    let text = entry.text("such as \"/healthz\", or \"off\"", found)?;
    match paths::check(text.text) {
        Ok(()) => Some(text.text.into()),
        Err(invalid) => {
            found.invalid(text.span, invalid);
            None
        }
    }
}

fn check_proxy_protocol(written: &schema::Listener, bind: &[Bind], client_ip: &schema::ClientIp, found: &mut Findings) {
    // Mistakes in these keys are reported where the keys are compiled.
    let mut ignored = Findings::default();
    if written.accept_proxy_protocol.flag(&mut ignored) != Some(true) {
        return;
    }
    let span = written.accept_proxy_protocol.span().unwrap_or_default();
    let trusted = client_ip.trusted_proxies.texts_or_none(&mut ignored);
    if !client_ip.trusted_proxies.is_written() || trusted.as_ref().is_some_and(Vec::is_empty) {
        let title = "`accept_proxy_protocol` without trusted proxies: every connection would be refused";
        let hint =
            "list the proxies that send the header in [client_ip] trusted_proxies; it is accepted only from them";
        found.mistake(Finding::at(span, title).hint(hint));
    } else if let Some(trusted) = trusted {
        let is_trusted = |bind: &&Bind| {
            let is_unix = matches!(bind, Bind::Unix(_));
            trusted.iter().any(|text| (text.text == "unix") == is_unix)
        };
        if let Some(bind) = bind.iter().find(|bind| !is_trusted(bind)) {
            let title = format!(
                "`accept_proxy_protocol` without a trusted peer for \"{bind}\": every connection to it would be refused"
            );
            found.mistake(Finding::at(span, title).hint(
                "trusted_proxies needs \"unix\" for Unix sockets, and networks (\"loopback\", \"10.0.0.0/8\") for addresses",
            ));
        }
    }
}
