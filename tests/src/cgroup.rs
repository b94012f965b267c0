//! cgroups of the v2 hierarchy, and on request of those of v1 beside it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::ns::mount as mount_over;

/// Every cgroup of the tests begins with this.
const PREFIX: &str = "kft-";

/// Controllers that the tests want for their cgroups, where there is v2 alone.
const CONTROLLERS: [&str; 4] = ["cpu", "io", "memory", "pids"];

/// Files with limits, of both versions.
const LIMITS: [&str; 12] = [
    "cgroup.freeze",
    "freezer.state",
    "cpu.max",
    "io.max",
    "memory.high",
    "pids.max",
    "cpu.cfs_quota_us",
    "cpu.cfs_period_us",
    "blkio.throttle.read_bps_device",
    "blkio.throttle.write_bps_device",
    "blkio.throttle.read_iops_device",
    "blkio.throttle.write_iops_device",
];

/// The cgroup2 mount.
pub fn mount() -> Result<PathBuf> {
    let all = mounts()?;
    let found = all.into_iter().find(|(kind, ..)| kind == "cgroup2").map(|(_, path, _)| path);
    found.context("no cgroup2 mount in /proc/mounts")
}

/// File system, path and options of every mount of a hierarchy.
fn mounts() -> Result<Vec<(String, PathBuf, String)>> {
    let text = fs::read_to_string("/proc/mounts").context("read /proc/mounts")?;
    let lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let found = lines.filter_map(|words| match words[..] {
        [_, path, kind @ ("cgroup" | "cgroup2"), options, ..] => {
            Some((kind.to_owned(), path.into(), options.to_owned()))
        }
        _ => None,
    });
    Ok(found.collect())
}

/// Takes v2 away from this process and its children, in a mount namespace of their own.
pub fn leave_v2() -> Result<()> {
    // SAFETY: plain call; no other thread runs yet.
    let done = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    ensure!(done == 0, "make a mount namespace: {}", std::io::Error::last_os_error());
    mount_over(None, "/", None, libc::MS_REC | libc::MS_PRIVATE)?;
    for (kind, path, _) in mounts()? {
        if kind == "cgroup2" {
            let path = std::ffi::CString::new(path.into_os_string().into_encoded_bytes())?;
            // SAFETY: a string that lives until the end of the call.
            let done = unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
            ensure!(done == 0, "unmount {path:?}: {}", std::io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The mounts of v1 with a controller of ours, and whether it is that of memory.
fn v1() -> Result<Vec<(PathBuf, bool)>> {
    let wanted = ["cpu", "cpuacct", "blkio", "memory", "pids", "freezer", "name=systemd"];
    let has = |options: &str, name: &str| options.split(',').any(|one| one == name);
    let all = mounts()?.into_iter().filter(|(kind, _, options)| {
        kind == "cgroup" && wanted.iter().any(|name| has(options, name))
    });
    Ok(all.map(|(_, path, options)| (path, has(&options, "memory"))).collect())
}

/// A cgroup that goes when dropped.
#[derive(Debug)]
pub struct Cgroup {
    directory: PathBuf,
    path: String,
    /// Its directories in v1's hierarchies; whether a process has to be moved there.
    v1: Vec<(PathBuf, bool)>,
}

impl Cgroup {
    /// Makes one in the v2 hierarchy.
    pub fn new(name: &str) -> Result<Self> {
        let path = format!("/{PREFIX}{}-{name}", std::process::id());
        let directory = mount()?.join(&path[1..]);
        fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
        Ok(Self { directory, path, v1: Vec::new() })
    }

    /// Makes one with every controller that limits something: in v2, and of the same path in the
    /// hierarchies of v1, as systemd and the runtimes do.
    pub fn in_all(name: &str) -> Result<Self> {
        let mount = mount()?;
        let offered = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
        for name in CONTROLLERS.iter().filter(|n| offered.split_whitespace().any(|o| o == **n)) {
            fs::write(mount.join("cgroup.subtree_control"), format!("+{name}"))
                .with_context(|| format!("enable the controller {name}"))?;
        }
        let mut made = Self::new(name)?;
        for (mount, is_memory) in v1()? {
            let directory = mount.join(&made.path[1..]);
            fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
            // Memory stays accounted to whoever started the tests.
            made.v1.push((directory, !is_memory));
        }
        Ok(made)
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
        let v1 = self.v1.iter().filter_map(|(path, is_moved)| is_moved.then_some(path));
        for directory in v1.chain([&self.directory]) {
            fs::write(directory.join("cgroup.procs"), pid.to_string())
                .with_context(|| format!("move process {pid} to {}", directory.display()))?;
        }
        Ok(())
    }

    /// Processes in it.
    pub fn is_empty(&self) -> bool {
        fs::read_to_string(self.directory.join("cgroup.procs"))
            .is_ok_and(|pids| pids.trim().is_empty())
    }

    /// One of its files, in whichever hierarchy it is; `None` where this host has none.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        let v1 = self.v1.iter().map(|(path, _)| path);
        let mut all = [&self.directory].into_iter().chain(v1).map(|path| path.join(name));
        all.find(|path| path.exists())
    }

    /// What a file of it holds, byte for byte.
    pub fn read(&self, name: &str) -> Result<String> {
        let path = self.file(name).with_context(|| format!("{} has no {name}", self.path))?;
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    /// Writes a file of it.
    pub fn write(&self, name: &str, value: &str) -> Result<()> {
        let path = self.file(name).with_context(|| format!("{} has no {name}", self.path))?;
        fs::write(&path, value).with_context(|| format!("write {value} to {}", path.display()))
    }

    /// Every file with limits that there is, byte for byte.
    pub fn limits(&self) -> Result<BTreeMap<&'static str, String>> {
        let there = LIMITS.into_iter().filter(|name| self.file(name).is_some());
        there.map(|name| Ok((name, self.read(name)?))).collect()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that was killed leaves a moment later.
        let remove = |path: &Path| {
            crate::clock::wait_for(std::time::Duration::from_secs(1), || {
                fs::remove_dir(path).is_ok()
            });
        };
        remove(&self.directory);
        self.v1.iter().for_each(|(path, _)| remove(path));
    }
}

/// Removes the cgroups that a crashed run left behind.
pub fn remove_leftovers() {
    let v1 = v1().unwrap_or_default().into_iter().map(|(path, _)| path);
    for mount in mount().into_iter().chain(v1) {
        for entry in fs::read_dir(mount).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                // One that still has processes belongs to a run that is going on.
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}
