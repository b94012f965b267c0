//! What has to be put back, on disk before anything is written to a cgroup.
//!
//! One line per number in `/run/kfault/limits`, replaced as a whole. `/run` is a tmpfs: a reboot
//! forgets the journal exactly as the kernel forgets the cgroups and their limits. Where it is
//! not, the boot that an entry belongs to tells.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::knob::Knob;
use crate::engine::error::EngineError;
use crate::engine::journal::STATE;

/// A number that kfault has changed, or is about to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it is.
    pub knob: Knob,
    /// What was there.
    pub before: String,
    /// What kfault wrote.
    pub after: String,
    /// The strain that it belongs to.
    pub strain: String,
    /// `Kind/namespace/name` of its experiment.
    pub experiment: String,
    /// The engine that wrote it: its guard looks after no other's.
    pub engine: String,
    /// The boot in which that was, as `/proc/sys/kernel/random/boot_id` has it.
    pub boot: String,
    /// When it has to be put back, nanoseconds of `CLOCK_BOOTTIME`; `None`: when the engine says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until_ns: Option<u64>,
    /// It is settled, and this is what the next kfault has to say about it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub said: Option<String>,
}

impl Entry {
    /// Whether it is the same number of the same strain.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.knob, &self.strain, &self.engine) == (&other.knob, &other.strain, &other.engine)
    }
}

/// The journal of a host.
#[derive(Clone, Debug)]
pub struct Journal {
    directory: PathBuf,
}

/// The right to change the journal and what it speaks of. Ends when dropped.
pub struct Lock(#[expect(dead_code, reason = "held")] Option<File>);

/// How long somebody who is at work may take. One that takes longer hangs, or is stopped, and
/// the limits have to end in spite of that; it finds its entries gone when it goes on.
const PATIENCE: Duration = Duration::from_secs(2);

impl Journal {
    /// Of this host.
    #[must_use]
    pub fn of_host() -> Self {
        Self::at(Path::new(STATE))
    }

    /// In a directory.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    fn file(&self) -> PathBuf {
        self.directory.join("limits")
    }

    fn failed(&self, error: io::Error) -> EngineError {
        EngineError::os(format!("write {}", self.file().display()), error)
    }

    /// Waits for others who change it, 2 s at most.
    ///
    /// # Errors
    /// When the lock's file cannot be made.
    pub fn lock(&self) -> Result<Lock, EngineError> {
        fs::create_dir_all(&self.directory).map_err(|e| self.failed(e))?;
        let path = self.directory.join("limits.lock");
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|e| self.failed(e))?;
        let end = Instant::now() + PATIENCE;
        // SAFETY: plain call on a valid descriptor.
        while unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            if Instant::now() > end {
                return Ok(Lock(None));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Lock(Some(file)))
    }

    /// Every entry of this boot, oldest first. Lines that cannot be read are left out.
    #[must_use]
    pub fn read(&self) -> Vec<Entry> {
        let Ok(text) = fs::read_to_string(self.file()) else { return Vec::new() };
        let boot = boot();
        let entries = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        entries.filter(|entry: &Entry| entry.boot == boot).collect()
    }

    /// Replaces it, whole or not at all; it is on disk when this returns. The lock must be held.
    ///
    /// # Errors
    /// When it cannot be written. It is as it was then.
    pub fn write(&self, entries: &[Entry]) -> Result<(), EngineError> {
        self.replace(entries).map_err(|e| self.failed(e))
    }

    fn replace(&self, entries: &[Entry]) -> io::Result<()> {
        if entries.is_empty() {
            return match fs::remove_file(self.file()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let mut text = String::new();
        for entry in entries {
            text.push_str(&serde_json::to_string(entry)?);
            text.push('\n');
        }
        let next = self.directory.join("limits.next");
        let mut file = File::create(&next)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, self.file())?;
        File::open(&self.directory)?.sync_all()
    }

    /// Adds entries, or replaces those of the same numbers. The lock must be held.
    ///
    /// # Errors
    /// When it cannot be written: nothing may be done to a cgroup then.
    pub fn note(&self, new: &[Entry]) -> Result<(), EngineError> {
        let mut all = self.read();
        all.retain(|entry| !new.iter().any(|one| one.is_same(entry)));
        all.extend_from_slice(new);
        self.write(&all)
    }

    /// Takes entries out. The lock must be held.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn forget(&self, gone: &[Entry]) -> Result<(), EngineError> {
        let all = self.read();
        let mut rest = all.clone();
        rest.retain(|entry| !gone.iter().any(|one| one.is_same(entry)));
        if rest == all { Ok(()) } else { self.write(&rest) }
    }
}

/// The boot that we are in; empty where the kernel does not say.
#[must_use]
pub fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// Nanoseconds of `CLOCK_BOOTTIME`: a deadline does not wait for a machine that sleeps.
#[must_use]
pub fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a plain call with a valid pointer.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An entry for a file that may not be there.
    pub fn entry(directory: &Path, file: &str, before: &str, after: &str) -> Entry {
        Entry {
            knob: Knob::whole(directory, file).unwrap(),
            before: before.into(),
            after: after.into(),
            strain: "ThrottleChaos/default/a/cgroup:/web".into(),
            experiment: "ThrottleChaos/default/a".into(),
            engine: "1-1".into(),
            boot: boot(),
            until_ns: None,
            said: None,
        }
    }

    #[test]
    fn what_is_noted_is_read_and_what_is_forgotten_is_not() {
        let state = tempfile::tempdir().unwrap();
        let journal = Journal::at(&state.path().join("kfault"));
        assert_eq!(journal.read(), []);
        let _lock = journal.lock().unwrap();
        let one = entry(state.path(), "pids.max", "max", "5");
        let two = entry(state.path(), "cpu.max", "max 100000", "20000 100000");
        journal.note(&[one.clone(), two.clone()]).unwrap();
        assert_eq!(journal.read(), [one.clone(), two.clone()]);
        let again = Entry { after: "6".into(), ..one.clone() };
        journal.note(std::slice::from_ref(&again)).unwrap();
        assert_eq!(journal.read(), [two.clone(), again], "one entry per number");
        journal.forget(&[one]).unwrap();
        assert_eq!(journal.read(), std::slice::from_ref(&two));
        journal.forget(&[two]).unwrap();
        assert!(!journal.file().exists(), "an empty journal leaves no file");
    }

    #[test]
    fn entries_of_an_earlier_boot_and_torn_lines_count_for_nothing() {
        let state = tempfile::tempdir().unwrap();
        let journal = Journal::at(state.path());
        let earlier =
            Entry { boot: "earlier".into(), ..entry(state.path(), "pids.max", "max", "5") };
        let here = entry(state.path(), "cpu.max", "max 100000", "20000 100000");
        journal.write(&[earlier, here.clone()]).unwrap();
        let mut text = fs::read_to_string(journal.file()).unwrap();
        text.push_str("{\"knob\":");
        fs::write(journal.file(), text).unwrap();
        assert_eq!(journal.read(), [here]);
    }

    #[test]
    fn the_lock_is_waited_for_and_not_for_ever() {
        let state = tempfile::tempdir().unwrap();
        let journal = Journal::at(state.path());
        let held = journal.lock().unwrap();
        let start = Instant::now();
        drop(journal.lock().unwrap());
        assert!(start.elapsed() >= PATIENCE);
        drop(held);
        let start = Instant::now();
        drop(journal.lock().unwrap());
        assert!(start.elapsed() < PATIENCE);
    }
}
