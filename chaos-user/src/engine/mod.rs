//! The engine: makes plans true on this host.
//!
//! Owns every effect on the kernel; alone names aya. Read [`kernel`] for the boundary,
//! [`executor`] for how actions are done and undone, [`host`] for the real kernel.

mod apart;
pub mod bpf;
mod btf;
pub mod cgroup;
pub mod detour;
mod device;
mod error;
mod executor;
pub mod fake;
mod host;
pub mod http;
mod journal;
pub mod kernel;
pub mod line;
mod lists;
mod lock;
pub mod message;
pub mod names;
pub mod netlink;
pub mod netns;
mod object;
pub mod probe;
mod report;
pub mod strain;
mod sweep;
pub mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use chaos_abi::counter::Counters;

pub use error::{EngineError, chain};
pub use executor::{Observer, Stage, fault_points, set_fault_point_observer};
pub use object::ProgramReport;
pub use report::{load_report, test_run};

use crate::plan::action::{Action, Arms, Point};
use crate::plan::diff::{Installed, diff, own_point};
use crate::plan::{Device, Peers, Plan, peers};
use host::Host;
use http::ExchangeReport;
use kernel::Kernel;
use lock::HostLock;
use strain::StrainReport;

/// How the engine behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// A rule acts at most this long after the last heartbeat.
    pub lease: Duration,
    /// Smaller maps than the object's own, by name: for tests of full maps.
    pub map_limits: Vec<(String, u32)>,
}

impl Default for Options {
    fn default() -> Self {
        Self { lease: Duration::from_secs(5), map_limits: Vec::new() }
    }
}

/// What a rule did so far.
#[derive(Clone, Debug)]
pub struct RuleReport {
    /// The rule's id.
    pub id: String,
    /// Its counters, summed over CPUs.
    pub counters: Counters,
    /// `fq`, `line` or `direct`: what holds its packets.
    pub path: &'static str,
    /// False when its target has vanished.
    pub alive: bool,
}

/// What everything that was applied did so far.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Rules.
    pub rules: Vec<RuleReport>,
    /// Strains.
    pub strains: Vec<StrainReport>,
    /// Exchanges.
    pub exchanges: Vec<ExchangeReport>,
}

/// The engine of this host, or over any [`Kernel`].
pub struct Engine<K: Kernel = Host> {
    kernel: K,
    installed: Installed,
    /// Queues that no rule needs any more and that still hold packets: until when to wait for
    /// them, in nanoseconds of the kernel's clock.
    leaving: BTreeMap<Device, u64>,
    /// The last words of strains that [`Engine::disarm`] ended.
    ended: Vec<StrainReport>,
    /// Those of exchanges.
    ended_exchanges: Vec<ExchangeReport>,
    lease: Duration,
    _lock: Option<HostLock>,
}

/// Takes away what a crashed run left behind; says what.
///
/// # Errors
/// [`EngineError::Busy`] while an engine is at work, otherwise what went wrong.
pub fn sweep() -> Result<Vec<String>, EngineError> {
    let _lock = HostLock::take()?;
    sweep::sweep_all()
}

impl Engine<Host> {
    /// Takes the host lock, sweeps leftovers and loads the object. Attaches nothing.
    ///
    /// # Errors
    /// [`EngineError::Busy`] when another engine is at work; others when the kernel refuses.
    pub fn open(options: &Options) -> Result<Self, EngineError> {
        let lock = HostLock::take()?;
        for what in sweep::sweep_all()? {
            tracing::warn!("removed what an earlier run left behind: {what}");
        }
        let host = Host::new(&options.map_limits)?;
        let mut engine = Self::over(host, options);
        engine._lock = Some(lock);
        Ok(engine)
    }

    /// Runs the program of a point on a packet that goes nowhere.
    ///
    /// # Errors
    /// When there is no such point, or what the kernel says.
    pub fn test_run(
        &self,
        point: &Point,
        packet: &[u8],
        repeat: u32,
    ) -> Result<bpf::Ran, EngineError> {
        use std::os::fd::AsFd;
        let entry = self
            .kernel
            .entry(point)
            .ok_or_else(|| EngineError::bpf("run a test", "no program at this point"))?;
        bpf::test_run(entry.as_fd(), packet, repeat).map_err(|e| EngineError::os("run a test", e))
    }
}

impl<K: Kernel> Engine<K> {
    /// An engine over a kernel of the caller's.
    #[must_use]
    pub fn over(kernel: K, options: &Options) -> Self {
        Self {
            kernel,
            installed: Installed::default(),
            leaving: BTreeMap::new(),
            ended: Vec::new(),
            ended_exchanges: Vec::new(),
            lease: options.lease,
            _lock: None,
        }
    }

    /// What is installed.
    #[must_use]
    pub fn installed(&self) -> &Installed {
        &self.installed
    }

    /// The kernel underneath.
    #[must_use]
    pub fn kernel(&self) -> &K {
        &self.kernel
    }

    /// Makes the plan true, whole or not at all. `resolved` holds the addresses of every name
    /// in the plan's peers.
    ///
    /// # Errors
    /// What went wrong; everything that had been done is undone then.
    pub fn apply(
        &mut self,
        plan: &Plan,
        resolved: &BTreeMap<String, Vec<IpAddr>>,
    ) -> Result<(), EngineError> {
        let distinct: BTreeSet<&Peers> =
            plan.rules.iter().map(|r| &r.peers).filter(|p| !p.is_everyone()).collect();
        let mut tables = BTreeMap::new();
        for peers in distinct {
            let table = peers::compile(peers, resolved)
                .map_err(|e| EngineError::bpf("compile the peers", e))?;
            tables.insert(peers.clone(), table);
        }
        self.renew()?;
        let gone = self.end_vanished()?;
        let (mut actions, mut next) = diff(plan, &tables, &self.installed)?;
        // Rules of targets that are gone have ended.
        actions.retain(|action| match action {
            Action::Arm { point, after, .. } => *after == Arms::default() || !gone.contains(point),
            _ => true,
        });
        for (point, (_, arms)) in &mut next.points {
            if gone.contains(point) {
                *arms = Arms::default();
            }
        }
        // Queues go later, when what they hold has left.
        actions.retain(|action| !matches!(action, Action::RemoveQueue { .. }));
        executor::execute(&mut self.kernel, &actions)?;
        self.ended.clear();
        self.ended_exchanges.clear();
        self.leaving.retain(|device, _| !next.queues.contains(device));
        let patience = self.kernel.now().saturating_add(self.longest_ns());
        for device in self.installed.queues.difference(&next.queues) {
            self.leaving.entry(device.clone()).or_insert(patience);
        }
        next.queues.extend(self.leaving.keys().cloned());
        self.installed = next;
        self.remove_left()
    }

    /// Takes queues away that no rule needs and that are empty, or whose time is over.
    fn remove_left(&mut self) -> Result<(), EngineError> {
        let now = self.kernel.now();
        let left: Vec<Device> = self
            .leaving
            .iter()
            .filter(|(device, until)| **until <= now || self.kernel.held(device) == 0)
            .map(|(device, _)| device.clone())
            .collect();
        let removals: Vec<Action> =
            left.iter().map(|device| Action::RemoveQueue { device: device.clone() }).collect();
        for device in &left {
            self.leaving.remove(device);
            self.installed.queues.remove(device);
        }
        executor::execute_all(&mut self.kernel, &removals)
    }

    /// Renews the heartbeat, ends the faults of targets that have vanished and takes away queues
    /// that have become empty. Call it every second.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub fn beat(&mut self) -> Result<(), EngineError> {
        self.renew()?;
        self.kernel.tend();
        self.end_vanished()?;
        self.remove_left()
    }

    fn renew(&mut self) -> Result<(), EngineError> {
        let lease = u64::try_from(self.lease.as_nanos()).unwrap_or(u64::MAX);
        let until = self.kernel.now().saturating_add(lease);
        self.kernel.beat(until)
    }

    /// What every rule and strain did so far.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn report(&self) -> Result<Report, EngineError> {
        let mut rules = Vec::new();
        let gone = self.kernel.vanished(&self.points());
        for (id, (index, _, rule)) in &self.installed.rules {
            let point = own_point(rule).filter(|p| self.installed.points.contains_key(p));
            let held = rule.effects.takes_time();
            rules.push(RuleReport {
                id: id.clone(),
                counters: self.kernel.counters(*index)?,
                path: if held { self.kernel.path(&rule.hook.device).as_str() } else { "direct" },
                alive: point.is_some_and(|p| !gone.contains(&p)),
            });
        }
        let mut strains = self.ended.clone();
        strains.extend(self.installed.strains.keys().map(|id| self.kernel.strain(id)));
        let mut exchanges = self.ended_exchanges.clone();
        exchanges.extend(self.installed.exchanges.keys().map(|id| self.kernel.exchange(id)));
        Ok(Report { rules, strains, exchanges })
    }

    /// Disarms every rule and ends every strain and exchange now. Hooks and queues stay until
    /// [`Engine::recover`], counters stay readable.
    ///
    /// # Errors
    /// The first failure, after all have been tried.
    pub fn disarm(&mut self) -> Result<(), EngineError> {
        let disarmed = self.disarm_these(&self.points());
        self.ended.extend(self.installed.strains.keys().map(|id| self.kernel.strain(id)));
        let strains = std::mem::take(&mut self.installed.strains);
        let mut ends: Vec<Action> = strains.values().map(|one| Action::begin(one).undo()).collect();
        let exchanges = std::mem::take(&mut self.installed.exchanges);
        self.ended_exchanges.extend(exchanges.keys().map(|id| self.kernel.exchange(id)));
        let exchanges = exchanges.into_values();
        ends.extend(exchanges.map(|one| Action::EndExchange { exchange: Box::new(one) }));
        disarmed.and(executor::execute_all(&mut self.kernel, &ends))
    }

    fn points(&self) -> BTreeSet<Point> {
        self.installed.points.keys().cloned().collect()
    }

    /// Disarms the points whose target has vanished, and says which they are. A namespace can
    /// outlive its name, or the process that it was found by, with others' sockets in it.
    fn end_vanished(&mut self) -> Result<BTreeSet<Point>, EngineError> {
        let gone = self.kernel.vanished(&self.points());
        self.disarm_these(&gone)?;
        Ok(gone)
    }

    fn disarm_these(&mut self, points: &BTreeSet<Point>) -> Result<(), EngineError> {
        let mut actions = Vec::new();
        for (point, (slot, arms)) in &mut self.installed.points {
            if points.contains(point) && *arms != Arms::default() {
                let (before, after) = (std::mem::take(arms), Arms::default());
                actions.push(Action::Arm { point: point.clone(), slot: *slot, before, after });
            }
        }
        executor::execute_all(&mut self.kernel, &actions)
    }

    /// Disarms, waits until held packets have left (at most the longest delay; `give_up` ends
    /// the wait), then removes queues and hooks.
    ///
    /// # Errors
    /// The first failure, after all have been tried.
    pub fn recover(&mut self, give_up: &dyn Fn() -> bool) -> Result<(), EngineError> {
        let disarmed = self.disarm();
        let queues: Vec<Device> = self.installed.queues.iter().cloned().collect();
        self.drain(&queues, give_up);
        let (actions, next) = diff(&Plan::default(), &BTreeMap::new(), &self.installed)?;
        let removed = executor::execute_all(&mut self.kernel, &actions);
        self.installed = next;
        self.leaving.clear();
        disarmed.and(removed)
    }

    /// How long a packet may still be on its way, with something for the way itself.
    fn longest_ns(&self) -> u64 {
        let rules = self.installed.rules.values();
        let longest = rules.map(|(_, _, rule)| rule.effects.longest_ns()).max().unwrap_or(0);
        longest.saturating_add(100_000_000)
    }

    fn drain(&self, devices: &[Device], give_up: &dyn Fn() -> bool) {
        let leaving =
            self.leaving.values().max().map_or(0, |until| until.saturating_sub(self.kernel.now()));
        let end = Instant::now() + Duration::from_nanos(self.longest_ns().max(leaving));
        while Instant::now() < end && !give_up() {
            if devices.iter().all(|device| self.kernel.held(device) == 0) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl<K: Kernel> Drop for Engine<K> {
    /// A forgotten engine recovers without waiting. Only `kill -9` leaves something behind.
    fn drop(&mut self) {
        if self.installed != Installed::default()
            && let Err(error) = self.recover(&|| true)
        {
            tracing::error!(%error, "cannot recover");
        }
    }
}
