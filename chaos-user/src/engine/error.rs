//! Errors of the engine, by what the caller can do about them.

use std::io;

use crate::plan::diff::DiffError;

/// Why something could not be done to the kernel.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Another kfault owns this host. Wait for it or end it.
    #[error("another kfault is at work on this host: {owner}; end it first, or wait for it")]
    Busy {
        /// Who.
        owner: String,
    },
    /// This kernel cannot do it.
    #[error("{mechanism}: {reason}; {way_out}")]
    Unsupported {
        /// The mechanism's name, as `kfault doctor` prints it.
        mechanism: &'static str,
        /// Why not.
        reason: String,
        /// What the user can do.
        way_out: &'static str,
    },
    /// The target has vanished. Nothing is left to recover there.
    #[error("{what} is gone")]
    Gone {
        /// The namespace, device or cgroup.
        what: String,
    },
    /// The plan is too large.
    #[error(transparent)]
    Limit(#[from] DiffError),
    /// A system call failed.
    #[error("cannot {doing}")]
    Os {
        /// What was attempted.
        doing: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The BPF object could not be loaded or used.
    #[error("cannot {doing}")]
    Bpf {
        /// What was attempted.
        doing: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An action failed, and taking back what had been done before it failed as well.
    #[error("cannot {doing}, and undoing the steps before it left: {left:?}")]
    Undo {
        /// The action that failed.
        doing: String,
        /// What could not be taken back.
        left: Vec<String>,
        /// Why the action failed.
        #[source]
        source: Box<EngineError>,
    },
}

impl EngineError {
    pub(crate) fn os(doing: impl Into<String>, source: io::Error) -> Self {
        Self::Os { doing: doing.into(), source }
    }

    pub(crate) fn last_os(doing: impl Into<String>) -> Self {
        Self::os(doing, io::Error::last_os_error())
    }

    pub(crate) fn bpf(
        doing: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Bpf { doing: doing.into(), source: source.into() }
    }

    /// The errno behind the error, if a system call failed.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Os { source, .. } => source.raw_os_error(),
            Self::Undo { source, .. } => source.errno(),
            _ => None,
        }
    }
}

/// The message of an error with those of its sources.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        // thiserror's `#[from]` sources are often part of the message already.
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}
