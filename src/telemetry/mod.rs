//! What operators get to know: the log, the metrics, the advice, and what the process uses.

pub mod advice;
pub mod class;
pub mod connection;
pub mod log;
pub mod metrics;
pub mod panics;
pub mod process;
pub mod survive;
