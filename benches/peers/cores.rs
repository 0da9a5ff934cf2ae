//! Who runs where: the proxy has a core to itself, and whoever loads it never takes any of that.

use anyhow::Context as _;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores of a run.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    pub proxy: usize,
    pub backend: usize,
    pub clients: usize,
    /// How many there are for this process.
    pub count: usize,
}

impl Cores {
    /// The last for the proxy, the first for the clients, and one for the backend if there are three.
    pub fn find() -> anyhow::Result<Self> {
        let set = sched_getaffinity(None)?;
        let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect();
        let (&clients, &proxy) = (all.first().context("no core")?, all.last().context("no core")?);
        Ok(Self {
            proxy,
            backend: if all.len() > 2 { all[1] } else { clients },
            clients,
            count: all.len(),
        })
    }
}

/// From here on the calling thread, and all that it starts, run there.
pub fn pin_to(core: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("pinning to core {core}"))
}
