//! Writes the initrd in the kernel's `newc` cpio format.
//!
//! Written here, without `cpio`, so that nothing has to be staged in a folder and the result
//! depends on its inputs only. It is not compressed: under emulation the guest would spend
//! longer on unpacking than QEMU needs to read the file.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};

const FILE: u32 = 0o100_000;
const DIR: u32 = 0o040_000;
const LINK: u32 = 0o120_000;

/// The folders a guest has in one place, as Debian does; `PATH` then needs one entry.
const MERGED: [(&str, &str); 5] = [
    ("usr/sbin/", "bin/"),
    ("usr/bin/", "bin/"),
    ("sbin/", "bin/"),
    ("lib64/", "usr/lib64/"),
    ("lib/", "usr/lib/"),
];

/// An archive in memory.
pub struct Archive {
    bytes: Vec<u8>,
    names: BTreeSet<String>,
}

impl Archive {
    pub fn new() -> Self {
        Archive { bytes: Vec::new(), names: BTreeSet::new() }
    }

    /// True when `path` was added already.
    pub fn contains(&self, path: &str) -> bool {
        self.names.contains(&place(path))
    }

    /// Adds a folder and those above it.
    pub fn dir(&mut self, path: &str) {
        let name = place(path);
        self.parents(&name);
        if self.names.insert(name.clone()) {
            self.entry(&name, DIR | 0o755, &[]);
        }
    }

    /// Adds a file with this content; a second file of the same name is left out.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        let name = place(path);
        self.parents(&name);
        if self.names.insert(name.clone()) {
            self.entry(&name, FILE | mode, content);
        }
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        // The links that merge the folders must keep their own names.
        let name = path.trim_start_matches('/').to_owned();
        self.parents(&name);
        if self.names.insert(name.clone()) {
            self.entry(&name, LINK | 0o777, target.as_bytes());
        }
    }

    /// Copies a file of the host, following links.
    pub fn copy(&mut self, from: &Path, path: &str, mode: u32) -> Result<()> {
        if !self.contains(path) {
            let content =
                std::fs::read(from).with_context(|| format!("read {}", from.display()))?;
            self.file(path, mode, &content);
        }
        Ok(())
    }

    /// Copies a folder of the host to the same path.
    pub fn tree(&mut self, from: &Path) -> Result<()> {
        let entries =
            std::fs::read_dir(from).with_context(|| format!("list {}", from.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                self.tree(&path)?;
            } else if path.is_file() {
                self.copy(&path, &path.to_string_lossy(), 0o644)?;
            }
        }
        Ok(())
    }

    /// Ends the archive. The padding lets another archive follow it in one file.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        let padded = self.bytes.len().next_multiple_of(512);
        self.bytes.resize(padded, 0);
        self.bytes
    }

    fn parents(&mut self, name: &str) {
        for (at, _) in name.match_indices('/') {
            let parent = &name[..at];
            if self.names.insert(parent.to_owned()) {
                self.entry(parent, DIR | 0o755, &[]);
            }
        }
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        let inode = self.names.len();
        let links = if mode & DIR != 0 { 2 } else { 1 };
        let size = content.len();
        let name_size = name.len() + 1;
        // magic, inode, mode, uid, gid, links, mtime, size, device (2), own device (2), name size, check
        let header = format!(
            "070701{inode:08X}{mode:08X}{0:08X}{0:08X}{links:08X}{0:08X}{size:08X}{0:08X}{0:08X}{0:08X}{0:08X}{name_size:08X}{0:08X}",
            0
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        let aligned = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(aligned, 0);
    }
}

/// Where a path of the host lies in the guest.
fn place(path: &str) -> String {
    let path = path.trim_start_matches('/').trim_end_matches('/');
    for (from, to) in MERGED {
        if let Some(rest) = path.strip_prefix(from) {
            return format!("{to}{rest}");
        }
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Archive, place};

    #[test]
    fn host_paths_are_merged() {
        assert_eq!(place("/usr/sbin/ip"), "bin/ip");
        assert_eq!(place("/lib/x/libc.so.6"), "usr/lib/x/libc.so.6");
        assert_eq!(place("/usr/lib/tc/normal.dist"), "usr/lib/tc/normal.dist");
    }

    #[test]
    fn entries_are_aligned_and_parents_come_first() {
        let mut archive = Archive::new();
        archive.file("/etc/a/b", 0o644, b"hello");
        archive.file("/etc/a/b", 0o644, b"again");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 512, 0);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 4);
        assert!(text.find("etc\0") < text.find("etc/a\0"));
        assert!(!text.contains("again"));
    }
}
