//! The metrics. Dashboards depend on their names. No label ever comes from traffic.
//!
//! Events are counted here as they happen. All other metrics are read from the state at each scrape, by `admin::scrape`:
//! gauges, which are made for that scrape, and totals.

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
