//! This host: which workloads it has, and which of them are never a target.
//!
//! Owns: finding namespaces, cgroups, containers and processes in procfs and cgroupfs, asking a
//! namespace for its devices, and the thread that drives the engine. Refuses: runtime sockets,
//! shelling out, changing anything but through the engine. Called by `cli`; hands plain
//! [`Workload`](crate::select::Workload)s to `select`.

pub mod agent;
pub mod cgroup;
pub mod container;
mod counted;
pub mod drive;
pub mod kill;
pub mod local;
mod lowering;
mod named_container;
pub mod network;
mod pod_container;
pub mod pods;
pub mod process;
pub mod protect;
pub mod word;

use std::io;
use std::path::PathBuf;

/// Why the host could not be read or a workload could not be chosen.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The word is not one of the allowed forms. Fix the command line.
    #[error("{word:?} names no workload: {reason}; allowed are {allowed}", allowed = word::FORMS)]
    Word {
        /// As the user wrote it.
        word: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing on this host answers to the word. Choose another.
    #[error("{word}: nothing on this host matches; {there_is}")]
    Nothing {
        /// As the user wrote it.
        word: String,
        /// What there is instead.
        there_is: String,
    },
    /// The word means several things where one is needed. Be more precise.
    #[error("{word} is ambiguous: {candidates}; {way_out}")]
    Ambiguous {
        /// As the user wrote it.
        word: String,
        /// What it could mean.
        candidates: String,
        /// How to say which.
        way_out: &'static str,
    },
    /// The workload exists and must not be harmed. Choose another.
    #[error("{target} is protected: {reason}; {way_out}")]
    Protected {
        /// The workload, as the user named it.
        target: String,
        /// Who would be harmed.
        reason: String,
        /// What to do instead.
        way_out: &'static str,
    },
    /// The workload exists and cannot be a target. Choose another.
    #[error("{target} cannot be a target: {reason}")]
    Unfit {
        /// The workload, as the user named it.
        target: String,
        /// Why, and what to do about it.
        reason: String,
    },
    /// This host does not let us look. Nothing on the command line helps.
    #[error("cannot {doing} {path}: {source}{way_out}", path = path.display())]
    Unreadable {
        /// What was tried: "read", "enter".
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
        /// A hint, starting with "; ", or empty.
        way_out: &'static str,
    },
}

impl NodeError {
    /// An unreadable file, with the hint that its error calls for.
    fn unreadable(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let way_out = match source.kind() {
            io::ErrorKind::PermissionDenied => "; run kfault as root",
            _ => "",
        };
        Self::Unreadable { doing, path: path.into(), source, way_out }
    }

    /// True when another command line would help (exit code 2), false when this host is the
    /// obstacle (exit code 3).
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        !matches!(self, Self::Unreadable { .. })
    }
}

/// At most `limit` of the names, the rest as a number: what an error message can carry.
fn some_of(names: &[String], limit: usize) -> String {
    if names.len() <= limit {
        return names.join(", ");
    }
    format!("{} and {} more", names[..limit].join(", "), names.len() - limit)
}

#[cfg(test)]
mod fixture;
