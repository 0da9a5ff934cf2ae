//! The source files of `src/`, each read once.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::paths::paths;
use crate::table::ROOF;
use crate::tokens::tokens;

/// A source file.
pub struct Source {
    /// The path below `src/`.
    pub name: String,
    pub lines: usize,
    pub tokens: Vec<String>,
}

impl Source {
    pub fn of(name: &str, text: &str) -> Self {
        Self {
            name: name.to_owned(),
            lines: text.lines().count(),
            tokens: tokens(text),
        }
    }

    /// The name of its floor's folder; empty for a file right in `src/`.
    pub fn floor(&self) -> String {
        self.name
            .split_once('/')
            .map_or(ROOF.to_owned(), |(folder, _)| folder.to_owned())
    }

    /// The path of the folder that it is right in.
    pub fn folder(&self) -> &str {
        self.name.rsplit_once('/').map_or(ROOF, |(folder, _)| folder)
    }

    pub fn is_test(&self) -> bool {
        self.name.ends_with("/tests.rs") || self.name.contains("/tests/")
    }

    /// Its module path: `net/sys.rs` is `net::sys`, `net/mod.rs` is `net`.
    pub fn module(&self) -> Vec<String> {
        let mut module: Vec<String> = self
            .name
            .trim_end_matches(".rs")
            .split('/')
            .map(str::to_owned)
            .collect();
        if module
            .last()
            .is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str()))
        {
            module.pop();
        }
        module
    }

    /// The tokens up to the first module of tests.
    pub fn without_tests(&self) -> &[String] {
        let begins = self
            .tokens
            .windows(4)
            .position(|four| four == ["cfg", "(", "test", ")"]);
        &self.tokens[..begins.unwrap_or(self.tokens.len())]
    }

    /// The paths in the file that begin at the crate's root, at `self` or at `super`, as seen from the root.
    pub fn paths(&self) -> Vec<Vec<String>> {
        paths(&self.tokens, self.module())
    }
}

pub fn source_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All source files, read once for all tests.
pub static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(sources);

fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    let mut folders = vec![source_dir()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(source_dir()).unwrap().to_str().unwrap().to_owned();
                if name != "build.rs" {
                    files.push(Source::of(&name, &fs::read_to_string(&path).unwrap()));
                }
            }
        }
    }
    assert!(files.len() > 20, "the sources are where this test looks for them");
    files
}
