//! Actions: the effects that plans come to, and the points at which rules act.

use serde::Serialize;

use super::exchange::Exchange;
use super::peers::PeerTable;
use super::strain::{Grip, Strain};
use super::{Cgroup, Device, Direction, Rule};

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
    /// Start workers in a target's cgroup.
    StartLoad {
        /// What they do there.
        strain: Box<Strain>,
    },
    /// End them.
    EndLoad {
        /// What they did.
        strain: Box<Strain>,
    },
    /// Set limits of a target's cgroup, and note down what was there.
    SetLimits {
        /// The limits.
        strain: Box<Strain>,
    },
    /// Put back what was there.
    RestoreLimits {
        /// The limits.
        strain: Box<Strain>,
    },
    /// Act on the HTTP messages of a target.
    BeginExchange {
        /// Which, and how.
        exchange: Box<Exchange>,
    },
    /// Leave them alone again.
    EndExchange {
        /// Which, and how.
        exchange: Box<Exchange>,
    },
}

impl Action {
    /// Lets a strain begin.
    #[must_use]
    pub fn begin(strain: &Strain) -> Self {
        let boxed = Box::new(strain.clone());
        match strain.grip {
            Grip::Load(_) => Self::StartLoad { strain: boxed },
            Grip::Limits(_) => Self::SetLimits { strain: boxed },
        }
    }

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
            Self::StartLoad { .. } => "start-load",
            Self::EndLoad { .. } => "end-load",
            Self::SetLimits { .. } => "set-limits",
            Self::RestoreLimits { .. } => "restore-limits",
            Self::BeginExchange { .. } => "begin-exchange",
            Self::EndExchange { .. } => "end-exchange",
        }
    }

    /// Every name that [`Action::name`] can return.
    pub const NAMES: [&'static str; 14] = [
        "change-peers",
        "add-queue",
        "remove-queue",
        "add-hook",
        "remove-hook",
        "write-rule",
        "clear-rule",
        "arm",
        "start-load",
        "end-load",
        "set-limits",
        "restore-limits",
        "begin-exchange",
        "end-exchange",
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
            Self::StartLoad { strain } => Self::EndLoad { strain },
            Self::EndLoad { strain } => Self::StartLoad { strain },
            Self::SetLimits { strain } => Self::RestoreLimits { strain },
            Self::RestoreLimits { strain } => Self::SetLimits { strain },
            Self::BeginExchange { exchange } => Self::EndExchange { exchange },
            Self::EndExchange { exchange } => Self::BeginExchange { exchange },
        }
    }
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
