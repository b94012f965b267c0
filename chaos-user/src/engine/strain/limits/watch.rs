//! The guard itself: a process that listens to the engine and puts limits back when it hears
//! nothing any more.
//!
//! It lives outside of the engine's cgroup, because a container runtime kills everything in
//! there when the engine's container dies, and outside of its session. It reads the journal, so
//! that it knows all that the engine knows.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::journal::{Entry, Journal, now_ns};
use super::undo::{Listener, Outcome, put_back_all};
use crate::engine::apart;
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
    let problems = apart::leave();
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
