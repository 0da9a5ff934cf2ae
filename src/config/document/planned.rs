//! Keys and values that are planned and not built yet. They are mistakes, never accepted and ignored.
//!
//! When one of them is built, its line moves from here to `schema.rs`.

/// Keys by table.
pub const KEYS: &[(&str, &[&str])] = &[
    ("listener", &["tls"]),
    (
        "upstream",
        &[
            "health",
            "circuit",
            "pressure",
            "max_connections",
            "max_connecting",
            "queue",
            "queue_timeout",
            "slow_start",
            "send_proxy_protocol",
            "drain",
            "weights",
        ],
    ),
];

/// Values by key.
pub const VALUES: &[(&str, &str)] = &[("http", "forward"), ("balance", "hash-sid")];

/// Advice for keys that begin with these letters. Other programs have such keys, so a user might try them.
const INSTEAD: [(&str, &str); 3] = [("tls", TLS), ("ssl", TLS), ("cert", TLS)];

const TLS: &str = "TLS stays with nginx or HAProxy in front of wsguard: see conf/deploy/behind-nginx.md";

/// What to do instead of writing this key.
pub fn instead_of(key: &str) -> Option<&'static str> {
    let found = INSTEAD.iter().find(|(start, _)| key.starts_with(start));
    found.map(|(_, instead)| *instead)
}

/// Whether this key of this table is planned.
pub fn has_key(table: &str, key: &str) -> bool {
    KEYS.iter().any(|(name, keys)| *name == table && keys.contains(&key))
}

/// Whether this value of this key is planned.
pub fn has_value(key: &str, value: &str) -> bool {
    VALUES.contains(&(key, value))
}
