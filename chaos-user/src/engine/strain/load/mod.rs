//! Loads: workers in the target's cgroup.

use super::StrainReport;
use crate::engine::error::EngineError;
use crate::plan::strain::{Load, Strain};

/// Workers of one strain.
pub struct Running;

impl Running {
    /// Starts them.
    pub fn start(_strain: &Strain, _load: &Load) -> Result<Self, EngineError> {
        Ok(Self)
    }

    /// Ends them.
    pub fn end(self) -> Result<(), EngineError> {
        Ok(())
    }

    /// Looks after them.
    pub fn tend(&mut self) {}

    /// What they do.
    pub fn report(&self, id: &str) -> StrainReport {
        StrainReport::of(id)
    }
}
