//! No file names a folder that its own folder may not use.

use crate::source::{SOURCES, Source};
use crate::table::{is_floor, may_use};

#[test]
fn no_file_names_a_folder_that_its_own_may_not_use() {
    let wrong = wrong_edges(&SOURCES);
    assert!(
        wrong.is_empty(),
        "edges that the table does not have:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn an_edge_that_leads_up_is_found() {
    let planted = [
        Source::of("net/dial.rs", "use super::pipe::Pipe; fn f() { crate::wire::parse() }"),
        Source::of("walk/walk.rs", "use crate::limit::key::ClientKey;"),
    ];
    assert_eq!(wrong_edges(&planted), ["net/dial.rs: net -> wire (crate::wire::parse)"]);
}

fn wrong_edges(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in sources {
        for path in file.paths() {
            let Some(to) = path.first().filter(|to| is_floor(to)) else {
                continue;
            };
            let own = file.floor();
            if own != *to && !may_use(&own, to) {
                wrong.push(format!("{}: {own} -> {to} (crate::{})", file.name, path.join("::")));
            }
        }
    }
    wrong
}
