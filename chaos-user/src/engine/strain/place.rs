//! The directories of a cgroup: one in the v2 hierarchy, where it is mounted, and one in each of v1.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use procfs::process::{MountInfo, Process};

use crate::engine::cgroup::{Hierarchy, hierarchy, no_cgroup};
use crate::engine::error::EngineError;
use crate::plan::strain::Place;

/// Which kind of hierarchy a controller is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy of its own, or shared with a few.
    V1,
    /// The unified one.
    V2,
}

/// Where the files of a target's cgroup are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directories {
    /// In the hierarchy that names the target.
    main: PathBuf,
    /// Controllers that the unified hierarchy offers in this cgroup.
    controllers: Vec<String>,
    /// By controller. Those of one hierarchy have one directory.
    v1: BTreeMap<String, PathBuf>,
    is_v1_alone: bool,
}

impl Directories {
    /// Finds them.
    ///
    /// # Errors
    /// [`EngineError::Gone`] when the cgroup, or the process that the target ends with, has
    /// vanished; [`EngineError::Unsupported`] on a host without cgroups.
    pub fn of(place: &Place) -> Result<Self, EngineError> {
        let Hierarchy { mount, v1: stands_in } = hierarchy().ok_or_else(no_cgroup)?;
        let path = &place.cgroup.path;
        let gone = || EngineError::Gone { what: format!("cgroup {path}") };
        let main = below(&mount, path);
        let is_it = fs::metadata(&main).is_ok_and(|found| found.ino() == place.cgroup.id);
        if !is_it {
            return Err(gone());
        }
        let offered = match &stands_in {
            Some(_) => String::new(),
            None => fs::read_to_string(main.join("cgroup.controllers")).map_err(|_| gone())?,
        };
        let controllers = offered.split_whitespace().map(str::to_owned).collect();
        Ok(Self { main, controllers, v1: v1(place), is_v1_alone: stands_in.is_some() })
    }

    /// The directory in the hierarchy that names the target: the unified one, or one of v1 on a
    /// host that has no other.
    #[must_use]
    pub fn main(&self) -> &Path {
        &self.main
    }

    /// Whether v2 is not mounted on this host.
    #[must_use]
    pub fn is_v1_alone(&self) -> bool {
        self.is_v1_alone
    }

    /// Where a controller's files for this cgroup are; `None` where it is not enabled for it.
    #[must_use]
    pub fn controller(&self, name: &str) -> Option<(Version, &Path)> {
        if self.controllers.iter().any(|known| known == name) {
            return Some((Version::V2, &self.main));
        }
        // What v1 calls otherwise.
        let name = if name == "io" { "blkio" } else { name };
        self.v1.get(name).map(|path| (Version::V1, path.as_path()))
    }

    /// Every directory, each once: a process is in the cgroup when it is in all of them.
    #[must_use]
    pub fn all(&self) -> Vec<&Path> {
        let mut all = vec![self.main.as_path()];
        for path in self.v1.values() {
            if !all.contains(&path.as_path()) {
                all.push(path);
            }
        }
        all
    }

    /// Some in a test, with one hierarchy of v1.
    #[cfg(test)]
    pub fn fake(main: &Path, (controller, v1): (&str, &Path), is_v1_alone: bool) -> Self {
        let v1 = BTreeMap::from([(controller.to_owned(), v1.to_owned())]);
        Self { main: main.to_owned(), controllers: Vec::new(), v1, is_v1_alone }
    }

    /// How far it is frozen, by itself or from above: by v2 (`cgroup.events`, since 5.2) or by v1.
    #[must_use]
    pub fn frozen(&self) -> Frozen {
        let events = fs::read_to_string(self.main.join("cgroup.events"));
        if events.is_ok_and(|text| text.lines().any(|line| line == "frozen 1")) {
            return Frozen::Whole;
        }
        let v1 = match self.controller("freezer") {
            Some((Version::V1, path)) => fs::read_to_string(path.join("freezer.state")).ok(),
            _ => None,
        };
        match v1.as_deref().map(str::trim_end) {
            None | Some("THAWED") => Frozen::Not,
            Some("FROZEN") => Frozen::Whole,
            Some(_) => Frozen::InPart,
        }
    }
}

/// Whether processes of a cgroup stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frozen {
    /// They run.
    Not,
    /// v1: whoever enters stops, and some have not stopped yet.
    InPart,
    /// All of them.
    Whole,
}

/// A path that starts with a slash, below a mount.
fn below(mount: &Path, path: &str) -> PathBuf {
    mount.join(path.trim_start_matches('/'))
}

/// The directories in v1's hierarchies, by controller.
fn v1(place: &Place) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let Ok(mounts) = Process::myself().and_then(|me| me.mountinfo()) else { return found };
    let leader = i32::try_from(place.leader).ok().filter(|pid| *pid > 0);
    let own = leader.and_then(|pid| Process::new(pid).ok()?.cgroups().ok());
    for mount in mounts.into_iter().filter(carries) {
        for controller in mount.super_options.keys() {
            // Runtimes and systemd use one path in every hierarchy; a process by itself may be in
            // any cgroup of each.
            let same = below(&mount.mount_point, &place.cgroup.path);
            let of_leader = || {
                let mut all = own.iter().flat_map(|own| own.0.iter());
                let of = all.find(|one| one.controllers.contains(controller))?;
                Some(below(&mount.mount_point, &of.pathname))
            };
            let is_known = CONTROLLERS.contains(&controller.as_str());
            let directory = Some(same).filter(|path| path.is_dir()).or_else(of_leader);
            if let Some(directory) = directory.filter(|path| is_known && path.is_dir()) {
                found.insert(controller.clone(), directory);
            }
        }
    }
    found
}

/// True for a hierarchy of v1 with a controller that matters here.
pub fn carries(mount: &MountInfo) -> bool {
    let mut names = mount.super_options.keys();
    mount.fs_type == "cgroup" && names.any(|name| CONTROLLERS.contains(&name.as_str()))
}

/// Controllers of v1 that a worker has to be in, or whose limits can be set.
const CONTROLLERS: [&str; 8] =
    ["cpu", "cpuacct", "cpuset", "memory", "blkio", "pids", "freezer", "devices"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frozen_by_v2_or_by_v1_and_perhaps_in_part() {
        let (v2, v1) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let both = Directories::fake(v2.path(), ("freezer", v1.path()), false);
        assert_eq!(both.frozen(), Frozen::Not, "no freezer at all");
        for (state, expected) in
            [("THAWED", Frozen::Not), ("FREEZING", Frozen::InPart), ("FROZEN", Frozen::Whole)]
        {
            fs::write(v1.path().join("freezer.state"), format!("{state}\n")).unwrap();
            assert_eq!(both.frozen(), expected);
        }
        fs::write(v1.path().join("freezer.state"), "THAWED\n").unwrap();
        fs::write(v2.path().join("cgroup.events"), "populated 1\nfrozen 1\n").unwrap();
        assert_eq!(both.frozen(), Frozen::Whole);
    }
}
