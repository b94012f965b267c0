//! The directories of a cgroup: one in the v2 hierarchy, and one in each hierarchy of v1.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use procfs::process::{MountInfo, Process};

use crate::engine::cgroup::{cgroup_mount, no_cgroup};
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
    unified: PathBuf,
    /// Controllers that the unified hierarchy offers in this cgroup.
    controllers: Vec<String>,
    /// By controller. Those of one hierarchy have one directory.
    v1: BTreeMap<String, PathBuf>,
}

impl Directories {
    /// Finds them.
    ///
    /// # Errors
    /// [`EngineError::Gone`] when the cgroup, or the process that the target ends with, has
    /// vanished; [`EngineError::Unsupported`] on a host without cgroup v2.
    pub fn of(place: &Place) -> Result<Self, EngineError> {
        let mount = cgroup_mount().ok_or_else(no_cgroup)?;
        let path = &place.cgroup.path;
        let gone = || EngineError::Gone { what: format!("cgroup {path}") };
        let unified = below(&mount, path);
        let is_it = fs::metadata(&unified).is_ok_and(|found| found.ino() == place.cgroup.id);
        if !is_it {
            return Err(gone());
        }
        let controllers = fs::read_to_string(unified.join("cgroup.controllers"))
            .map_err(|_| gone())?
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        Ok(Self { unified, controllers, v1: v1(place) })
    }

    /// The directory in the unified hierarchy.
    #[must_use]
    pub fn unified(&self) -> &Path {
        &self.unified
    }

    /// Where a controller's files for this cgroup are; `None` where it is not enabled for it.
    #[must_use]
    pub fn controller(&self, name: &str) -> Option<(Version, &Path)> {
        if self.controllers.iter().any(|known| known == name) {
            return Some((Version::V2, &self.unified));
        }
        // What v1 calls otherwise.
        let name = if name == "io" { "blkio" } else { name };
        self.v1.get(name).map(|path| (Version::V1, path.as_path()))
    }

    /// Every directory, each once: a process is in the cgroup when it is in all of them.
    #[must_use]
    pub fn all(&self) -> Vec<&Path> {
        let mut all = vec![self.unified.as_path()];
        for path in self.v1.values() {
            if !all.contains(&path.as_path()) {
                all.push(path);
            }
        }
        all
    }
}

/// Whether everything in a cgroup is frozen, by itself or from above: `cgroup.events` of the
/// directory in the unified hierarchy, since 5.2.
pub fn is_frozen(unified: &Path) -> bool {
    let events = fs::read_to_string(unified.join("cgroup.events"));
    events.is_ok_and(|text| text.lines().any(|line| line == "frozen 1"))
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
