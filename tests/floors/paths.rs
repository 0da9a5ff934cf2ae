//! The paths of a file: in a `use`, or in the middle of an expression.

use std::collections::BTreeSet;

use crate::source::Source;

/// Every path in the file of this module that begins at the crate's root, at `self`, at `super` or (in the binary) at
/// the library. Paths are returned as seen from the root. For a group, each member is returned.
pub fn paths(tokens: &[String], module: Vec<String>) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut modules = Inner {
        module,
        ..Inner::default()
    };
    let mut at = 0;
    while at < tokens.len() {
        modules.step(tokens, at);
        let is_behind = |before: &[&str]| at >= before.len() && tokens[at - before.len()..at] == *before;
        // `pub(super)` says where an item may be used. It uses nothing itself.
        if is_behind(&["pub", "("]) {
            at += 1;
            continue;
        }
        let follows_a_path = is_behind(&[":"]);
        let base = match tokens[at].as_str() {
            "crate" | "wsguard" if !follows_a_path => Some(Vec::new()),
            "self" if !follows_a_path => Some(modules.module.clone()),
            "super" if !follows_a_path => {
                let mut module = modules.module.clone();
                module.pop();
                Some(module)
            }
            _ => None,
        };
        if let Some(base) = base {
            collect(tokens, at + 1, base, &mut paths);
        }
        at += 1;
    }
    paths
}

/// The module that a token stands in. `mod tests {` opens an inner one.
#[derive(Default)]
struct Inner {
    module: Vec<String>,
    depth: usize,
    opened: Vec<usize>,
}

impl Inner {
    fn step(&mut self, tokens: &[String], at: usize) {
        match tokens[at].as_str() {
            "{" => {
                self.depth += 1;
                if at >= 2 && tokens[at - 2] == "mod" {
                    self.module.push(tokens[at - 1].clone());
                    self.opened.push(self.depth);
                }
            }
            "}" => {
                if self.opened.last() == Some(&self.depth) {
                    self.opened.pop();
                    self.module.pop();
                }
                self.depth = self.depth.saturating_sub(1);
            }
            _ => {}
        }
    }
}

/// Follows `::name`, `::super`, `::*` and `::{…}` behind a base. Returns the position behind the path.
fn collect(tokens: &[String], mut at: usize, mut base: Vec<String>, paths: &mut Vec<Vec<String>>) -> usize {
    while tokens.get(at).is_some_and(|t| t == ":") && tokens.get(at + 1).is_some_and(|t| t == ":") {
        match tokens.get(at + 2).map(String::as_str) {
            Some("{") => {
                at += 3;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    if tokens[at] == "," {
                        at += 1;
                        continue;
                    }
                    let mut member = base.clone();
                    member.push(tokens[at].clone());
                    at = collect(tokens, at + 1, member, paths);
                    // This skips `as name`.
                    while tokens.get(at).is_some_and(|token| token != "," && token != "}") {
                        at += 1;
                    }
                }
                return at + 1;
            }
            Some("super") => {
                base.pop();
            }
            Some(name) => base.push(name.to_owned()),
            None => break,
        }
        at += 3;
    }
    paths.push(base);
    at
}

#[test]
fn a_path_is_found_wherever_it_stands() {
    let source = Source::of(
        "limit/client_table.rs",
        r##"
        //! crate::commented::out
        use crate::{net::{a, b as c}, wire};
        use super::super::guard::walk;
        use super::key::ClientKey;
        pub(crate) fn f<'a>(x: &'a str) -> char {
            let text = "crate::quoted::out \" crate::still"; let raw = r#"crate::raw"::out"#;
            let c = '"'; let d = '\''; let e = b'"';
            crate::relay::relay::go(x); /* crate::block /* nested */ ::out */
            'x'
        }
        mod tests { use super::super::key; use super::*; fn g() { super::super::super::cli::main() } }
        fn h() { super::bucket::take() }
        "##,
    );
    let found: BTreeSet<String> = source.paths().into_iter().map(|path| path.join("::")).collect();
    let expected = [
        "cli::main",
        "guard::walk",
        "limit::bucket::take",
        "limit::key",
        "limit::key::ClientKey",
        "limit::client_table::*",
        "net::a",
        "net::b",
        "relay::relay::go",
        "wire",
    ];
    assert_eq!(found, expected.map(String::from).into());
}
