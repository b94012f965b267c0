//! Why a worker cannot work: told by the worker, put into words by the engine.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::engine::error::EngineError;

/// What is in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Trouble {
    /// The cgroup does not take it.
    Join {
        /// The directory in whose hierarchy that is.
        directory: PathBuf,
        /// What the kernel said.
        errno: i32,
    },
    /// It may not have that `oom_score_adj`.
    Score {
        /// Which.
        wanted: i32,
        /// What the kernel said.
        errno: i32,
    },
    /// There is no room for so much memory, or no use of it.
    Map {
        /// How much, bytes.
        bytes: u64,
        /// What the kernel said.
        errno: i32,
    },
    /// The target's file system is out of reach.
    Root {
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        errno: i32,
    },
    /// No file can be made there.
    File {
        /// Every place that was tried, and why not.
        tried: Vec<(String, String)>,
    },
    /// Writing or flushing fails.
    Write {
        /// What was done, and where.
        doing: String,
        /// What the kernel said.
        errno: i32,
    },
    /// Something that is not about the target.
    Other {
        /// What was done.
        doing: String,
        /// What the kernel said.
        errno: i32,
    },
}

/// The errno of an error; EIO for one that has none.
#[must_use]
pub fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// As `kfault doctor` would print it.
const MECHANISM: &str = "stress workers";

fn unsupported(reason: String, way_out: &'static str) -> EngineError {
    EngineError::Unsupported { mechanism: MECHANISM, reason, way_out }
}

impl Trouble {
    /// In words, about a worker ("memory worker 2 of 4").
    #[must_use]
    pub fn into_error(self, worker: &str) -> EngineError {
        let said = io::Error::from_raw_os_error;
        match self {
            Self::Join { directory, errno } => joining(worker, directory, errno),
            Self::Score { wanted, errno: libc::EACCES | libc::EPERM } => unsupported(
                format!(
                    "{worker} may not have oom_score_adj {wanted}: the kernel lets only \
                     CAP_SYS_RESOURCE lower it"
                ),
                "give kfault that capability, or leave oomScoreAdj at 0 or above",
            ),
            Self::Score { wanted, errno } => {
                EngineError::os(format!("give {worker} oom_score_adj {wanted}"), said(errno))
            }
            Self::Map { bytes, errno: libc::ENOMEM } => unsupported(
                format!(
                    "{worker} cannot have {bytes} bytes: this host promises no more memory than \
                     it has (vm.overcommit_memory)"
                ),
                "ask for less, or set vm.overcommit_memory to 0",
            ),
            Self::Map { bytes, errno } => {
                EngineError::os(format!("map {bytes} bytes for {worker}"), said(errno))
            }
            Self::Root { path, errno: libc::ENOENT | libc::ESRCH } => {
                EngineError::Gone { what: path.display().to_string() }
            }
            Self::Root { path, errno } => {
                let doing = format!("open the target's root {} for {worker}", path.display());
                EngineError::os(doing, said(errno))
            }
            Self::File { tried } => {
                let tried: Vec<String> =
                    tried.iter().map(|(path, why)| format!("{path}: {why}")).collect();
                unsupported(
                    format!("{worker} cannot make a file in the target: {}", tried.join("; ")),
                    "mount a volume that can be written at /tmp or /var/tmp of the target",
                )
            }
            Self::Write { doing, errno } | Self::Other { doing, errno } => {
                EngineError::os(format!("{doing} ({worker})"), said(errno))
            }
        }
    }
}

/// `cgroup_attach_permissions` and `cgroup_migrate_vet_dst` in the kernel's `kernel/cgroup/cgroup.c`
/// and `cpuset_can_attach` in `cpuset.c` are where these numbers come from.
fn joining(worker: &str, directory: PathBuf, errno: i32) -> EngineError {
    let at = directory.display();
    match errno {
        libc::EBUSY => unsupported(
            format!(
                "{worker} cannot enter {at}: it hands controllers to the cgroups below it \
                 (cgroup.subtree_control), and processes can only be in those"
            ),
            "choose one of the cgroups below it",
        ),
        libc::EOPNOTSUPP => unsupported(
            format!("{worker} cannot enter {at}: it is threaded, and takes threads only"),
            "choose the domain that it belongs to, the cgroup above it",
        ),
        libc::ENOSPC => unsupported(
            format!("{worker} cannot enter {at}: its cpuset has no processors or no memory yet"),
            "write cpuset.cpus and cpuset.mems there first",
        ),
        libc::ENOENT | libc::ENODEV if !directory.is_dir() => {
            EngineError::Gone { what: format!("cgroup {at}") }
        }
        libc::ENOENT => unsupported(
            format!(
                "{worker} cannot enter {at}: kfault is in another cgroup namespace, and the \
                 hierarchy is mounted with nsdelegate"
            ),
            "run kfault with the host's processes in sight (hostPID), or outside of a container",
        ),
        libc::ENODEV => EngineError::Gone { what: format!("cgroup {at}") },
        libc::EACCES | libc::EPERM => unsupported(
            format!("{worker} may not enter {at}: permission denied"),
            "run kfault as root, with a cgroup file system that is not read-only",
        ),
        _ => EngineError::os(format!("move {worker} to {at}"), io::Error::from_raw_os_error(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_names_worker_directory_and_way_out() {
        let directory = std::env::temp_dir();
        for errno in [libc::EBUSY, libc::EOPNOTSUPP, libc::ENOSPC, libc::ENOENT, libc::EACCES] {
            let trouble = Trouble::Join { directory: directory.clone(), errno };
            let error = trouble.into_error("cpu worker 1 of 2");
            assert!(matches!(error, EngineError::Unsupported { .. }), "{errno}: {error:?}");
            let text = error.to_string();
            assert!(text.contains("cpu worker 1 of 2"), "{text}");
            assert!(text.contains(&directory.display().to_string()), "{text}");
        }
    }

    #[test]
    fn a_cgroup_that_has_vanished_is_gone_and_not_refused() {
        for errno in [libc::ENOENT, libc::ENODEV] {
            let trouble = Trouble::Join { directory: "/no/such/cgroup".into(), errno };
            assert!(matches!(trouble.into_error("w"), EngineError::Gone { .. }));
        }
    }

    #[test]
    fn lowering_a_score_without_the_capability_is_said() {
        let text = Trouble::Score { wanted: -500, errno: libc::EACCES }.into_error("w").to_string();
        assert!(text.contains("CAP_SYS_RESOURCE") && text.contains("-500"), "{text}");
    }

    #[test]
    fn troubles_survive_the_line() {
        let trouble = Trouble::File { tried: vec![("/tmp".into(), "read-only".into())] };
        let text = serde_json::to_string(&trouble).unwrap();
        assert_eq!(serde_json::from_str::<Trouble>(&text).unwrap(), trouble);
    }
}
