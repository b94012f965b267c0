//! One number of a cgroup: how it is read, written and compared.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::engine::strain::page_size;

/// Where a number is: in a file of a cgroup, in some files once per device, in `io.max` four of
/// them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Knob {
    /// The cgroup's directory.
    pub directory: PathBuf,
    /// Inode of the directory: a later cgroup of the same path is another one.
    pub inode: u64,
    /// The file: `cpu.max`.
    pub file: String,
    /// `MAJOR:MINOR` in files of disks.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device: Option<String>,
    /// `rbps`, `wbps`, `riops` or `wiops` in `io.max`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub field: Option<String>,
}

/// What stops the processes of a cgroup of v1.
pub const FREEZER: &str = "freezer.state";
/// What its own freezer was told, 0 or 1. `freezer.state` itself reads FREEZING meanwhile, and is that
/// of the cgroup above where that one is frozen.
const FREEZER_ITSELF: &str = "freezer.self_freezing";
/// The two words that `freezer.state` takes.
pub const FROZEN: &str = "FROZEN";
const THAWED: &str = "THAWED";

/// One number to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Where.
    pub knob: Knob,
    /// The field of the manifest that it comes from.
    pub field: &'static str,
    /// What is there now.
    pub before: String,
    /// What shall be there.
    pub after: String,
}

impl Knob {
    /// The number that is all that a file holds.
    ///
    /// # Errors
    /// When the directory is not there.
    pub fn whole(directory: &Path, file: &str) -> io::Result<Self> {
        Ok(Self {
            directory: directory.to_owned(),
            inode: fs::metadata(directory)?.ino(),
            file: file.to_owned(),
            device: None,
            field: None,
        })
    }

    /// The same file's number for one disk.
    #[must_use]
    pub fn of_device(mut self, device: &str, field: Option<&str>) -> Self {
        self.device = Some(device.to_owned());
        self.field = field.map(str::to_owned);
        self
    }

    fn path(&self) -> PathBuf {
        self.directory.join(&self.file)
    }

    /// The file that tells what was written to it.
    fn told_by(&self) -> PathBuf {
        if self.file == FREEZER { self.directory.join(FREEZER_ITSELF) } else { self.path() }
    }

    /// What it holds, byte for byte without the line's end; `None` when its cgroup has gone, or
    /// the file with its controller. Both take the limit along.
    ///
    /// # Errors
    /// What the kernel says otherwise.
    pub fn read(&self) -> io::Result<Option<String>> {
        if !fs::metadata(&self.directory).is_ok_and(|found| found.ino() == self.inode) {
            return Ok(None);
        }
        match fs::read_to_string(self.told_by()) {
            Ok(text) => Ok(Some(self.value_in(&text))),
            // The cgroup may go between the two calls: kernfs answers ENODEV then.
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Its own part of what the file holds.
    fn value_in(&self, text: &str) -> String {
        if self.file == FREEZER {
            return if text.trim() == "1" { FROZEN } else { THAWED }.to_owned();
        }
        let Some(device) = &self.device else { return text.trim_end().to_owned() };
        let line = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .find_map(|(of, rest)| (of == device).then_some(rest));
        // Devices without a limit have no line.
        match (&self.field, line) {
            (None, None) => "0".to_owned(),
            (None, Some(value)) => value.trim().to_owned(),
            (Some(_), None) => "max".to_owned(),
            (Some(field), Some(rest)) => rest
                .split_whitespace()
                .filter_map(|word| word.split_once('='))
                .find_map(|(name, value)| (name == field).then(|| value.to_owned()))
                .unwrap_or_else(|| "max".to_owned()),
        }
    }

    /// Writes a value in the form that [`Knob::read`] returns.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn write(&self, value: &str) -> io::Result<()> {
        // Since Linux 6.16 a lower memory.high reclaims in the writer's own time unless the file
        // is opened so; older kernels ignore it.
        let options = libc::O_NONBLOCK;
        let mut file = OpenOptions::new().write(true).custom_flags(options).open(self.path())?;
        file.write_all(self.line(value).as_bytes())
    }

    /// What has to be written for a value.
    fn line(&self, value: &str) -> String {
        match (&self.device, &self.field) {
            (None, _) => value.to_owned(),
            (Some(device), None) => format!("{device} {value}"),
            (Some(device), Some(field)) => format!("{device} {field}={value}"),
        }
    }

    /// Whether two values mean the same to the kernel, which counts memory in pages.
    #[must_use]
    pub fn means_same(&self, one: &str, other: &str) -> bool {
        self.normal(one) == self.normal(other)
    }

    fn normal(&self, value: &str) -> Vec<String> {
        let words = value.split_whitespace();
        let normal = |word: &str| match word.parse::<u64>() {
            Ok(bytes) if self.file.starts_with("memory.") => {
                (bytes / page_size() * page_size()).to_string()
            }
            Ok(number) => number.to_string(),
            Err(_) => word.to_owned(),
        };
        words.map(normal).collect()
    }

    /// For people: `io.max (8:0 rbps) of /sys/fs/cgroup/web`.
    #[must_use]
    pub fn describe(&self) -> String {
        let of = self.directory.display();
        let parts: Vec<&str> = self.device.iter().chain(&self.field).map(String::as_str).collect();
        match parts[..] {
            [] => format!("{} of {of}", self.file),
            _ => format!("{} ({}) of {of}", self.file, parts.join(" ")),
        }
    }
}

/// Whether an error says that a file's cgroup, or its controller, is not there any more.
pub fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knob(file: &str, text: &str) -> (tempfile::TempDir, Knob) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(file), text).unwrap();
        let knob = Knob::whole(directory.path(), file).unwrap();
        (directory, knob)
    }

    #[test]
    fn a_value_comes_byte_for_byte() {
        let (_kept, knob) = knob("cpu.max", "max 100000\n");
        assert_eq!(knob.read().unwrap().unwrap(), "max 100000");
        assert_eq!(knob.line("20000 100000"), "20000 100000");
    }

    #[test]
    fn a_line_of_io_max_holds_four_numbers() {
        let text = "8:0 rbps=1000 wbps=max riops=max wiops=7\n254:16 rbps=5 wbps=6 riops=7 wiops=8";
        let (_kept, knob) = knob("io.max", text);
        let value =
            |device, field| knob.clone().of_device(device, Some(field)).read().unwrap().unwrap();
        assert_eq!(value("8:0", "rbps"), "1000");
        assert_eq!(value("8:0", "wbps"), "max");
        assert_eq!(value("254:16", "wiops"), "8");
        assert_eq!(value("254:1", "wiops"), "max", "no line: no limit");
        assert_eq!(knob.of_device("8:0", Some("rbps")).line("max"), "8:0 rbps=max");
    }

    #[test]
    fn a_line_of_v1_holds_one_number_and_zero_is_none() {
        let (_kept, knob) = knob("blkio.throttle.read_bps_device", "8:0 1048576\n");
        let value = |device| knob.clone().of_device(device, None).read().unwrap().unwrap();
        assert_eq!(value("8:0"), "1048576");
        assert_eq!(value("8:16"), "0");
        assert_eq!(knob.of_device("8:0", None).line("0"), "8:0 0");
    }

    #[test]
    fn the_freezer_of_v1_holds_what_it_was_told_itself() {
        let (kept, knob) = knob(FREEZER, "FREEZING\n");
        let told = |by: &str| {
            fs::write(kept.path().join(FREEZER_ITSELF), by).unwrap();
            knob.read().unwrap().unwrap()
        };
        assert_eq!((told("1\n").as_str(), told("0\n").as_str()), ("FROZEN", "THAWED"));
        knob.write("THAWED").unwrap();
        assert!(fs::read_to_string(kept.path().join(FREEZER)).unwrap().starts_with("THAWED"));
    }

    #[test]
    fn memory_is_compared_in_pages_and_nothing_else_is() {
        let (_kept, high) = knob("memory.high", "max");
        assert!(high.means_same("10000000", &(10_000_000 / page_size() * page_size()).to_string()));
        assert!(!high.means_same("10000000", "max"));
        assert!(!high.means_same("10000000", "20000000"));
        let (_kept, pids) = knob("pids.max", "max");
        assert!(!pids.means_same("5000", "5001"));
        assert!(pids.means_same("5000", "5000\n"));
    }

    #[test]
    fn a_cgroup_that_has_gone_or_was_made_anew_holds_nothing() {
        let (directory, knob) = knob("pids.max", "max\n");
        let other = Knob { inode: knob.inode + 1, ..knob.clone() };
        assert_eq!(other.read().unwrap(), None);
        fs::remove_file(directory.path().join("pids.max")).unwrap();
        assert_eq!(knob.read().unwrap(), None, "its controller has gone");
        drop(directory);
        assert_eq!(knob.read().unwrap(), None);
    }
}
