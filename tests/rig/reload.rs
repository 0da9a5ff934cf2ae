//! The file of a running guard, and waiting until it has been taken or refused.

use std::path::PathBuf;

use rustix::process::Signal;

use super::{Rig, until};

impl Rig {
    /// The guard's file.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("wsguard.toml")
    }

    /// Puts another file in its place, by renaming: nobody ever reads half of it.
    pub fn put(&self, text: &str) {
        let new = self.dir.path().join("new.toml");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    /// Puts another file in its place, has the guard read it, and waits for what becomes of it. For a guard that does not
    /// watch its file: HUP and the watcher would both act.
    pub fn reload(&self, text: &str) -> Result<(), String> {
        self.put(text);
        self.hup()
    }

    /// Has the guard read its file as it is, and waits for what becomes of it.
    pub fn hup(&self) -> Result<(), String> {
        let before = self.attempts();
        self.signal(Signal::HUP);
        self.attempt(before + 1)
    }

    /// Waits for the n-th attempt to reload, by whatever it was caused; then exactly so many have been made.
    pub fn attempt(&self, n: i64) -> Result<(), String> {
        until(&format!("reload {n}"), || (self.attempts() >= n).then_some(()));
        assert_eq!(self.attempts(), n, "a reload more than there should be");
        let last = &self.stats()["last_reload"];
        match last["error"].as_str() {
            None => Ok(()),
            Some(error) => Err(error.to_owned()),
        }
    }

    /// Attempts to reload, good and bad ones.
    pub fn attempts(&self) -> i64 {
        let metrics = self.metrics();
        ["success", "failure"]
            .map(|outcome| metrics.count(&format!(r#"wsguard_config_reloads_total{{outcome="{outcome}"}}"#)))
            .iter()
            .sum()
    }

    /// The messages of every line of this event, in order.
    pub fn told(&self, event: &str) -> Vec<String> {
        let lines = self.lines().into_iter().filter(|line| line["event"] == event);
        lines
            .map(|line| line["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}
