//! The binary: everything is in the library.

use std::process::ExitCode;

/// The allocator jemalloc: it holds less memory for an idle connection than the system's allocator does. A background
/// thread of its own returns memory that a flood has left behind to the kernel, even if nothing is allocated any more.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    wsguard::cli::main()
}
