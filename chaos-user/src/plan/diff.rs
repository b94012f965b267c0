//! Plan × what is installed → actions, each with its undo.
//!
//! Pure: the same inputs give the same actions in the same order, and a second diff is empty.

use std::collections::{BTreeMap, BTreeSet};

use chaos_abi::limit;
use serde::Serialize;

use super::peers::PeerTable;
use super::{Cgroup, Device, Direction, Partition, Peers, Plan, Rule};

/// A place in the kernel that carries rules. Ordered by how a packet meets them is not needed:
/// each packet meets one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Point {
    /// Everything through a device.
    Device {
        /// The device.
        device: Device,
        /// Which way.
        direction: Direction,
    },
    /// What leaves through a device from the sockets of one cgroup. Rides on the hook of
    /// [`Point::Device`].
    Member {
        /// The device.
        device: Device,
        /// The cgroup.
        cgroup: Cgroup,
    },
    /// The sockets of a cgroup, before any device (the sender of a refused packet gets EPERM).
    Cgroup {
        /// The cgroup.
        cgroup: Cgroup,
        /// Which way.
        direction: Direction,
    },
}

/// What a point is armed with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Arms {
    /// Indexes of rules, in order.
    pub rules: Vec<u32>,
    /// Some rule delays: packets must leave their sockets behind.
    pub orphan: bool,
    /// Levels of the cgroups that are members of this device, as bits.
    pub cgroup_levels: u32,
}

/// One effect on the kernel. Named, comparable, and each knows what undoes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Action {
    /// Make the peer set `set` hold `after` instead of `before`.
    ChangePeers {
        /// Number of the set.
        set: u32,
        /// What it holds.
        before: PeerTable,
        /// What it shall hold.
        after: PeerTable,
    },
    /// Give a device a queue that keeps departure times.
    AddQueue {
        /// The device.
        device: Device,
    },
    /// Take that queue away again.
    RemoveQueue {
        /// The device.
        device: Device,
    },
    /// Attach a program, or name a member of a device's hook.
    AddHook {
        /// Where.
        point: Point,
        /// Its slot.
        slot: u32,
    },
    /// Detach it.
    RemoveHook {
        /// Where.
        point: Point,
        /// Its slot.
        slot: u32,
    },
    /// Write a rule and clear its counters. It acts as soon as a slot names it.
    WriteRule {
        /// Its index.
        index: u32,
        /// Its peer set.
        set: u32,
        /// The rule.
        rule: Box<Rule>,
    },
    /// Clear a rule.
    ClearRule {
        /// Its index.
        index: u32,
        /// Its peer set.
        set: u32,
        /// The rule that stood there.
        rule: Box<Rule>,
    },
    /// Let a slot name other rules: the moment at which faults begin and end.
    Arm {
        /// Where.
        point: Point,
        /// Its slot.
        slot: u32,
        /// What it names.
        before: Arms,
        /// What it shall name.
        after: Arms,
    },
}

impl Action {
    /// The action's name: a fault point of the crash tests.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::ChangePeers { .. } => "change-peers",
            Self::AddQueue { .. } => "add-queue",
            Self::RemoveQueue { .. } => "remove-queue",
            Self::AddHook { .. } => "add-hook",
            Self::RemoveHook { .. } => "remove-hook",
            Self::WriteRule { .. } => "write-rule",
            Self::ClearRule { .. } => "clear-rule",
            Self::Arm { .. } => "arm",
        }
    }

    /// Every name that [`Action::name`] can return.
    pub const NAMES: [&'static str; 8] = [
        "change-peers",
        "add-queue",
        "remove-queue",
        "add-hook",
        "remove-hook",
        "write-rule",
        "clear-rule",
        "arm",
    ];

    /// The action that takes this one back.
    #[must_use]
    pub fn undo(&self) -> Self {
        match self.clone() {
            Self::ChangePeers { set, before, after } => {
                Self::ChangePeers { set, before: after, after: before }
            }
            Self::AddQueue { device } => Self::RemoveQueue { device },
            Self::RemoveQueue { device } => Self::AddQueue { device },
            Self::AddHook { point, slot } => Self::RemoveHook { point, slot },
            Self::RemoveHook { point, slot } => Self::AddHook { point, slot },
            Self::WriteRule { index, set, rule } => Self::ClearRule { index, set, rule },
            Self::ClearRule { index, set, rule } => Self::WriteRule { index, set, rule },
            Self::Arm { point, slot, before, after } => {
                Self::Arm { point, slot, before: after, after: before }
            }
        }
    }
}

/// What is in the kernel, as far as this engine put it there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Installed {
    /// Rule id → index, peer set and the rule itself.
    pub rules: BTreeMap<String, (u32, u32, Rule)>,
    /// Peers → number of the set and what it holds.
    pub sets: BTreeMap<Peers, (u32, PeerTable)>,
    /// Point → slot and what it is armed with.
    pub points: BTreeMap<Point, (u32, Arms)>,
    /// Devices with a queue or delay line of ours.
    pub queues: BTreeSet<Device>,
}

/// A plan that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiffError {
    /// Too much of something.
    #[error("{what}: the plan needs {needed}, this version holds {limit}; split the experiment")]
    Limit {
        /// Of what.
        what: String,
        /// How much.
        needed: usize,
        /// How much there may be.
        limit: usize,
    },
}

/// Points at which a rule acts: one, or two where a cgroup's traffic shares a device.
fn points(rule: &Rule) -> Vec<Point> {
    let hook = &rule.hook;
    let device = hook.device.clone();
    let direction = hook.direction;
    let Some(cgroup) = hook.cgroup.clone() else {
        return vec![Point::Device { device, direction }];
    };
    let refused_silently = rule.effects.partition == Some(Partition::Drop);
    if direction == Direction::Ingress || refused_silently {
        return vec![Point::Cgroup { cgroup, direction }];
    }
    vec![Point::Device { device: device.clone(), direction }, Point::Member { device, cgroup }]
}

/// The point that only this rule and its like act at: a cgroup's own, not that of the device that
/// it shares with others.
#[must_use]
pub fn own_point(rule: &Rule) -> Option<Point> {
    points(rule).pop()
}

/// The rules of a plan by where they act, each list in the plan's order: a thousand targets are
/// armed without looking at every rule for each of them.
struct Placed<'a> {
    by_device: BTreeMap<&'a Device, Vec<&'a Rule>>,
    by_cgroup: BTreeMap<&'a Cgroup, Vec<&'a Rule>>,
}

impl<'a> Placed<'a> {
    fn new(plan: &'a Plan) -> Self {
        let mut placed = Self { by_device: BTreeMap::new(), by_cgroup: BTreeMap::new() };
        for rule in &plan.rules {
            placed.by_device.entry(&rule.hook.device).or_default().push(rule);
            if let Some(cgroup) = &rule.hook.cgroup {
                placed.by_cgroup.entry(cgroup).or_default().push(rule);
            }
        }
        placed
    }

    /// Those that may act at a point.
    fn near(&self, point: &Point) -> &[&'a Rule] {
        match point {
            Point::Device { device, .. } | Point::Member { device, .. } => {
                self.by_device.get(device)
            }
            Point::Cgroup { cgroup, .. } => self.by_cgroup.get(cgroup),
        }
        .map_or(&[], Vec::as_slice)
    }
}

/// Rules that act at `point`, in the plan's order.
fn rules_at<'a>(placed: &Placed<'a>, point: &Point) -> Vec<&'a Rule> {
    placed
        .near(point)
        .iter()
        .copied()
        .filter(|rule| match point {
            // A member's slot replaces the device's for its packets, so it holds the device's
            // rules too, and those of targeted ancestors.
            Point::Member { device, cgroup } => {
                points(rule).iter().any(|p| match p {
                    Point::Member { device: d, cgroup: c } => d == device && c.holds(cgroup),
                    _ => false,
                }) || (rule.hook.cgroup.is_none()
                    && rule.hook.device == *device
                    && rule.hook.direction == Direction::Egress)
            }
            Point::Device { device, direction } => {
                rule.hook.cgroup.is_none()
                    && rule.hook.device == *device
                    && rule.hook.direction == *direction
            }
            Point::Cgroup { .. } => points(rule).contains(point),
        })
        .collect()
}

impl Cgroup {
    /// True for the cgroup itself and everything below it.
    #[must_use]
    pub fn holds(&self, other: &Self) -> bool {
        self.path == "/"
            || other.path == self.path
            || other.path.strip_prefix(&self.path).is_some_and(|rest| rest.starts_with('/'))
    }
}

/// Smallest numbers from `first` on that are not taken.
struct Numbers {
    taken: BTreeSet<u32>,
    next: u32,
}

impl Numbers {
    fn new(taken: impl IntoIterator<Item = u32>, first: u32) -> Self {
        Self { taken: taken.into_iter().collect(), next: first }
    }

    fn take(&mut self) -> u32 {
        while self.taken.contains(&self.next) {
            self.next += 1;
        }
        self.next += 1;
        self.next - 1
    }
}

fn fits(what: &str, needed: usize, limit: usize) -> Result<(), DiffError> {
    if needed > limit {
        return Err(DiffError::Limit { what: what.to_owned(), needed, limit });
    }
    Ok(())
}

/// The actions that make `plan` true, and what will be installed then.
///
/// `tables` holds the compiled peer set of every [`Peers`] of the plan that is not everyone.
/// Order: peers, queues, hooks, rules, arms; then what is no longer needed, in reverse. Nothing
/// acts before it is armed, and arming one point is one write.
///
/// # Errors
/// [`DiffError::Limit`] when the plan does not fit the kernel side.
pub fn diff(
    plan: &Plan,
    tables: &BTreeMap<Peers, PeerTable>,
    installed: &Installed,
) -> Result<(Vec<Action>, Installed), DiffError> {
    fits("rules", plan.rules.len(), limit::RULES as usize)?;
    let mut next = Installed::default();
    let mut actions = Vec::new();
    let mut clean = Vec::new();

    let mut numbers = Numbers::new(installed.sets.values().map(|s| s.0), 1);
    for (peers, table) in tables {
        let known = installed.sets.get(peers);
        let set = known.map_or_else(|| numbers.take(), |k| k.0);
        let before = known.map_or_else(PeerTable::default, |k| k.1.clone());
        if before != *table {
            actions.push(Action::ChangePeers { set, before, after: table.clone() });
        }
        next.sets.insert(peers.clone(), (set, table.clone()));
    }
    for family in [|t: &PeerTable| t.v4.len(), |t: &PeerTable| t.v6.len()] {
        let needed = next.sets.values().map(|(_, t)| family(t)).sum();
        fits("prefixes of one address family", needed, limit::PREFIXES as usize)?;
    }
    for (peers, (set, table)) in &installed.sets {
        if !next.sets.contains_key(peers) && *table != PeerTable::default() {
            let after = PeerTable::default();
            clean.push(Action::ChangePeers { set: *set, before: table.clone(), after });
        }
    }

    for rule in &plan.rules {
        if rule.effects.takes_time() && !rule.dry_run {
            next.queues.insert(rule.hook.device.clone());
        }
    }
    for device in next.queues.difference(&installed.queues) {
        actions.push(Action::AddQueue { device: device.clone() });
    }

    let wanted: BTreeSet<Point> = plan.rules.iter().flat_map(points).collect();
    fits("hook points", wanted.len(), limit::SLOTS as usize)?;
    let mut slots = Numbers::new(installed.points.values().map(|p| p.0), 0);
    let mut hooks = Vec::new();
    for point in &wanted {
        let slot = installed.points.get(point).map_or_else(
            || {
                let slot = slots.take();
                hooks.push(Action::AddHook { point: point.clone(), slot });
                slot
            },
            |p| p.0,
        );
        next.points.insert(point.clone(), (slot, Arms::default()));
    }
    actions.extend(hooks);

    let mut indexes = Numbers::new(installed.rules.values().map(|r| r.0), 0);
    for rule in &plan.rules {
        let set = if rule.peers.is_everyone() {
            chaos_abi::rule::EVERYONE
        } else {
            next.sets.get(&rule.peers).map_or(u32::MAX, |s| s.0)
        };
        match installed.rules.get(&rule.id) {
            Some((index, old_set, old)) if old == rule && *old_set == set => {
                next.rules.insert(rule.id.clone(), (*index, set, rule.clone()));
            }
            _ => {
                // A changed rule gets a new index: the old one acts until the slot is rearmed.
                let index = indexes.take();
                actions.push(Action::WriteRule { index, set, rule: Box::new(rule.clone()) });
                next.rules.insert(rule.id.clone(), (index, set, rule.clone()));
            }
        }
    }
    for (id, (index, set, rule)) in &installed.rules {
        if next.rules.get(id).map(|r| r.0) != Some(*index) {
            let rule = Box::new(rule.clone());
            clean.push(Action::ClearRule { index: *index, set: *set, rule });
        }
    }

    arm(plan, installed, &mut next, &mut actions)?;

    // Disarm before anything is taken away.
    let mut disarm = Vec::new();
    let mut unhook = Vec::new();
    for (point, (slot, arms)) in &installed.points {
        if next.points.contains_key(point) {
            continue;
        }
        if *arms != Arms::default() {
            let (before, after) = (arms.clone(), Arms::default());
            disarm.push(Action::Arm { point: point.clone(), slot: *slot, before, after });
        }
        unhook.push(Action::RemoveHook { point: point.clone(), slot: *slot });
    }
    // Members go before the device that carries them.
    unhook.reverse();
    actions.extend(disarm);
    actions.extend(clean.iter().filter(|a| matches!(a, Action::ClearRule { .. })).cloned());
    actions.extend(unhook);
    for device in installed.queues.difference(&next.queues) {
        actions.push(Action::RemoveQueue { device: device.clone() });
    }
    actions.extend(clean.into_iter().filter(|a| matches!(a, Action::ChangePeers { .. })));
    Ok((actions, next))
}

fn arm(
    plan: &Plan,
    installed: &Installed,
    next: &mut Installed,
    actions: &mut Vec<Action>,
) -> Result<(), DiffError> {
    let members: Vec<(Device, Cgroup)> = next
        .points
        .keys()
        .filter_map(|p| match p {
            Point::Member { device, cgroup } => Some((device.clone(), cgroup.clone())),
            _ => None,
        })
        .collect();
    let placed = Placed::new(plan);
    for (point, (slot, arms)) in &mut next.points {
        let here = rules_at(&placed, point);
        fits(&format!("rules at {}", point.describe()), here.len(), limit::RULES_PER_SLOT)?;
        arms.rules =
            here.iter().filter_map(|r| next.rules.get(&r.id).map(|known| known.0)).collect();
        arms.orphan = here.iter().any(|r| r.effects.delay.is_some());
        if let Point::Device { device, direction: Direction::Egress } = point {
            arms.cgroup_levels = members
                .iter()
                .filter(|(d, _)| d == device)
                .fold(0, |bits, (_, cgroup)| bits | 1 << cgroup.level);
        }
        let before =
            installed.points.get(point).map_or_else(Arms::default, |known| known.1.clone());
        if before != *arms {
            let (point, after) = (point.clone(), arms.clone());
            actions.push(Action::Arm { point, slot: *slot, before, after });
        }
    }
    Ok(())
}

impl Point {
    /// The point in words.
    #[must_use]
    pub fn describe(&self) -> String {
        let way = |d: &Direction| match d {
            Direction::Egress => "egress",
            Direction::Ingress => "ingress",
        };
        match self {
            Self::Device { device, direction } => {
                format!("{} of {} in {}", way(direction), device.name, device.netns)
            }
            Self::Member { device, cgroup } => {
                format!("egress of cgroup {} through {}", cgroup.path, device.name)
            }
            Self::Cgroup { cgroup, direction } => {
                format!("{} of cgroup {}", way(direction), cgroup.path)
            }
        }
    }
}
