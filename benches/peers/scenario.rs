//! What is measured, and on whom.

use crate::bulk::Way;
use crate::contender::{Contender, Need};
use crate::effort::{Effort, KIB};

/// One kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Open, 101, a WebSocket close.
    Upgrade,
    /// A message in flight on each connection.
    Echo { size: usize, connections: usize },
    /// Messages of 64 KiB, one way.
    Bulk(Way),
    /// Memory of so many connections.
    Idle(usize),
    /// 429.
    Refusal,
    /// What an honest client waits while others are refused.
    Flood,
    /// Memory of sockets that have said nothing yet, or half of it.
    Pending,
    /// What a message costs beside many idle connections.
    Beside,
    /// System calls.
    Calls(Counted),
}

/// What system calls are counted of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    Echo,
    Upgrade,
    Refusal,
}

impl Scenario {
    /// All, in the order of the report.
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

    /// As it is asked for, alone or with all whose names begin alike.
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

    /// Who takes part, in this order. The relay refuses nobody; in the flood it is there with none of it, which tells how
    /// much of a difference is the bench's own.
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

    /// Buffers and splice make a difference.
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
