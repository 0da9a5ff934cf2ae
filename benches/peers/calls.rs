//! How many system calls a proxy makes, as strace counts them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::meter::Meter;

/// A count of system calls under way. It ends when it is dropped.
#[derive(Debug)]
pub struct Counting {
    strace: Child,
    folder: TempDir,
}

impl Counting {
    /// Begins to count. The count has begun when this returns.
    pub fn begin(strace: &Path, meter: &Meter) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(strace);
        command.arg("-f").arg("-c").arg("-o").arg(table(&folder));
        for pid in &meter.pids {
            command.arg("-p").arg(pid.to_string());
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let counting = Self {
            strace: command.spawn()?,
            folder,
        };
        let begin = Instant::now();
        while !is_watched(meter)? {
            ensure!(
                begin.elapsed() < Duration::from_secs(10),
                "strace does not get hold of it"
            );
            sleep(Duration::from_millis(10));
        }
        Ok(counting)
    }

    /// Ends the count. Returns the number of system calls that were made.
    pub fn end(mut self) -> anyhow::Result<f64> {
        kill_process(Pid::from_child(&self.strace), Signal::INT)?;
        self.strace.wait()?;
        let text = fs::read_to_string(table(&self.folder)).context("strace left no table")?;
        // The fields of a line: % time, seconds, usecs/call, calls, perhaps errors, and the name.
        text.lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|fields| fields.last() == Some(&"total"))
            .and_then(|fields| fields.get(3)?.parse().ok())
            .context("strace told no total")
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        // strace detaches from the processes when it is asked to end. It has most likely ended already.
        if matches!(self.strace.try_wait(), Ok(None)) {
            let _gone = kill_process(Pid::from_child(&self.strace), Signal::INT);
        }
        let _gone = self.strace.wait();
    }
}

fn is_watched(meter: &Meter) -> anyhow::Result<bool> {
    for task in meter.tasks()? {
        let status = fs::read_to_string(format!("{task}/status"))?;
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        if tracer.is_none_or(|pid| pid.trim() == "0") {
            return Ok(false);
        }
    }
    Ok(true)
}

fn table(folder: &TempDir) -> PathBuf {
    folder.path().join("calls")
}
