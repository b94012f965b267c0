//! Processes, from procfs.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::NodeError;
use crate::engine::cgroup::Hierarchy;
use crate::engine::strain::load;

/// A process and where it lives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its number, in the pid namespace of the procfs that was read.
    pub pid: u32,
    /// Its name, cut to 15 bytes by the kernel.
    pub comm: String,
}

/// The numbers of all processes, ascending.
pub fn pids(proc: &Path) -> Result<Vec<u32>, NodeError> {
    let entries = fs::read_dir(proc).map_err(|e| NodeError::unreadable("read", proc, e))?;
    let mut pids: Vec<u32> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    Ok(pids)
}

/// The process, or `None` when it is gone.
#[must_use]
pub fn process(proc: &Path, pid: u32) -> Option<Process> {
    let comm = fs::read(proc.join(pid.to_string()).join("comm")).ok()?;
    let comm = String::from_utf8_lossy(&comm).trim_end_matches('\n').to_owned();
    Some(Process { pid, comm })
}

/// True for a worker that an engine has put into its target's cgroup.
#[must_use]
pub fn is_worker(proc: &Path, pid: u32) -> bool {
    let command = fs::read(proc.join(pid.to_string()).join("cmdline"));
    command.is_ok_and(|command| load::is_worker(&command))
}

/// File of the process's network namespace.
#[must_use]
pub fn netns_file(proc: &Path, pid: u32) -> PathBuf {
    proc.join(pid.to_string()).join("ns/net")
}

/// Inode of the process's network namespace, or `None` when the process is gone.
pub fn netns(proc: &Path, pid: u32) -> Result<Option<u64>, NodeError> {
    let file = netns_file(proc, pid);
    match fs::metadata(&file) {
        Ok(meta) => Ok(Some(meta.ino())),
        // A zombie has no namespaces; a process may end while we look.
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(NodeError::unreadable("read", file, e)),
    }
}

/// The process's path in the hierarchy, or `None` when the process is gone.
pub fn cgroup(proc: &Path, pid: u32, hierarchy: &Hierarchy) -> Result<Option<String>, NodeError> {
    let file = proc.join(pid.to_string()).join("cgroup");
    match fs::read_to_string(&file) {
        Ok(text) => Ok(hierarchy.path_in(&text).map(str::to_owned)),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(NodeError::unreadable("read", file, e)),
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// The process whose parent is none of them: the container's first one, also where a pod shares
/// its process namespace.
#[must_use]
pub fn first(proc: &Path, pids: &[u32]) -> Option<u32> {
    let is_child = |pid: &&u32| !parent(proc, **pid).is_some_and(|parent| pids.contains(&parent));
    pids.iter().find(is_child).copied()
}

fn parent(proc: &Path, pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    // The name before it is in parentheses and may contain anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
