//! What a client costs that is gone and not yet forgotten.

use std::{fs, io};

use crate::inputs::door::{BY_DEFAULT, Door};

/// Prints the bytes an idle client takes where there are so many: of all that the table and the allocator have by then,
/// with what they keep in reserve. So it depends on how full the table just is.
pub fn tell(clients: u32) -> io::Result<()> {
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
