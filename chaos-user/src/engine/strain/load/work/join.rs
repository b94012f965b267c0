//! Entering the target's cgroup.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::super::trouble::{Trouble, errno};

/// Moves this process into the cgroup, in every hierarchy. Its threads come along, and what it
/// takes from now on is charged there.
pub fn join(directories: &[PathBuf]) -> Result<(), Trouble> {
    leave_the_namespace();
    for directory in directories {
        // "0" is the writer, whatever its number is in the namespace of that mount.
        fs::write(directory.join("cgroup.procs"), "0").map_err(|error| Trouble::Join {
            directory: directory.clone(),
            errno: errno(&error),
        })?;
    }
    Ok(())
}

/// Goes to the cgroup namespace of the host's first process, if that is another one and can be
/// seen. With `nsdelegate` the kernel moves nobody across the border of the namespace in which
/// `cgroup.procs` was opened (ENOENT).
fn leave_the_namespace() {
    let (own, first) = (Path::new("/proc/self/ns/cgroup"), Path::new("/proc/1/ns/cgroup"));
    let inode = |path: &Path| fs::metadata(path).map(|meta| meta.ino());
    let entered = match (inode(own), inode(first)) {
        (Ok(here), Ok(there)) if here != there => File::open(first).and_then(|file| enter(&file)),
        _ => Ok(()),
    };
    // Where it matters, the kernel refuses what comes next, and that is told.
    if let Err(error) = entered {
        tracing::debug!(%error, "cannot enter the host's cgroup namespace");
    }
}

fn enter(namespace: &File) -> io::Result<()> {
    // SAFETY: a valid descriptor.
    if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWCGROUP) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_way_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("none");
        let trouble = join(std::slice::from_ref(&missing)).unwrap_err();
        assert_eq!(trouble, Trouble::Join { directory: missing, errno: libc::ENOENT });
    }

    #[test]
    fn every_directory_gets_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let both = ["a", "b"].map(|name| directory.path().join(name));
        for one in &both {
            fs::create_dir(one).unwrap();
        }
        join(&both).unwrap();
        for one in &both {
            assert_eq!(fs::read_to_string(one.join("cgroup.procs")).unwrap(), "0");
        }
    }
}
