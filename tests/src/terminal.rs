//! kfault on a terminal, as a person has it in front of them.

use std::fs::File;
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

/// A kfault whose words for people go to a terminal.
pub struct Terminal {
    child: Child,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    /// Starts it on a terminal of 200 columns and 40 lines.
    pub fn start(args: &[&str]) -> Result<Self> {
        let size = libc::winsize { ws_row: 40, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        let (mut ours, mut theirs) = (-1, -1);
        // SAFETY: valid pointers; a name and settings are not asked for.
        let done = unsafe {
            libc::openpty(
                &raw mut ours,
                &raw mut theirs,
                std::ptr::null_mut(),
                std::ptr::null(),
                &raw const size,
            )
        };
        ensure!(done == 0, "make a terminal: {}", std::io::Error::last_os_error());
        // SAFETY: the kernel has just returned both to us alone.
        let (ours, theirs) = unsafe { (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
        let child = Command::new("/proc/self/exe")
            .arg("as-kfault")
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(theirs))
            .spawn()
            .context("start kfault on a terminal")?;
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&screen);
        let mut ours = File::from(ours);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // A terminal whose other end has been closed is an error, and the end.
            while let Ok(length) = ours.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..length]);
                shown.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Ok(Self { child, screen })
    }

    /// Everything that was written so far.
    #[must_use]
    pub fn screen(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As Ctrl-C: its exit code and what it wrote to stdout.
    pub fn interrupt(mut self) -> Result<(Option<i32>, String)> {
        let pid = libc::pid_t::try_from(self.child.id()).context("a process id")?;
        // SAFETY: the child has not been waited for, so the id is still its own.
        unsafe { libc::kill(pid, libc::SIGINT) };
        let mut out = String::new();
        let mut stdout = self.child.stdout.take().context("kfault's stdout")?;
        stdout.read_to_string(&mut out).context("read kfault's stdout")?;
        Ok((self.child.wait().context("wait for kfault")?.code(), out))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
