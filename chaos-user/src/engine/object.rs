//! The loaded BPF object: its maps with their types, and its main programs behind their jump
//! tables.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, ProgramArray};
use aya::programs::{CgroupSkb, Program, SchedClassifier};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader};
use chaos_abi::Shared;
use chaos_abi::counter::{Clocks, Counters, Memory};
use chaos_abi::limit::FEW;
use chaos_abi::peer::{Few, Key4, Key6, MANY, Ports, SET_BITS, Set};
use chaos_abi::rule::{Rule, flag};
use chaos_abi::target::{CgroupKey, Slot};

use super::bpf::{self, Kind};
use super::error::EngineError;
use super::lists::Lists;
use super::wire;
use crate::plan::peers::{self, PeerTable};

static BYTES: &[u8] = aya::include_bytes_aligned!(env!("KFAULT_BPF_OBJECT"));

/// An ABI value as aya wants it.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Pod<T>(pub(super) T);

// SAFETY: `Shared` promises what aya's marker demands, and the wrapper is transparent.
unsafe impl<T: Shared> aya::Pod for Pod<T> {}

/// Main programs: name, jump table, and what reaches them (`None`: another program).
pub const PROGRAMS: [(&str, &str, Option<Kind>); 8] = [
    ("tc_egress", "TO_TC_EGRESS", Some(Kind::TcEgress)),
    ("tc_ingress", "TO_TC_INGRESS", Some(Kind::TcIngress)),
    ("tc_refuse_egress", "TO_TC_REFUSE_EGRESS", None),
    ("tc_refuse_ingress", "TO_TC_REFUSE_INGRESS", None),
    ("tc_dns", "TO_TC_DNS", None),
    ("line_return", "TO_LINE_RETURN", None),
    ("cgroup_egress", "TO_CGROUP_EGRESS", Some(Kind::CgroupEgress)),
    ("cgroup_ingress", "TO_CGROUP_INGRESS", Some(Kind::CgroupIngress)),
];

/// One verified program.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ProgramReport {
    /// Its name.
    pub name: String,
    /// Instructions that the verifier walked, where the kernel tells (≥ 5.16).
    pub verified_instructions: Option<u32>,
    /// Whether an entry program was attached to a scratch device or cgroup and reached it.
    pub attached: bool,
    /// Anything worth saying.
    pub note: String,
}

/// The loaded object.
pub struct Object {
    ebpf: Ebpf,
    jumps: BTreeMap<&'static str, OwnedFd>,
    pub(super) lists: Lists,
}

pub(super) fn map_error(name: &'static str) -> impl FnOnce(MapError) -> EngineError {
    move |error| match error {
        MapError::SyscallError(error) if full(&error.io_error) => EngineError::Unsupported {
            mechanism: name,
            reason: "the map is full".into(),
            way_out: "use fewer targets or prefixes at a time",
        },
        error => EngineError::bpf(format!("use the map {name}"), error),
    }
}

fn full(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC))
}

impl Object {
    /// Makes every map; a program is loaded when it is first needed. `limits` shrinks maps by
    /// name, for tests of full maps.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn load(limits: &[(String, u32)]) -> Result<Self, EngineError> {
        bpf::lift_memory_lock();
        bpf::lift_file_limit();
        let mut loader = EbpfLoader::new();
        // Nothing in the object needs the kernel's types, which would cost memory.
        loader.btf(None);
        for (name, size) in limits {
            loader.map_max_entries(name, *size);
        }
        let ebpf = loader.load(BYTES).map_err(|e| EngineError::bpf("load the BPF object", e))?;
        Ok(Self { ebpf, jumps: BTreeMap::new(), lists: Lists::default() })
    }

    /// Loads every program, needed or not.
    ///
    /// # Errors
    /// With the verifier's last words when a program is refused.
    pub fn load_all(&mut self) -> Result<(), EngineError> {
        PROGRAMS.iter().try_for_each(|(_, table, _)| self.need(table).map(drop))
    }

    /// The jump table `table` with its program in it.
    fn need(&mut self, table: &'static str) -> Result<BorrowedFd<'_>, EngineError> {
        if !self.jumps.contains_key(table) {
            let fd = self.load_behind(table)?;
            self.jumps.insert(table, fd);
        }
        let missing = || EngineError::bpf(format!("find {table}"), "missing from the object");
        self.jumps.get(table).map(AsFd::as_fd).ok_or_else(missing)
    }

    fn load_behind(&mut self, table: &'static str) -> Result<OwnedFd, EngineError> {
        let missing = || EngineError::bpf(format!("find {table}"), "missing from the object");
        let (name, _, _) =
            *PROGRAMS.iter().find(|(_, other, _)| *other == table).ok_or_else(missing)?;
        let failed = |e| EngineError::bpf(format!("load the program {name}"), e);
        let program = self.ebpf.program_mut(name).ok_or_else(missing)?;
        let fd = match program {
            Program::SchedClassifier(program) => {
                SchedClassifier::load(program).map_err(failed)?;
                program.fd().map_err(failed)?.try_clone()
            }
            Program::CgroupSkb(program) => {
                CgroupSkb::load(program).map_err(failed)?;
                program.fd().map_err(failed)?.try_clone()
            }
            _ => return Err(missing()),
        }
        .map_err(|e| EngineError::os(format!("keep the program {name}"), e))?;
        let map = self.ebpf.map_mut(table).ok_or_else(missing)?;
        let mut array = ProgramArray::try_from(map).map_err(map_error("programs"))?;
        array.set(0, &fd, 0).map_err(map_error("programs"))?;
        let Some(Map::ProgramArray(data)) = self.ebpf.map(table) else { return Err(missing()) };
        data.fd()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|e| EngineError::os(format!("keep the map {table}"), e))
    }

    /// Loads the entry program of one hook point.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn entry(&mut self, kind: Kind, slot: u32) -> Result<OwnedFd, EngineError> {
        let table = match kind {
            Kind::TcEgress => "TO_TC_EGRESS",
            Kind::TcIngress => "TO_TC_INGRESS",
            Kind::CgroupEgress => "TO_CGROUP_EGRESS",
            Kind::CgroupIngress => "TO_CGROUP_INGRESS",
            // Another object's.
            Kind::HttpIngress | Kind::HttpEgress => {
                return Err(EngineError::bpf("find the table of HTTP faults", "not here"));
            }
        };
        self.entry_into(kind, slot, table)
    }

    /// Loads the entry program of a delay line's way back.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn line_entry(&mut self, slot: u32) -> Result<OwnedFd, EngineError> {
        self.entry_into(Kind::TcIngress, slot, "TO_LINE_RETURN")
    }

    fn entry_into(
        &mut self,
        kind: Kind,
        slot: u32,
        table: &'static str,
    ) -> Result<OwnedFd, EngineError> {
        bpf::load_entry(kind, slot, self.need(table)?)
            .map_err(|e| EngineError::os("load an entry program", e))
    }

    fn map(&self, name: &'static str) -> Result<&Map, EngineError> {
        self.ebpf
            .map(name)
            .ok_or_else(|| EngineError::bpf(format!("find the map {name}"), "missing"))
    }

    pub(super) fn map_mut(&mut self, name: &'static str) -> Result<&mut Map, EngineError> {
        self.ebpf
            .map_mut(name)
            .ok_or_else(|| EngineError::bpf(format!("find the map {name}"), "missing"))
    }

    pub(super) fn set<T: Shared>(
        &mut self,
        name: &'static str,
        index: u32,
        value: T,
    ) -> Result<(), EngineError> {
        let mut map: Array<&mut MapData, Pod<T>> =
            Array::try_from(self.map_mut(name)?).map_err(map_error(name))?;
        map.set(index, Pod(value), 0).map_err(map_error(name))
    }

    /// Writes the engine's heartbeat cell.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_heartbeat(&mut self, until_ns: u64) -> Result<(), EngineError> {
        self.set("HEARTBEAT", 0, until_ns)
    }

    /// Writes a slot.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_slot(&mut self, index: u32, slot: Slot) -> Result<(), EngineError> {
        self.set("SLOTS", index, slot)
    }

    /// Writes a rule. With `fresh`, what stood there counted and remembered is forgotten first.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_rule(&mut self, index: u32, rule: Rule, fresh: bool) -> Result<(), EngineError> {
        if fresh {
            self.zero::<Counters>("COUNTERS", index)?;
            self.zero::<Memory>("MEMORY", index)?;
            self.set("CLOCKS", index, Clocks::default())?;
        }
        if rule.flags & flag::REJECT != 0 {
            for table in ["TO_TC_REFUSE_EGRESS", "TO_TC_REFUSE_INGRESS"] {
                self.need(table)?;
            }
        }
        if rule.flags & flag::ANSWER != 0 {
            self.need("TO_TC_DNS")?;
        }
        self.set("RULES", index, rule)
    }

    fn zero<T: Shared + Default>(
        &mut self,
        name: &'static str,
        index: u32,
    ) -> Result<(), EngineError> {
        let mut map: PerCpuArray<&mut MapData, Pod<T>> =
            PerCpuArray::try_from(self.map_mut(name)?).map_err(map_error(name))?;
        let cpus = nr_cpus().map_err(|(what, e)| EngineError::os(what, e))?;
        let values = PerCpuValues::try_from(vec![Pod(T::default()); cpus])
            .map_err(|e| EngineError::os("count CPUs", e))?;
        map.set(index, values, 0).map_err(map_error(name))
    }

    /// Counters of a rule, summed over CPUs.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn counters(&self, index: u32) -> Result<Counters, EngineError> {
        let map: PerCpuArray<&MapData, Pod<Counters>> =
            PerCpuArray::try_from(self.map("COUNTERS")?).map_err(map_error("COUNTERS"))?;
        let values = map.get(&index, 0).map_err(map_error("COUNTERS"))?;
        Ok(values.iter().fold(Counters::default(), |sum, Pod(cpu)| add(sum, *cpu)))
    }

    /// Names a cgroup as a member of a device, or takes its name away.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_member(&mut self, key: CgroupKey, slot: Option<u32>) -> Result<(), EngineError> {
        let mut map: HashMap<&mut MapData, Pod<CgroupKey>, Pod<u32>> =
            HashMap::try_from(self.map_mut("CGROUPS")?).map_err(map_error("CGROUPS"))?;
        match slot {
            Some(slot) => map.insert(Pod(key), Pod(slot), 0),
            None => map.remove(&Pod(key)),
        }
        .map_err(map_error("CGROUPS"))
    }

    /// Turns what a peer set holds from `before` into `after`. New prefixes come first, so that
    /// no peer is left out on the way.
    ///
    /// # Errors
    /// "the map is full"; what had been added is taken out again then.
    pub fn change_peers(
        &mut self,
        set: u32,
        before: &PeerTable,
        after: &PeerTable,
    ) -> Result<(), EngineError> {
        let none = PeerTable::default();
        let in_tries = |table| wire::few(table).is_none();
        let old = if in_tries(before) { before } else { &none };
        let new = if in_tries(after) { after } else { &none };
        if let Err(error) = self.merge_peers(set, old, new) {
            if let Err(left) = self.merge_peers(set, new, old) {
                tracing::error!(%left, "peers of a failed change stay behind");
            }
            self.prune_peers(set, new, old);
            return Err(error);
        }
        let value = wire::few(after).unwrap_or(Set { count: MANY, few: [Few::default(); FEW] });
        self.set("SETS", set, value)?;
        self.prune_peers(set, old, new);
        Ok(())
    }

    fn merge_peers(
        &mut self,
        set: u32,
        before: &PeerTable,
        after: &PeerTable,
    ) -> Result<(), EngineError> {
        let mut v4: LpmTrie<&mut MapData, Pod<Key4>, Pod<Ports>> =
            LpmTrie::try_from(self.map_mut("PEERS4")?).map_err(map_error("PEERS4"))?;
        for (net, ports) in after.v4.iter().filter(|(n, p)| before.v4.get(n) != Some(p)) {
            v4.insert(&key4(set, *net), Pod(wire_ports(ports)), 0).map_err(map_error("PEERS4"))?;
        }
        let mut v6: LpmTrie<&mut MapData, Pod<Key6>, Pod<Ports>> =
            LpmTrie::try_from(self.map_mut("PEERS6")?).map_err(map_error("PEERS6"))?;
        for (net, ports) in after.v6.iter().filter(|(n, p)| before.v6.get(n) != Some(p)) {
            v6.insert(&key6(set, *net), Pod(wire_ports(ports)), 0).map_err(map_error("PEERS6"))?;
        }
        Ok(())
    }

    /// Removes what is in `before` and not in `after`. A prefix that is not there is removed.
    fn prune_peers(&mut self, set: u32, before: &PeerTable, after: &PeerTable) {
        if let Ok(map) = self.map_mut("PEERS4")
            && let Ok(mut v4) = LpmTrie::<&mut MapData, Pod<Key4>, Pod<Ports>>::try_from(map)
        {
            for net in before.v4.keys().filter(|n| !after.v4.contains_key(n)) {
                let _ = v4.remove(&key4(set, *net));
            }
        }
        if let Ok(map) = self.map_mut("PEERS6")
            && let Ok(mut v6) = LpmTrie::<&mut MapData, Pod<Key6>, Pod<Ports>>::try_from(map)
        {
            for net in before.v6.keys().filter(|n| !after.v6.contains_key(n)) {
                let _ = v6.remove(&key6(set, *net));
            }
        }
    }

    /// Name and verified instructions of every program.
    #[must_use]
    pub fn programs(&self) -> Vec<ProgramReport> {
        PROGRAMS
            .iter()
            .map(|(name, _, _)| {
                let info = match self.ebpf.program(name) {
                    Some(Program::SchedClassifier(p)) => p.info().ok(),
                    Some(Program::CgroupSkb(p)) => p.info().ok(),
                    _ => None,
                };
                ProgramReport {
                    name: (*name).to_owned(),
                    verified_instructions: info.and_then(|i| i.verified_instruction_count()),
                    attached: false,
                    note: String::new(),
                }
            })
            .collect()
    }
}

fn key4(set: u32, net: ipnet::Ipv4Net) -> Key<Pod<Key4>> {
    let data = Key4 { set: set.to_be(), address: u32::from_ne_bytes(net.network().octets()) };
    Key::new(SET_BITS + u32::from(net.prefix_len()), Pod(data))
}

fn key6(set: u32, net: ipnet::Ipv6Net) -> Key<Pod<Key6>> {
    let o = net.network().octets();
    let word = |at: usize| u32::from_ne_bytes([o[at], o[at + 1], o[at + 2], o[at + 3]]);
    let data = Key6 { set: set.to_be(), address: [word(0), word(4), word(8), word(12)] };
    Key::new(SET_BITS + u32::from(net.prefix_len()), Pod(data))
}

fn wire_ports(ports: &peers::Ports) -> Ports {
    let mut wire = Ports { any: u32::from(ports.any), ..Ports::default() };
    for (place, port) in wire.ports.iter_mut().zip(&ports.ports) {
        *place = *port;
        wire.count += 1;
    }
    wire
}

/// Destructured, so that a counter that is added to the ABI must be added here.
fn add(a: Counters, b: Counters) -> Counters {
    let Counters {
        matched,
        injected,
        matched_wire,
        injected_wire,
        bytes,
        refused,
        lost,
        corrupted,
        duplicated,
        delayed,
        reordered,
        shaped,
        overlimit,
        answered,
        unreadable,
    } = b;
    Counters {
        matched: a.matched + matched,
        injected: a.injected + injected,
        matched_wire: a.matched_wire + matched_wire,
        injected_wire: a.injected_wire + injected_wire,
        bytes: a.bytes + bytes,
        refused: a.refused + refused,
        lost: a.lost + lost,
        corrupted: a.corrupted + corrupted,
        duplicated: a.duplicated + duplicated,
        delayed: a.delayed + delayed,
        reordered: a.reordered + reordered,
        shaped: a.shaped + shaped,
        overlimit: a.overlimit + overlimit,
        answered: a.answered + answered,
        unreadable: a.unreadable + unreadable,
    }
}
