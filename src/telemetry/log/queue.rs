//! The queue of lines, and the thread that writes them. If the thread can't keep up, lines are dropped and counted: a
//! worker never waits for the log.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;

use crate::config::policy::{LogAccess, LogLevel, LogPolicy};
use crate::limit::key::ClientKey;
use crate::telemetry::class::Class;
use crate::telemetry::survive::survive;

use super::format::StampedLine;
use super::line::Line;
use super::sampler::Sampler;

/// A handle to the log. Clones write to the same place.
#[derive(Clone, Debug)]
pub struct Log {
    queue: SyncSender<Item>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
enum Item {
    Line(Box<StampedLine>),
    Flush(SyncSender<()>),
}

#[derive(Debug)]
struct Shared {
    policy: ArcSwap<LogPolicy>,
    dropped: AtomicU64,
    sampler: Sampler,
}

struct Writer {
    shared: Arc<Shared>,
    lines: Receiver<Item>,
}

impl Log {
    /// Starts the thread that writes to standard error.
    ///
    /// # Errors
    ///
    /// The thread can't be started.
    pub fn start(policy: LogPolicy) -> io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let sampler = Sampler::new(Instant::now(), threads);
        let shared = Arc::new(Shared {
            policy: ArcSwap::from_pointee(policy),
            dropped: AtomicU64::new(0),
            sampler,
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            lines,
        };
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || writer.run())?;
        Ok(Self { queue, shared })
    }

    /// Writes a line about an event that is not the outcome of a connection.
    pub fn event(&self, level: LogLevel, event: &'static str, line: Line) {
        if level >= self.shared.policy.load().level {
            self.send(level, event, line);
        }
    }

    /// Writes a warning that is only a message.
    pub fn warn(&self, event: &'static str, message: &str) {
        self.event(
            LogLevel::Warn,
            event,
            Line {
                message: Some(message.to_owned()),
                ..Line::default()
            },
        );
    }

    /// Writes a connection's line, unless the policy leaves it out or lines of its class are being summed. `line` is called
    /// only if the line is written.
    pub fn access(&self, class: Class, key: Option<ClientKey>, zone: Option<&Arc<str>>, line: impl FnOnce() -> Line) {
        let policy = self.shared.policy.load();
        let is_wanted = match policy.access {
            LogAccess::All => true,
            LogAccess::Rejected => class.is_refusal(),
            LogAccess::Off => false,
        };
        if !is_wanted || class.level() < policy.level {
            return;
        }
        if self.shared.sampler.passes(class, key, zone, policy.sample) {
            self.send(class.level(), class.event(), line());
        }
    }

    /// Puts another policy in force.
    pub fn set_policy(&self, policy: LogPolicy) {
        self.shared.policy.store(Arc::new(policy));
    }

    /// The number of lines that did not fit into the queue or could not be written.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Relaxed)
    }

    /// Waits until all lines logged so far are written, for at most a second.
    pub fn flush(&self) {
        let until = Instant::now() + Duration::from_secs(1);
        let (done, waits) = sync_channel(1);
        let mut flush = Item::Flush(done);
        while let Err(TrySendError::Full(back)) = self.queue.try_send(flush) {
            if Instant::now() >= until {
                return;
            }
            flush = back;
            std::thread::sleep(Duration::from_millis(5));
        }
        let _late = waits.recv_timeout(until.saturating_duration_since(Instant::now()));
    }

    fn send(&self, level: LogLevel, event: &'static str, line: Line) {
        let line = StampedLine {
            time: SystemTime::now(),
            level,
            event,
            line,
        };
        let item = Item::Line(Box::new(line));
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.queue.try_send(item) {
            self.shared.dropped.fetch_add(1, Relaxed);
        }
    }
}

impl Writer {
    fn run(self) {
        let mut next_sum = Instant::now() + SUM_EVERY;
        loop {
            match self
                .lines
                .recv_timeout(next_sum.saturating_duration_since(Instant::now()))
            {
                Ok(Item::Line(line)) => {
                    survive(|| self.write(&line));
                }
                Ok(Item::Flush(done)) => {
                    self.write_sums();
                    let _nobody_waits = done.try_send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= next_sum {
                next_sum = Instant::now() + SUM_EVERY;
                self.write_sums();
            }
        }
    }

    fn write_sums(&self) {
        for sum in self.shared.sampler.sums(Instant::now()) {
            self.write(&StampedLine {
                time: SystemTime::now(),
                level: sum.class.level(),
                event: "summed",
                line: Line {
                    zone: sum.zone.clone(),
                    reason: Some(sum.class.reason()),
                    outcome: Some(sum.class.event()),
                    count: Some(sum.lines),
                    unlogged: Some(sum.left_out),
                    top_client: sum.top.map(|(key, _)| key.to_string()),
                    top_count: sum.top.map(|(_, count)| count),
                    message: Some(sum.text()),
                    ..Line::default()
                },
            });
        }
    }

    fn write(&self, line: &StampedLine) {
        let Some(text) = line.render(self.shared.policy.load().format) else {
            return;
        };
        // If standard error is gone or its disk is full, there is nowhere else to report that.
        if io::stderr().write_all(text.as_bytes()).is_err() {
            self.shared.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// The length of the queue, in lines.
const QUEUE: usize = 8192;
const SUM_EVERY: Duration = Duration::from_secs(1);
