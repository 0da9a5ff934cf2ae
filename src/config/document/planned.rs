//! What the design promises and this version does not have. Such a key is a mistake, never accepted and ignored.
//!
//! Whoever builds one of these takes its line out here and puts the key into `schema.rs`.

/// Keys by the table they would stand in.
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

/// Values by the key that would take them.
pub const VALUES: &[(&str, &str)] = &[("http", "forward"), ("balance", "hash-sid")];

/// What there is in the meantime, by how a key begins that one might try: nginx and others have such.
const MEANWHILE: [(&str, &str); 3] = [("tls", TLS), ("ssl", TLS), ("cert", TLS)];

const TLS: &str = "TLS stays with nginx or HAProxy in front of wsguard: see conf/deploy/behind-nginx.md";

/// What to do where this key would be the way.
pub fn meanwhile(key: &str) -> Option<&'static str> {
    let found = MEANWHILE.iter().find(|(start, _)| key.starts_with(start));
    found.map(|(_, instead)| *instead)
}

/// Whether this key of this table is to come.
pub fn has_key(table: &str, key: &str) -> bool {
    KEYS.iter().any(|(name, keys)| *name == table && keys.contains(&key))
}

/// Whether this value of this key is to come.
pub fn has_value(key: &str, value: &str) -> bool {
    VALUES.contains(&(key, value))
}
