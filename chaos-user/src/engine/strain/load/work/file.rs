//! Working on the target's file system: a file without a name that is written, and flushing.
//!
//! The file is made in the target's root directory, or in `/tmp` or `/var/tmp` where the root is
//! read-only. What is mounted there from memory (tmpfs) is passed over: that would be a load of
//! memory. A root that is in memory itself is taken as it is.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Duration;

use super::super::trouble::{Trouble, errno};

/// Where a file is tried, relative to the root.
const PLACES: [&CStr; 3] = [c".", c"tmp", c"var/tmp"];
/// How much is written at once, bytes.
const CHUNK: usize = 256 << 10;
/// How much is written between two flushes, bytes.
const FLUSH: u64 = 8 << 20;

/// A directory of the target's, and what the target calls it.
struct Root {
    directory: File,
    path: PathBuf,
}

impl Root {
    fn open(leader: u32) -> Result<Self, Trouble> {
        let path: PathBuf =
            if leader == 0 { "/".into() } else { format!("/proc/{leader}/root").into() };
        let directory = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC)
            .open(&path);
        match directory {
            Ok(directory) => Ok(Self { directory, path }),
            Err(error) => Err(Trouble::Root { path, errno: errno(&error) }),
        }
    }

    /// A new file without a name, so that it goes with the process.
    fn file(&self) -> Result<(File, String), Trouble> {
        let mut tried = Vec::new();
        for place in PLACES {
            let is_root = place == c".";
            let name = if is_root { "/".into() } else { format!("/{}", place.to_string_lossy()) };
            let made = self.directory_at(place).and_then(|directory| {
                if !is_root && is_in_memory(&directory)? {
                    return Err(io::Error::other("it is in memory (tmpfs)"));
                }
                unnamed(&directory)
            });
            match made {
                Ok(file) => return Ok((file, name)),
                Err(error) => tried.push((name, error.to_string())),
            }
        }
        Err(Trouble::File { tried })
    }

    /// Opens a directory below the root. Links lead to where they lead in the target, and never
    /// out of it.
    fn directory_at(&self, place: &CStr) -> io::Result<File> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        self.open_in(place, flags)
    }

    fn open_in(&self, path: &CStr, flags: i32) -> io::Result<File> {
        // SAFETY: a structure of numbers, for which zero is a value.
        let mut how: libc::open_how = unsafe { std::mem::zeroed() };
        how.flags = flags.cast_unsigned().into();
        how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
        // SAFETY: valid pointers, the size of the structure, and a descriptor that is open.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                self.directory.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            )
        };
        owned(i32::try_from(fd).unwrap_or(-1))
    }
}

fn owned(fd: i32) -> io::Result<File> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was opened just now and belongs to nobody else.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

fn is_in_memory(directory: &File) -> io::Result<bool> {
    // SAFETY: a structure of numbers, for which zero is a value.
    let mut about: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a valid pointer, and a descriptor that is open.
    if unsafe { libc::fstatfs(directory.as_raw_fd(), &raw mut about) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // RAMFS_MAGIC is missing in the libc crate; the number is that of linux/magic.h.
    const RAMFS_MAGIC: libc::__fsword_t = 0x8584_58f6;
    Ok([libc::TMPFS_MAGIC, RAMFS_MAGIC].contains(&about.f_type))
}

/// A file without a name in a directory.
fn unnamed(directory: &File) -> io::Result<File> {
    const FLAGS: i32 = libc::O_RDWR | libc::O_CLOEXEC;
    let at = directory.as_raw_fd();
    // SAFETY: a descriptor that is open, and a text that ends with a zero.
    let fd = unsafe { libc::openat(at, c".".as_ptr(), FLAGS | libc::O_TMPFILE, 0o600) };
    let made = owned(fd);
    let is_unknown = |error: &io::Error| {
        // Overlayfs before 6.2 and NFS cannot.
        matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL))
    };
    match made {
        Err(error) if is_unknown(&error) => named_for_a_moment(directory),
        made => made,
    }
}

/// The same where a file needs a name to be made: it loses it at once.
fn named_for_a_moment(directory: &File) -> io::Result<File> {
    let name = CString::new(format!(".kfault-worker-{}", std::process::id()))?;
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let at = directory.as_raw_fd();
    // SAFETY: a descriptor that is open, and a text that ends with a zero.
    let file = owned(unsafe { libc::openat(at, name.as_ptr(), flags, 0o600) })?;
    // SAFETY: as above.
    if unsafe { libc::unlinkat(at, name.as_ptr(), 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

/// Flushes the target's file system, for ever, with a little to flush each time where the target
/// has a place for a file.
pub fn sync(leader: u32, ready: impl FnOnce()) -> Result<Infallible, Trouble> {
    let root = Root::open(leader)?;
    let file = root.file().ok();
    ready();
    let mut round: u64 = 0;
    loop {
        round = round.wrapping_add(1);
        match &file {
            Some((file, _)) => {
                let block = round.to_le_bytes().repeat(512);
                // A full disk has something to flush as well.
                let _ = file.write_all_at(&block, 0).and_then(|()| file.sync_data());
            }
            // Without anything to flush this would only compute.
            None => std::thread::sleep(Duration::from_millis(1)),
        }
        // SAFETY: a descriptor that is open.
        if unsafe { libc::syncfs(root.directory.as_raw_fd()) } != 0 {
            let errno = errno(&io::Error::last_os_error());
            let doing = format!("flush the file system of {}", root.path.display());
            return Err(Trouble::Write { doing, errno });
        }
    }
}

/// Writes a file of this size, flushing, and begins anew, for ever.
pub fn write(
    leader: u32,
    bytes: u64,
    ready: impl FnOnce(),
    note: impl Fn(String),
) -> Result<Infallible, Trouble> {
    let root = Root::open(leader)?;
    let (file, place) = root.file()?;
    let directory = root.directory;
    ready();
    // Only the file keeps the target's file system busy.
    drop(directory);
    let mut writer = Writer { chunk: noise(), round: 0, end: bytes.max(1) };
    loop {
        match writer.once(&file) {
            Ok(()) => {}
            Err((at, error)) if is_full(&error) && at > 0 => {
                note(format!(
                    "the file system of {place} in the target is full: a file of {bytes} bytes \
                     ends at {at}"
                ));
                writer.end = at;
            }
            Err((_, error)) => {
                let doing = format!("write a file in {place} of the target");
                return Err(Trouble::Write { doing, errno: errno(&error) });
            }
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    // EFBIG: RLIMIT_FSIZE, or the largest file that there can be.
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG))
}

struct Writer {
    chunk: Vec<u8>,
    round: u64,
    end: u64,
}

impl Writer {
    /// Writes the file from its beginning to its end. On failure: up to where it was written.
    fn once(&mut self, file: &File) -> Result<(), (u64, io::Error)> {
        let (mut at, mut flushed) = (0, 0);
        while at < self.end {
            self.round = self.round.wrapping_add(1);
            // No two chunks are alike, for what finds duplicates below the file system.
            if let Some(head) = self.chunk.first_chunk_mut() {
                *head = self.round.to_le_bytes();
            }
            let room = usize::try_from(self.end - at).unwrap_or(usize::MAX);
            let chunk = self.chunk.get(..room.min(CHUNK)).unwrap_or(&self.chunk);
            at += file.write_at(chunk, at).map_err(|error| (at, error))? as u64;
            if at - flushed >= FLUSH {
                file.sync_data().map_err(|error| (at, error))?;
                flushed = at;
            }
        }
        file.sync_all().map_err(|error| (at, error))
    }
}

/// Bytes that cannot be compressed.
fn noise() -> Vec<u8> {
    let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()
    };
    (0..CHUNK / 8).flat_map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn root_at(path: &std::path::Path) -> Root {
        Root { directory: File::open(path).unwrap(), path: path.into() }
    }

    #[test]
    fn a_file_has_no_name_and_is_in_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let (file, place) = root_at(directory.path()).file().unwrap();
        assert_eq!(place, "/");
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        let other = named_for_a_moment(&File::open(directory.path()).unwrap()).unwrap();
        assert_eq!(other.metadata().unwrap().nlink(), 0);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn links_do_not_lead_out_of_the_target() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", directory.path().join("tmp")).unwrap();
        let root = root_at(directory.path());
        let error = root.directory_at(c"tmp").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "the target has no /etc");
        fs::create_dir(directory.path().join("etc")).unwrap();
        let inside = root.directory_at(c"tmp").unwrap().metadata().unwrap().ino();
        assert_eq!(inside, fs::metadata(directory.path().join("etc")).unwrap().ino());
    }

    #[test]
    fn a_file_is_written_to_its_size_and_then_over_again() {
        let file = tempfile::tempfile().unwrap();
        let end = FLUSH + 12_345;
        let mut writer = Writer { chunk: noise(), round: 0, end };
        for _ in 0..2 {
            writer.once(&file).unwrap();
            assert_eq!(file.metadata().unwrap().len(), end);
        }
    }

    #[test]
    fn a_place_that_takes_no_file_says_why() {
        // A file system where nobody makes files.
        let Err(Trouble::File { tried }) = root_at("/proc/self/ns".as_ref()).file() else {
            panic!("a file was made")
        };
        assert_eq!(tried.len(), PLACES.len(), "{tried:?}");
        assert!(tried.iter().all(|(place, why)| place.starts_with('/') && !why.is_empty()));
    }
}
