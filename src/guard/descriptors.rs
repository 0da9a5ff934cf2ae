//! How many connections this machine has room for.

use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::defaults::MAX_PENDING;
use crate::config::policy::Policy;
use crate::net::pipe::Pipe;

/// What there is room for, dealt out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// The process ceiling.
    pub process_connections: u32,
    /// What of it is not set aside for exempt zones.
    pub common_connections: u32,
    /// Each zone's budget; an exempt one's is what is set aside for it.
    pub zone_connections: Vec<Option<u32>>,
    /// Each listener's `max_pending`.
    pub max_pending: Vec<u32>,
}

/// The descriptor limit leaves no room to work in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the descriptor limit of {limit} leaves room for {room} connections; at least {needed} descriptors are needed")]
pub struct TooFew {
    limit: u64,
    room: u64,
    needed: u64,
}

/// Raises the soft descriptor limit to the hard one and says what it is now.
pub fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
    .unwrap_or(u64::MAX)
}

/// What the descriptor limit of this machine does to what a policy asks for, in words: what is cut at start, or does not
/// fit. The default of `max_pending` is nobody's wish: who has not written it is not told here that it is cut.
pub fn notes(policy: &Policy) -> Vec<String> {
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    notes_at(policy, limit, policy.server.workers.map_or_else(cpus, usize::from))
}

fn notes_at(policy: &Policy, limit: u64, workers: usize) -> Vec<String> {
    let room = match deal(policy, limit, workers) {
        Ok(room) => room,
        Err(error) => return vec![error.to_string()],
    };
    let is_default = |name: &str| {
        let mut listeners = policy.listeners.iter();
        listeners.any(|listener| *listener.name == *name && listener.max_pending == MAX_PENDING)
    };
    cuts(policy, &room, limit)
        .into_iter()
        .filter_map(|(listener, cut)| match listener {
            Some(listener) if is_default(&listener) => None,
            Some(listener) => Some(format!("listener {listener}: {cut}; {RAISED}")),
            None => Some(format!("{cut}; {RAISED}")),
        })
        .collect()
}

/// What was asked for and does not fit, by listener where it is one's.
pub fn cuts(policy: &Policy, room: &Room, limit: u64) -> Vec<(Option<Arc<str>>, String)> {
    let mut cuts = Vec::new();
    for (listener, max_pending) in policy.listeners.iter().zip(&room.max_pending) {
        if *max_pending < listener.max_pending {
            let asked = listener.max_pending;
            let cut = format!("max_pending is cut from {asked} to {max_pending}: the descriptor limit is {limit}");
            cuts.push((Some(Arc::clone(&listener.name)), cut));
        }
    }
    let needed = 2 * u64::from(room.process_connections);
    if needed > limit {
        let asked = room.process_connections;
        cuts.push((
            None,
            format!("max_connections {asked} needs {needed} descriptors, and the limit is {limit}"),
        ));
    }
    cuts
}

/// One worker a CPU.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// Deals out what a descriptor `limit` has room for.
pub fn deal(policy: &Policy, limit: u64, workers: usize) -> Result<Room, TooFew> {
    let wanted: u64 = policy
        .listeners
        .iter()
        .map(|listener| u64::from(listener.max_pending))
        .sum();
    let pending = wanted.min(limit / 4);
    let reserved = OWN + A_WORKER * workers as u64;
    let room = limit.saturating_sub(reserved + pipes(limit, workers) + pending) / 2;
    if room < LEAST {
        return Err(TooFew {
            limit,
            room,
            needed: least_limit(reserved, workers, wanted),
        });
    }
    let auto = room.min(u64::from(policy.server.table_size));
    let process = policy
        .server
        .max_connections
        .unwrap_or(u32::try_from(auto).unwrap_or(u32::MAX));
    let zone_connections = set_aside(policy, process);
    let exempt: u32 = policy
        .zones
        .iter()
        .zip(&zone_connections)
        .filter(|(zone, _)| zone.exempt)
        .filter_map(|(_, connections)| *connections)
        .sum();
    Ok(Room {
        process_connections: process,
        common_connections: process - exempt,
        zone_connections,
        max_pending: policy
            .listeners
            .iter()
            .map(|listener| cut(u64::from(listener.max_pending), pending, wanted).max(1))
            .collect(),
    })
}

/// Each zone's budget. Exempt zones that a route leads to have theirs set aside: a tenth of the process ceiling
/// together at most, cut in proportion. One that no route leads to needs nothing.
fn set_aside(policy: &Policy, process: u32) -> Vec<Option<u32>> {
    let led_to = |index: usize| policy.routes.iter().any(|route| route.leads_to(index));
    let ceiling = |zone: &crate::config::policy::ZonePolicy| u64::from(zone.rules.connections.unwrap_or(process));
    let is_set_aside = |index: usize| policy.zones[index].exempt && led_to(index);
    let wanted: u64 = policy
        .zones
        .iter()
        .enumerate()
        .filter(|(index, _)| is_set_aside(*index))
        .map(|(_, zone)| ceiling(zone))
        .sum();
    let together = wanted.min(u64::from(process / 10));
    policy
        .zones
        .iter()
        .enumerate()
        .map(|(index, zone)| match (zone.exempt, led_to(index)) {
            (false, _) => zone.rules.connections,
            (true, false) => Some(0),
            (true, true) => Some(cut(ceiling(zone), together, wanted)),
        })
        .collect()
}

/// The part of `share` that remains when `wanted` in all is cut to `given`, rounded down.
fn cut(share: u64, given: u64, wanted: u64) -> u32 {
    let part = if given < wanted {
        u128::from(share) * u128::from(given) / u128::from(wanted)
    } else {
        share.into()
    };
    u32::try_from(part).unwrap_or(u32::MAX)
}

/// For the pipes that all workers may lend, which do with fewer where the limit is low.
fn pipes(limit: u64, workers: usize) -> u64 {
    (ENDS * Pipe::MOST as u64 * workers as u64).min(limit / 8)
}

/// How many pipes each worker may lend.
pub fn pipes_a_worker(limit: u64, workers: usize) -> usize {
    usize::try_from(pipes(limit, workers) / ENDS).unwrap_or(usize::MAX) / workers.max(1)
}

/// The smallest limit that [`deal`] accepts.
fn least_limit(reserved: u64, workers: usize, pending: u64) -> u64 {
    let fits =
        |limit: u64| limit.saturating_sub(reserved + pipes(limit, workers) + pending.min(limit / 4)) / 2 >= LEAST;
    let enough = 4 * (reserved + pending + LEAST);
    (reserved..enough).find(|limit| fits(*limit)).unwrap_or(enough)
}

const RAISED: &str = "LimitNOFILE or `ulimit -n` raises it";

/// Descriptors for the log, the admin listener, the file watcher and whatever a library opens.
const OWN: u64 = 64;
/// A worker's two epolls, event descriptor and listening sockets.
const A_WORKER: u64 = 16;
/// A pipe's descriptors.
const ENDS: u64 = 2;
/// Fewer connections than this are no service.
const LEAST: u64 = 16;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn policy(extra: &str) -> Policy {
        let text =
            format!("[[listener]]\nbind = [\"127.0.0.1:0\"]\n[upstream.a]\nservers = [\"127.0.0.1:1\"]\n{extra}");
        crate::config::compile(&text, "test").unwrap().policy
    }

    const FEDERATION: &str = "[[route]]\nname = \"f\"\npaths = [\"/f\"]\nzone = \"exempt\"\n[[route]]\nname = \"r\"\n";

    #[test]
    fn a_connection_takes_two_descriptors_and_pending_ones_a_quarter() {
        let room = deal(&policy(""), 20_000, 2).unwrap();
        assert_eq!(room.process_connections, (20_000 - 64 - 32 - 256 - 5_000) / 2);
        assert_eq!(room.max_pending, [5_000]);
        assert_eq!(
            room.common_connections, room.process_connections,
            "no route leads to the exempt zone"
        );
    }

    #[test]
    fn exempt_zones_get_a_tenth_together_cut_in_proportion() {
        let routes = "[[route]]\nname = \"g\"\npaths = [\"/g\"]\nzone = \"small\"\n";
        let extra = format!(
            "[server]\nmax_connections = 109\n{routes}{FEDERATION}[zone.small]\nexempt = true\nconnections = 500\n"
        );
        let room = deal(&policy(&extra), 20_000, 2).unwrap();
        // 10 of 109 for 1 000 and 500.
        assert_eq!(room.zone_connections[1..], [Some(6), Some(3)]);
        assert_eq!(room.common_connections, 100);
    }

    #[test]
    fn a_small_exempt_zone_is_set_aside_whole() {
        let extra = format!("[server]\nmax_connections = 100\n{FEDERATION}[zone.exempt]\nconnections = 4\n");
        let room = deal(&policy(&extra), 20_000, 2).unwrap();
        assert_eq!(room.zone_connections[1], Some(4));
        assert_eq!(room.common_connections, 96);
    }

    #[test]
    fn only_what_is_written_is_noted_and_with_the_way_out() {
        assert_eq!(notes_at(&policy(""), 20_000, 2), [""; 0]);
        let written =
            policy("[server]\nmax_connections = 20_000\n[[listener]]\nbind = [\"127.0.0.1:9\"]\nmax_pending = 9_000");
        assert_eq!(
            notes_at(&written, 20_000, 2),
            [
                "listener 127.0.0.1:9: max_pending is cut from 9000 to 2368: the descriptor limit is 20000; \
                 LimitNOFILE or `ulimit -n` raises it",
                "max_connections 20000 needs 40000 descriptors, and the limit is 20000; \
                 LimitNOFILE or `ulimit -n` raises it"
            ]
        );
    }

    #[test]
    fn too_small_a_limit_is_named() {
        let error = deal(&policy(""), 100, 2).unwrap_err();
        assert!(deal(&policy(""), error.needed - 1, 2).is_err());
        assert!(deal(&policy(""), error.needed, 2).is_ok());
        assert!(error.to_string().contains(&error.needed.to_string()));
    }
}
