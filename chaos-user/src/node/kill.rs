//! Killing a container: a signal to its first process, through no runtime's socket.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::local::Host;
use super::pod_container;
use super::pods::Pods;
use super::process;
use crate::api::nodefault::Container;

/// Sends SIGKILL to the first process of a container, unless the container has ended already: a
/// task that is looked at again kills nothing twice, for a container that was restarted has
/// another id.
///
/// # Errors
/// A sentence for the container's record.
pub fn kill(host: &Host, pods: &Pods, cgroups: &[String], meant: &Container) -> Result<(), String> {
    let Some(path) = pod_container::cgroup(pods, cgroups, meant) else { return Ok(()) };
    let failed = |error: &dyn std::fmt::Display| {
        format!("container {} of {}: cannot be killed: {error}", meant.container, meant.pod)
    };
    let pids = host.pids_in_cgroup(path).map_err(|error| failed(&error))?;
    let Some(first) = process::first(host.proc(), &pids) else { return Ok(()) };
    let process = match open(first) {
        Ok(process) => process,
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        Err(error) => return Err(failed(&error)),
    };
    // The number may belong to somebody else by now; the descriptor cannot any more.
    let now = host.cgroup_of(first).map_err(|error| failed(&error))?;
    if now.is_none_or(|now| !now.contains(&meant.id)) {
        return Ok(());
    }
    send(&process).map_err(|error| failed(&error))
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
        assert_eq!(process::first(std::path::Path::new("/proc"), &pids), Some(shell.id()));
        for pid in [shell.id(), child] {
            send(&open(pid).unwrap()).unwrap();
        }
        assert!(!shell.wait().unwrap().success());
    }
}
