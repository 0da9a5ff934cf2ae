//! Any text is compiled or refused with a message. A comment before the text changes nothing but the positions of
//! findings. A text that compiles routes any request without a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wsguard::config::findings::Finding;
use wsguard::config::{Checked, Rejected, compile};
use wsguard::wire::path::PathReading;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    let read = compile(text, "fuzz.toml");
    match &read {
        Ok(checked) => {
            let shown = checked.render_warnings(false);
            assert_eq!(shown.is_empty(), checked.warnings.is_empty());
            assert!(checked.render_warnings(true).len() >= shown.len());
            each_is_shown(&checked.warnings, &shown, text);
            routes(checked);
        }
        Err(rejected) => {
            let shown = rejected.render(false);
            assert!(!rejected.mistakes.is_empty() && !shown.is_empty());
            assert!(rejected.render(true).len() >= shown.len());
            each_is_shown(&rejected.mistakes, &shown, text);
        }
    }
    a_comment_changes_nothing(text, &read);
});

/// Checks that each finding lies within the text, begins and ends between characters, and is shown.
fn each_is_shown(findings: &[Finding], shown: &str, text: &str) {
    for finding in findings {
        assert!(!finding.title.is_empty() && !finding.title.contains('\n'));
        let beside = finding.beside.iter().map(|(span, _)| span);
        for span in finding.span.iter().chain(beside) {
            assert!(text.get(span.clone()).is_some(), "{finding:?} lies outside of the text");
        }
        // Control bytes are shown in another form.
        if finding.title.chars().all(|char| char.is_ascii_graphic() || char == ' ') {
            assert!(shown.contains(&finding.title), "{finding:?} is not in {shown}");
        }
    }
}

fn a_comment_changes_nothing(text: &str, read: &Result<Checked, Rejected>) {
    if text.starts_with('\u{feff}') {
        return;
    }
    let comment = "# A comment.\n";
    let again = compile(&format!("{comment}{text}"), "fuzz.toml");
    match (read, &again) {
        (Ok(before), Ok(after)) => {
            assert_eq!(format!("{:?}", before.policy), format!("{:?}", after.policy));
            assert_eq!(moved(&before.warnings, comment.len()), after.warnings);
        }
        (Err(before), Err(after)) => assert_eq!(moved(&before.mistakes, comment.len()), after.mistakes),
        _ => panic!("a comment changes what it says"),
    }
}

fn moved(findings: &[Finding], by: usize) -> Vec<Finding> {
    let mut findings = findings.to_vec();
    for finding in &mut findings {
        let beside = finding.beside.iter_mut().map(|(span, _)| span);
        for span in finding.span.iter_mut().chain(beside) {
            *span = span.start + by..span.end + by;
        }
    }
    findings
}

fn routes(checked: &Checked) {
    let routes = &checked.policy.routes;
    for (host, path) in [
        (None, &b"/"[..]),
        (Some(&b"a.b.example"[..]), b"/a/../%2e/b;c//d"),
        (Some(b"A."), b"/a/b"),
    ] {
        for client in [None, Some([10, 1, 2, 3].into()), Some([203, 0, 113, 1].into())] {
            let _ = routes.matching(host, &PathReading::of(path, false), client);
        }
    }
}
