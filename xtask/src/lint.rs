//! `lint`: formatting, clippy, generated files, and the rules of the house that no compiler knows.

mod house;
mod source;

use anyhow::{Result, bail};

use crate::progress::step;
use crate::setup::{self, Group};
use crate::{build, exec};

/// The command.
pub fn main() -> Result<()> {
    setup::need(&[Group::Build, Group::Lint])?;
    check()
}

/// Everything that it checks; all of it runs, whatever the first finding.
pub fn check() -> Result<()> {
    let mut errors = Vec::new();
    for result in [formatting(), house(), clippy(), crate::crds::check()] {
        errors.extend(result.err().map(|error| format!("{error:#}")));
    }
    if errors.is_empty() { Ok(()) } else { bail!("{}", errors.join("\n")) }
}

fn formatting() -> Result<()> {
    step("formatting", |step| {
        exec::quiet(step, exec::cargo().args(["fmt", "--all", "--check"])).map(|_| ())
    })
}

fn clippy() -> Result<()> {
    step("clippy", |step| {
        // As the programs are built, so that what of the dependencies runs on the host (build
        // scripts and macros) is built once for both.
        let mut cargo = build::static_cargo();
        cargo.args(["clippy", "--workspace", "--all-targets", "--release"]);
        cargo.args(["--target", &build::target(), "--", "--deny", "warnings"]);
        exec::quiet(step, &mut cargo).map(|_| ())
    })
}

fn house() -> Result<()> {
    step("rules of the house", |_| {
        let findings = house::findings(&source::Tree::read(&crate::root())?)?;
        if findings.is_empty() { Ok(()) } else { bail!("{}", findings.join("\n")) }
    })
}
