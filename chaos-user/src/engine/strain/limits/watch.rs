//! The guard itself: a process that listens to the engine and puts limits back when it hears
//! nothing any more.
//!
//! It lives outside of the engine's cgroup, because a container runtime kills everything in
//! there when the engine's container dies, and outside of its session. It reads the journal, so
//! that it knows all that the engine knows.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use procfs::process::{MountInfo, Process};

use super::journal::{Entry, Journal, now_ns};
use super::undo::{Listener, Outcome, put_back_all};
use crate::engine::error::EngineError;

/// An engine that is silent for so long hangs, and its limits end.
pub const LEASE: Duration = Duration::from_secs(5);

/// How often what cannot be put back is tried again after the engine's death.
const ATTEMPTS: u32 = 5;

/// `kfault guard ENGINE`: looks after an engine's limits until the engine, at the other end of
/// stdin, is no more.
///
/// # Errors
/// When it cannot listen.
pub fn watch(engine: &str) -> Result<(), EngineError> {
    let failed = |e| EngineError::os("listen to the engine", e);
    // SAFETY: plain call; nothing of this process's own is open above stderr yet but what the
    // logger may have, which writes to stderr only.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    let problems = leave();
    // SAFETY: stdin is the socket that the engine gave us, and nobody else uses it.
    let mut socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    writeln!(socket, "{}", problems.join("; ")).map_err(failed)?;
    let journal = Journal::of_host();
    let mut silent_since = now_ns();
    let mut is_over = false;
    loop {
        let own = journal.read().into_iter().filter(|e| e.engine == engine && e.said.is_none());
        let deadline = own.filter_map(|entry| entry.until_ns).min().unwrap_or(u64::MAX);
        let lease = if is_over { u64::MAX } else { silent_since.saturating_add(ns(LEASE)) };
        if is_readable(&socket, deadline.min(lease).saturating_sub(now_ns())) {
            match socket.read(&mut [0; 4096]) {
                Ok(0) | Err(_) => break,
                Ok(_) => (silent_since, is_over) = (now_ns(), false),
            }
        }
        let now = now_ns();
        let is_silent = !is_over && now >= silent_since.saturating_add(ns(LEASE));
        is_over |= is_silent;
        let is_due = |entry: &Entry| is_silent || entry.until_ns.is_some_and(|until| until <= now);
        if is_silent || deadline <= now {
            // What fails is tried again at the next beat or deadline, and in the end.
            let _ = put_back_all(&journal, Listener::Later, |e| e.engine == engine && is_due(e));
            // A deadline that cannot be served must not make this loop spin.
            if deadline <= now {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
    for _ in 0..ATTEMPTS {
        let done = put_back_all(&journal, Listener::Later, |entry| entry.engine == engine);
        let is_done = done
            .is_ok_and(|all| !all.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed(_))));
        if is_done {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Waits for the engine's word, at most for so long. The end of the engine is one, too.
fn is_readable(socket: &UnixStream, patience_ns: u64) -> bool {
    let mut one = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // Poll's clock stands still while a machine sleeps: so no wait is longer than the lease.
    let patience = patience_ns.min(ns(LEASE)).div_ceil(1_000_000);
    let patience = libc::c_int::try_from(patience).unwrap_or(libc::c_int::MAX);
    // SAFETY: one valid structure that outlives the call.
    unsafe { libc::poll(&raw mut one, 1, patience) > 0 }
}

/// Leaves everything through which the engine's end could be ours as well. Says what it cannot.
fn leave() -> Vec<String> {
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
