//! How many open and pending connections this machine has room for, and how many are set aside for exempt zones.

use std::fmt;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::defaults::MAX_PENDING;
use crate::config::policy::Policy;
use crate::net::pipe::Pipe;

use crate::control::memory;
use crate::live::capacity::Capacity;

/// How the descriptors and the memory of this machine are divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Allocation {
    /// The ceilings.
    pub capacity: Capacity,
    /// The memory that the heads of all pending sockets would need, if that is too much. The number of sockets is the one
    /// that the descriptors allow.
    pub heads: Option<HeadMemory>,
}

/// Two numbers of bytes: what the request heads of all pending sockets would need if each had the largest allowed size, and
/// the memory, which is too small for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadMemory {
    bytes: u64,
    memory: u64,
}

/// A number in the policy that does not fit this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shortfall {
    /// The listener that the number belongs to, if any.
    pub listener: Option<Arc<str>>,
    /// What the number is lowered to, and why.
    pub message: String,
    /// What would help.
    hint: &'static str,
}

/// The descriptor limit is too low to serve at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the descriptor limit of {limit} leaves room for {room} connections; at least {needed} descriptors are needed")]
pub struct TooFewDescriptors {
    limit: u64,
    room: u64,
    needed: u64,
}

/// How many descriptors this process may have open now: its soft limit.
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Raises the soft descriptor limit of the process to the hard one, and returns the new limit. Only a program calls this,
/// not the library: a program owns its process.
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

/// Describes in words which numbers of a policy are too large for the descriptor limit and the memory of this machine: some
/// are lowered at start, and some do not fit. If `max_pending` has its default and is lowered only for descriptors, that is
/// not mentioned.
pub(crate) fn describe_shortfalls(policy: &Policy) -> Vec<String> {
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let workers = policy.server.workers.map_or_else(cpus, usize::from);
    describe_shortfalls_at(policy, limit, workers, memory::limit())
}

fn describe_shortfalls_at(policy: &Policy, limit: u64, workers: usize, memory: Option<u64>) -> Vec<String> {
    let allocation = match allocate(policy, limit, workers, memory) {
        Ok(allocation) => allocation,
        Err(error) => return vec![error.to_string()],
    };
    let is_default = |name: &str| {
        let mut listeners = policy.listeners.iter();
        listeners.any(|listener| *listener.name == *name && listener.max_pending == MAX_PENDING)
    };
    shortfalls(policy, &allocation, limit)
        .into_iter()
        .filter_map(|shortfall| match shortfall.listener {
            Some(listener) if is_default(&listener) && allocation.heads.is_none() => None,
            Some(listener) => Some(format!(
                "listener {listener}: {}; {}",
                shortfall.message, shortfall.hint
            )),
            None => Some(format!("{}; {}", shortfall.message, shortfall.hint)),
        })
        .collect()
}

/// The numbers that do not fit, with their listener if they belong to one.
pub(crate) fn shortfalls(policy: &Policy, allocation: &Allocation, limit: u64) -> Vec<Shortfall> {
    let mut shortfalls = Vec::new();
    for (listener, max_pending) in policy.listeners.iter().zip(&allocation.capacity.max_pending) {
        if *max_pending < listener.max_pending {
            let asked = listener.max_pending;
            let (why, hint) = match allocation.heads {
                Some(heads) => (heads.to_string(), LOWER_HEAD_SIZE),
                None => (format!("the descriptor limit is {limit}"), RAISE_LIMIT),
            };
            shortfalls.push(Shortfall {
                listener: Some(Arc::clone(&listener.name)),
                message: format!("max_pending lowered from {asked} to {max_pending}: {why}"),
                hint,
            });
        }
    }
    let needed = 2 * u64::from(allocation.capacity.process_connections);
    if needed > limit {
        let asked = allocation.capacity.process_connections;
        shortfalls.push(Shortfall {
            listener: None,
            message: format!("max_connections {asked} needs {needed} descriptors, and the limit is {limit}"),
            hint: RAISE_LIMIT,
        });
    }
    shortfalls
}

/// The default number of workers: one per CPU.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// Divides a descriptor `limit` and `memory`, in bytes.
pub(crate) fn allocate(
    policy: &Policy,
    limit: u64,
    workers: usize,
    memory: Option<u64>,
) -> Result<Allocation, TooFewDescriptors> {
    let wanted: u64 = policy
        .listeners
        .iter()
        .map(|listener| u64::from(listener.max_pending))
        .sum();
    let pending = wanted.min(limit / 4);
    let reserved = PER_PROCESS + PER_WORKER * workers as u64;
    let room = limit.saturating_sub(reserved + pipe_descriptors(limit, workers) + pending) / 2;
    if room < MIN_CONNECTIONS {
        return Err(TooFewDescriptors {
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
    let zone_connections = zone_budgets(policy, process);
    let exempt: u32 = policy
        .zones
        .iter()
        .zip(&zone_connections)
        .filter(|(zone, _)| zone.exempt)
        .filter_map(|(_, connections)| *connections)
        .sum();
    let by_descriptors: Vec<u32> = policy
        .listeners
        .iter()
        .map(|listener| scaled(u64::from(listener.max_pending), pending, wanted).max(1))
        .collect();
    let (max_pending, heads) = fit_heads(policy, by_descriptors, memory);
    Ok(Allocation {
        capacity: Capacity {
            process_connections: process,
            common_connections: process - exempt,
            zone_connections,
            max_pending,
        },
        heads,
    })
}

/// Lowers each `max_pending` in proportion if the request heads of all pending sockets, each of the largest size, would need
/// more than a quarter of the memory. Otherwise the kernel could end the process.
fn fit_heads(policy: &Policy, max_pending: Vec<u32>, memory: Option<u64>) -> (Vec<u32>, Option<HeadMemory>) {
    let listeners = policy.listeners.iter().zip(&max_pending);
    let held = listeners.map(|(listener, most)| u64::from(*most).saturating_mul(listener.max_head_size as u64));
    let bytes = held.fold(0, u64::saturating_add);
    match memory.filter(|memory| bytes > memory / 4) {
        None => (max_pending, None),
        Some(memory) => {
            let fit = |most: u32| scaled(most.into(), memory / 4, bytes).max(1);
            (
                max_pending.into_iter().map(fit).collect(),
                Some(HeadMemory { bytes, memory }),
            )
        }
    }
}

impl fmt::Display for HeadMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        write!(
            f,
            "the heads of all pending sockets could hold {} MiB, and may hold a quarter of {} MiB of memory",
            mib(self.bytes),
            mib(self.memory)
        )
    }
}

/// The budget of each zone. The budgets of exempt zones are set aside: together at most a tenth of the process ceiling, cut
/// in proportion. An exempt zone that no route leads to gets 0.
fn zone_budgets(policy: &Policy, process: u32) -> Vec<Option<u32>> {
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
            (true, true) => Some(scaled(ceiling(zone), together, wanted)),
        })
        .collect()
}

/// The part of `share` that remains when the sum `wanted` is cut to `given`, rounded down.
fn scaled(share: u64, given: u64, wanted: u64) -> u32 {
    let part = if given < wanted {
        u128::from(share) * u128::from(given) / u128::from(wanted)
    } else {
        share.into()
    };
    u32::try_from(part).unwrap_or(u32::MAX)
}

/// The descriptors for the pipes of all workers; fewer if the limit is low.
fn pipe_descriptors(limit: u64, workers: usize) -> u64 {
    (PER_PIPE * Pipe::MOST as u64 * workers as u64).min(limit / 8)
}

/// How many pipes each worker may have.
pub(crate) fn pipes_per_worker(limit: u64, workers: usize) -> usize {
    usize::try_from(pipe_descriptors(limit, workers) / PER_PIPE).unwrap_or(usize::MAX) / workers.max(1)
}

/// The smallest limit that [`allocate`] accepts.
fn least_limit(reserved: u64, workers: usize, pending: u64) -> u64 {
    let fits = |limit: u64| {
        limit.saturating_sub(reserved + pipe_descriptors(limit, workers) + pending.min(limit / 4)) / 2
            >= MIN_CONNECTIONS
    };
    let enough = 4 * (reserved + pending + MIN_CONNECTIONS);
    (reserved..enough).find(|limit| fits(*limit)).unwrap_or(enough)
}

const RAISE_LIMIT: &str = "LimitNOFILE or `ulimit -n` raises it";
const LOWER_HEAD_SIZE: &str = "a smaller `max_head_size` leaves room for more, and so does more memory";

/// Descriptors for the log, the admin listener, the file watcher and the files that libraries open.
const PER_PROCESS: u64 = 64;
/// Descriptors for a worker's two epolls, event descriptor and listening sockets.
const PER_WORKER: u64 = 16;
/// The descriptors of one pipe.
const PER_PIPE: u64 = 2;
/// The fewest connections that there must be room for. With less, the guard does not start.
const MIN_CONNECTIONS: u64 = 16;

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
        let allocation = allocate(&policy(""), 20_000, 2, None).unwrap();
        assert_eq!(
            allocation.capacity.process_connections,
            (20_000 - 64 - 32 - 256 - 5_000) / 2
        );
        assert_eq!(allocation.capacity.max_pending, [5_000]);
        assert_eq!(
            allocation.capacity.common_connections, allocation.capacity.process_connections,
            "no route leads to the exempt zone"
        );
    }

    #[test]
    fn exempt_zones_together_get_a_tenth_cut_in_proportion() {
        let routes = "[[route]]\nname = \"g\"\npaths = [\"/g\"]\nzone = \"small\"\n";
        let extra = format!(
            "[server]\nmax_connections = 109\n{routes}{FEDERATION}[zone.small]\nexempt = true\nconnections = 500\n"
        );
        let allocation = allocate(&policy(&extra), 20_000, 2, None).unwrap();
        // A tenth of 109 connections, rounded down, is shared between wishes for 1 000 and 500.
        assert_eq!(allocation.capacity.zone_connections[1..], [Some(6), Some(3)]);
        assert_eq!(allocation.capacity.common_connections, 100);
    }

    #[test]
    fn the_whole_budget_of_a_small_exempt_zone_is_set_aside() {
        let extra = format!("[server]\nmax_connections = 100\n{FEDERATION}[zone.exempt]\nconnections = 4\n");
        let allocation = allocate(&policy(&extra), 20_000, 2, None).unwrap();
        assert_eq!(allocation.capacity.zone_connections[1], Some(4));
        assert_eq!(allocation.capacity.common_connections, 96);
    }

    #[test]
    fn only_written_numbers_are_noted_each_with_a_way_out() {
        assert_eq!(describe_shortfalls_at(&policy(""), 20_000, 2, None), [""; 0]);
        let written =
            policy("[server]\nmax_connections = 20_000\n[[listener]]\nbind = [\"127.0.0.1:9\"]\nmax_pending = 9_000");
        assert_eq!(
            describe_shortfalls_at(&written, 20_000, 2, None),
            [
                "listener 127.0.0.1:9: max_pending lowered from 9000 to 2368: the descriptor limit is 20000; \
                 LimitNOFILE or `ulimit -n` raises it",
                "max_connections 20000 needs 40000 descriptors, and the limit is 20000; \
                 LimitNOFILE or `ulimit -n` raises it"
            ]
        );
    }

    #[test]
    fn heads_of_pending_sockets_hold_a_quarter_of_the_memory_at_most() {
        let mib = |n: u64| Some(n << 20);
        // 10 000 heads of 16 KiB are 156.25 MiB.
        let enough = allocate(&policy(""), 100_000, 2, mib(625)).unwrap();
        assert_eq!((enough.capacity.max_pending, enough.heads), (vec![10_000], None));
        let small = allocate(&policy(""), 100_000, 2, mib(256)).unwrap();
        assert_eq!(small.capacity.max_pending, [4096], "64 MiB of 16 KiB each");
        assert_eq!(
            allocate(&policy(""), 100_000, 2, Some(1)).unwrap().capacity.max_pending,
            [1]
        );
        // The numbers that the descriptors have already lowered may fit into the memory.
        assert_eq!(
            allocate(&policy(""), 8_000, 2, mib(256)).unwrap().capacity.max_pending,
            [2_000]
        );
        // Two listeners are cut in proportion: 156.25 MiB and 10 MiB to a quarter of 332.5.
        let two = policy("[[listener]]\nbind = [\"127.0.0.1:9\"]\nmax_pending = 10\nmax_head_size = \"1MiB\"");
        let allocation = allocate(&two, 100_000, 2, Some(665 << 19)).unwrap();
        assert_eq!(allocation.capacity.max_pending, [5_000, 5]);
    }

    #[test]
    fn heads_that_do_not_fit_into_memory_are_noted_with_their_sum_even_for_default_numbers() {
        assert_eq!(
            describe_shortfalls_at(&policy(""), 100_000, 2, Some(256 << 20)),
            [
                "listener 127.0.0.1:0: max_pending lowered from 10000 to 4096: the heads of all pending sockets could hold \
                 157 MiB, and may hold a quarter of 256 MiB of memory; a smaller `max_head_size` leaves room for more, and \
                 so does more memory"
            ]
        );
        assert_eq!(describe_shortfalls_at(&policy(""), 100_000, 2, Some(1 << 30)), [""; 0]);
    }

    #[test]
    fn a_limit_that_is_too_small_is_named() {
        let error = allocate(&policy(""), 100, 2, None).unwrap_err();
        assert!(allocate(&policy(""), error.needed - 1, 2, None).is_err());
        assert!(allocate(&policy(""), error.needed, 2, None).is_ok());
        assert!(error.to_string().contains(&error.needed.to_string()));
    }
}
