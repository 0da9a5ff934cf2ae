//! The core that each process runs on. The proxy has a core to itself, which the processes that load it never use.

use anyhow::Context as _;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores of a run.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    pub proxy: usize,
    pub backend: usize,
    pub clients: usize,
    /// The number of cores that this process may use.
    pub count: usize,
}

impl Cores {
    /// The last core is for the proxy and the first one for the clients. If there are three, another one is for the
    /// backend.
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

/// Pins the calling thread, and everything that it starts from now on, to this core.
pub fn pin_to(core: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("pinning to core {core}"))
}
