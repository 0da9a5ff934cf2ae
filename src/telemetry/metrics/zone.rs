//! The metrics of one zone.

use std::time::Duration;

use enum_map::EnumMap;
use prometheus::{Histogram, IntCounter};

use crate::reason::close::CloseReason;
use crate::relay::totals::Totals;

use super::handshakes::Handshakes;
use super::register::seconds;

/// The handles of one zone, so that counting needs no look-up.
#[derive(Debug)]
pub struct ZoneMetrics {
    /// Admissions that led to a tunnel.
    pub admitted: IntCounter,
    /// The time from accept to tunnel.
    pub handshake_duration: Histogram,
    /// Ghosts that were reaped.
    pub reaped: IntCounter,
    /// Ghosts that were replaced by another connection of the same client.
    pub replaced: IntCounter,
    pub(crate) handshakes: Handshakes,
    pub(super) connection_duration: Histogram,
    pub(super) closes: EnumMap<CloseReason, IntCounter>,
}

impl ZoneMetrics {
    /// How many tunnels ended so far, by reason.
    #[cfg(feature = "demo")]
    pub fn closes(&self) -> impl Iterator<Item = (CloseReason, u64)> {
        self.closes.iter().map(|(reason, counter)| (reason, counter.get()))
    }

    /// Counts a tunnel that ended for `reason` and was `open` for this long. `totals` is `None` if the tunnel was cut off.
    pub fn closed(&self, reason: CloseReason, totals: Option<&Totals>, open: Duration) {
        self.closes[reason].inc();
        if reason == CloseReason::Ghost {
            let was_replaced = totals.is_some_and(|totals| totals.was_replaced);
            (if was_replaced { &self.replaced } else { &self.reaped }).inc();
        }
        self.connection_duration.observe(seconds(open));
    }
}
