//! Replays the configurations of `tests/corpus/config/`: what a machine, a broken disk or a tired person might write.
//!
//! A file whose name begins with `passes-` must compile, and every other one must be refused; the findings must be printable.
//! A comment before the text must only move their places. Each text that once failed is kept there as a file.

use std::fs;
use std::path::Path;

use wsguard::config::findings::Finding;
use wsguard::config::{compile, load};

#[test]
fn every_configuration_compiles_or_is_refused_with_findings() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/config");
    let mut replayed = 0;
    for entry in fs::read_dir(&folder).expect("the corpus has a folder for configurations") {
        let file = entry.expect("a readable folder").path();
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        println!("replaying {name}");
        let loaded = load(&file);
        let findings = match &loaded {
            Ok(checked) => {
                assert_eq!(checked.render_warnings(true).is_empty(), checked.warnings.is_empty());
                &checked.warnings
            }
            Err(rejected) => {
                assert!(!rejected.mistakes.is_empty() && !rejected.render(true).is_empty());
                &rejected.mistakes
            }
        };
        let many_lines = findings.iter().find(|finding| finding.title.contains('\n'));
        assert_eq!(many_lines, None, "{name}: a finding is one line");
        assert_eq!(loaded.is_ok(), name.starts_with("passes-"), "{name}: {loaded:?}");
        if let Ok(text) = fs::read_to_string(&file) {
            a_comment_changes_nothing(&text);
        }
        replayed += 1;
    }
    assert!(replayed > 10, "the corpus is here");
}

fn a_comment_changes_nothing(text: &str) {
    // A byte order mark is only valid at the beginning.
    if text.starts_with('\u{feff}') {
        return;
    }
    let comment = "# A comment.\n";
    match (compile(text, "x"), compile(&format!("{comment}{text}"), "x")) {
        (Ok(before), Ok(after)) => {
            assert_eq!(format!("{:?}", before.policy), format!("{:?}", after.policy));
            assert_eq!(places(&before.warnings, comment.len()), places(&after.warnings, 0));
        }
        (Err(before), Err(after)) => {
            assert_eq!(places(&before.mistakes, comment.len()), places(&after.mistakes, 0));
        }
        (before, after) => panic!("{before:?} becomes {after:?}"),
    }
}

fn places(findings: &[Finding], moved: usize) -> Vec<(&str, Option<usize>)> {
    let place = |finding: &Finding| finding.span.as_ref().map(|span| span.start + moved);
    findings
        .iter()
        .map(|finding| (finding.title.as_str(), place(finding)))
        .collect()
}
