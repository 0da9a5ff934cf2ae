//! Every table of a configuration with its keys.

use toml::de::DeTable;

use crate::config::findings::Findings;

use super::table::{Entry, Field, List, Named, Schema, Table};
use super::unknown_key;

/// Declares a table: first its keys with plain values, then its keys with tables as values. Generates the struct and its
/// [`Table`] implementation, which reads it and lists its keys.
macro_rules! table {
    (
        $(#[$doc:meta])* $name:ident<$t:lifetime> $path:literal in $place:literal { $($key:ident),* $(,)? }
        $(with { $($inner:ident: $kind:ty),* $(,)? })?
    ) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<$t> {
            $(pub $key: Entry<$t>,)*
            $($(pub $inner: $kind,)*)?
        }

        impl<$t> Table<$t> for $name<$t> {
            const SCHEMA: Schema = Schema {
                path: $path,
                place: $place,
                keys: &[$(stringify!($key),)* $($(stringify!($inner),)*)?],
            };

            fn read(table: Option<&$t DeTable<$t>>, found: &mut Findings) -> Self {
                let get = |key: &str| table.and_then(|table| table.get(key));
                unknown_key::report(&Self::SCHEMA, table, &SCHEMAS, found);
                Self {
                    $($key: Entry { key: stringify!($key), value: get(stringify!($key)) },)*
                    $($($inner: Field::read(stringify!($inner), get(stringify!($inner)), found),)*)?
                }
            }
        }
    };
}

table! {
    /// The whole file.
    File<'t> "" in "the file itself" {
    } with {
        server: Server<'t>, listener: List<Listener<'t>>, client_ip: ClientIp<'t>, limits: Limits<'t>,
        zone: Named<'t, Limits<'t>>, network: List<Network<'t>>, route: List<Route<'t>>,
        upstream: Named<'t, Upstream<'t>>, admin: Admin<'t>, log: Log<'t>,
    }
}
table! {
    /// `[server]`.
    Server<'t> "server" in "[server]" {
        workers, max_connections, table_size, drain_delay, drain_timeout, watch_config,
    }
}
table! {
    /// `[[listener]]`.
    Listener<'t> "listener" in "a [[listener]]" {
        name, bind, backlog, accept_proxy_protocol, handshake_timeout, max_head_size, max_headers, max_pending,
        max_pending_per_ip, health_path, http,
    }
}
table! {
    /// `[client_ip]`.
    ClientIp<'t> "client_ip" in "[client_ip]" {
        trusted_proxies, headers, ipv4_prefix, ipv6_prefix, translation_prefixes, send,
    }
}
table! {
    /// `[limits]` and every `[zone.*]`; `exempt` is for a zone only.
    Limits<'t> "limits" in "[limits] or a [zone.NAME]" {
        exempt, mode, connections, rate, per_ip, per_ip_rate, per_ip_burst, reject_with, retry_after,
    } with {
        timeouts: Timeouts<'t>, messages: Messages<'t>,
    }
}
table! {
    /// `[limits.timeouts]` and every `[zone.*.timeouts]`.
    Timeouts<'t> "limits.timeouts" in "[limits.timeouts]" {
        dial, upgrade, idle, half_close, stalled, keepalive, lifetime, first_message,
    }
}
table! {
    /// `[limits.messages]` and every `[zone.*.messages]`.
    Messages<'t> "limits.messages" in "[limits.messages]" {
        preset, rate, burst, per_ip_rate, per_ip_burst, bytes_rate, bytes_burst, max_size, out_rate, out_burst,
        out_per_ip_rate, out_per_ip_burst, out_bytes_rate, out_bytes_burst, on_exceed, notice, strict_frames, ping,
        pong, pong_timeout, replace_ghosts,
    }
}
table! {
    /// `[[network]]`.
    Network<'t> "network" in "a [[network]]" {
        name, networks, per_ip, per_ip_rate, per_ip_burst,
    }
}
table! {
    /// `[[route]]`.
    Route<'t> "route" in "a [[route]]" {
        name, hosts, paths, networks, allow, origins, zone, upstream, refuse,
    }
}
table! {
    /// `[upstream.*]`.
    Upstream<'t> "upstream" in "an [upstream.NAME]" {
        servers, balance, relay,
    }
}
table! {
    /// `[admin]`.
    Admin<'t> "admin" in "[admin]" {
        listen, hosts, clients,
    }
}
table! {
    /// `[log]`.
    Log<'t> "log" in "[log]" {
        format, level, access, sample,
    }
}

/// Every table, the file itself first.
pub const SCHEMAS: [Schema; 12] = [
    File::SCHEMA,
    Server::SCHEMA,
    Listener::SCHEMA,
    ClientIp::SCHEMA,
    Limits::SCHEMA,
    Timeouts::SCHEMA,
    Messages::SCHEMA,
    Network::SCHEMA,
    Route::SCHEMA,
    Upstream::SCHEMA,
    Admin::SCHEMA,
    Log::SCHEMA,
];

/// The tables that are lists, each with double brackets.
pub const LISTS: [&str; 3] = [Listener::SCHEMA.path, Network::SCHEMA.path, Route::SCHEMA.path];
