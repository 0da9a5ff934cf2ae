//! The memory that the table holds for a client that has left and is not forgotten yet.

use std::{fs, io};

use crate::inputs::door::{BY_DEFAULT, Door};

/// Prints the bytes that an idle client takes in a table of this many clients. It divides all memory that the table and
/// the allocator hold by then, with their reserves. So the result depends on how full the table is at that moment.
pub fn print_bytes_per_client(clients: u32) -> io::Result<()> {
    let door = Door::new(clients, BY_DEFAULT);
    let before = pss()?;
    door.know(clients);
    let grown = pss()?.saturating_sub(before);
    println!(
        "client table: {} bytes an entry at {clients} idle clients",
        (grown << 10) / u64::from(clients)
    );
    Ok(())
}

/// This process's share of memory, in KiB.
fn pss() -> io::Result<u64> {
    let memory = fs::read_to_string("/proc/self/smaps_rollup")?;
    memory
        .lines()
        .find_map(|line| line.strip_prefix("Pss:")?.strip_suffix("kB")?.trim().parse().ok())
        .ok_or_else(|| io::Error::other("no Pss in smaps_rollup"))
}
