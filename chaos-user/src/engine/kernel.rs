//! The boundary between plans and effects.

use std::collections::BTreeSet;

use chaos_abi::counter::Counters;

use super::error::EngineError;
use super::http::ExchangeReport;
use super::strain::StrainReport;
use crate::plan::Device;
use crate::plan::action::{Action, Point};

/// How a device holds packets back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// It does not: nothing of the plan takes time there.
    Direct,
    /// The queue obeys departure times (`fq`).
    Fq,
    /// The delay line holds them in userspace.
    Line,
}

impl Path {
    /// The word that reports use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fq => "fq",
            Self::Line => "line",
        }
    }
}

/// Everything that the engine asks of a kernel. Implemented by [`super::host`] and, for tests
/// without one, by [`super::fake`].
pub trait Kernel {
    /// Does one action. An action that fails leaves nothing behind.
    ///
    /// # Errors
    /// [`EngineError::Gone`] where the target has vanished, others as they come.
    fn perform(&mut self, action: &Action) -> Result<(), EngineError>;

    /// Lets rules act until `until_ns` (`CLOCK_MONOTONIC`).
    ///
    /// # Errors
    /// When the map cannot be written.
    fn beat(&mut self, until_ns: u64) -> Result<(), EngineError>;

    /// Counters of the rule at an index, summed over CPUs.
    ///
    /// # Errors
    /// When the map cannot be read.
    fn counters(&self, index: u32) -> Result<Counters, EngineError>;

    /// How the device holds packets back.
    fn path(&self, device: &Device) -> Path;

    /// How many packets the device's queue or line still holds; 0 when it is gone.
    fn held(&self, device: &Device) -> u64;

    /// Those of these points whose device, namespace or cgroup has vanished.
    fn vanished(&self, points: &BTreeSet<Point>) -> BTreeSet<Point>;

    /// Looks after the strains: tells their workers that we live, starts those again that have
    /// ended, ends what is over. Called with every beat.
    fn tend(&mut self);

    /// What has become of a strain that was begun.
    fn strain(&self, id: &str) -> StrainReport;

    /// What has become of an exchange that was begun.
    fn exchange(&self, id: &str) -> ExchangeReport;

    /// Nanoseconds of `CLOCK_MONOTONIC`.
    fn now(&self) -> u64;
}
