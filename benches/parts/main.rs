//! How long the pure parts take. The client table is measured with up to a million clients.
//!
//! ```sh
//! cargo bench --bench parts                       # minutes
//! cargo bench --bench parts -- --quick            # less of them
//! cargo bench --bench parts -- admission/known    # those whose name has it
//! ```
//!
//! The times hold for this machine at this hour. `benches/instructions` makes sure that nothing becomes slower. Under
//! `cargo test --benches` each part runs once and nothing is measured.

mod admissions;
mod buckets;
#[path = "../soak/dice.rs"]
#[allow(dead_code)] // The soak throws in more ways.
mod dice;
mod frames;
mod heads;
#[path = "../inputs/mod.rs"]
mod inputs;
mod memory;
mod pendings;
mod threads;

use std::io;

use criterion::Criterion;

fn main() -> io::Result<()> {
    let is_measured = std::env::args().any(|arg| arg == "--bench");
    let clients: &[u32] = if is_measured {
        &[1_000, 100_000, 1_000_000]
    } else {
        &[1_000]
    };
    // This comes first: memory that other benches have freed would be used again, and would not be measured.
    memory::print_bytes_per_client(clients.last().copied().unwrap_or_default())?;

    let mut criterion = Criterion::default().configure_from_args();
    heads::measure(&mut criterion);
    frames::measure(&mut criterion);
    buckets::measure(&mut criterion);
    admissions::measure(&mut criterion, clients);
    pendings::measure(&mut criterion);
    criterion.final_summary();
    Ok(())
}
