//! The machine and the programs of the measurement.

use std::fs;

use serde::Serialize;

use crate::cores::Cores;
use crate::effort::Effort;
use crate::tools::Tools;

/// The facts that stand above the figures.
#[derive(Debug, Serialize)]
pub struct Machine {
    pub date: String,
    pub kernel: String,
    pub processor: String,
    pub cores: usize,
    /// The core that each process ran on.
    pub pinned: String,
    pub versions: Vec<String>,
    pub rounds: String,
}

impl Machine {
    pub fn look(cores: Cores, tools: &Tools, effort: &Effort) -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let processor = read("/proc/cpuinfo")
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
            .map_or("unknown", |(_, name)| name.trim())
            .to_owned();
        let Cores {
            proxy,
            backend,
            clients,
            count,
        } = cores;
        Self {
            date: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor,
            cores: count,
            pinned: format!("proxy on {proxy}, backend on {backend}, clients on {clients}"),
            versions: tools.versions(),
            rounds: format!(
                "{} interleaved, {} for memory, {} s each",
                effort.rounds,
                effort.steady_rounds,
                effort.lasts.as_secs_f64()
            ),
        }
    }

    /// A name and a value for each line.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("date", self.date.clone()),
            ("kernel", self.kernel.clone()),
            ("cores", format!("{} ({}); {}", self.cores, self.processor, self.pinned)),
            ("rounds", self.rounds.clone()),
        ];
        lines.extend(self.versions.iter().map(|version| ("version", version.clone())));
        lines
    }
}
