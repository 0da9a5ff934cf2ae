//! Configurations: what a file means, and how its mistakes are reported.
#![allow(clippy::unwrap_used)]

mod corpus;
mod findings;
mod mistakes;
mod routes;
mod values;
mod warnings;
