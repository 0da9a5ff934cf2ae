//! Compiles `[server]`.

use std::time::Duration;

use crate::config::defaults;
use crate::config::document::schema;
use crate::config::findings::{Finding, Findings};
use crate::config::policy::ServerPolicy;

pub fn compile(written: &schema::Server, found: &mut Findings) -> ServerPolicy {
    let max_connections = written
        .max_connections
        .number_or("auto", &(1..=MAX_CONNECTIONS), found)
        .or(None);
    let table_size = written.table_size.number(&(1..=MAX_CONNECTIONS), found);
    let policy = ServerPolicy {
        workers: written.workers.number_or("auto", &(1..=1024), found).or(None),
        max_connections,
        table_size: table_size.unwrap_or(defaults::TABLE_SIZE),
        drain_delay: written
            .drain_delay
            .duration(&(Duration::ZERO..=AN_HOUR), found)
            .unwrap_or(defaults::DRAIN_DELAY),
        drain_timeout: written
            .drain_timeout
            .duration(&(Duration::ZERO..=AN_HOUR), found)
            .unwrap_or(defaults::DRAIN_TIMEOUT),
        watch_config: written.watch_config.flag(found).unwrap_or(true),
    };
    let table_is_known = table_size.is_some() || !written.table_size.is_written();
    if let Some(most) = max_connections.filter(|most| table_is_known && policy.table_size < *most) {
        let title = "`table_size` is smaller than `max_connections`: open connections could not all be counted";
        let most_span = written.max_connections.span().unwrap_or_default();
        let mistake = match written.table_size.span() {
            Some(span) => Finding::at(span, title).beside(most_span, "the ceiling"),
            None => Finding::at(most_span, title).label(format!("`table_size` is {} by default", policy.table_size)),
        };
        found.mistake(mistake.hint(format!("[server] table_size = {most}, or more")));
    }
    policy
}

const AN_HOUR: Duration = Duration::from_secs(3600);

/// The largest number of connections that a key takes: more than any machine has descriptors for.
pub const MAX_CONNECTIONS: u32 = 100_000_000;
