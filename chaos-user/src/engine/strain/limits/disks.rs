//! Disks that a limit can be set for: whole ones, since the kernel's limits know no partitions.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::engine::error::EngineError;

/// A whole disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Disk {
    /// `MAJOR:MINOR`.
    pub number: String,
}

const FIELD: &str = "io.device";

/// Every whole disk of the host that can hold something. RAM disks are no disks, a loop device is
/// one as long as there is a file behind it.
///
/// # Errors
/// [`EngineError::Unsupported`] when there is none.
pub fn all(sys: &Path) -> Result<Vec<Disk>, EngineError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(sys.join("block")).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        let text = |file: &str| {
            let text = fs::read_to_string(path.join(file)).unwrap_or_default();
            text.trim().to_owned()
        };
        let is_empty = matches!(text("size").as_str(), "" | "0");
        let is_in_memory = name.starts_with("ram") || name.starts_with("zram");
        let is_bare = name.starts_with("loop") && !path.join("loop/backing_file").exists();
        let number = text("dev");
        // The single paths of a multipath NVMe have no number.
        if !is_empty && !is_in_memory && !is_bare && !number.is_empty() {
            found.push(Disk { number });
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(EngineError::Unsupported {
            mechanism: FIELD,
            reason: "this host has no disk".into(),
            way_out: "name a block device: MAJOR:MINOR or a path below /dev",
        });
    }
    Ok(found)
}

/// The disk that a word means: `MAJOR:MINOR`, or a path as `/dev/sda` or
/// `/dev/disk/by-label/data`. A partition means its disk, which is said.
///
/// # Errors
/// [`EngineError::Unsupported`] with the word when it names no block device of this host.
pub fn named(sys: &Path, word: &str, notes: &mut Vec<String>) -> Result<Disk, EngineError> {
    let refused = |reason: String| EngineError::Unsupported {
        mechanism: FIELD,
        reason,
        way_out: "name one of those that lsblk shows, by MAJ:MIN or by its path",
    };
    let number = if word.starts_with('/') {
        number(sys, Path::new(word)).ok_or_else(|| refused(format!("{word} is no block device")))?
    } else {
        word.to_owned()
    };
    let directory = sys.join("dev/block").join(&number);
    if !directory.exists() {
        return Err(refused(format!("there is no block device {word} on this host")));
    }
    if !directory.join("partition").exists() {
        return Ok(Disk { number });
    }
    let real = fs::canonicalize(&directory);
    let above = real.as_deref().ok().and_then(Path::parent).map(|disk| disk.join("dev"));
    let whole = above.and_then(|file| fs::read_to_string(file).ok());
    let whole = whole.ok_or_else(|| refused(format!("{word} is a partition of no disk")))?;
    let number = whole.trim().to_owned();
    notes.push(format!("{word} is a partition: its whole disk {number} is limited"));
    Ok(Disk { number })
}

/// The number of a device node. Where we see no such node, as in a container with a `/dev` of its
/// own, the kernel knows the name.
fn number(sys: &Path, path: &Path) -> Option<String> {
    if let Ok(node) = fs::metadata(path) {
        let device = node.rdev();
        let is_block = node.file_type().is_block_device();
        return is_block.then(|| format!("{}:{}", libc::major(device), libc::minor(device)));
    }
    let of_name = sys.join("class/block").join(path.file_name()?).join("dev");
    fs::read_to_string(of_name).ok().map(|number| number.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sys() -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = sys.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for (name, number, size) in [
            ("sda", "8:0", "1000"),
            ("nvme0n1", "259:0", "1000"),
            ("zram0", "253:0", "1000"),
            ("ram0", "1:0", "1000"),
            ("loop0", "7:0", "1000"),
            ("loop1", "7:1", "1000"),
            ("sr0", "11:0", "0"),
        ] {
            put(&format!("block/{name}/dev"), &format!("{number}\n"));
            put(&format!("block/{name}/size"), &format!("{size}\n"));
        }
        put("block/loop1/loop/backing_file", "/root/disk\n");
        put("block/nvme0c0n1/size", "1000\n");
        put("block/sda/sda1/partition", "1\n");
        fs::create_dir_all(sys.path().join("dev/block")).unwrap();
        fs::create_dir_all(sys.path().join("class/block/unseen")).unwrap();
        let link = |to: &str, number: &str| {
            let at = sys.path().join("dev/block").join(number);
            std::os::unix::fs::symlink(sys.path().join("block").join(to), at).unwrap();
        };
        link("sda", "8:0");
        link("sda/sda1", "8:1");
        put("class/block/unseen/dev", "8:0\n");
        sys
    }

    #[test]
    fn every_disk_is_what_can_hold_something() {
        let numbers = |disks: Vec<Disk>| disks.into_iter().map(|d| d.number).collect::<Vec<_>>();
        assert_eq!(numbers(all(sys().path()).unwrap()), ["259:0", "7:1", "8:0"]);
        assert!(all(tempfile::tempdir().unwrap().path()).is_err());
    }

    #[test]
    fn a_partition_means_its_disk_and_that_is_said() {
        let (sys, mut notes) = (sys(), Vec::new());
        assert_eq!(named(sys.path(), "8:0", &mut notes).unwrap().number, "8:0");
        assert_eq!(named(sys.path(), "/dev/kft/unseen", &mut notes).unwrap().number, "8:0");
        assert_eq!(notes, Vec::<String>::new());
        assert_eq!(named(sys.path(), "8:1", &mut notes).unwrap().number, "8:0");
        assert!(notes[0].contains("8:1 is a partition"), "{notes:?}");
    }

    #[test]
    fn what_is_no_disk_is_refused_by_its_name() {
        let sys = sys();
        for word in ["99:0", "/dev/null", "/dev/nothing-of-this-name"] {
            let refused = named(sys.path(), word, &mut Vec::new()).unwrap_err().to_string();
            assert!(refused.contains(word), "{refused}");
        }
    }
}
