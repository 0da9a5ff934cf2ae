//! The scenarios that are measured, and the contenders of each.

use crate::bulk::Way;
use crate::contender::{Contender, Need};
use crate::effort::{Effort, KIB};

/// One kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// A handshake: open, 101, a WebSocket close.
    Upgrade,
    /// Echoes, with a message in flight on each connection.
    Echo { size: usize, connections: usize },
    /// Messages of 64 KiB, in one direction.
    Bulk(Way),
    /// The memory of this many idle connections.
    Idle(usize),
    /// Refusals with 429.
    Refusal,
    /// How long an honest client waits for its echo while others are refused.
    Flood,
    /// The memory of sockets that have sent nothing yet, or half a head.
    Pending,
    /// The cost of a message beside many idle connections, relative to its cost without them.
    Beside,
    /// The number of system calls.
    Calls(Counted),
}

/// The operations whose system calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    Echo,
    Upgrade,
    Refusal,
}

impl Scenario {
    /// All scenarios, in the order of the report.
    pub fn all(effort: &Effort) -> Vec<Self> {
        let mut all = vec![Self::Upgrade];
        all.extend(
            effort
                .echoes
                .iter()
                .map(|&(size, connections)| Self::Echo { size, connections }),
        );
        all.extend([Self::Bulk(Way::Up), Self::Bulk(Way::Down)]);
        all.extend(effort.idle.iter().map(|count| Self::Idle(*count)));
        all.extend([Self::Refusal, Self::Flood, Self::Pending, Self::Beside]);
        all.extend([Counted::Echo, Counted::Upgrade, Counted::Refusal].map(Self::Calls));
        all
    }

    /// The name of the scenario. `--only` selects a scenario by its name or by the beginning of its name.
    pub fn name(self) -> String {
        match self {
            Self::Upgrade => "upgrade".to_owned(),
            Self::Echo { size, connections } if size % KIB == 0 => format!("echo-{}k-{connections}", size / KIB),
            Self::Echo { size, connections } => format!("echo-{size}b-{connections}"),
            Self::Bulk(Way::Up) => "bulk-up".to_owned(),
            Self::Bulk(Way::Down) => "bulk-down".to_owned(),
            Self::Idle(count) => format!("idle-{count}"),
            Self::Refusal => "refusal".to_owned(),
            Self::Flood => "flood".to_owned(),
            Self::Pending => "pending".to_owned(),
            Self::Beside => "beside".to_owned(),
            Self::Calls(Counted::Echo) => "calls-echo-125b-100".to_owned(),
            Self::Calls(Counted::Upgrade) => "calls-upgrade".to_owned(),
            Self::Calls(Counted::Refusal) => "calls-refusal".to_owned(),
        }
    }

    /// The contenders, in this order. The relay refuses no client. In the flood it therefore has no refusals to make:
    /// its figures show how much of a difference comes from the bench itself.
    pub fn contenders(self) -> Vec<Contender> {
        Contender::ALL
            .into_iter()
            .filter(|contender| match contender {
                Contender::Wsguard | Contender::Nginx | Contender::Haproxy => true,
                Contender::WsguardLimits => matches!(self, Self::Echo { .. } | Self::Idle(_)),
                Contender::Relay => !matches!(self, Self::Refusal | Self::Pending | Self::Calls(Counted::Refusal)),
                Contender::NginxLarge => self.is_large() || matches!(self, Self::Idle(_)),
                Contender::HaproxySplice => self.is_large(),
            })
            .collect()
    }

    /// Whether buffers and splice make a difference.
    fn is_large(self) -> bool {
        matches!(self, Self::Bulk(_)) || matches!(self, Self::Echo { size, .. } if size >= 16 * KIB)
    }

    pub fn need(self) -> Need {
        Need {
            limit: matches!(self, Self::Refusal | Self::Flood | Self::Calls(Counted::Refusal)),
            patience: self == Self::Pending,
            crowd: matches!(self, Self::Idle(_) | Self::Beside),
        }
    }

    pub fn rounds(self, effort: &Effort) -> usize {
        match self {
            Self::Idle(_) | Self::Pending => effort.steady_rounds,
            Self::Calls(_) => 1,
            _ => effort.rounds,
        }
    }
}
