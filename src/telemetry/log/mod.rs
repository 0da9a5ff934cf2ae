//! The log: one line per connection, when it ends, and one line for each other event.
//!
//! `line` holds a line's fields, `format` turns them into JSON or text, `sampler` sums equal lines under a flood, and `queue`
//! hands lines to the thread that writes them.
//!
//! # Why this is not `tracing` with `tracing-appender`
//!
//! - The sampler decides before a line is built. So a refusal in a flood costs a worker some counting, but no formatting.
//!   With `tracing`, the thread that logs records and formats the fields; `tracing-appender` takes finished bytes.
//! - The lines of a second and their sums go through one queue and one writer, in order.
//! - A metric counts all dropped lines, including those that could not be written; the appender counts only those that
//!   did not fit into its queue.
//! - A flush has a deadline, and a panic of the main thread can ask for one. The appender flushes when its guard is dropped.
//! - A subscriber is global. Two guards in one process would share it.

mod format;
mod line;
mod queue;
mod sampler;

pub use self::format::{is_json, write_now};
pub use self::line::{Line, escaped};
pub use self::queue::Log;
