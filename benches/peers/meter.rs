//! The CPU time and the memory of a proxy, as the kernel counts them.

use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;

/// All processes of one proxy.
#[derive(Clone, Debug)]
pub struct Meter {
    pub pids: Vec<u32>,
}

/// The CPU time that was used up to a moment.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    proxy: Duration,
    machine: Duration,
}

/// The CPU time that was used between two readings, by the proxy and by the whole machine. The machine is measured too,
/// because work that moves into the kernel's own threads is not saved.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub proxy: Duration,
    pub machine: Duration,
}

impl Meter {
    /// The meter of a process and all its descendants.
    pub fn of(root: u32) -> anyhow::Result<Self> {
        let mut parents = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // The process may have ended in the meantime.
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
                continue;
            };
            // The name that comes before may contain anything, even a closing bracket.
            let parent = stat
                .rsplit_once(')')
                .and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
            parents.extend(parent.map(|parent: u32| (pid, parent)));
        }
        let mut pids = vec![root];
        let mut next = 0;
        while let Some(&parent) = pids.get(next) {
            pids.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
            next += 1;
        }
        Ok(Self { pids })
    }

    /// Reads the meter after the proxy has come to rest: the CPU time of a task is exact only once it sleeps.
    pub fn read(&self) -> anyhow::Result<Reading> {
        thread::sleep(Duration::from_millis(20));
        let mut nanos = 0;
        for task in self.tasks()? {
            let text = fs::read_to_string(format!("{task}/schedstat"))?;
            let run: u64 = text
                .split_whitespace()
                .next()
                .and_then(|run| run.parse().ok())
                .context("no schedstat")?;
            nanos += run;
        }
        Ok(Reading {
            proxy: Duration::from_nanos(nanos),
            machine: machine()?,
        })
    }

    /// The CPU time that was used since `before`.
    pub fn since(&self, before: Reading) -> anyhow::Result<Cost> {
        let now = self.read()?;
        Ok(Cost {
            proxy: now.proxy.saturating_sub(before.proxy),
            machine: now.machine.saturating_sub(before.machine),
        })
    }

    /// The proxy's share of memory in KiB, without files. The share of a program's pages depends on how many other
    /// processes run it at the moment.
    pub fn pss(&self) -> anyhow::Result<f64> {
        Ok(self.share("Pss_Anon:")? + self.share("Pss_Shmem:")?)
    }

    /// The proxy's share of all memory, in KiB.
    pub fn pss_in_all(&self) -> anyhow::Result<f64> {
        self.share("Pss:")
    }

    fn share(&self, name: &str) -> anyhow::Result<f64> {
        let mut sum = 0.0;
        for pid in &self.pids {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            let share: f64 = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
                .with_context(|| format!("no {name}"))?;
            sum += share;
        }
        Ok(sum)
    }

    /// The folders of all threads in /proc.
    pub fn tasks(&self) -> io::Result<Vec<String>> {
        let mut tasks = Vec::new();
        for pid in &self.pids {
            for task in fs::read_dir(format!("/proc/{pid}/task"))? {
                tasks.push(task?.path().display().to_string());
            }
        }
        Ok(tasks)
    }
}

/// The CPU time of the machine, without the time that it was idle or waited for a disk, and without the time that the
/// host took away.
fn machine() -> anyhow::Result<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    let ticks: Vec<u64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .map_while(|field| field.parse().ok())
        .collect();
    let busy: u64 = [0, 1, 2, 5, 6].into_iter().filter_map(|field| ticks.get(field)).sum();
    let a_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_millis(busy * 1000 / a_second))
}
