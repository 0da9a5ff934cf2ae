//! The wsguard process, seen from outside: signals, /metrics and /proc.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::metrics::Metrics;

/// The process under test. It is killed when this is dropped.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    admin: SocketAddr,
}

/// The measurements of one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub drift: i64,
    pub open: i64,
    pub pending: i64,
    pub panics: i64,
    pub log_lines_dropped: i64,
    pub generation: i64,
    /// The process's share of memory in KiB: all of it, and the part that belongs to no file and is not shared.
    pub pss: u64,
    pub pss_anon: u64,
    pub descriptors: u64,
    pub threads: u64,
}

impl Guard {
    /// Runs `binary` with the configuration `file`; its log goes to `log`. Returns once the guard serves.
    pub async fn start(binary: &Path, file: &Path, log: File, admin: SocketAddr) -> io::Result<Self> {
        let child = Command::new(binary)
            .arg("run")
            .arg("-c")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let mut guard = Self { child, admin };
        for _ in 0..200 {
            if guard.ask("/readyz").await.is_ok() {
                return Ok(guard);
            }
            if let Some(status) = guard.child.try_wait()? {
                return Err(io::Error::other(format!("wsguard ended: {status}")));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err(io::Error::other("wsguard does not get ready"))
    }

    /// A handle that looks at the process without owning it.
    pub fn eye(&self) -> Eye {
        Eye {
            admin: self.admin,
            pid: Pid::from_child(&self.child),
        }
    }

    /// Ends the process by TERM.
    pub async fn end(&mut self) -> io::Result<ExitStatus> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        for _ in 0..200 {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err(io::Error::other("it does not end"))
    }

    async fn ask(&self, path: &str) -> io::Result<String> {
        self.eye().ask(path).await
    }
}

/// Looks at the process from outside.
#[derive(Clone, Copy, Debug)]
pub struct Eye {
    admin: SocketAddr,
    pid: Pid,
}

impl Eye {
    /// Sends HUP.
    pub fn hang_up(&self) -> io::Result<()> {
        Ok(kill_process(self.pid, Signal::HUP)?)
    }

    /// Reads /metrics.
    pub async fn metrics(&self) -> io::Result<Metrics> {
        Ok(Metrics::parse(&self.ask("/metrics").await?))
    }

    /// Takes all measurements.
    pub async fn sample(&self) -> io::Result<Sample> {
        let metrics = self.metrics().await?;
        let process = format!("/proc/{}", self.pid.as_raw_nonzero());
        let memory = fs::read_to_string(format!("{process}/smaps_rollup"))?;
        let status = fs::read_to_string(format!("{process}/status"))?;
        let descriptors = fs::read_dir(format!("{process}/fd"))?.count();
        let pending = metrics.starting_with("wsguard_pending{");
        Ok(Sample {
            drift: metrics.count("wsguard_counter_drift"),
            open: metrics.count("wsguard_process_connections"),
            pending: pending.iter().filter_map(|(_, n)| n.parse::<i64>().ok()).sum(),
            panics: metrics.count("wsguard_panics_total"),
            log_lines_dropped: metrics.count("wsguard_log_lines_dropped_total"),
            generation: metrics.count("wsguard_config_generation"),
            pss: field(&memory, "Pss:")?,
            pss_anon: field(&memory, "Pss_Anon:")?,
            descriptors: descriptors as u64,
            threads: field(&status, "Threads:")?,
        })
    }

    async fn ask(&self, path: &str) -> io::Result<String> {
        let asking = async {
            let mut stream = TcpStream::connect(self.admin).await?;
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
                self.admin
            );
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            match answer.split_once("\r\n\r\n") {
                Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
                _ => Err(io::Error::other(format!(
                    "{path}: {}",
                    answer.lines().next().unwrap_or("nothing")
                ))),
            }
        };
        timeout(Duration::from_secs(10), asking).await?
    }
}

/// The number behind a name in a file of /proc.
fn field(text: &str, name: &str) -> io::Result<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| io::Error::other(format!("no {name}")))
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The process has most likely ended already.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
