//! What a crash may leave behind that carries no mark of ours: a `clsact` that was made for our
//! filter. Written before it is made, forgotten when it is removed.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::EngineError;
use crate::plan::Device;

/// Where the engine keeps what outlives it. On a tmpfs: a reboot forgets it, as it forgets
/// everything it speaks of.
pub const STATE: &str = "/run/kfault";
const JOURNAL: &str = "/run/kfault/journal";

/// A device whose `clsact` is ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Inode of the namespace.
    pub inode: u64,
    /// Index of the device.
    pub ifindex: u32,
    /// Its name.
    pub device: String,
}

fn failed(error: std::io::Error) -> EngineError {
    EngineError::os(format!("write {JOURNAL}"), error)
}

/// Notes a device down before a `clsact` may be made there. A `clsact` that is there already is
/// not noted: it is somebody else's.
///
/// # Errors
/// When the journal cannot be written: nothing may be done then.
pub fn note(device: &Device, ifindex: u32) -> Result<(), EngineError> {
    let entry = Entry { inode: device.inode, ifindex, device: device.name.clone() };
    if read().contains(&entry) {
        return Ok(());
    }
    fs::create_dir_all(STATE).map_err(failed)?;
    let line = serde_json::to_string(&entry).map_err(|e| failed(e.into()))?;
    let mut file =
        fs::OpenOptions::new().create(true).append(true).open(JOURNAL).map_err(failed)?;
    file.write_all(format!("{line}\n").as_bytes()).map_err(failed)
}

/// Whether a device is noted down.
#[must_use]
pub fn has(device: &Device, ifindex: u32) -> bool {
    let entry = Entry { inode: device.inode, ifindex, device: device.name.clone() };
    read().contains(&entry)
}

/// Takes a device out again.
///
/// # Errors
/// When the journal cannot be written.
pub fn forget(device: &Device, ifindex: u32) -> Result<(), EngineError> {
    let gone = Entry { inode: device.inode, ifindex, device: device.name.clone() };
    let rest: Vec<Entry> = read().into_iter().filter(|entry| *entry != gone).collect();
    write(&rest)
}

/// Every entry; lines that cannot be read (a torn write) are left out.
#[must_use]
pub fn read() -> Vec<Entry> {
    let Ok(text) = fs::read_to_string(JOURNAL) else { return Vec::new() };
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Replaces the journal, whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write(entries: &[Entry]) -> Result<(), EngineError> {
    if entries.is_empty() {
        return match fs::remove_file(JOURNAL) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed(e)),
            _ => Ok(()),
        };
    }
    let mut text = String::new();
    for entry in entries {
        text.push_str(&serde_json::to_string(entry).map_err(|e| failed(e.into()))?);
        text.push('\n');
    }
    let next = Path::new(STATE).join("journal.next");
    fs::write(&next, text).and_then(|()| fs::rename(&next, JOURNAL)).map_err(failed)
}
