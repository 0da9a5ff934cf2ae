//! The binary: everything is in the library.

use std::process::ExitCode;

/// Holds less for an idle connection than the system's allocator does. A thread of its own gives what a flood has left
/// behind back to the kernel, also when nothing is allocated any more.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    wsguard::cli::main()
}
