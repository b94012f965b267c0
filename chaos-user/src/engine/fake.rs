//! A kernel for pure tests.
//!
//! The terms on which it may be trusted: it knows presence only (what is there, what a slot
//! names), it may grow when a test needs it, and what it refuses, the real kernel refuses too:
//! adding what is there, removing what is not, arming a slot without a hook, a rule before its
//! index is written. `tests/kernel` proves those on real kernels.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

use chaos_abi::counter::Counters;

use super::error::EngineError;
use super::http::ExchangeReport;
use super::kernel::{Kernel, Path};
use super::strain::StrainReport;
use crate::plan::Device;
use crate::plan::action::{Action, Arms, Point};
use crate::plan::peers::PeerTable;

/// What a modelled kernel holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Peer sets.
    pub sets: BTreeMap<u32, PeerTable>,
    /// Devices with a queue.
    pub queues: BTreeSet<Device>,
    /// Hooks and their slots.
    pub hooks: BTreeMap<Point, u32>,
    /// Written rules.
    pub rules: BTreeSet<u32>,
    /// What slots name.
    pub arms: BTreeMap<u32, Arms>,
    /// Ids of strains that act.
    pub strains: BTreeSet<String>,
    /// Ids of exchanges that act.
    pub exchanges: BTreeSet<String>,
}

/// A modelled kernel.
#[derive(Clone, Debug, Default)]
pub struct Fake {
    /// What it holds.
    pub state: State,
    /// Actions done so far, failures included.
    pub log: Vec<&'static str>,
    /// Fails the action with this place in `log`.
    pub fail_at: Option<usize>,
    /// Devices whose namespace has vanished by name. What is there stays there.
    pub vanished: BTreeSet<Device>,
    /// Packets in every queue.
    pub held: Cell<u64>,
    /// Nanoseconds of its clock.
    pub clock: Cell<u64>,
}

fn refuse(why: &str) -> EngineError {
    EngineError::os(why, io::Error::from_raw_os_error(libc::EINVAL))
}

impl Kernel for Fake {
    fn perform(&mut self, action: &Action) -> Result<(), EngineError> {
        self.log.push(action.name());
        if self.fail_at == Some(self.log.len() - 1) {
            return Err(refuse("told to fail"));
        }
        let state = &mut self.state;
        let done = match action {
            Action::ChangePeers { set, before, after } => {
                let now = state.sets.remove(set).unwrap_or_default();
                if *after != PeerTable::default() {
                    state.sets.insert(*set, after.clone());
                }
                now == *before
            }
            Action::AddQueue { device } => state.queues.insert(device.clone()),
            Action::RemoveQueue { device } => state.queues.remove(device),
            Action::AddHook { point, slot } => state.hooks.insert(point.clone(), *slot).is_none(),
            Action::RemoveHook { point, slot } => {
                state.hooks.remove(point) == Some(*slot) && !state.arms.contains_key(slot)
            }
            Action::WriteRule { index, .. } => state.rules.insert(*index),
            Action::ClearRule { index, .. } => {
                let named = state.arms.values().any(|arms| arms.rules.contains(index));
                state.rules.remove(index) && !named
            }
            Action::Arm { point, slot, before, after } => {
                let now = state.arms.remove(slot).unwrap_or_default();
                if *after != Arms::default() {
                    state.arms.insert(*slot, after.clone());
                }
                now == *before
                    && state.hooks.get(point) == Some(slot)
                    && after.rules.iter().all(|index| state.rules.contains(index))
            }
            Action::StartLoad { strain } | Action::SetLimits { strain } => {
                state.strains.insert(strain.id.clone())
            }
            Action::EndLoad { strain } | Action::RestoreLimits { strain } => {
                state.strains.remove(&strain.id)
            }
            Action::BeginExchange { exchange } => state.exchanges.insert(exchange.id.clone()),
            Action::EndExchange { exchange } => state.exchanges.remove(&exchange.id),
        };
        if done { Ok(()) } else { Err(refuse("not as the action expects it")) }
    }

    fn beat(&mut self, _until_ns: u64) -> Result<(), EngineError> {
        Ok(())
    }

    fn counters(&self, _index: u32) -> Result<Counters, EngineError> {
        Ok(Counters::default())
    }

    fn path(&self, device: &Device) -> Path {
        if self.state.queues.contains(device) { Path::Fq } else { Path::Direct }
    }

    fn held(&self, _device: &Device) -> u64 {
        self.held.get()
    }

    fn vanished(&self, points: &BTreeSet<Point>) -> BTreeSet<Point> {
        let is_gone = |point: &&Point| match point {
            Point::Device { device, .. } | Point::Member { device, .. } => {
                self.vanished.contains(device)
            }
            Point::Cgroup { .. } => false,
        };
        let is_there = |point: &&Point| self.state.hooks.contains_key(*point);
        points.iter().filter(|point| is_gone(point) || !is_there(point)).cloned().collect()
    }

    fn tend(&mut self) {}

    fn strain(&self, id: &str) -> StrainReport {
        StrainReport { is_alive: self.state.strains.contains(id), ..StrainReport::of(id) }
    }

    fn exchange(&self, id: &str) -> ExchangeReport {
        let is_alive = self.state.exchanges.contains(id);
        ExchangeReport { id: id.to_owned(), is_alive, ..ExchangeReport::default() }
    }

    fn now(&self) -> u64 {
        self.clock.get()
    }
}
