//! Strains on this host: workers in targets' cgroups ([`load`]), limits of those cgroups
//! ([`limits`]).
//!
//! Nothing of it outlives the engine by more than its lease. Workers end with the pipe that they
//! listen at; limits are put back by a guard that listens at one, and by the next start.

pub mod limits;
pub mod load;
pub mod meter;
mod place;
pub mod probe;

use std::collections::BTreeMap;

pub use place::{Directories, Version};

use self::limits::{Guard, Held};
use self::load::Running;
use super::error::EngineError;
use crate::api::figures::Figures;
use crate::plan::strain::{Grip, Strain};

/// What has become of a strain.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StrainReport {
    /// The strain's id.
    pub id: String,
    /// False when its target has vanished.
    pub is_alive: bool,
    /// What people should know now, one sentence each: a worker that was killed for want of memory,
    /// a limit that somebody else has changed.
    pub notes: Vec<String>,
    /// What it does, in numbers.
    pub figures: Figures,
}

impl StrainReport {
    /// Of a strain that nothing is known of.
    #[must_use]
    pub fn of(id: &str) -> Self {
        Self { id: id.to_owned(), ..Self::default() }
    }
}

/// Bytes of a page.
fn page_size() -> u64 {
    // SAFETY: plain call.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).ok().filter(|size| *size > 0).unwrap_or(4096)
}

/// Takes away what a crashed run left behind; says what. The host lock must be held.
///
/// # Errors
/// When the journal of limits cannot be read or rewritten.
pub fn sweep() -> Result<Vec<String>, EngineError> {
    let mut removed = load::sweep();
    removed.extend(limits::sweep()?);
    Ok(removed)
}

/// The strains of this host.
#[derive(Default)]
pub struct Strains {
    loads: BTreeMap<String, Running>,
    limits: BTreeMap<String, Held>,
    // After the limits: it goes when they have been put back.
    guard: Guard,
}

impl Strains {
    /// Lets a strain act. Many workers take their time to start: `meanwhile` is called about once a
    /// second until they have, and the other strains live on. Where its target has vanished nothing does, and [`Strains::report`] says
    /// so.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] where its cgroup lacks a controller, others as they come.
    /// Nothing of the strain acts then.
    pub fn begin(
        &mut self,
        strain: &Strain,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<(), EngineError> {
        let begun = match &strain.grip {
            Grip::Load(load) => {
                let Self { loads, guard, .. } = self;
                let mut live_on = || {
                    loads.values().for_each(Running::beat);
                    guard.beat();
                    meanwhile();
                };
                Running::start(strain, load, &mut live_on).map(|running| {
                    self.loads.insert(strain.id.clone(), running);
                })
            }
            Grip::Limits(limits) => {
                let held = Held::set(&mut self.guard, strain, limits);
                if self.limits.is_empty() && held.is_err() {
                    self.guard.end();
                }
                held.map(|held| {
                    self.limits.insert(strain.id.clone(), held);
                })
            }
        };
        match begun {
            // One target that has vanished keeps the others from nothing.
            Err(EngineError::Gone { .. }) => Ok(()),
            begun => begun,
        }
    }

    /// Ends a strain, and returns when nothing of it acts any more.
    ///
    /// # Errors
    /// When a limit cannot be put back.
    pub fn end(&mut self, strain: &Strain) -> Result<(), EngineError> {
        if let Some(running) = self.loads.remove(&strain.id) {
            running.end()?;
        }
        if let Some(held) = self.limits.remove(&strain.id) {
            let restored = held.restore();
            if self.limits.is_empty() {
                self.guard.end();
            }
            restored?;
        }
        Ok(())
    }

    /// Once a second.
    pub fn tend(&mut self) {
        self.guard.beat();
        self.loads.values_mut().for_each(Running::tend);
        self.limits.values_mut().for_each(Held::tend);
    }

    /// What has become of a strain.
    #[must_use]
    pub fn report(&self, id: &str) -> StrainReport {
        let load = self.loads.get(id).map(|running| running.report(id));
        let limits = || self.limits.get(id).map(|held| held.report(id));
        load.or_else(limits).unwrap_or_else(|| StrainReport::of(id))
    }
}
