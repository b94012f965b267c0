//! The real kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use chaos_abi::counter::Counters;
use chaos_abi::limit;
use chaos_abi::rule::Rule;
use chaos_abi::target::{CgroupKey, Slot, flag};

use super::bpf::{self, Kind};
use super::cgroup::{cgroup_mount, no_cgroup};
use super::device::{Attached, Open, Queue, present};
use super::error::EngineError;
use super::http::{ExchangeReport, Exchanges};
use super::kernel::{Kernel, Path};
use super::line::{Lines, monotonic_ns};
use super::object::Object;
use super::strain::{StrainReport, Strains};
use super::{journal, wire};
use crate::plan::action::{Action, Arms, Point};
use crate::plan::{Cgroup, Device, Direction};

/// One attached point.
enum Hook {
    Device { entry: OwnedFd, attached: Attached },
    Member,
    Cgroup { entry: OwnedFd, directory: PathBuf, _link: OwnedFd },
}

/// This host.
pub struct Host {
    pub(super) object: Object,
    devices: BTreeMap<Device, Open>,
    hooks: BTreeMap<Point, Hook>,
    lines: Option<Lines>,
    slots: BTreeMap<Point, u32>,
    line_slots: BTreeSet<u32>,
    strains: Strains,
    exchanges: Exchanges,
    /// How long rules act after a beat.
    lease_ns: u64,
    cgroup_mount: Option<PathBuf>,
    /// The hierarchy goes on above what we see of it: levels that we count are too small.
    is_hierarchy_cut: bool,
}

impl Host {
    /// Makes the object's maps; attaches nothing.
    ///
    /// # Errors
    /// See [`Object::load`].
    pub fn new(limits: &[(String, u32)]) -> Result<Self, EngineError> {
        Ok(Self {
            object: Object::load(limits)?,
            devices: BTreeMap::new(),
            hooks: BTreeMap::new(),
            lines: None,
            slots: BTreeMap::new(),
            line_slots: BTreeSet::new(),
            strains: Strains::default(),
            exchanges: Exchanges::default(),
            lease_ns: 0,
            cgroup_mount: cgroup_mount(),
            is_hierarchy_cut: is_in_cgroup_namespace(),
        })
    }

    fn device(&mut self, name: &Device) -> Result<&mut Open, EngineError> {
        if !self.devices.contains_key(name) {
            self.devices.insert(name.clone(), Open::new(name)?);
        }
        self.devices
            .get_mut(name)
            .ok_or_else(|| EngineError::Gone { what: format!("device {}", name.name) })
    }

    /// Closes a device that neither a hook nor a queue needs.
    fn release(&mut self, name: &Device) {
        let hooked = self.hooks.keys().any(|p| match p {
            Point::Device { device, .. } | Point::Member { device, .. } => device == name,
            Point::Cgroup { .. } => false,
        });
        let queued = self.devices.get(name).is_some_and(|open| !matches!(open.queue, Queue::None));
        if !hooked && !queued {
            self.devices.remove(name);
        }
    }

    fn add_hook(&mut self, point: &Point, slot: u32) -> Result<(), EngineError> {
        self.object.set_slot(slot, Slot::IDLE)?;
        let hook = match point {
            Point::Device { device, direction } => {
                let kind = match direction {
                    Direction::Egress => Kind::TcEgress,
                    Direction::Ingress => Kind::TcIngress,
                };
                let entry = self.object.entry(kind, slot)?;
                let open = self.device(device)?;
                let attached = open.attach(kind, &entry)?;
                Hook::Device { entry, attached }
            }
            Point::Member { device, cgroup } => {
                // Programs know cgroups by their inodes in v2.
                self.cgroup_directory(cgroup)?;
                let key = self.member(device, cgroup)?;
                self.object.set_member(key, Some(slot))?;
                Hook::Member
            }
            Point::Cgroup { cgroup, direction } => {
                let kind = match direction {
                    Direction::Egress => Kind::CgroupEgress,
                    Direction::Ingress => Kind::CgroupIngress,
                };
                let directory = self.cgroup_directory(cgroup)?;
                let handle = File::open(&directory)
                    .map_err(|_| EngineError::Gone { what: format!("cgroup {}", cgroup.path) })?;
                let entry = self.object.entry(kind, slot)?;
                let link = bpf::link_cgroup(kind, entry.as_fd(), handle.as_fd())
                    .map_err(|e| EngineError::os(format!("attach to cgroup {}", cgroup.path), e))?;
                Hook::Cgroup { entry, directory, _link: link }
            }
        };
        self.hooks.insert(point.clone(), hook);
        Ok(())
    }

    /// The key of a member: its device's egress slot and its id.
    fn member(&self, device: &Device, cgroup: &Cgroup) -> Result<CgroupKey, EngineError> {
        let point = Point::Device { device: device.clone(), direction: Direction::Egress };
        let slot = self.slots.get(&point).copied().ok_or_else(|| {
            EngineError::bpf(format!("name cgroup {}", cgroup.path), "its device has no hook")
        })?;
        Ok(CgroupKey { cgroup: cgroup.id, slot, zero: 0 })
    }

    fn cgroup_directory(&self, cgroup: &Cgroup) -> Result<PathBuf, EngineError> {
        let mount = self.cgroup_mount.as_ref().ok_or_else(no_cgroup)?;
        let directory = mount.join(cgroup.path.trim_start_matches('/'));
        match std::fs::metadata(&directory) {
            Ok(found) if found.st_ino() == cgroup.id => Ok(directory),
            _ => Err(EngineError::Gone { what: format!("cgroup {}", cgroup.path) }),
        }
    }

    fn remove_hook(&mut self, point: &Point, slot: u32) -> Result<(), EngineError> {
        let hook = self.hooks.remove(point);
        let result = match (point, hook) {
            (Point::Device { device, direction }, Some(Hook::Device { attached, .. })) => {
                self.remove_device_hook(device, *direction, attached)
            }
            (Point::Member { device, cgroup }, Some(Hook::Member)) => {
                let key = self.member(device, cgroup)?;
                self.object.set_member(key, None)
            }
            _ => Ok(()),
        };
        self.object.set_slot(slot, Slot::IDLE)?;
        if let Point::Device { device, .. } | Point::Member { device, .. } = point {
            self.release(device);
        }
        result
    }

    fn remove_device_hook(
        &mut self,
        device: &Device,
        direction: Direction,
        attached: Attached,
    ) -> Result<(), EngineError> {
        let other = Point::Device { device: device.clone(), direction: opposite(direction) };
        let made = matches!(attached, Attached::Filter { made_clsact: true });
        let open = self.device(device)?;
        let kind = match direction {
            Direction::Egress => Kind::TcEgress,
            Direction::Ingress => Kind::TcIngress,
        };
        let removed = open.detach(kind, attached)?;
        if removed {
            let (name, ifindex) = (open.name.clone(), open.ifindex);
            return journal::forget(&name, ifindex);
        }
        // The other direction still uses the clsact: it becomes the one that removes it.
        if made
            && let Some(Hook::Device { attached: Attached::Filter { made_clsact }, .. }) =
                self.hooks.get_mut(&other)
        {
            *made_clsact = true;
        }
        Ok(())
    }

    fn add_queue(&mut self, name: &Device) -> Result<(), EngineError> {
        let slot = (0..limit::SLOTS).rev().find(|slot| !self.line_slots.contains(slot));
        let slot = slot.unwrap_or(limit::SLOTS - 1);
        self.device(name)?;
        let Some(open) = self.devices.get_mut(name) else { return Ok(()) };
        let object = &mut self.object;
        let result = open.add_queue(&mut self.lines, slot, |slot| object.line_entry(slot));
        let (ifindex, is_line) = (open.ifindex, matches!(open.queue, Queue::Line { .. }));
        if result.is_err() {
            self.release(name);
            return result;
        }
        if is_line {
            self.line_slots.insert(slot);
            self.object.set_slot(slot, Slot { ifindex, ..Slot::IDLE })?;
        }
        Ok(())
    }

    fn remove_queue(&mut self, name: &Device) -> Result<(), EngineError> {
        let Some(open) = self.devices.get_mut(name) else { return Ok(()) };
        if let Queue::Line { slot, .. } = open.queue {
            self.line_slots.remove(&slot);
        }
        let result = open.remove_queue();
        self.release(name);
        result
    }

    fn arm(&mut self, point: &Point, slot: u32, arms: &Arms) -> Result<(), EngineError> {
        let mut wire = Slot {
            rule_count: u32::try_from(arms.rules.len()).unwrap_or(0),
            cgroup_levels: levels(arms.cgroup_levels, self.is_hierarchy_cut),
            flags: if arms.orphan { flag::ORPHAN } else { 0 },
            ..Slot::IDLE
        };
        for (place, rule) in wire.rules.iter_mut().zip(&arms.rules) {
            *place = *rule;
        }
        if let Point::Device { device, .. } | Point::Member { device, .. } = point
            && let Some(open) = self.devices.get(device)
        {
            wire.ifindex = open.ifindex;
            wire.link_header = open.link_header;
            if open.is_loopback {
                wire.flags |= flag::LOOPBACK;
            }
            if let Queue::Line { ifindex, .. } = open.queue {
                wire.line_ifindex = ifindex;
            }
        }
        self.object.set_slot(slot, wire)
    }

    /// When something ends that begins now, nanoseconds of `CLOCK_MONOTONIC`.
    fn deadline(&self, duration: Option<Duration>) -> u64 {
        duration.map_or(u64::MAX, |duration| {
            let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
            self.now().saturating_add(ns)
        })
    }

    /// The entry program of a point, for test runs.
    #[must_use]
    pub fn entry(&self, point: &Point) -> Option<&OwnedFd> {
        match self.hooks.get(point)? {
            Hook::Device { entry, .. } | Hook::Cgroup { entry, .. } => Some(entry),
            Hook::Member => None,
        }
    }
}

fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Egress => Direction::Ingress,
        Direction::Ingress => Direction::Egress,
    }
}

/// Whether we are in a namespace of cgroups that is not the machine's first, as in a node that is
/// itself a container. The number is that of `PROC_CGROUP_INIT_INO`, the same on every kernel.
fn is_in_cgroup_namespace() -> bool {
    const FIRST: u64 = 0xefff_fffb;
    std::fs::metadata("/proc/self/ns/cgroup").is_ok_and(|meta| meta.st_ino() != FIRST)
}

/// Levels of the hierarchy at which a cgroup may be a member: one bit each. The kernel counts from
/// the machine's root; where that is out of sight, what we count may be any deeper one.
fn levels(seen: u32, is_cut: bool) -> u32 {
    match is_cut && seen != 0 {
        true => u32::MAX << seen.trailing_zeros(),
        false => seen,
    }
}

impl Kernel for Host {
    fn perform(&mut self, action: &Action) -> Result<(), EngineError> {
        match action {
            Action::ChangePeers { set, before, after } => {
                self.object.change_peers(*set, before, after)
            }
            Action::AddQueue { device } => self.add_queue(device),
            Action::RemoveQueue { device } => self.remove_queue(device),
            Action::AddHook { point, slot } => {
                self.slots.insert(point.clone(), *slot);
                let result = self.add_hook(point, *slot);
                if result.is_err() {
                    self.slots.remove(point);
                    if let Point::Device { device, .. } = point {
                        self.release(device);
                    }
                }
                result
            }
            Action::RemoveHook { point, slot } => {
                let result = self.remove_hook(point, *slot);
                self.slots.remove(point);
                result
            }
            Action::WriteRule { index, set, rule } => {
                let deadline = self.deadline(rule.duration);
                if let Some(answer) = &rule.effects.answer {
                    self.object.set_answer(*index, answer)?;
                }
                let written = self.object.set_rule(*index, wire::rule(rule, *set, deadline), true);
                if written.is_err() {
                    self.object.clear_answer(*index);
                }
                written
            }
            Action::ClearRule { index, .. } => {
                let cleared = self.object.set_rule(*index, Rule::default(), false);
                self.object.clear_answer(*index);
                cleared
            }
            Action::Arm { point, slot, after, .. } => self.arm(point, *slot, after),
            Action::StartLoad { strain } | Action::SetLimits { strain } => {
                let Self { strains, object, lease_ns, .. } = self;
                strains.begin(strain, &mut || {
                    let until_ns = monotonic_ns().saturating_add(*lease_ns);
                    if let Err(error) = object.set_heartbeat(until_ns) {
                        tracing::warn!(%error, "the heartbeat was not renewed");
                    }
                })
            }
            Action::EndLoad { strain } | Action::RestoreLimits { strain } => {
                self.strains.end(strain)
            }
            Action::BeginExchange { exchange } => {
                let deadline = self.deadline(exchange.duration);
                self.exchanges.begin(exchange, deadline)
            }
            Action::EndExchange { exchange } => self.exchanges.end(&exchange.id),
        }
    }

    fn beat(&mut self, until_ns: u64) -> Result<(), EngineError> {
        self.lease_ns = until_ns.saturating_sub(monotonic_ns());
        self.exchanges.beat(until_ns)?;
        self.object.set_heartbeat(until_ns)
    }

    fn counters(&self, index: u32) -> Result<Counters, EngineError> {
        self.object.counters(index)
    }

    fn path(&self, device: &Device) -> Path {
        match self.devices.get(device).map(|open| &open.queue) {
            Some(Queue::Fq { .. }) => Path::Fq,
            Some(Queue::Line { .. }) => Path::Line,
            Some(Queue::None) | None => Path::Direct,
        }
    }

    fn held(&self, device: &Device) -> u64 {
        self.devices.get(device).map_or(0, Open::held)
    }

    fn vanished(&self, points: &BTreeSet<Point>) -> BTreeSet<Point> {
        let there = present(self.devices.values());
        let is_there = |point: &Point| match point {
            Point::Device { device, .. } => there.contains(device),
            Point::Member { device, cgroup } => {
                there.contains(device) && self.cgroup_directory(cgroup).is_ok()
            }
            Point::Cgroup { .. } => match self.hooks.get(point) {
                Some(Hook::Cgroup { directory, .. }) => directory.exists(),
                _ => false,
            },
        };
        points.iter().filter(|point| !is_there(point)).cloned().collect()
    }

    fn tend(&mut self) {
        self.strains.tend();
    }

    fn strain(&self, id: &str) -> StrainReport {
        self.strains.report(id)
    }

    fn exchange(&self, id: &str) -> ExchangeReport {
        self.exchanges.report(id)
    }

    fn now(&self) -> u64 {
        monotonic_ns()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_exact_unless_the_root_is_out_of_sight() {
        assert_eq!(levels(0b1010, false), 0b1010);
        assert_eq!(levels(0b1000, true), u32::MAX - 0b0111);
        assert_eq!(levels(0, true), 0, "no member, nothing to look up");
    }
}
