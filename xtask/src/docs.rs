//! `docs`: what the last test run and the last demo showed, written into the README.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::support::Support;

/// The command. What has not been run since the last build leaves its part as it is.
pub fn main() -> Result<()> {
    let readme = crate::root().join("README.md");
    let old = fs::read_to_string(&readme).context("read README.md")?;
    let mut new = old.clone();
    let mut parts = Vec::new();
    if let Ok(support) = Support::last() {
        let table = format!("{}\nKernels of this run: {}.\n", support.table(), support.releases());
        new = between(&new, "support", &table)?;
        parts.push("support table");
    }
    if let Ok(demo) = fs::read_to_string(crate::target_dir().join("demo.txt")) {
        new = between(&new, "demo", &format!("```text\n{}\n```\n", demo.trim_end()))?;
        parts.push("demo");
    }
    if parts.is_empty() {
        bail!("nothing to write: run `cargo xtask test` or `cargo xtask demo` first");
    }
    if new == old {
        println!("README.md is as the last runs say: {}", parts.join(", "));
    } else {
        fs::write(&readme, new).context("write README.md")?;
        println!("README.md: written: {}", parts.join(", "));
    }
    Ok(())
}

/// Replaces what stands between two marks.
fn between(text: &str, name: &str, part: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- {name}:begin -->"), format!("<!-- {name}:end -->"));
    let Some((head, rest)) = text.split_once(&begin) else { bail!("README.md has no {begin}") };
    let Some((_, tail)) = rest.split_once(&end) else { bail!("README.md has no {end}") };
    Ok(format!("{head}{begin}\n{part}{end}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_changes() {
        let text = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n";
        let new = between(text, "x", "new\n").ok();
        assert_eq!(new.as_deref(), Some("a\n<!-- x:begin -->\nnew\n<!-- x:end -->\nb\n"));
        assert!(between(text, "y", "").is_err());
    }
}
