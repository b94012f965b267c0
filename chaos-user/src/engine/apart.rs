//! Processes that outlive the engine: they look after what it leaves when it is killed.
//!
//! They live outside of the engine's cgroup, because a container runtime kills everything in there
//! when the engine's container dies, and outside of its session.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use procfs::process::{MountInfo, Process};

/// Leaves everything through which the engine's end could be ours as well. Says what it cannot. To be
/// called first: it closes all but stdin, stdout and stderr.
pub fn leave() -> Vec<String> {
    // SAFETY: plain call; nothing of this process's own is open above stderr yet but what the
    // logger may have, which writes to stderr only.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    // SAFETY: plain calls. The name keeps `pkill kfault` from meaning us; the signals are those of
    // terminals, logouts and shutdowns, at which the engine ends and we put back what it leaves.
    unsafe {
        libc::setsid();
        libc::prctl(libc::PR_SET_NAME, c"kf-guard".as_ptr());
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
    // The last one that should be killed for want of memory; allowed to root only.
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    let _ = std::env::set_current_dir("/");
    // v2 with nsdelegate lets nobody pass the border of a cgroup namespace (ENOENT), whatever the
    // mount shows; that of the host's first process has none. Its failure shows below.
    if let Ok(first) = File::open("/proc/1/ns/cgroup") {
        // SAFETY: plain call on a valid descriptor.
        unsafe { libc::setns(first.as_raw_fd(), libc::CLONE_NEWCGROUP) };
    }
    let mounts = Process::myself().and_then(|me| me.mountinfo());
    let mounts = match mounts {
        Ok(mounts) => mounts.0,
        Err(error) => return vec![format!("cannot read mounts: {error}")],
    };
    let is_cgroup = |mount: &&MountInfo| matches!(mount.fs_type.as_str(), "cgroup" | "cgroup2");
    // A part of a hierarchy that is mounted elsewhere too has another root.
    let whole = mounts.iter().filter(is_cgroup).filter(|mount| mount.root == "/");
    whole.filter_map(|mount| enter_root(mount).err()).collect()
}

/// Moves this process to the root of a hierarchy, or to where the host's first process is.
fn enter_root(mount: &MountInfo) -> Result<(), String> {
    // 0 is whoever writes.
    let enter = |directory: &Path| fs::write(directory.join("cgroup.procs"), "0");
    let Err(error) = enter(&mount.mount_point) else { return Ok(()) };
    // A root that we see may be a cgroup like others to the kernel: those that hand controllers
    // on hold no processes (EBUSY).
    let beside_first = beside_first(mount).map(|directory| enter(&directory));
    match beside_first {
        Some(Ok(())) => Ok(()),
        _ => Err(format!("cannot enter {}: {error}", mount.mount_point.display())),
    }
}

fn beside_first(mount: &MountInfo) -> Option<PathBuf> {
    let first: io::Result<_> =
        Process::new(1).and_then(|first| first.cgroups()).map_err(io::Error::other);
    let is_of = |names: &[String]| match mount.fs_type.as_str() {
        "cgroup2" => names.iter().all(String::is_empty),
        _ => names.iter().any(|name| mount.super_options.contains_key(name)),
    };
    let mut all = first.ok()?.0.into_iter();
    let found = all.find(|one| is_of(&one.controllers))?;
    Some(mount.mount_point.join(found.pathname.trim_start_matches('/')))
}
