//! Every map and global. No other file declares one.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, PerCpuArray, ProgramArray};
use chaos_abi::counter::{Clocks, Counters, Memory};
use chaos_abi::dns::{Answer, NameKey, Wild};
use chaos_abi::limit;
use chaos_abi::limit::RULES_PER_SLOT;
use chaos_abi::peer::{Key4, Key6, Ports, Set};
use chaos_abi::rule::Rule;
use chaos_abi::target::{CgroupKey, Slot};

use crate::skb::Packet;

/// One cell: the engine is alive until then, nanoseconds of `CLOCK_MONOTONIC`.
#[map]
pub static HEARTBEAT: Array<u64> = Array::with_max_entries(1, 0);

/// Hook points.
#[map]
pub static SLOTS: Array<Slot> = Array::with_max_entries(limit::SLOTS, 0);

/// Rules.
#[map]
pub static RULES: Array<Rule> = Array::with_max_entries(limit::RULES, 0);

/// Targeted cgroups → the slot that holds their rules.
#[map]
pub static CGROUPS: HashMap<CgroupKey, u32> = HashMap::with_max_entries(limit::CGROUPS, 1);

/// Peer sets by number.
#[map]
pub static SETS: Array<Set> = Array::with_max_entries(limit::SETS, 0);

/// Large peer sets, IPv4. Flag 1 = BPF_F_NO_PREALLOC, which the kernel demands of tries.
#[map]
pub static PEERS4: LpmTrie<Key4, Ports> = LpmTrie::with_max_entries(limit::PREFIXES, 1);

/// Large peer sets, IPv6.
#[map]
pub static PEERS6: LpmTrie<Key6, Ports> = LpmTrie::with_max_entries(limit::PREFIXES, 1);

/// What each rule counted.
#[map]
pub static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(limit::RULES, 0);

/// What each rule remembers.
#[map]
pub static MEMORY: PerCpuArray<Memory> = PerCpuArray::with_max_entries(limit::RULES, 0);

/// When each rule's rates are free again.
#[map]
pub static CLOCKS: Array<Clocks> = Array::with_max_entries(limit::RULES, 0);

/// One packet's decision, between the pass that takes it and the passes that carry it out.
/// In a map and not on the stack: the verifier forgets map values, so that paths merge.
#[map]
pub static DECISION: PerCpuArray<Decision> = PerCpuArray::with_max_entries(1, 0);

/// Entry programs jump through these; index 0 is the main program. One array per program: a
/// program array is bound to the kind, and on newer kernels the attach type, of its first one.
#[map]
pub static TO_TC_EGRESS: ProgramArray = ProgramArray::with_max_entries(1, 0);
/// See [`TO_TC_EGRESS`].
#[map]
pub static TO_TC_INGRESS: ProgramArray = ProgramArray::with_max_entries(1, 0);
/// Where the egress program goes on with a packet that shall be refused with an answer: a program
/// of its own, for its stack and its verification.
#[map]
pub static TO_TC_REFUSE_EGRESS: ProgramArray = ProgramArray::with_max_entries(1, 0);
/// See [`TO_TC_REFUSE_EGRESS`].
#[map]
pub static TO_TC_REFUSE_INGRESS: ProgramArray = ProgramArray::with_max_entries(1, 0);
/// Where the egress program goes on with a packet that may be a DNS query to be answered, and
/// comes back from when it is none.
#[map]
pub static TO_TC_DNS: ProgramArray = ProgramArray::with_max_entries(1, 0);
/// See [`TO_TC_EGRESS`].
#[map]
pub static TO_LINE_RETURN: ProgramArray = ProgramArray::with_max_entries(1, 0);
/// See [`TO_TC_EGRESS`].
#[map]
pub static TO_CGROUP_EGRESS: ProgramArray = ProgramArray::with_max_entries(1, 0);
/// See [`TO_TC_EGRESS`].
#[map]
pub static TO_CGROUP_INGRESS: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// The packet of the decision.
#[map]
pub static PACKET: PerCpuArray<Packet> = PerCpuArray::with_max_entries(1, 0);

/// See [`DECISION`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Decision {
    /// The sender's own departure stamp.
    pub own_stamp: u64,
    /// Length, link-layer header included.
    pub bytes: u64,
    /// Packets on the wire that this one stands for.
    pub wire: u64,
    /// Now, nanoseconds; 0 until the first rule matched.
    pub now: u64,
    /// When the packet leaves.
    pub departure: u64,
    /// What the HTTP side has marked the packet as: `LATE` or `CUT` of
    /// [`chaos_abi::http`], or something else.
    pub mark: u32,
    /// Random bits for `bpf_set_hash`, 0 = leave the hash alone.
    pub spread: u32,
    /// Copies to add.
    pub copies: u32,
    /// 1: some rule holds the packet.
    pub held: u32,
    /// One of the `FATE_` constants.
    pub fate: u32,
    /// 1 while clones of this packet run through the hook again.
    pub armed: u32,
    /// [`FLIP`] and 31 random bits: a payload bit shall flip. 0 = no.
    pub flip: u32,
    /// How many of `ask` count.
    pub asks: u32,
    /// 1: the packet has been asked about and goes on with what was decided.
    pub resumed: u32,
    /// Indexes of the rules that answer, should it be a query for a name of theirs.
    pub ask: [u32; RULES_PER_SLOT],
}

/// The packet goes on.
pub const FATE_PASS: u32 = 0;
/// The packet is lost without anybody being told.
pub const FATE_LOST: u32 = 1;
/// The sender is answered.
pub const FATE_REJECT: u32 = 2;
/// The engine is gone: no rule acts.
pub const FATE_GONE: u32 = 3;
/// Marks [`Decision::flip`] as set.
pub const FLIP: u32 = 1 << 31;

/// Room to build an answer in; too large for a BPF stack beside everything else.
#[map]
pub static FRAME: PerCpuArray<Frame> = PerCpuArray::with_max_entries(1, 0);

/// See [`FRAME`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Frame {
    /// The answer, from its network header on.
    pub out: [u8; 96],
    /// The start of the packet that is answered, from its network header on.
    pub asked: [u8; 64],
}

/// How the rule of the same index answers.
#[map]
pub static ANSWERS: Array<Answer> = Array::with_max_entries(limit::RULES, 0);

/// Names and prefixes of all lists.
#[map]
pub static NAMES: LpmTrie<NameKey, u32> = LpmTrie::with_max_entries(limit::NAMES, 1);

/// Patterns with `?`, by `dns::wild_key`. Flag 1 = BPF_F_NO_PREALLOC: most lists have none.
#[map]
pub static WILDS: HashMap<u32, Wild> = HashMap::with_max_entries(limit::WILDS, 1);

/// The query that is being looked at.
#[map]
pub static QUERY: PerCpuArray<Query> = PerCpuArray::with_max_entries(1, 0);

/// See [`QUERY`]. In a map for its size, and because the verifier forgets map values.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Query {
    /// The message, as much of it as matters.
    pub raw: [u8; 512],
    /// The answer; longer than it gets, so that the verifier sees that nothing is behind it.
    pub body: [u8; 640],
    /// Bits for an address.
    pub random: [u64; 2],
    /// Where the name's last byte is in it, counted from its first, or [`NO_NAME`].
    pub end: u32,
    /// Bytes of the label that are still to come, while it is being read.
    pub left: u32,
    /// Bytes of header and question.
    pub length: u32,
    /// Type that is asked for, and its class.
    pub kind: u32,
    /// 1: it brings options (EDNS), which the answer has to have as well.
    pub options: u32,
    /// Length of the key that follows, in bits: as an LPM trie wants it.
    pub bits: u32,
    /// The name, under the list that is looked through.
    pub name: NameKey,
    /// How the rule answers that was found.
    pub answer: Answer,
}

// The words of the name are compared as words.
const _: () = assert!(core::mem::offset_of!(Query, name) % 8 == 0);

/// The name could not be read.
pub const NO_NAME: u32 = u32::MAX;
