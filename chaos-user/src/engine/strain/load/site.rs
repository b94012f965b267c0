//! Where the workers of one strain work, and until when.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::order::Bounds;
use super::process::{has_ended, open_pidfd};
use crate::engine::error::EngineError;
use crate::engine::line::monotonic_ns;
use crate::engine::strain::place::{Directories, Frozen};
use crate::plan::strain::Place;

/// A worker lives at most this long without a beat, as a rule acts at most this long.
pub const LEASE: Duration = Duration::from_secs(5);

/// The cgroup and the process that a strain ends with.
pub struct Site {
    place: Place,
    directories: Directories,
    leader: Option<OwnedFd>,
    deadline_ns: Option<u64>,
}

impl Site {
    /// Finds the place, where the work of so long begins now.
    ///
    /// # Errors
    /// [`EngineError::Gone`] when the target has vanished, [`EngineError::Unsupported`] when
    /// nobody can work there.
    pub fn open(place: &Place, duration: Option<Duration>) -> Result<Self, EngineError> {
        let directories = Directories::of(place)?;
        let leader = match place.leader {
            0 => None,
            pid => Some(open_pidfd(pid).map_err(|error| leader_error(pid, place, error))?),
        };
        let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let deadline_ns = duration.map(|lasts| monotonic_ns().saturating_add(ns(lasts)));
        let site = Self { place: place.clone(), directories, leader, deadline_ns };
        if site.is_gone() {
            return Err(EngineError::Gone { what: site.name() });
        }
        if site.directories.frozen() != Frozen::Not {
            return Err(EngineError::Unsupported {
                mechanism: "stress workers",
                reason: format!("cgroup {} is frozen: nothing runs in it", place.cgroup.path),
                way_out: "thaw it first",
            });
        }
        Ok(site)
    }

    fn name(&self) -> String {
        let path = &self.place.cgroup.path;
        match self.place.leader {
            0 => format!("cgroup {path}"),
            pid => format!("cgroup {path} with its first process {pid}"),
        }
    }

    /// What a worker is told that starts now.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        Bounds {
            cgroups: self.directories.all().into_iter().map(Into::into).collect(),
            leader: self.place.leader,
            deadline_ns: self.deadline_ns,
            until_ns: lease_ns(),
            parent: std::process::id(),
        }
    }

    /// The process that the target ends with.
    #[must_use]
    pub fn leader(&self) -> Option<BorrowedFd<'_>> {
        self.leader.as_ref().map(AsFd::as_fd)
    }

    /// The directories of the cgroup.
    #[must_use]
    pub fn directories(&self) -> &Directories {
        &self.directories
    }

    /// Whether the target has vanished: its first process has ended, or its cgroup is removed.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let is_there = fs::metadata(self.directories.main())
            .is_ok_and(|found| found.ino() == self.place.cgroup.id);
        !is_there || self.leader().is_some_and(has_ended)
    }
}

/// When a lease that is given now is over, nanoseconds of `CLOCK_MONOTONIC`.
#[must_use]
pub fn lease_ns() -> u64 {
    monotonic_ns().saturating_add(u64::try_from(LEASE.as_nanos()).unwrap_or(u64::MAX))
}

fn leader_error(pid: u32, place: &Place, error: std::io::Error) -> EngineError {
    match error.raw_os_error() {
        Some(libc::ESRCH | libc::EINVAL) => EngineError::Gone {
            what: format!("process {pid}, the first of cgroup {}", place.cgroup.path),
        },
        _ => EngineError::os(format!("watch process {pid}"), error),
    }
}
