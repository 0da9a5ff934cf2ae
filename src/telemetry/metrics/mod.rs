//! The metrics. Dashboards depend on their names. No label ever comes from traffic.
//!
//! Events are counted here as they happen. At each scrape, `admin::scrape` reads the rest from the state: gauges, which
//! are made for that scrape, and totals.

mod gauges;
mod handshakes;
mod register;
mod registry;
mod totals;
mod zone;

pub(crate) use self::gauges::Gauges;
pub(crate) use self::register::seconds;
pub use self::registry::Metrics;
pub use self::zone::ZoneMetrics;
