//! The tree as the rules see it: what git knows, or would add.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::exec;

/// One text file.
pub struct Source {
    /// Its path from the workspace's folder.
    pub path: String,
    pub text: String,
}

impl Source {
    /// Whether it is Rust.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether all of it is test code.
    pub fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.ends_with("_tests.rs")
            || self.path.ends_with("/tests.rs")
            // A stage for tests, built for them only.
            || self.path.ends_with("/fixture.rs")
    }

    /// Numbered lines of code: without comments, and without the tests at a file's end.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
            .map(|(at, line)| (at + 1, line.split("//").next().unwrap_or_default()))
    }
}

/// All of them.
pub struct Tree {
    pub files: Vec<Source>,
}

impl Tree {
    pub fn read(root: &Path) -> Result<Self> {
        let list = exec::read(Command::new("git").arg("-C").arg(root).args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
        ]))?;
        let mut files = Vec::new();
        for path in list.lines().filter(|path| root.join(path).is_file()) {
            let bytes = std::fs::read(root.join(path)).with_context(|| path.to_owned())?;
            // What is no text has no rules here.
            if let Ok(text) = String::from_utf8(bytes) {
                files.push(Source { path: path.to_owned(), text });
            }
        }
        Ok(Self { files })
    }

    /// The Rust files below a folder.
    pub fn rust<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a Source> {
        self.files.iter().filter(move |file| file.is_rust() && file.path.starts_with(folder))
    }
}
