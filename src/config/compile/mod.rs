//! Raw to [`Policy`]: one file a table. Each notes its mistakes and goes on, with the default in place of what is wrong,
//! so that one run tells all of them.

mod admin;
mod clients;
mod identity;
mod listener;
mod messages;
mod names;
mod network;
mod own;
mod rate;
mod reach;
mod route;
mod server;
mod upstream;
mod warnings;
mod zone;

use std::sync::Arc;

use crate::config::document::schema::File;
use crate::config::findings::Findings;
use crate::config::policy::{LogFormat, Policy};

/// How a file would have things told in the log, whatever else is wrong with it.
pub fn log_format(raw: &File) -> LogFormat {
    admin::compile_log(&raw.log, &mut Findings::default()).format
}

/// The policy, or `None` where mistakes leave none.
pub fn policy(raw: &File, found: &mut Findings) -> Option<Policy> {
    let server = server::compile(&raw.server, found);
    let identity = identity::compile(&raw.client_ip, found);
    let listeners = listener::compile(&raw.listener, &raw.client_ip, found);
    let zones = zone::compile(raw, found);
    let networks = network::compile(&raw.network, found);
    let upstreams = upstream::compile(&raw.upstream, found);
    let routes = route::compile(raw, &zones, found);
    let admin = admin::compile(&raw.admin, &listeners, found);
    own::refuse(&raw.upstream, &listeners, admin.listen, found);
    let log = admin::compile_log(&raw.log, found);
    if !found.mistakes.is_empty() {
        return None;
    }
    let policy = Policy {
        server,
        listeners: listeners.into_iter().map(Arc::new).collect(),
        identity,
        zones: zones.into_iter().map(Arc::new).collect(),
        networks,
        routes,
        upstreams,
        admin,
        log,
    };
    warnings::look(raw, &policy, found);
    Some(policy)
}
