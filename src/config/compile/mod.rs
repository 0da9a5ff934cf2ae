//! Compiles tables of values into a [`Policy`]: one file per table. For a wrong value, each file adds a mistake and goes on
//! with a default, so one run finds all mistakes.

mod admin;
mod clients;
mod identity;
mod listener;
mod loops;
mod messages;
mod names;
mod network;
mod rate;
mod route;
mod server;
mod shadowed;
mod upstream;
mod warnings;
mod zone;

use std::sync::Arc;

use crate::config::document::schema::File;
use crate::config::findings::Findings;
use crate::config::policy::{LogFormat, Policy};

/// The `log.format` of a file that may have mistakes elsewhere.
pub fn log_format(file: &File) -> LogFormat {
    admin::compile_log(&file.log, &mut Findings::default()).format
}

/// The policy; `None` if there are mistakes.
pub fn policy(file: &File, found: &mut Findings) -> Option<Policy> {
    let server = server::compile(&file.server, found);
    let identity = identity::compile(&file.client_ip, found);
    let listeners = listener::compile(&file.listener, &file.client_ip, found);
    let zones = zone::compile(file, found);
    let networks = network::compile(&file.network, found);
    let upstreams = upstream::compile(&file.upstream, found);
    let routes = route::compile(file, &zones, found);
    let admin = admin::compile(&file.admin, &listeners, found);
    loops::check(&file.upstream, &listeners, admin.listen, found);
    let log = admin::compile_log(&file.log, found);
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
    warnings::check(file, &policy, found);
    Some(policy)
}
