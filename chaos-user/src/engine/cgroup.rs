//! The v2 hierarchy.

use std::path::PathBuf;

use super::error::EngineError;

/// Where the v2 hierarchy is mounted, which on hybrid hosts is not `/sys/fs/cgroup`.
pub fn cgroup_mount() -> Option<PathBuf> {
    let mounts = procfs::process::Process::myself().ok()?.mountinfo().ok()?;
    mounts.into_iter().find(|m| m.fs_type == "cgroup2").map(|m| m.mount_point)
}

/// The answer where there is none.
pub fn no_cgroup() -> EngineError {
    EngineError::Unsupported {
        mechanism: "cgroup",
        reason: "no cgroup v2 hierarchy is mounted".into(),
        way_out: "mount one: mount -t cgroup2 none /sys/fs/cgroup/unified",
    }
}
