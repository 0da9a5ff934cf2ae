//! The targets of wsguard.

use crate::book::Row;
use crate::contender::Contender;

/// The target for one figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// At most this many times the figure of this contender.
    Of(Contender, f64),
    /// At most this many times the figure of the best peer.
    OfBest(f64),
    /// At most this much.
    Most(f64),
}

/// Whether a target was reached.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    pub target: Target,
    /// The ratio, or the figure itself. `None` if wsguard or the peer was not measured.
    pub reached: Option<f64>,
    /// The relative difference that two measurements of the same thing may have on a shared machine.
    noise: f64,
}

impl Target {
    /// The target for the row of this name, if it has one.
    pub fn of(name: &str) -> Option<Self> {
        let what = name.split_once(' ').map_or("", |(_, what)| what);
        Some(match name {
            "upgrade" | "echo-125b-100" | "echo-125b-1000" => Self::Of(Contender::Nginx, 1.0),
            "echo-16k-100" => Self::OfBest(1.0),
            "bulk-up" | "bulk-down" => Self::Of(Contender::HaproxySplice, 1.0),
            "refusal" => Self::Of(Contender::Nginx, 0.65),
            "flood p99 to quiet" => Self::Most(1.1),
            "pending silent" => Self::Most(0.5),
            "pending half a head" => Self::Most(1.0),
            "beside" => Self::Most(1.05),
            _ if name.starts_with("idle-") => match what {
                "fresh" | "after 64 KiB each" | "at rest" => Self::Most(1.0),
                "left in all" => Self::Most(10.0),
                _ => return None,
            },
            _ => return None,
        })
    }

    /// The target for the row of this name, for wsguard with limits on messages.
    fn with_limits(name: &str) -> Option<Self> {
        if name.starts_with("echo-") {
            return Some(Self::Of(Contender::Wsguard, 1.05));
        }
        let is_of = |what: &&str| name.ends_with(what);
        let is_memory = name.starts_with("idle-") && [" fresh", " after 64 KiB each", " at rest"].iter().any(is_of);
        is_memory.then_some(Self::Most(1.2))
    }

    /// The target in words.
    pub fn text(self, unit: &str) -> String {
        match self {
            Self::Of(peer, most) => format!("<= {most} x {}", peer.name()),
            Self::OfBest(most) => format!("<= {most} x the best"),
            Self::Most(most) if unit == "x" => format!("<= {most} x"),
            Self::Most(most) => format!("<= {most} {unit}"),
        }
    }
}

impl Verdict {
    /// The verdict on this row, if it has a target.
    pub fn on(row: &Row) -> Option<Self> {
        Some(Self::of(Contender::Wsguard, Target::of(&row.name)?, row))
    }

    /// The verdict on this row for wsguard with limits on messages.
    pub fn with_limits(row: &Row) -> Option<Self> {
        let verdict = Self::of(Contender::WsguardLimits, Target::with_limits(&row.name)?, row);
        verdict.reached.is_some().then_some(verdict)
    }

    fn of(ours: Contender, target: Target, row: &Row) -> Self {
        let reached = match target {
            Target::Of(peer, _) => row.ratio(ours, peer),
            Target::OfBest(_) => row.best_peer().and_then(|best| row.ratio(ours, best)),
            Target::Most(_) => row.value(ours),
        };
        let noise = match (target, row.unit) {
            (Target::Most(_), _) => 0.0,
            _ if row.name == "upgrade" => 0.15,
            (_, "us" | "s/GB") => 0.25,
            _ => 0.0,
        };
        Self { target, reached, noise }
    }

    /// Whether the target is met. `None` if it was not measured.
    pub fn is_met(&self) -> Option<bool> {
        Some(self.reached? <= self.most())
    }

    fn most(&self) -> f64 {
        let (Target::Of(_, most) | Target::OfBest(most) | Target::Most(most)) = self.target;
        most
    }

    /// The verdict in a word.
    pub fn word(&self) -> &'static str {
        match self.is_met() {
            Some(true) => "met",
            Some(false)
                if self
                    .reached
                    .is_some_and(|reached| reached < self.most() * (1.0 + self.noise)) =>
            {
                "missed by less than the noise"
            }
            Some(false) => "missed",
            None => "not measured",
        }
    }
}
