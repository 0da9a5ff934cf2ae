//! The handshakes of one zone, or of all connections without a route, by outcome and reason.

use std::sync::OnceLock;

use enum_map::{Enum, EnumMap};
use prometheus::{IntCounter, IntCounterVec};

use crate::reason::reject::RejectReason;

/// The series of `wsguard_handshakes_total` with one zone label. A series is looked up by its labels, and thereby made, when
/// it is first needed.
#[derive(Debug)]
pub(crate) struct Handshakes {
    all: IntCounterVec,
    zone: String,
    counters: EnumMap<Refused, EnumMap<RejectReason, OnceLock<IntCounter>>>,
}

/// The outcome of a handshake that did not end in a plain admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub(crate) enum Refused {
    /// The handshake got no permit.
    Rejected,
    /// The handshake exceeded a limit, but got a tunnel.
    Observed,
    /// The handshake got a permit, but no tunnel.
    Failed,
}

impl Handshakes {
    pub(super) fn new(all: &IntCounterVec, zone: &str) -> Self {
        Self {
            all: all.clone(),
            zone: zone.to_owned(),
            counters: EnumMap::default(),
        }
    }

    /// The counter of admissions.
    pub(super) fn admitted(&self) -> IntCounter {
        self.all.with_label_values(&[&*self.zone, "admitted", "-"])
    }

    /// The counter of this outcome, whose series exists from now on.
    pub(crate) fn counter(&self, outcome: Refused, reason: RejectReason) -> &IntCounter {
        self.counters[outcome][reason].get_or_init(|| {
            self.all
                .with_label_values(&[&*self.zone, outcome.word(), reason.word()])
        })
    }

    /// How many handshakes were rejected so far, for each reason that has a series.
    pub(super) fn rejected(&self) -> impl Iterator<Item = (RejectReason, u64)> {
        let counters = self.counters[Refused::Rejected].iter();
        counters.filter_map(|(reason, counter)| Some((reason, counter.get()?.get())))
    }
}

impl Refused {
    fn word(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Observed => "observed",
            Self::Failed => "failed",
        }
    }
}
