//! The results of a flood's sockets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;

use super::shape::Shape;

/// The results of the running flood, or of the last one. The tasks of a flood share them.
#[derive(Debug, Default)]
pub(crate) struct Scoreboard {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// When the running flood ends.
    ends: Option<Instant>,
    results: Vec<ShapeResult>,
}

/// How far a flood has come.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Progress {
    /// Milliseconds until the flood is over; 0 if none is running.
    pub left_ms: u64,
    /// One result for each shape; empty before the first flood.
    pub shapes: Vec<ShapeResult>,
}

/// The results of the sockets of one shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ShapeResult {
    /// The shape's word.
    pub shape: &'static str,
    /// The addresses that its sockets come from.
    pub from: String,
    /// Sockets dialled.
    pub dialled: u32,
    /// Sockets that got a tunnel.
    pub admitted: u32,
    /// Tunnels that are open now.
    pub open: u32,
    /// How sockets were refused or ended, and how many in each way. A refusal is a status with its reason; an end is a close
    /// code with its reason.
    pub heard: BTreeMap<String, u32>,
}

impl Scoreboard {
    /// Begins a flood that ends at `ends`. Returns `false`, and does nothing, if a flood is running.
    pub(crate) fn begin(&self, ends: Instant) -> bool {
        let mut inner = self.inner.lock();
        if inner.ends.is_some() {
            return false;
        }
        inner.ends = Some(ends);
        inner.results = Shape::ALL.map(ShapeResult::of).into();
        true
    }

    /// Records that the running flood is over.
    pub(crate) fn end(&self) {
        self.inner.lock().ends = None;
    }

    pub(crate) fn record(&self, shape: Shape, change: impl FnOnce(&mut ShapeResult)) {
        if let Some(result) = self.inner.lock().results.get_mut(shape as usize) {
            change(result);
        }
    }

    pub(crate) fn progress(&self, now: Instant) -> Progress {
        let inner = self.inner.lock();
        let left = inner
            .ends
            .map_or(Duration::ZERO, |ends| ends.saturating_duration_since(now));
        Progress {
            left_ms: match inner.ends {
                // A flood whose time is over still has to close its sockets, so it counts as running.
                Some(_) => u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1),
                None => 0,
            },
            shapes: inner.results.clone(),
        }
    }
}

impl ShapeResult {
    fn of(shape: Shape) -> Self {
        let sources: Vec<IpAddr> = shape.sockets().map(|(_, from, _)| from.into()).collect();
        let from = match (sources.first(), sources.last()) {
            (Some(first), Some(last)) if first != last => format!("{first} to {last}"),
            (first, _) => first.map_or_else(String::new, ToString::to_string),
        };
        Self {
            shape: shape.word(),
            from,
            dialled: 0,
            admitted: 0,
            open: 0,
            heard: BTreeMap::new(),
        }
    }

    /// The result as a line of text.
    pub(crate) fn line(&self) -> String {
        let heard: Vec<_> = self
            .heard
            .iter()
            .map(|(what, n)| format!(", {n} heard {what}"))
            .collect();
        format!(
            "{} from {}: {} dialled, {} let in{}",
            self.shape,
            self.from,
            self.dialled,
            self.admitted,
            heard.concat()
        )
    }
}
