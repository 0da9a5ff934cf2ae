//! Compiles `[admin]` and `[log]`.

use std::net::SocketAddr;

use crate::config::defaults;
use crate::config::document::schema;
use crate::config::findings::{Finding, Findings};
use crate::config::notation::addresses::is_host_name;
use crate::config::policy::{AdminPolicy, ListenerPolicy, LogAccess, LogFormat, LogLevel, LogPolicy, ShowClients};
use crate::net::address::Bind;

pub fn compile(written: &schema::Admin, listeners: &[ListenerPolicy], found: &mut Findings) -> AdminPolicy {
    AdminPolicy {
        listen: listen(written, listeners, found),
        hosts: hosts(written, found),
        clients: written
            .clients
            .word(
                &[
                    ("show", ShowClients::Show),
                    ("prefix", ShowClients::Prefix),
                    ("hide", ShowClients::Hide),
                ],
                found,
            )
            .unwrap_or_default(),
    }
}

pub fn compile_log(written: &schema::Log, found: &mut Findings) -> LogPolicy {
    let levels = [
        ("debug", LogLevel::Debug),
        ("info", LogLevel::Info),
        ("warn", LogLevel::Warn),
        ("error", LogLevel::Error),
    ];
    let formats = [
        ("auto", LogFormat::Auto),
        ("text", LogFormat::Text),
        ("json", LogFormat::Json),
    ];
    let access = [
        ("all", LogAccess::All),
        ("rejected", LogAccess::Rejected),
        ("off", LogAccess::Off),
    ];
    LogPolicy {
        format: written.format.word(&formats, found).unwrap_or_default(),
        level: written.level.word(&levels, found).unwrap_or_default(),
        access: written.access.word(&access, found).unwrap_or_default(),
        sample: written.sample.rate_or_off(found).or(Some(defaults::LOG_SAMPLE)),
    }
}

fn listen(written: &schema::Admin, listeners: &[ListenerPolicy], found: &mut Findings) -> Option<SocketAddr> {
    if written.listen.is("off") {
        return None;
    }
    let listen = written.listen.text(&example(&written.listen.shown()), found);
    let text = listen.as_ref().map_or(defaults::ADMIN_LISTEN, |text| text.text);
    let span = listen.map(|text| text.span);
    let Ok(address) = text.parse::<SocketAddr>() else {
        let mistake = Finding::at(
            span.unwrap_or_default(),
            format!("\"{text}\" is not an address and port"),
        );
        found.mistake(mistake.hint(example(text)));
        return None;
    };
    let bind = Bind::Tcp(address);
    if let Some(taken) = listeners
        .iter()
        .flat_map(|listener| &listener.bind)
        .find(|other| other.collides_with(&bind))
    {
        let title = format!("a listener is bound to \"{taken}\": [admin] can't listen on \"{address}\"");
        let mistake = span.map_or_else(|| Finding::nowhere(&title), |span| Finding::at(span, &title));
        found.mistake(mistake.hint("[admin] listen = \"127.0.0.1:PORT\" with a free port, or \"off\""));
    }
    Some(address)
}

/// An example of `listen` for a hint. It keeps the port of the `written` text, if the text has one.
fn example(written: &str) -> String {
    let port = written.rsplit(':').next().and_then(|port| port.parse().ok());
    format!("such as \"127.0.0.1:{}\", or \"off\"", port.unwrap_or(9191_u16))
}

fn hosts(written: &schema::Admin, found: &mut Findings) -> Vec<String> {
    let mut hosts = Vec::new();
    for text in written.hosts.texts_or_none(found).unwrap_or_default() {
        let name = text.text.strip_suffix('.').unwrap_or(text.text);
        if is_host_name(name) || name.parse::<std::net::Ipv4Addr>().is_ok() {
            hosts.push(name.to_ascii_lowercase());
        } else {
            let mistake = Finding::at(text.span, format!("\"{}\" is not a host name", text.text));
            found.mistake(mistake.hint("such as \"wsguard.internal\", without scheme and port"));
        }
    }
    hosts
}
