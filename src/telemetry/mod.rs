//! What is told of connections: reasons, metrics, the log and its samples, advice.

pub mod advice;
pub mod log;
pub mod metrics;
pub mod process;
pub mod reason;
pub mod sample;
