//! The notation of addresses, paths, durations, sizes and rates in a configuration.

pub mod addresses;
pub mod guess;
pub mod invalid;
pub mod paths;
pub mod units;
