//! Debian's packages, from the sources that the machine has.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::exec;
use crate::progress::{Step, step};

/// Reads the package lists once more; those of an image are often old or absent.
pub fn update() -> Result<()> {
    step("read the package lists", |step| run(step, &["update"]))
}

/// Programs whose packages bring a service of the same name.
const SERVICES: [&str; 2] = ["nginx", "containerd"];

/// Installs packages. Nothing is removed for them: a conflict is the user's to solve.
pub fn install(purpose: &str, packages: &[&str]) -> Result<()> {
    step(format!("install {purpose}: {}", packages.join(" ")), |step| {
        let new: Vec<&str> =
            SERVICES.into_iter().filter(|name| exec::find(name).is_none()).collect();
        let _no_services = NoServices::declare()?;
        let mut args = vec!["install", "--yes", "--no-install-recommends", "--no-remove"];
        args.extend(packages);
        run(step, &args)?;
        for name in new.into_iter().filter(|name| exec::find(name).is_some()) {
            if Path::new("/run/systemd/system").exists() {
                // It came for its program only and must not start with the next boot either.
                exec::quiet(step, Command::new("systemctl").args(["--quiet", "disable", name]))?;
            }
        }
        Ok(())
    })
}

/// Runs apt-get. What it says goes to a log; the end of that is shown if it fails.
fn run(step: &Step, args: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-q", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=120"])
        .args(args);
    let said = exec::lines(&mut command, |line| step.note(line))?;
    let log = crate::target_dir().join("setup.log");
    fs::create_dir_all(crate::target_dir())?;
    let mut file = OpenOptions::new().create(true).append(true).open(&log)?;
    writeln!(file, "$ apt-get {}\n{}", args.join(" "), said.output)?;
    if !said.is_ok {
        let lines: Vec<&str> = said.output.lines().collect();
        let end = lines[lines.len().saturating_sub(30)..].join("\n");
        bail!("apt-get {} ({}):\n{end}\nall of it: {}", args.join(" "), said.status, log.display());
    }
    Ok(())
}

/// While this lives, packages that bring a service do not start it.
struct NoServices(Option<PathBuf>);

impl NoServices {
    fn declare() -> Result<Self> {
        let file = PathBuf::from("/usr/sbin/policy-rc.d");
        if file.exists() {
            // The machine has a policy of its own.
            return Ok(Self(None));
        }
        fs::write(&file, "#!/bin/sh\nexit 101\n").context("write policy-rc.d")?;
        let guard = Self(Some(file.clone()));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).context("policy-rc.d")?;
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            let _ = fs::remove_file(file);
        }
    }
}
