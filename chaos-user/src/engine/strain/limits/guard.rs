//! The engine's end of its guard: a process of its own that puts limits back when the engine
//! cannot.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::journal::now_ns;
use crate::engine::error::EngineError;

/// How long the guard may take to start: it is one `exec`, on a machine that may be emulated.
const START: Duration = Duration::from_secs(20);
/// How long it may take to end when nothing is left to do.
const END: Duration = Duration::from_secs(5);

/// The guard of one engine. It runs as long as limits are held, and serves all of them.
pub struct Guard {
    engine: String,
    running: Option<(Child, UnixStream)>,
}

impl Default for Guard {
    fn default() -> Self {
        Self { engine: format!("{}-{}", std::process::id(), now_ns()), running: None }
    }
}

impl Guard {
    /// The name under which this engine's entries are in the journal.
    #[must_use]
    pub fn engine(&self) -> &str {
        &self.engine
    }

    /// Starts it unless it runs. When this returns it is out of the engine's cgroup and session,
    /// and listens.
    ///
    /// # Errors
    /// When it cannot be started: nothing may be written to a cgroup then.
    pub fn ensure(&mut self) -> Result<(), EngineError> {
        if self.running.is_some() && self.is_heard() {
            return Ok(());
        }
        self.end();
        let failed = |e| EngineError::os("start the guard of the limits", e);
        let (ours, its) = UnixStream::pair().map_err(failed)?;
        let child = Command::new("/proc/self/exe")
            .arg0("kfault")
            .args(["guard", &self.engine])
            .stdin(OwnedFd::from(its))
            // Whoever reads the engine's output must not have to wait for the guard's end.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let (child, _) = self.running.insert((child, ours));
        let pid = child.id();
        match self.first_words() {
            Ok(words) if words.is_empty() => tracing::debug!(pid, "a guard looks after limits"),
            Ok(words) => {
                tracing::warn!("the guard of the limits may end together with kfault: {words}");
            }
            Err(error) => {
                self.end();
                return Err(failed(error));
            }
        }
        Ok(())
    }

    /// One line when it is ready: what it could not do for its own safety, if anything.
    fn first_words(&mut self) -> std::io::Result<String> {
        let Some((_, socket)) = &self.running else { return Ok(String::new()) };
        socket.set_read_timeout(Some(START))?;
        let mut line = String::new();
        BufReader::new(socket).read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        // The engine never waits for its guard.
        socket.set_nonblocking(true)?;
        Ok(line.trim().to_owned())
    }

    /// Tells it that the engine lives, and that the journal may have changed.
    pub fn beat(&mut self) {
        if self.running.is_some() && !self.is_heard() {
            tracing::warn!("the guard of the limits has ended; another one is started");
            if let Err(error) = self.ensure() {
                tracing::error!(%error, "limits have no guard: they end with this process's care");
            }
        }
    }

    fn is_heard(&mut self) -> bool {
        let Some((_, socket)) = &mut self.running else { return false };
        match socket.write_all(b".") {
            Ok(()) => true,
            // It reads nothing: it is stopped, and will find the beats when it goes on.
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }

    /// Lets it end. It puts back what this engine has left in the journal.
    pub fn end(&mut self) {
        let Some((mut child, socket)) = self.running.take() else { return };
        drop(socket);
        let end = Instant::now() + END;
        while !matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            if Instant::now() > end {
                tracing::warn!(pid = child.id(), "the guard of the limits does not end; killed");
                let _ = child.kill();
                let _ = child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end();
    }
}
