//! The programs that are compared, and their settings.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

/// A program with its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    /// A bare relay: the least that any proxy costs.
    Relay,
    Wsguard,
    /// wsguard with every limit on messages, and pings. None of the limits is ever reached.
    WsguardLimits,
    Nginx,
    /// nginx with buffers that hold a large message.
    NginxLarge,
    Haproxy,
    HaproxySplice,
}

/// The settings that a scenario needs beyond the usual ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Need {
    /// One address may have [`LIMIT`] connections, and gets 429 above that. wsguard does that by default.
    pub limit: bool,
    /// A client may take a minute to send a head.
    pub patience: bool,
    /// Some thousand connections stay open, and there must be descriptors for them. Otherwise wsguard would reserve
    /// these for pending connections.
    pub crowd: bool,
}

impl Contender {
    pub const ALL: [Self; 7] = [
        Self::Relay,
        Self::Wsguard,
        Self::WsguardLimits,
        Self::Nginx,
        Self::NginxLarge,
        Self::Haproxy,
        Self::HaproxySplice,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Wsguard => "wsguard",
            Self::WsguardLimits => "wsguard, limits on",
            Self::Nginx => "nginx",
            Self::NginxLarge => "nginx 64k",
            Self::Haproxy => "HAProxy",
            Self::HaproxySplice => "HAProxy splice",
        }
    }

    /// Whether wsguard is measured against this contender.
    pub fn is_peer(self) -> bool {
        !matches!(self, Self::Relay | Self::Wsguard | Self::WsguardLimits)
    }

    /// The configuration file of this contender. The relay has none.
    pub fn text(self, need: Need, front: SocketAddr, back: SocketAddr, folder: &Path) -> String {
        match self {
            Self::Relay => String::new(),
            Self::Wsguard => wsguard(need, front, back),
            Self::WsguardLimits => wsguard(need, front, back) + MESSAGE_LIMITS,
            Self::Nginx => nginx(need, front, back, folder, ""),
            Self::NginxLarge => nginx(need, front, back, folder, NGINX_LARGE),
            Self::Haproxy => haproxy(need, front, back, 9500, ""),
            // Pipes take descriptors too. With the usual number of connections there would be none left for them.
            Self::HaproxySplice => haproxy(need, front, back, 4000, HAPROXY_SPLICE),
        }
    }
}

/// The configuration of wsguard. Its limits for a client have their defaults in every scenario.
fn wsguard(need: Need, front: SocketAddr, back: SocketAddr) -> String {
    let patience = if need.patience {
        "handshake_timeout = \"1m\"\n"
    } else {
        ""
    };
    let crowd = if need.crowd { "max_pending = 500\n" } else { "" };
    format!(
        "[server]\nworkers = 1\n\n[[listener]]\nbind = [\"{front}\"]\n{patience}{crowd}\n\
         [upstream.backend]\nservers = [\"{back}\"]\n\n[admin]\nlisten = \"off\"\n\n\
         [log]\naccess = \"off\"\nlevel = \"warn\"\n"
    )
}

fn nginx(need: Need, front: SocketAddr, back: SocketAddr, folder: &Path, buffers: &str) -> String {
    let folder = folder.display();
    let (zone, limit) = if need.limit {
        (
            "limit_conn_zone $binary_remote_addr zone=clients:10m; limit_conn_status 429; limit_conn_log_level info;",
            format!("limit_conn clients {LIMIT};"),
        )
    } else {
        ("", String::new())
    };
    let mut temporary = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        // Writing to a String can't fail.
        let _ = write!(temporary, "{kind}_temp_path {folder}/{kind}; ");
    }
    format!(
        r#"daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
worker_processes 1;
worker_rlimit_nofile 20000;
events {{
    use epoll;
    worker_connections 19900;
}}
http {{
    access_log off;
    keepalive_timeout 1h;
    {temporary}
    {zone}
    upstream backend {{
        server {back};
    }}
    server {{
        listen {front} backlog=4096;
        {limit}
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
            {buffers}
        }}
    }}
}}
"#
    )
}

fn haproxy(need: Need, front: SocketAddr, back: SocketAddr, most: u32, options: &str) -> String {
    let limit = if need.limit {
        format!(
            "stick-table type ip size 100k expire 1h store conn_cur\n    \
             http-request track-sc0 src\n    \
             http-request deny deny_status 429 if {{ sc_conn_cur(0) gt {LIMIT} }}"
        )
    } else {
        String::new()
    };
    format!(
        "global
    nbthread 1
    maxconn {most}
defaults
    mode http
    {options}
    option forwardfor
    maxconn {most}
    timeout connect 5s
    timeout http-request 1m
    timeout http-keep-alive 1h
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
frontend front
    bind {front} backlog 4096
    {limit}
    default_backend back
backend back
    server backend {back}
"
    )
}

const MESSAGE_LIMITS: &str = r#"
[limits.messages]
rate = "1000000/s"
per_ip_rate = "1000000/s"
bytes_rate = "1GiB/s"
max_size = "16MiB"
out_rate = "1000000/s"
out_per_ip_rate = "1000000/s"
out_bytes_rate = "1GiB/s"
strict_frames = true
ping = "1h"
"#;
/// The most connections that one address may have open at once: wsguard's default.
pub const LIMIT: usize = 50;
const NGINX_LARGE: &str = "proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;";
const HAPROXY_SPLICE: &str = "option splice-auto\n    option splice-request\n    option splice-response";
