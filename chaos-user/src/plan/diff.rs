//! Plan × what is installed → actions, each with its undo.
//!
//! Pure: the same inputs give the same actions in the same order, and a second diff is empty.

use std::collections::{BTreeMap, BTreeSet};

use chaos_abi::limit;

use super::action::{Action, Arms, Point};
use super::exchange::Exchange;
use super::names::Names;
use super::peers::PeerTable;
use super::strain::{Grip, Strain};
use super::{Cgroup, Device, Direction, Partition, Peers, Plan, Rule};

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
    /// Strains by id.
    pub strains: BTreeMap<String, Strain>,
    /// Exchanges by id.
    pub exchanges: BTreeMap<String, Exchange>,
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
    /// One limit of one cgroup cannot have two values.
    #[error(
        "{first} and {second} both set {limit} of cgroup {cgroup}; end one of them, or let them follow each other"
    )]
    Conflict {
        /// The limit's field.
        limit: &'static str,
        /// The cgroup's path.
        cgroup: String,
        /// An experiment.
        first: String,
        /// The other.
        second: String,
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
    // Rules with the same names share one list.
    let lists: BTreeSet<&Names> =
        plan.rules.iter().filter_map(|rule| Some(&rule.effects.answer.as_ref()?.names)).collect();
    let wild = |names: &Names| names.patterns().filter(|pattern| pattern.is_wild()).count();
    let wilds: usize = lists.iter().map(|names| wild(names)).sum();
    let all: usize = lists.iter().map(|names| names.len()).sum();
    fits("patterns of names with \"?\"", wilds, limit::WILDS as usize)?;
    fits("other patterns of names", all - wilds, limit::NAMES as usize)?;
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
    strain(plan, installed, &mut next, &mut actions)?;
    exchange(plan, installed, &mut next, &mut actions);

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

/// What has ended goes first: its successor may want the same limit.
fn strain(
    plan: &Plan,
    installed: &Installed,
    next: &mut Installed,
    actions: &mut Vec<Action>,
) -> Result<(), DiffError> {
    let mut held: BTreeMap<(&Cgroup, &'static str), &Strain> = BTreeMap::new();
    for strain in &plan.strains {
        let Grip::Limits(limits) = &strain.grip else { continue };
        for limit in limits.fields() {
            if let Some(other) = held.insert((&strain.place.cgroup, limit), strain) {
                return Err(DiffError::Conflict {
                    limit,
                    cgroup: strain.place.cgroup.path.clone(),
                    first: other.experiment.clone(),
                    second: strain.experiment.clone(),
                });
            }
        }
    }
    next.strains = plan.strains.iter().map(|one| (one.id.clone(), one.clone())).collect();
    let ended = only_in(&installed.strains, &next.strains);
    actions.extend(ended.map(|one| Action::begin(one).undo()));
    let begun = only_in(&next.strains, &installed.strains);
    actions.extend(begun.map(Action::begin));
    Ok(())
}

/// What has changed ends and begins anew: its counters are those of what it is now.
fn exchange(plan: &Plan, installed: &Installed, next: &mut Installed, actions: &mut Vec<Action>) {
    next.exchanges = plan.exchanges.iter().map(|one| (one.id.clone(), one.clone())).collect();
    let boxed = |one: &Exchange| Box::new(one.clone());
    let ended = only_in(&installed.exchanges, &next.exchanges);
    actions.extend(ended.map(|one| Action::EndExchange { exchange: boxed(one) }));
    let begun = only_in(&next.exchanges, &installed.exchanges);
    actions.extend(begun.map(|one| Action::BeginExchange { exchange: boxed(one) }));
}

/// Those of `these` that `others` has not, or has otherwise.
fn only_in<'a, T: PartialEq>(
    these: &'a BTreeMap<String, T>,
    others: &'a BTreeMap<String, T>,
) -> impl Iterator<Item = &'a T> {
    these.iter().filter(|(id, one)| others.get(*id) != Some(one)).map(|(_, one)| one)
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
        arms.orphan = here.iter().any(|r| r.effects.postpones());
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
