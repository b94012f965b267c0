//! One engine per host.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;

use super::error::EngineError;
use super::journal::STATE;

/// Held as long as the engine lives; the kernel lets go of it when the process dies.
pub struct HostLock {
    _file: File,
}

impl HostLock {
    /// Takes the lock.
    ///
    /// # Errors
    /// [`EngineError::Busy`] with the owner's command line when somebody holds it.
    pub fn take() -> Result<Self, EngineError> {
        let path = format!("{STATE}/lock");
        let failed = |e| EngineError::os(format!("open {path} (kfault needs root)"), e);
        std::fs::create_dir_all(STATE).map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        // SAFETY: plain call on a valid descriptor.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            let mut owner = String::new();
            let _ = file.read_to_string(&mut owner);
            return Err(EngineError::Busy { owner: owner.trim().to_owned() });
        }
        let command: Vec<String> = std::env::args().collect();
        let owner = format!("process {}: {}\n", std::process::id(), command.join(" "));
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(owner.as_bytes()))
            .map_err(failed)?;
        Ok(Self { _file: file })
    }
}
