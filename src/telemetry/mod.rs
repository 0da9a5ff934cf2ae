//! What operators see: the log, the metrics, the advice, and the resources of the process.

pub mod advice;
pub mod class;
pub mod connection_line;
pub mod log;
pub mod metrics;
pub mod panics;
pub mod process;
pub mod survive;
