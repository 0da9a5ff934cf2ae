//! What this process uses, as the kernel reports it.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// The resources that a process uses, read from proc(5).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProcessUse {
    /// User and system time.
    pub cpu_seconds: f64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Virtual memory.
    pub virtual_bytes: u64,
    /// Open descriptors.
    pub open_fds: u64,
    /// The soft descriptor limit.
    pub max_fds: u64,
    /// Threads.
    pub threads: u64,
    /// When the process began, in seconds since 1970.
    pub started: Option<f64>,
}

impl ProcessUse {
    /// The resources that this process uses now; `None` if /proc is not mounted.
    pub fn now() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is the program's name in brackets, and may hold blanks and brackets of its own.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |place: usize| fields.get(place - 3).and_then(|field| field.parse::<u64>().ok());
        let ticks = |place: usize| number(place).map(|ticks| as_float(ticks) / as_float(clock_ticks_per_second()));
        let booted = fs::read_to_string("/proc/stat").ok().and_then(|stat| {
            stat.lines()
                .find_map(|line| line.strip_prefix("btime "))
                .and_then(|time| time.trim().parse::<u64>().ok())
        });
        Some(Self {
            cpu_seconds: ticks(14)? + ticks(15)?,
            threads: number(20)?,
            started: booted.zip(ticks(22)).map(|(booted, after)| as_float(booted) + after),
            virtual_bytes: number(23)?,
            resident_bytes: number(24)? * page_size() as u64,
            open_fds: fs::read_dir("/proc/self/fd").ok()?.count() as u64,
            max_fds: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        })
    }
}

#[allow(clippy::cast_precision_loss)] // Seconds and ticks, far below 2^52.
fn as_float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_threads_and_a_past() {
        let used = ProcessUse::now().unwrap();
        assert!(used.resident_bytes > 0 && used.virtual_bytes > used.resident_bytes);
        assert!(used.threads > 0 && used.open_fds >= 3 && used.max_fds >= used.open_fds);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        let age = now - used.started.unwrap();
        assert!((-2.0..3600.0 * 24.0).contains(&age), "{age}");
    }
}
