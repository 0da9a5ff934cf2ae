//! A fault of our own ends one connection, or one turn of a loop: it is counted, told in the log, and survived.

use std::panic::{PanicHookInfo, set_hook};

use crate::config::policy::{LogFormat, LogLevel};
use crate::telemetry::log::{self, Line, Log, shown};
use crate::telemetry::metrics::Metrics;

/// From now on every panic of the process is counted, and told in `log` instead of on standard error: there it would wait
/// for whoever reads that, and with it the walk.
pub fn tell(metrics: &Metrics, log: Log) {
    let panics = metrics.panics.clone();
    set_hook(Box::new(move |panic| {
        panics.inc();
        let line = Line {
            message: Some(described(panic)),
            ..Line::default()
        };
        log.event(LogLevel::Error, "panic", line);
        // With the main thread the process ends, and what is not written by then never is.
        if std::thread::current().name() == Some("main") {
            log.flush();
        }
    }));
}

/// The same while there is neither a count nor a log.
pub fn tell_at_once(format: LogFormat) {
    set_hook(Box::new(move |panic| {
        log::say(format, LogLevel::Error, "panic", described(panic));
    }));
}

/// `index out of bounds: … at src/wire/head.rs:93:17, in worker-0`. The words of a panic may quote traffic.
fn described(panic: &PanicHookInfo<'_>) -> String {
    let payload = panic.payload();
    let words = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(words), _) => words,
        (None, Some(words)) => words.as_str(),
        (None, None) => "no words",
    };
    let place = panic.location().map_or_else(String::new, |at| format!(" at {at}"));
    let thread = std::thread::current();
    format!(
        "{}{place}, in {}",
        shown(words.as_bytes()),
        thread.name().unwrap_or("a thread")
    )
}
