//! cgroups of the v2 hierarchy.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// Every cgroup of the tests begins with this.
const PREFIX: &str = "kft-";

/// The cgroup2 mount.
pub fn mount() -> Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts").context("read /proc/mounts")?;
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|words| words.get(2) == Some(&"cgroup2"))
        .and_then(|words| words.get(1).map(PathBuf::from))
        .context("no cgroup2 mount in /proc/mounts")
}

/// A cgroup that goes when dropped.
#[derive(Debug)]
pub struct Cgroup {
    directory: PathBuf,
    path: String,
}

impl Cgroup {
    /// Makes one.
    pub fn new(name: &str) -> Result<Self> {
        let path = format!("/{PREFIX}{}-{name}", std::process::id());
        let directory = mount()?.join(&path[1..]);
        std::fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
        Ok(Self { directory, path })
    }

    /// Path below the mount.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &PathBuf {
        &self.directory
    }

    /// As `--target` wants it.
    #[must_use]
    pub fn word(&self) -> String {
        format!("cgroup:{}", self.path)
    }

    /// Moves a process in.
    pub fn take(&self, pid: u32) -> Result<()> {
        std::fs::write(self.directory.join("cgroup.procs"), pid.to_string())
            .with_context(|| format!("move process {pid} to {}", self.path))
    }

    /// Processes in it.
    pub fn is_empty(&self) -> bool {
        std::fs::read_to_string(self.directory.join("cgroup.procs"))
            .is_ok_and(|pids| pids.trim().is_empty())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that was killed leaves a moment later.
        crate::clock::wait_for(std::time::Duration::from_secs(1), || {
            std::fs::remove_dir(&self.directory).is_ok()
        });
    }
}

/// Removes the cgroups that a crashed run left behind.
pub fn remove_leftovers() {
    let Ok(mount) = mount() else { return };
    for entry in std::fs::read_dir(mount).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            // One that still has processes belongs to a run that is going on.
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}
