//! Panic hooks, which count and log panics. A hook is for the whole process, so only a program sets one, never the library.

use std::panic::{PanicHookInfo, set_hook};

use crate::config::policy::{LogFormat, LogLevel};
use crate::telemetry::log::{self, Line, Log, escaped};
use crate::telemetry::metrics::Metrics;

/// From now on, counts every panic of the process in `metrics`, and logs it. The panic is not written to standard error
/// directly, because the panicking thread would have to wait for the reader.
pub fn count_and_log(metrics: &Metrics, log: Log) {
    let panics = metrics.panics.clone();
    set_hook(Box::new(move |panic| {
        panics.inc();
        let line = Line {
            message: Some(described(panic)),
            ..Line::default()
        };
        log.event(LogLevel::Error, "panic", line);
        // The process ends with its main thread, so the log is written first.
        if std::thread::current().name() == Some("main") {
            log.flush();
        }
    }));
}

/// The hook for the time before there are metrics and a log: writes every panic to standard error at once.
pub fn write_at_once(format: LogFormat) {
    set_hook(Box::new(move |panic| {
        log::write_now(format, LogLevel::Error, "panic", described(panic));
    }));
}

/// A panic as text: `index out of bounds: … at src/wire/head.rs:93:17, in worker-0`. The message is escaped, because it may
/// quote traffic.
fn described(panic: &PanicHookInfo<'_>) -> String {
    let payload = panic.payload();
    let message = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(message), _) => message,
        (None, Some(message)) => message.as_str(),
        (None, None) => "no words",
    };
    let place = panic.location().map_or_else(String::new, |at| format!(" at {at}"));
    let thread = std::thread::current();
    format!(
        "{}{place}, in {}",
        escaped(message.as_bytes()),
        thread.name().unwrap_or("a thread")
    )
}
