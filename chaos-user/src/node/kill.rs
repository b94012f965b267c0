//! Killing a container: a signal to its first process, through no runtime's socket.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use super::cgroup::base;
use super::container::id_of;
use super::local::Host;
use super::pods::Pods;
use super::process;
use crate::api::nodefault::Kill;

/// Sends SIGKILL to the first process of a container, unless the container has ended already: a
/// task that is looked at again kills nothing twice, for a container that was restarted has
/// another id.
///
/// # Errors
/// A sentence for the container's record.
pub fn kill(host: &Host, pods: &Pods, cgroups: &[String], kill: &Kill) -> Result<(), String> {
    let Some(pod) = pods.cgroup(&kill.uid) else { return Ok(()) };
    let inside = cgroups.iter().filter(|path| {
        path.strip_prefix(pod).is_some_and(|rest| rest.starts_with('/'))
            && is_of(base(path), &kill.id)
    });
    // Containers may make cgroups of their own below; the shortest path is the container's.
    let Some(path) = inside.min_by_key(|path| path.len()) else { return Ok(()) };
    let failed = |error: &dyn std::fmt::Display| {
        format!("container {} of {}: cannot be killed: {error}", kill.container, kill.pod)
    };
    let pids = host.pids_in_cgroup(path).map_err(|error| failed(&error))?;
    let Some(first) = first(host.proc(), &pids) else { return Ok(()) };
    let process = match open(first) {
        Ok(process) => process,
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        Err(error) => return Err(failed(&error)),
    };
    // The number may belong to somebody else by now; the descriptor cannot any more.
    let now = process::cgroup(host.proc(), first).map_err(|error| failed(&error))?;
    if now.is_none_or(|now| !now.contains(&kill.id)) {
        return Ok(());
    }
    send(&process).map_err(|error| failed(&error))
}

/// True for the cgroup directory of a container, by whatever runtime. Its monitor's is none.
fn is_of(directory: &str, id: &str) -> bool {
    id_of(directory) == Some(id)
}

/// The process whose parent is none of them: the container's first one, also where a pod shares
/// its process namespace.
fn first(proc: &Path, pids: &[u32]) -> Option<u32> {
    let is_child = |pid: &&u32| !parent(proc, **pid).is_some_and(|parent| pids.contains(&parent));
    pids.iter().find(is_child).copied()
}

fn parent(proc: &Path, pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    // The name before it is in parentheses and may contain anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: plain system call without pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn send(process: &OwnedFd) -> io::Result<()> {
    let fd = process.as_raw_fd();
    let nothing = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: no information is passed with the signal, which the kernel takes as kill(2) does.
    let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, nothing, 0) };
    match done {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            gone if gone.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn directories_of_containers_are_known() {
        let id = "0123456789abcdef".repeat(4);
        let id = id.as_str();
        assert!(is_of(id, id));
        assert!(is_of(&format!("cri-containerd-{id}.scope"), id));
        assert!(is_of(&format!("crio-{id}.scope"), id));
        assert!(!is_of(&format!("crio-conmon-{id}.scope"), id));
        assert!(!is_of(&id[1..], id));
        assert!(!is_of(&format!("x{id}"), id));
        assert!(!is_of(id, ""));
    }

    #[test]
    fn the_first_process_is_found_and_ends() {
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 60 & echo $!; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = io::BufReader::new(shell.stdout.take().unwrap());
        io::BufRead::read_line(&mut out, &mut line).unwrap();
        let child: u32 = line.trim().parse().unwrap();
        let mut pids = [child, shell.id()];
        pids.sort_unstable();
        assert_eq!(first(Path::new("/proc"), &pids), Some(shell.id()));
        for pid in [shell.id(), child] {
            send(&open(pid).unwrap()).unwrap();
        }
        assert!(!shell.wait().unwrap().success());
    }
}
