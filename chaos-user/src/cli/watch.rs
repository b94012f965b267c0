//! Looks at the cgroups of strains' targets, for the plot.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::plot::{Course, Reading, Time};
use super::report::Reporter;
use crate::engine::strain::Directories;
use crate::engine::strain::meter::Meter;
use crate::plan::Plan;

/// Between two looks before and after.
pub const EVERY: Duration = Duration::from_millis(400);
/// Looks before anything is applied: the first is where the others count from.
pub const BEFORE: u32 = 3;
/// Looks when all has ended.
pub const AFTER: u32 = 2;

/// The cgroups, each once.
pub struct Watch(Vec<Meter>);

impl Watch {
    /// Those of a plan's strains, where people watch. One that is not there is left out: applying
    /// says so.
    #[must_use]
    pub fn of(plan: &Plan, reporter: &mut Reporter) -> Self {
        let mut all = Self(Vec::new());
        if !reporter.is_watched() {
            return all;
        }
        let mut known = BTreeSet::new();
        for strain in plan.strains.iter().filter(|one| known.insert(&one.place.cgroup)) {
            if let Ok(directories) = Directories::of(&strain.place) {
                all.0.push(Meter::of(&directories));
                reporter.courses().push(Course::new(&strain.target));
            }
        }
        all
    }

    /// Whether there is anything to look at.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Looks.
    pub fn look(&self, time: Time, reporter: &mut Reporter) {
        for (meter, course) in self.0.iter().zip(reporter.courses()) {
            let now = meter.read();
            let (cpu_seconds, memory_bytes) = (now.cpu_ns as f64 / 1e9, now.memory_bytes);
            course.take(time, Reading { at: Instant::now(), cpu_seconds, memory_bytes });
        }
    }
}
