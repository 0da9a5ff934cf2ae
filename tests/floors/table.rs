//! The table of floors, and a check that `src/lib.rs` has the same table.

use std::fs;

use crate::source::{SOURCES, source_dir};

/// Each row has a floor, its folder, and the folders that this one may use. The same table stands in `src/lib.rs`.
pub const FLOORS: &[(u8, &str, &str)] = &[
    (
        11,
        "cli",
        "demo admin control engine live telemetry config relay upstream net limit wire",
    ),
    (10, "demo", "admin control live telemetry config reason net limit wire"),
    (
        9,
        "admin",
        "control live telemetry config relay upstream reason net limit wire",
    ),
    (
        8,
        "control",
        "engine walk live telemetry config relay upstream reason net limit",
    ),
    (
        7,
        "engine",
        "walk live telemetry config relay upstream reason net limit",
    ),
    (6, "walk", "live telemetry config relay upstream reason net limit wire"),
    (5, "live", "telemetry config relay upstream reason net limit wire"),
    (4, "telemetry", "config relay upstream reason net limit wire"),
    (3, "config", "relay upstream net limit wire"),
    (2, "relay", "reason net limit wire"),
    (2, "upstream", "net limit wire"),
    (1, "net", ""),
    (1, "limit", ""),
    (1, "reason", ""),
    (1, "wire", ""),
];

/// The floor of a file right in `src/`, which may use `cli` alone.
pub const ROOF: &str = "";

/// Whether a file in the folder `from` may use the folder `to`.
pub fn may_use(from: &str, to: &str) -> bool {
    match FLOORS.iter().find(|(_, folder, _)| *folder == from) {
        Some((_, _, may_use)) => may_use.split_whitespace().any(|used| used == to),
        None => to == "cli",
    }
}

pub fn is_floor(name: &str) -> bool {
    FLOORS.iter().any(|(_, folder, _)| *folder == name)
}

#[test]
fn every_folder_is_a_floor_and_every_file_stands_on_one() {
    for file in &*SOURCES {
        let floor = file.floor();
        assert!(is_floor(&floor) || floor == ROOF, "{} is on no floor", file.name);
    }
    for (_, folder, _) in FLOORS {
        assert!(source_dir().join(folder).is_dir(), "there is no src/{folder}");
    }
}

#[test]
fn the_table_in_the_map_is_this_table() {
    let map = fs::read_to_string(source_dir().join("lib.rs")).unwrap();
    for (floor, folder, may_use) in FLOORS {
        let begins = format!("//! | {floor} | `{folder}/` | ");
        let row = map
            .lines()
            .find(|line| line.starts_with(&begins))
            .unwrap_or_else(|| panic!("no row {begins:?}"));
        let cell = row.trim_end_matches(['|', ' ']).rsplit('|').next().unwrap();
        let cell = if may_use.is_empty() {
            row.trim_end().trim_end_matches('|').rsplit('|').next().unwrap()
        } else {
            cell
        };
        assert_eq!(cell.trim(), *may_use, "what {folder} may use");
    }
    let rows = map
        .lines()
        .filter(|line| line.starts_with("//! | ") && line.contains("/` | "))
        .count();
    assert_eq!(rows, FLOORS.len(), "a row for each floor and no other");
}

#[test]
fn lower_floors_never_use_higher_ones_and_neighbours_never_each_other() {
    for (floor, folder, may_use) in FLOORS {
        for used in may_use.split_whitespace() {
            let (below, ..) = FLOORS.iter().find(|(_, name, _)| *name == used).unwrap();
            assert!(below < floor, "{folder} on {floor} uses {used} on {below}");
        }
    }
}

#[test]
fn what_the_table_does_not_allow_is_forbidden() {
    assert!(may_use("cli", "wire") && !may_use("wire", "net") && !may_use("walk", "engine"));
    assert!(may_use(ROOF, "cli") && !may_use(ROOF, "wire"));
}
