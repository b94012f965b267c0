//! Whether this host can strain anybody, tried on a cgroup of our own.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use procfs::process::Process;

use super::limits;
use super::load::Running;
use super::place::{Directories, Version, carries};
use crate::engine::cgroup::{hierarchy, no_cgroup};
use crate::engine::error::EngineError;
use crate::plan::Cgroup;
use crate::plan::strain::{Amount, CpuLoad, CpuQuota, Grip, IoLimit, Limits, Load, Place, Strain};

/// What is tried, by name, with the faults that it serves.
pub type Tried = (&'static str, &'static [&'static str], Result<String, EngineError>);

/// A cgroup in every hierarchy that goes when dropped.
struct Scratch {
    place: Place,
    made: Vec<PathBuf>,
}

impl Scratch {
    fn new() -> Result<Self, EngineError> {
        let mount = hierarchy().ok_or_else(no_cgroup)?.mount;
        let name = format!("kfault-doctor-{}", std::process::id());
        let failed = |e| EngineError::os("make a cgroup to try it on", e);
        let main = mount.join(&name);
        let mut scratch = Self { place: Place::default(), made: Vec::new() };
        scratch.make(main.clone()).map_err(failed)?;
        let mounts = Process::myself().and_then(|me| me.mountinfo());
        for other in mounts.into_iter().flatten().filter(carries) {
            scratch.make(other.mount_point.join(&name)).map_err(failed)?;
        }
        let id = fs::metadata(&main).map_err(failed)?.ino();
        scratch.place.cgroup = Cgroup { path: format!("/{name}"), id, level: 1 };
        Ok(scratch)
    }

    fn make(&mut self, directory: PathBuf) -> io::Result<()> {
        match fs::create_dir(&directory) {
            // Controllers that share a hierarchy, or are mounted twice.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Ok(()) => {
                // Nobody can be in a cpuset of v1 that has not been given anything.
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    let above = directory.parent().map(|parent| parent.join(file));
                    if let Some(all) = above.and_then(|above| fs::read_to_string(above).ok()) {
                        fs::write(directory.join(file), all)?;
                    }
                }
                self.made.push(directory);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for directory in &self.made {
            if let Err(error) = fs::remove_dir(directory) {
                tracing::warn!(directory = %directory.display(), %error, "a cgroup is left");
            }
        }
    }
}

/// Tries a worker and every limit. Leaves nothing behind.
#[must_use]
pub fn probe_all() -> Vec<Tried> {
    const LOAD: [&str; 1] = ["load on processors, memory, disks"];
    let scratch = match Scratch::new() {
        Ok(scratch) => scratch,
        Err(error) => return vec![("stress workers", &LOAD, Err(error))],
    };
    let limit = |limits: Limits| limits::try_out(&scratch.place, &limits);
    let none = Limits::default;
    let disk = |write: bool| IoLimit {
        read_bps: (!write).then_some(1 << 20),
        write_bps: write.then_some(1 << 20),
        ..IoLimit::default()
    };
    vec![
        ("stress workers", &LOAD, worker(&scratch.place)),
        (
            "cpu quota",
            &["cpu.quota"],
            limit(Limits { cpu: Some(CpuQuota::PercentOfOne(50.0)), ..none() }),
        ),
        (
            "memory.high",
            &["memory.high"],
            limit(Limits { memory_high: Some(Amount::Bytes(1 << 30)), ..none() }),
        ),
        (
            "disk reads",
            &["io.readBps", "io.readIops"],
            limit(Limits { io: vec![disk(false)], ..none() }),
        ),
        (
            "disk writes",
            &["io.writeBps", "io.writeIops"],
            limit(Limits { io: vec![disk(true)], ..none() }),
        ),
        ("pids.max", &["pids.max"], limit(Limits { pids_max: Some(100), ..none() })),
        ("freezer", &["freeze"], limit(Limits { freeze: true, ..none() })),
    ]
}

/// Starts one that does nothing, and ends it.
fn worker(place: &Place) -> Result<String, EngineError> {
    let load = Load { cpu: Some(CpuLoad { workers: 1, percent: 0 }), ..Load::default() };
    let strain = Strain {
        id: "doctor".to_owned(),
        experiment: "doctor".to_owned(),
        target: "doctor".to_owned(),
        place: place.clone(),
        grip: Grip::Load(load.clone()),
        describes: String::new(),
        duration: None,
        dry_run: false,
    };
    Running::start(&strain, &load, &mut || {})?.end()?;
    let memory = match Directories::of(place)?.controller("memory") {
        Some((Version::V1, _)) => "memory is counted by cgroup v1",
        Some((Version::V2, _)) => "memory is counted by cgroup v2",
        None => "memory only in cgroups for which the controller \"memory\" is enabled",
    };
    Ok(memory.to_owned())
}
