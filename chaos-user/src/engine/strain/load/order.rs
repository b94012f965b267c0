//! What a worker is told, as words of a command line: `ps` shows what it is.

use std::ffi::OsString;
use std::path::PathBuf;

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Computes.
    Cpu {
        /// Share of one processor, percent, 0 to 100.
        percent: u32,
    },
    /// Takes memory and keeps it.
    Memory {
        /// How much its cgroup's memory grows by it, bytes.
        bytes: u64,
        /// How long it takes to get there, nanoseconds.
        ramp_ns: u64,
        /// Its `oom_score_adj`, -1000 to 1000.
        oom_score_adj: i32,
    },
    /// Flushes the target's file system.
    Sync,
    /// Writes a file in the target's file system.
    Disk {
        /// Size of the file, bytes.
        bytes: u64,
    },
}

impl Task {
    /// The word that the command line has for it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Cpu { .. } => "cpu",
            Self::Memory { .. } => "memory",
            Self::Sync => "sync",
            Self::Disk { .. } => "disk",
        }
    }
}

/// Where a worker works, and until when. Times are nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Directories of the cgroup, one per hierarchy.
    pub cgroups: Vec<PathBuf>,
    /// The process with which the target ends; 0: none.
    pub leader: u32,
    /// When its work is over; `None`: when it is told.
    pub deadline_ns: Option<u64>,
    /// When it ends unless a beat has come by then.
    pub until_ns: u64,
    /// The process whose child it is.
    pub parent: u32,
}

/// All that a worker is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What to do.
    pub task: Task,
    /// Where and until when.
    pub bounds: Bounds,
}

impl Order {
    /// The command line without the program's name.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let Self { task, bounds } = self;
        let mut all: Vec<OsString> = vec!["worker".into(), task.word().into()];
        // With `=`, since a number may be negative.
        let mut add = |name: &str, value: &dyn std::fmt::Display| {
            all.push(format!("--{name}={value}").into());
        };
        match task {
            Task::Cpu { percent } => add("percent", percent),
            Task::Memory { bytes, ramp_ns, oom_score_adj } => {
                add("bytes", bytes);
                add("ramp-ns", ramp_ns);
                add("oom-score-adj", oom_score_adj);
            }
            Task::Sync => {}
            Task::Disk { bytes } => add("bytes", bytes),
        }
        add("leader", &bounds.leader);
        if let Some(deadline) = &bounds.deadline_ns {
            add("deadline-ns", deadline);
        }
        add("until-ns", &bounds.until_ns);
        add("parent", &bounds.parent);
        for directory in &bounds.cgroups {
            all.extend(["--cgroup".into(), directory.into()]);
        }
        all
    }
}
