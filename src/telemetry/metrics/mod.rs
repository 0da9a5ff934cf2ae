//! The metrics, by the names that dashboards hold on to. No label ever comes from traffic.
//!
//! Events are counted here as they happen. `admin::scrape` reads the rest off the state when somebody asks: gauges that are
//! made anew for each scrape, and totals.

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
