//! Working inside another network namespace.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::linux::fs::MetadataExt;
use std::path::Path;

use super::error::EngineError;

/// Runs `f` in a thread of its own that has entered the namespace behind `file`. The calling
/// thread stays where it is.
///
/// # Errors
/// [`EngineError::Gone`] when the file is no namespace any more.
pub fn within<T: Send>(file: &Path, f: impl FnOnce() -> T + Send) -> Result<T, EngineError> {
    let gone = || EngineError::Gone { what: format!("network namespace {}", file.display()) };
    let handle = File::open(file).map_err(|_| gone())?;
    enter_and_run(&handle, f).map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL | libc::ENOENT) => gone(),
        _ => EngineError::os(format!("enter network namespace {}", file.display()), error),
    })
}

/// As [`within`], with the namespace already open: it stays reachable as long as the handle.
///
/// # Errors
/// What `setns` says.
pub fn enter_and_run<T: Send>(handle: &File, f: impl FnOnce() -> T + Send) -> io::Result<T> {
    run_apart(|| enter(handle).map(|()| f()))?
}

/// Runs `f` in a thread of its own, where it may [`enter`] namespaces.
///
/// # Errors
/// When there can be no thread.
pub fn run_apart<T: Send>(f: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new()
            .name("kfault-netns".into())
            .stack_size(256 * 1024)
            .spawn_scoped(scope, f)?;
        Ok(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Moves the calling thread, which must be one of [`run_apart`].
///
/// # Errors
/// What `setns` says.
pub fn enter(handle: &File) -> io::Result<()> {
    // SAFETY: a valid descriptor.
    if unsafe { libc::setns(handle.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Inode of the namespace behind a file: its identity.
///
/// # Errors
/// When the file cannot be read.
pub fn inode(file: &Path) -> io::Result<u64> {
    Ok(std::fs::metadata(file)?.st_ino())
}
