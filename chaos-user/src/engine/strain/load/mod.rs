//! Loads: workers in the target's cgroup.
//!
//! A worker is this program once more (`kfault worker`), a child of the engine. It is in the
//! target's cgroup in every hierarchy, and outside of its namespaces. It ends when the engine
//! ends ([`process`]: PR_SET_PDEATHSIG, a line that closes), when no beat comes for the length of
//! the lease, when its time is over, and with the target's first process ([`work`]). One that
//! ends for another reason gets a successor after a while ([`seat`]).

mod backoff;
mod channel;
pub mod order;
mod process;
mod seat;
mod site;
mod size;
mod stray;
mod trouble;
pub mod work;

use std::time::Duration;

pub use self::site::LEASE;
pub use self::size::{bytes, killed_together, memory_limit};
pub use self::stray::{is_worker, sweep};

use self::order::Task;
use self::seat::{Reason, Seat};
use self::site::{Site, lease_ns};
use self::work::End;
use super::StrainReport;
use super::meter::{Meter, Reading};
use super::place::Directories;
use crate::api::figures::Figures;
use crate::engine::error::EngineError;
use crate::engine::line::monotonic_ns;
use crate::plan::strain::{Amount, Load, Strain};

/// How long the start may stand still before it has failed.
const START: Duration = Duration::from_secs(10);
/// How long a killed worker may take to die. One whose cgroup gets next to no processor time
/// needs it.
const END: Duration = Duration::from_secs(10);

/// Workers of one strain.
pub struct Running {
    site: Site,
    seats: Vec<Seat>,
    meter: Meter,
    start: Reading,
    /// What is known beforehand.
    forecast: Vec<String>,
    oom_kills: u64,
    resident_peak: u64,
    is_gone: bool,
    is_dry: bool,
}

impl Running {
    /// Starts them, and returns when every one is in the cgroup and at work. One that the kernel
    /// has killed for want of memory by then has begun as well: its successor comes with
    /// [`Running::tend`]. `meanwhile` is called about once a second.
    ///
    /// # Errors
    /// [`EngineError::Gone`] where the target has vanished, [`EngineError::Unsupported`] where
    /// nobody can work, others as they come. No worker is left then.
    pub fn start(
        strain: &Strain,
        load: &Load,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Self, EngineError> {
        let site = Site::open(&strain.place, strain.duration)?;
        let seats = seats(load, site.directories())?;
        let meter = Meter::of(site.directories());
        let start = meter.read();
        let mut running = Self {
            forecast: forecast(load, site.directories()),
            oom_kills: start.oom_kills,
            resident_peak: 0,
            is_gone: false,
            is_dry: strain.dry_run,
            site,
            seats,
            meter,
            start,
        };
        if !running.is_dry {
            // Dropped on failure, which kills those that have started.
            running.start_all(meanwhile)?;
        }
        Ok(running)
    }

    fn start_all(&mut self, meanwhile: &mut dyn FnMut()) -> Result<(), EngineError> {
        process::make_room(self.seats.len());
        let mut beaten = monotonic_ns();
        for at in 0..self.seats.len() {
            if let Some(seat) = self.seats.get_mut(at) {
                seat.start(&self.site)?;
            }
            self.beat_if_due(&mut beaten, meanwhile);
        }
        let mut progress = (self.seats.len(), monotonic_ns());
        loop {
            self.hear_the_starting()?;
            let starting = self.seats.iter().filter(|seat| seat.is_starting()).count();
            if starting == 0 {
                return Ok(());
            }
            let now = monotonic_ns();
            if starting < progress.0 {
                progress = (starting, now);
            }
            if Duration::from_nanos(now.saturating_sub(progress.1)) > START {
                return Err(self.standstill());
            }
            std::thread::sleep(Duration::from_millis(1));
            self.beat_if_due(&mut beaten, meanwhile);
        }
    }

    /// Those that started first must not lose their lease while the last ones start.
    fn beat_if_due(&self, beaten: &mut u64, meanwhile: &mut dyn FnMut()) {
        let now = monotonic_ns();
        if now.saturating_sub(*beaten) >= 1_000_000_000 {
            *beaten = now;
            self.beat();
            meanwhile();
        }
    }

    /// Lets the workers live on for another lease.
    pub fn beat(&self) {
        self.seats.iter().for_each(|seat| seat.beat(lease_ns()));
    }

    fn hear_the_starting(&mut self) -> Result<(), EngineError> {
        let Self { seats, meter, oom_kills, .. } = self;
        let mut was_oom = oom_since(meter, oom_kills);
        for seat in seats.iter_mut().filter(|seat| seat.is_starting()) {
            match seat.look(&mut was_oom) {
                // The others have taken all the memory already: that is what was asked for.
                None | Some(Reason::OutOfMemory | Reason::Own(End::Over)) => {}
                Some(reason) => return Err(seat.refused(reason)),
            }
        }
        Ok(())
    }

    fn standstill(&self) -> EngineError {
        let name = self.seats.iter().find(|seat| seat.is_starting()).map_or("", Seat::name);
        EngineError::Unsupported {
            mechanism: "stress workers",
            reason: format!(
                "{name} is not at work after {} s: cgroup {} gives it no processor time",
                START.as_secs(),
                self.site.directories().main().display()
            ),
            way_out: "thaw it, or give it a larger quota",
        }
    }

    /// Ends them, and returns when none is left.
    ///
    /// # Errors
    /// When one does not die within 10 s: it waits for a device that does not answer.
    pub fn end(mut self) -> Result<(), EngineError> {
        self.shut()
    }

    fn shut(&mut self) -> Result<(), EngineError> {
        self.seats.iter_mut().for_each(Seat::kill);
        let end = monotonic_ns() + END.as_nanos() as u64;
        let mut left = Vec::new();
        for seat in &mut self.seats {
            let patience = Duration::from_nanos(end.saturating_sub(monotonic_ns()));
            if let Err(pid) = seat.wait(patience) {
                left.push(format!("{} (process {pid})", seat.name()));
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        let doing = format!("end {}", left.join(", "));
        let why = format!("killed, and alive {} s later", END.as_secs());
        Err(EngineError::os(doing, std::io::Error::new(std::io::ErrorKind::TimedOut, why)))
    }

    /// Looks after them: lets them live on, sees who has ended and why, starts successors. Once a
    /// second.
    pub fn tend(&mut self) {
        if self.is_dry || self.is_gone {
            return;
        }
        self.resident_peak = self.resident_peak.max(self.resident_bytes());
        self.is_gone = self.look() || self.site.is_gone();
        if self.is_gone {
            if let Err(error) = self.shut() {
                tracing::error!(%error, "a worker outlives its target");
            }
            return;
        }
        for seat in &mut self.seats {
            seat.start_again(&self.site);
        }
    }

    /// Beats, and looks who has ended. Whether one did with the target's first process.
    fn look(&mut self) -> bool {
        let until_ns = lease_ns();
        let Self { seats, meter, oom_kills, .. } = self;
        let mut was_oom = oom_since(meter, oom_kills);
        let mut is_gone = false;
        for seat in seats {
            seat.beat(until_ns);
            is_gone |= seat.look(&mut was_oom) == Some(Reason::Own(End::LeaderGone));
        }
        is_gone
    }

    /// What they do.
    #[must_use]
    pub fn report(&self, id: &str) -> StrainReport {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let seats = &self.seats;
        let mut figures = Figures {
            workers: count(seats.len()),
            running: count(seats.iter().filter(|seat| seat.is_at_work()).count()),
            restarts: seats.iter().map(Seat::restarts).sum(),
            cpu_seconds: seats.iter().map(Seat::cpu_ns).sum::<u64>() as f64 / 1e9,
            resident_bytes: self.resident_bytes(),
            ..Figures::default()
        };
        figures.resident_peak_bytes = self.resident_peak.max(figures.resident_bytes);
        self.meter.read().since(&self.start, &mut figures);
        StrainReport { id: id.into(), is_alive: !self.is_gone, notes: self.notes(), figures }
    }

    fn resident_bytes(&self) -> u64 {
        self.seats.iter().map(Seat::resident_bytes).sum()
    }

    /// The forecast, and for each sort of worker the one of them with the most to tell.
    fn notes(&self) -> Vec<String> {
        let mut notes = self.forecast.clone();
        for word in ["cpu", "memory", "sync", "disk"] {
            let of = self.seats.iter().filter(|seat| seat.task().word() == word);
            if let Some(seat) =
                of.filter(|seat| seat.notes().next().is_some()).max_by_key(|s| s.ends())
            {
                notes.extend(seat.notes().cloned());
            }
        }
        notes
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.shut() {
            tracing::error!(%error, "cannot end workers");
        }
    }
}

/// Whether the kernel has killed somebody of the cgroup for want of memory since the last count.
/// All workers that are looked at together get one answer.
fn oom_since<'a>(meter: &'a Meter, count: &'a mut u64) -> impl FnMut() -> bool + 'a {
    let mut answer = None;
    move || {
        *answer.get_or_insert_with(|| {
            let now = meter.oom_kills();
            std::mem::replace(count, now) < now
        })
    }
}

/// A seat for every worker.
fn seats(load: &Load, directories: &Directories) -> Result<Vec<Seat>, EngineError> {
    let mut seats = Vec::new();
    if let Some(cpu) = &load.cpu {
        let (task, workers) = (Task::Cpu { percent: cpu.percent }, count(cpu.workers));
        seats.extend((1..=workers).map(|n| Seat::new(task, n, workers)));
    }
    if let Some(memory) = &load.memory {
        let workers = count(memory.workers);
        if directories.controller("memory").is_none() {
            return Err(EngineError::Unsupported {
                mechanism: "stress workers",
                reason: format!(
                    "memory worker 1 of {}: the controller \"memory\" is not enabled for cgroup \
                     {}, so that what the worker takes would be counted elsewhere",
                    workers,
                    directories.main().display()
                ),
                way_out: "enable it (+memory in cgroup.subtree_control of the cgroup above), or \
                          choose a cgroup that has it",
            });
        }
        let bytes = bytes(memory.size, directories)?;
        seats.extend(size::shares(bytes, workers).zip(1..).map(|(bytes, n)| {
            let (ramp_ns, oom_score_adj) = (memory.ramp_ns, memory.oom_score_adj);
            Seat::new(Task::Memory { bytes, ramp_ns, oom_score_adj }, n, workers)
        }));
    }
    seats.extend((1..=load.sync_workers).map(|n| Seat::new(Task::Sync, n, load.sync_workers)));
    if let Some(disk) = &load.disk {
        let (task, workers) = (Task::Disk { bytes: disk.bytes }, count(disk.workers));
        seats.extend((1..=workers).map(|n| Seat::new(task, n, workers)));
    }
    Ok(seats)
}

/// How many workers are meant: 0 stands for one on each processor, as with stress-ng.
fn count(workers: u32) -> u32 {
    // SAFETY: plain call.
    let processors = || u32::try_from(unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) });
    if workers == 0 { processors().unwrap_or(1).max(1) } else { workers }
}

/// What is known before anything happens.
fn forecast(load: &Load, directories: &Directories) -> Vec<String> {
    let mut notes = Vec::new();
    if load.cpu.is_some() && directories.controller("cpu").is_none() {
        notes.push(format!(
            "the controller \"cpu\" is not enabled for cgroup {}: no quota or weight of its own \
             holds the workers back",
            directories.main().display()
        ));
    }
    if let Some(memory) = &load.memory {
        notes.push(out_of_memory(directories));
        notes.extend(both_numbers(memory.size, directories));
    }
    notes
}

/// A share of the node is easily meant to be one of the limit: both, as numbers.
fn both_numbers(size: Amount, directories: &Directories) -> Option<String> {
    let Amount::PercentOfNode(percent) = size else { return None };
    let megabytes = |bytes: u64| format!("{:.0} MB", bytes as f64 / 1e6);
    let of_node = megabytes(bytes(size, directories).ok()?);
    let of_limit = match bytes(Amount::PercentOfLimit(percent), directories) {
        Ok(bytes) => format!("{percent} % of the target's own limit are {}", megabytes(bytes)),
        Err(_) => "the target has no limit of its own".to_owned(),
    };
    Some(format!("{percent} % of the node's memory are {of_node}; {of_limit}"))
}

/// What the kernel does when a cgroup's memory runs out, for people.
#[must_use]
pub fn out_of_memory(directories: &Directories) -> String {
    match killed_together(directories) {
        Some(directory) => format!(
            "when memory runs out, the kernel kills every process of {} at once \
             (memory.oom.group)",
            directory.display()
        ),
        None => "when memory runs out, the kernel kills one process, most likely the largest: a \
                 worker of kfault's is started again, a process of the target is not"
            .into(),
    }
}
