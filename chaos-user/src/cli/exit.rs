//! How a command ends.

use std::process::ExitCode;

/// The exit codes, a contract with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Ran and recovered.
    Done,
    /// A fault could not be applied or recovered.
    Failed,
    /// Manifest or flags were refused, nothing was touched.
    Refused,
    /// This host cannot do it, nothing was touched.
    Unable,
    /// Interrupted, recovered.
    Interrupted,
}

impl Exit {
    /// The number that the shell sees.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Refused => 2,
            Self::Unable => 3,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command ends early, with everything that is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The code to end with.
    pub exit: Exit,
    /// What to say, one problem each.
    pub messages: Vec<String>,
}

impl Stop {
    /// One problem.
    #[must_use]
    pub fn one(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, messages: vec![message.into()] }
    }

    /// Several problems. What another command line would cure comes first: it is a refusal as
    /// long as one of them is.
    #[must_use]
    pub fn all(stops: Vec<Self>) -> Self {
        let exits: Vec<Exit> = stops.iter().map(|stop| stop.exit).collect();
        let exit = [Exit::Refused, Exit::Unable].into_iter().find(|exit| exits.contains(exit));
        Self {
            exit: exit.unwrap_or(Exit::Failed),
            messages: stops.into_iter().flat_map(|stop| stop.messages).collect(),
        }
    }
}
