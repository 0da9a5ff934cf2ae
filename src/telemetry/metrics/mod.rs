//! The metrics, by the names that dashboards hold on to. No label ever comes from traffic.
//!
//! Events are counted here as they happen. Gauges and running totals are set by `admin::scrape` when somebody asks.

mod gauges;
mod handshakes;
mod register;
mod registry;
mod zone;

pub(crate) use self::register::seconds;
pub use self::registry::Metrics;
pub use self::zone::ZoneMetrics;
