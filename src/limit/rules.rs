//! The limits that admission enforces. They have no state: the counts outlive every change of the limits.

use std::num::NonZeroU32;
use std::time::Duration;

/// A rate with its burst: `tokens` every `per`, and up to `burst` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens that come back every `per`.
    pub tokens: NonZeroU32,
    /// The span in which `tokens` come back.
    pub per: Duration,
    /// Tokens that a full bucket holds.
    pub burst: NonZeroU32,
}

/// The limits of one client key in one zone. `None` is "off".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientRules {
    /// Connections open at once.
    pub per_ip: Option<u32>,
    /// The rate of admissions.
    pub rate: Option<Rate>,
}

/// The limits of a zone as a whole. `None` is "off".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZoneRules {
    /// Admit and note what would be refused. The process ceiling still refuses.
    pub observe: bool,
    /// The zone's budget: connections open at once.
    pub connections: Option<u32>,
    /// The rate of admissions of the whole zone.
    pub rate: Option<Rate>,
}
