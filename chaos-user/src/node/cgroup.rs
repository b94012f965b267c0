//! The hierarchy of cgroups.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::NodeError;
use crate::engine::cgroup::Hierarchy;
use crate::plan::Cgroup;

/// The cgroups of this host: those of v2, or, where it is not mounted, of a hierarchy of v1.
#[derive(Clone, Debug)]
pub struct Tree {
    hierarchy: Hierarchy,
}

impl Tree {
    /// That of a hierarchy.
    #[must_use]
    pub fn of(hierarchy: Hierarchy) -> Self {
        Self { hierarchy }
    }

    /// Finds it in `PROC/mounts`. `None`: this host has none.
    pub fn find(proc: &Path) -> Result<Option<Self>, NodeError> {
        let file = proc.join("mounts");
        let mounts =
            fs::read_to_string(&file).map_err(|e| NodeError::unreadable("read", &file, e))?;
        Ok(Hierarchy::among(&mounts).map(Self::of))
    }

    /// Which one it is.
    #[must_use]
    pub fn hierarchy(&self) -> &Hierarchy {
        &self.hierarchy
    }

    /// Where it is mounted.
    #[must_use]
    pub fn mount(&self) -> &Path {
        &self.hierarchy.mount
    }

    /// The directory of a path of the hierarchy.
    #[must_use]
    pub fn directory(&self, path: &str) -> PathBuf {
        self.mount().join(path.trim_start_matches('/'))
    }

    /// The cgroup at this path, or `None` when there is none.
    pub fn cgroup(&self, path: &str) -> Result<Option<Cgroup>, NodeError> {
        let directory = self.directory(path);
        match fs::metadata(&directory) {
            Ok(meta) if meta.is_dir() => {
                let level = path.split('/').filter(|part| !part.is_empty()).count();
                Ok(Some(Cgroup { path: path.into(), id: meta.ino(), level: level as u32 }))
            }
            Ok(_) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(NodeError::unreadable("read", directory, e)),
        }
    }

    /// Paths of every cgroup below `path`, parents before children, sorted; `path` itself not.
    pub fn below(&self, path: &str) -> Result<Vec<String>, NodeError> {
        let mut found = Vec::new();
        let mut open = vec![path.trim_end_matches('/').to_owned()];
        while let Some(parent) = open.pop() {
            let directory = self.directory(&parent);
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(NodeError::unreadable("read", directory, e)),
            };
            for entry in entries.flatten() {
                let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if let (true, Some(name)) = (is_dir, entry.file_name().to_str()) {
                    let child = format!("{parent}/{name}");
                    found.push(child.clone());
                    open.push(child);
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Processes of the cgroup and of every cgroup below it, ascending.
    pub fn pids(&self, path: &str) -> Result<Vec<u32>, NodeError> {
        let mut pids = self.own_pids(path)?;
        for child in self.below(path)? {
            pids.extend(self.own_pids(&child)?);
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    fn own_pids(&self, path: &str) -> Result<Vec<u32>, NodeError> {
        let file = self.directory(path).join("cgroup.procs");
        match fs::read_to_string(&file) {
            // 0 is a process outside our pid namespace: it has no number here.
            Ok(text) => {
                Ok(text.lines().filter_map(|l| l.parse().ok()).filter(|p| *p != 0).collect())
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            // A threaded cgroup answers EOPNOTSUPP; its processes are listed by the domain above.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENODEV)) => {
                Ok(Vec::new())
            }
            Err(e) => Err(NodeError::unreadable("read", file, e)),
        }
    }
}

/// The last path component.
#[must_use]
pub fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(mount: &Path) -> Tree {
        Tree::of(Hierarchy { mount: mount.into(), v1: None })
    }

    #[test]
    fn a_cgroup_has_its_inode_and_its_depth() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        let tree = tree(dir.path());
        let found = tree.cgroup("/a/b").unwrap().unwrap();
        assert_eq!(found.level, 2);
        assert_eq!(found.id, fs::metadata(dir.path().join("a/b")).unwrap().ino());
        assert_eq!(tree.cgroup("/").unwrap().unwrap().level, 0);
        assert_eq!(tree.cgroup("/a/c").unwrap(), None);
    }

    #[test]
    fn processes_of_child_cgroups_count() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/cgroup.procs"), "12\n").unwrap();
        fs::write(dir.path().join("a/b/cgroup.procs"), "7\n0\n").unwrap();
        let tree = tree(dir.path());
        assert_eq!(tree.pids("/a").unwrap(), [7, 12]);
        assert_eq!(tree.below("/").unwrap(), ["/a", "/a/b"]);
    }
}
