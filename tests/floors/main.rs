//! The architecture as a test: folders are floors, and only the edges of a table exist; no circles, no crowded folders, and
//! the world is touched only where it is said to be. It reads the sources, and its own checks are tried with planted faults.
#![allow(clippy::unwrap_used)]

mod circles;
mod edges;
mod paths;
mod purity;
mod size;
mod source;
mod table;
mod tokens;
