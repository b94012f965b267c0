//! One worker, seen from the engine.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use super::channel::{Channel, Word, beat};
use super::order::Order;
use crate::engine::line::monotonic_ns;
use crate::engine::strain::page_size;

/// A worker. It is killed when dropped.
#[derive(Debug)]
pub struct Worker {
    pid: u32,
    pidfd: OwnedFd,
    line: Channel,
    has_ended: bool,
    /// Processor time that it had used when it ended, nanoseconds.
    spent_ns: u64,
}

/// How one ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// Processor time that it used, nanoseconds.
    pub cpu_ns: u64,
}

impl Worker {
    /// Starts it: this very program, as `kfault worker`. It dies with the calling thread.
    ///
    /// # Errors
    /// When there can be no process.
    pub fn spawn(order: &Order, leader: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        let (line, theirs) = Channel::pair()?;
        let leader = match leader {
            Some(leader) => Stdio::from(leader.try_clone_to_owned()?),
            None => Stdio::null(),
        };
        let mut child = Command::new("/proc/self/exe")
            .arg0("kfault")
            .args(order.arguments())
            // Nothing of the engine's (tokens, addresses) is to be read in the target's cgroup.
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(leader)
            .stderr(Stdio::null())
            .spawn()?;
        // Until it is waited for, the number is its own.
        let pidfd = match open_pidfd(child.id()) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                child.kill()?;
                child.wait()?;
                return Err(error);
            }
        };
        Ok(Self { pid: child.id(), pidfd, line, has_ended: false, spent_ns: 0 })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets it work until then, nanoseconds of `CLOCK_MONOTONIC`.
    pub fn beat(&self, until_ns: u64) {
        // A line that is full has beats enough, one that is closed has a worker that has ended.
        let _ = self.line.send(&beat(until_ns));
    }

    /// What it has said since the last call.
    pub fn words(&self) -> Vec<Word> {
        self.line.words().collect()
    }

    /// Kills it, and does not wait.
    pub fn kill(&self) {
        // One that has ended needs none.
        let _ = send_kill(self.pidfd.as_fd());
    }

    /// How it ended; `None` while it has not, and after it was told.
    pub fn ended(&mut self) -> Option<Ended> {
        if self.has_ended {
            return None;
        }
        let pid = i32::try_from(self.pid).ok()?;
        let mut status = 0;
        // SAFETY: a structure of numbers, for which zero is a value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: valid pointers. The process is a child of ours that was not waited for.
        match unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage) } {
            0 => None,
            found if found == pid => {
                self.has_ended = true;
                let ns = |time: libc::timeval| {
                    time.tv_sec.cast_unsigned() * 1_000_000_000
                        + time.tv_usec.cast_unsigned() * 1_000
                };
                let cpu_ns = ns(usage.ru_utime) + ns(usage.ru_stime);
                self.spent_ns = cpu_ns;
                Some(Ended { status: ExitStatus::from_raw(status), cpu_ns })
            }
            // Whoever started us has SIGCHLD ignored: the kernel keeps no status.
            _ => {
                self.has_ended = true;
                Some(Ended { status: ExitStatus::from_raw(0), cpu_ns: 0 })
            }
        }
    }

    /// Waits for its end, at most so long. Whether it has ended.
    pub fn wait(&mut self, patience: Duration) -> bool {
        let end = monotonic_ns() + u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX / 2);
        loop {
            if self.ended().is_some() || self.has_ended {
                return true;
            }
            let left_ms = end.saturating_sub(monotonic_ns()) / 1_000_000;
            if left_ms == 0 {
                return false;
            }
            let fd = self.pidfd.as_raw_fd();
            let mut on_end = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            // SAFETY: one entry.
            unsafe { libc::poll(&raw mut on_end, 1, i32::try_from(left_ms).unwrap_or(i32::MAX)) };
        }
    }

    /// Processor time that it has used so far, nanoseconds; `None` when it has ended.
    #[must_use]
    pub fn cpu_ns(&self) -> Option<u64> {
        let pid = i32::try_from(self.pid).ok().filter(|_| !self.has_ended)?;
        let mut clock = 0;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: valid pointers; the second call has the clock that the first one gave.
        let is_known = unsafe {
            libc::clock_getcpuclockid(pid, &raw mut clock) == 0
                && libc::clock_gettime(clock, &raw mut time) == 0
        };
        is_known.then(|| time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned())
    }

    /// Processor time that it had used when it ended, nanoseconds; 0 while it has not.
    #[must_use]
    pub fn spent_ns(&self) -> u64 {
        self.spent_ns
    }

    /// Memory that belongs to it alone and is resident, bytes.
    #[must_use]
    pub fn anonymous_bytes(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.pid));
        text.ok().and_then(|text| anonymous_pages(&text)).unwrap_or(0) * page_size()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.has_ended {
            self.kill();
            self.wait(Duration::from_secs(1));
        }
    }
}

/// `/proc/PID/statm` counts pages: all, resident, those of files and shared ones among these.
fn anonymous_pages(statm: &str) -> Option<u64> {
    let mut fields = statm.split_whitespace().skip(1).map(|field| field.parse::<u64>().ok());
    let (resident, shared) = (fields.next()??, fields.next()??);
    Some(resident.saturating_sub(shared))
}

/// A descriptor of a process, which can be polled for its end.
///
/// # Errors
/// ESRCH when there is no such process.
pub fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: plain call; the kernel closes it when a program is executed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was opened just now and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Kills the process behind a descriptor.
///
/// # Errors
/// ESRCH when it has ended.
pub fn send_kill(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    let none: *const libc::siginfo_t = std::ptr::null();
    let fd = pidfd.as_raw_fd();
    // SAFETY: a descriptor that is open; no information goes along.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, none, 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets this process have two descriptors for each of so many workers, as far as it may.
pub fn make_room(workers: usize) {
    let needed = workers as u64 * 2 + 512;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: valid pointers. Where it may not, starting a worker says so.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && limit.rlim_cur < needed {
            limit.rlim_cur = needed.min(limit.rlim_max);
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Whether the process behind a descriptor has ended.
#[must_use]
pub fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    let mut on_end = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry.
    let ready = unsafe { libc::poll(&raw mut on_end, 1, 0) };
    ready == 1 && on_end.revents & libc::POLLIN != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_files_is_nobodys() {
        assert_eq!(anonymous_pages("2000 700 200 10 0 300 0\n"), Some(500));
        assert_eq!(anonymous_pages(""), None);
    }

    #[test]
    fn a_descriptor_tells_when_its_process_has_ended() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let pidfd = open_pidfd(child.id()).unwrap();
        assert!(!has_ended(pidfd.as_fd()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(has_ended(pidfd.as_fd()));
    }
}
