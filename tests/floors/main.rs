//! The architecture as a test. Folders are floors, and only the edges of a table exist. There are no circles and no
//! crowded folders, and only the named places use sockets, clocks and locks. The test reads the sources. Its own checks
//! are tested with planted faults.
#![allow(clippy::unwrap_used)]

mod circles;
mod edges;
mod paths;
mod purity;
mod size;
mod source;
mod table;
mod tokens;
