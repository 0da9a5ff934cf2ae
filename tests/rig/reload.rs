//! Changes the file of a running guard, and waits until it has been applied or refused.

use std::path::PathBuf;

use rustix::process::Signal;

use super::{Rig, until};

impl Rig {
    /// The guard's file.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("wsguard.toml")
    }

    /// Replaces the file by renaming, so that half of it can never be read.
    pub fn put(&self, text: &str) {
        let new = self.dir.path().join("new.toml");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    /// Replaces the file, makes the guard read it, and waits for the outcome. Only for a guard that does not watch its
    /// file: otherwise HUP and the watcher would both act.
    pub fn reload(&self, text: &str) -> Result<(), String> {
        self.put(text);
        self.hup()
    }

    /// Makes the guard read its file as it is, and waits for the outcome.
    pub fn hup(&self) -> Result<(), String> {
        let before = self.attempts();
        self.signal(Signal::HUP);
        self.attempt(before + 1)
    }

    /// Waits for the n-th attempt to reload, whatever caused it. Then exactly n attempts must have been made.
    pub fn attempt(&self, n: i64) -> Result<(), String> {
        until(&format!("reload {n}"), || (self.attempts() >= n).then_some(()));
        assert_eq!(self.attempts(), n, "a reload more than there should be");
        let last = &self.stats()["last_reload"];
        match last["error"].as_str() {
            None => Ok(()),
            Some(error) => Err(error.to_owned()),
        }
    }

    /// The number of attempts to reload, good and bad ones.
    pub fn attempts(&self) -> i64 {
        let metrics = self.metrics();
        ["success", "failure"]
            .map(|outcome| metrics.count(&format!(r#"wsguard_config_reloads_total{{outcome="{outcome}"}}"#)))
            .iter()
            .sum()
    }

    /// The messages of all lines with this event, in order.
    pub fn messages(&self, event: &str) -> Vec<String> {
        let lines = self.lines().into_iter().filter(|line| line["event"] == event);
        lines
            .map(|line| line["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}
