//! The file as it is written: one struct a table, one field a key, every value with its span.
//!
//! Nothing is judged here. A value of the wrong type, a key that is not known and a table that is none are kept, so that
//! each becomes one mistake among all of them instead of the end of reading; [`File::report`] tells the last two.

use serde::de::{IgnoredAny, MapAccess};
use toml::Spanned;

use crate::config::document::table::{Entry, Field, Named, Section, Sections, Shape, Table};
use crate::config::document::unknown_key;
use crate::config::findings::Findings;

/// Writes down a table's keys once, and makes of them the struct, how it is read, and the list of keys.
macro_rules! table {
    ($(#[$doc:meta])* $name:ident $path:literal { $($key:ident: $kind:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            $(pub $key: $kind,)*
            strays: Vec<Spanned<String>>,
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: <$kind as Field>::unwritten(stringify!($key)),)* strays: Vec::new() }
            }
        }

        impl Table for $name {
            const PATH: &'static str = $path;
            const KEYS: &'static [&'static str] = &[$(stringify!($key)),*];

            fn set<'de, A: MapAccess<'de>>(&mut self, key: Spanned<String>, map: &mut A) -> Result<(), A::Error> {
                match key.get_ref().as_str() {
                    $(stringify!($key) => self.$key.read(map)?,)*
                    _ => {
                        map.next_value::<IgnoredAny>()?;
                        self.strays.push(key);
                    }
                }
                Ok(())
            }

            fn report(&self, found: &mut Findings) {
                $(self.$key.report(found);)*
                for stray in &self.strays {
                    found.mistake(unknown_key::mistake(Self::PATH, Self::KEYS, stray, &SCHEMA));
                }
            }
        }
    };
}

table! {
    /// The whole file.
    File "" {
        server: Section<Server>, listener: Sections<Listener>, client_ip: Section<ClientIp>, limits: Section<Limits>,
        zone: Named<Limits>, network: Sections<Network>, route: Sections<Route>, upstream: Named<Upstream>,
        admin: Section<Admin>, log: Section<Log>,
    }
}
table! {
    /// `[server]`.
    Server "server" {
        workers: Entry, max_connections: Entry, table_size: Entry, drain_delay: Entry, drain_timeout: Entry,
        watch_config: Entry,
    }
}
table! {
    /// `[[listener]]`.
    Listener "listener" {
        name: Entry, bind: Entry, backlog: Entry, accept_proxy_protocol: Entry, handshake_timeout: Entry,
        max_head_size: Entry, max_headers: Entry, max_pending: Entry, max_pending_per_ip: Entry, health_path: Entry,
        http: Entry,
    }
}
table! {
    /// `[client_ip]`.
    ClientIp "client_ip" {
        trusted_proxies: Entry, headers: Entry, ipv4_prefix: Entry, ipv6_prefix: Entry,
        translation_prefixes: Entry, send: Entry,
    }
}
table! {
    /// `[limits]` and every `[zone.*]`; `exempt` is for a zone only.
    Limits "limits" {
        exempt: Entry, mode: Entry, connections: Entry, rate: Entry, per_ip: Entry, per_ip_rate: Entry,
        per_ip_burst: Entry, reject_with: Entry, retry_after: Entry, timeouts: Section<Timeouts>,
        messages: Section<Messages>,
    }
}
table! {
    /// `[limits.timeouts]` and every `[zone.*.timeouts]`.
    Timeouts "limits.timeouts" {
        dial: Entry, upgrade: Entry, idle: Entry, half_close: Entry, stalled: Entry, keepalive: Entry, lifetime: Entry,
        first_message: Entry,
    }
}
table! {
    /// `[limits.messages]` and every `[zone.*.messages]`.
    Messages "limits.messages" {
        preset: Entry, rate: Entry, burst: Entry, per_ip_rate: Entry, per_ip_burst: Entry, bytes_rate: Entry,
        bytes_burst: Entry, max_size: Entry, out_rate: Entry, out_burst: Entry, out_per_ip_rate: Entry,
        out_per_ip_burst: Entry, out_bytes_rate: Entry, out_bytes_burst: Entry, on_exceed: Entry, notice: Entry,
        strict_frames: Entry, ping: Entry, pong: Entry, pong_timeout: Entry,
        replace_ghosts: Entry,
    }
}
table! {
    /// `[[network]]`.
    Network "network" { name: Entry, networks: Entry, per_ip: Entry, per_ip_rate: Entry, per_ip_burst: Entry }
}
table! {
    /// `[[route]]`.
    Route "route" {
        name: Entry, hosts: Entry, paths: Entry, networks: Entry, allow: Entry, origins: Entry, zone: Entry,
        upstream: Entry, refuse: Entry,
    }
}
table! {
    /// `[upstream.*]`.
    Upstream "upstream" { servers: Entry, balance: Entry, relay: Entry }
}
table! {
    /// `[admin]`.
    Admin "admin" { listen: Entry, hosts: Entry, clients: Entry }
}
table! {
    /// `[log]`.
    Log "log" { format: Entry, level: Entry, access: Entry, sample: Entry }
}

/// Every table with its keys, the file's own first.
pub const SCHEMA: [(&str, &[&str]); 12] = [
    (File::PATH, File::KEYS),
    (Server::PATH, Server::KEYS),
    (Listener::PATH, Listener::KEYS),
    (ClientIp::PATH, ClientIp::KEYS),
    (Limits::PATH, Limits::KEYS),
    (Timeouts::PATH, Timeouts::KEYS),
    (Messages::PATH, Messages::KEYS),
    (Network::PATH, Network::KEYS),
    (Route::PATH, Route::KEYS),
    (Upstream::PATH, Upstream::KEYS),
    (Admin::PATH, Admin::KEYS),
    (Log::PATH, Log::KEYS),
];

impl File {
    /// Reads TOML. An error is one of syntax, and the first.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        match toml::from_str(text)? {
            Shape::Fits(file) => Ok(file),
            Shape::Other => Ok(Self::default()), // A TOML document is a table always.
        }
    }

    /// Tells every unknown key, and everything that should be a table and is not.
    pub fn report(&self, found: &mut Findings) {
        Table::report(self, found);
    }
}
