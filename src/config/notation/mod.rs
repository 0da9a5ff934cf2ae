//! How a configuration writes addresses, paths, durations, sizes and rates.

pub mod addresses;
pub mod guess;
pub mod invalid;
pub mod paths;
pub mod units;
