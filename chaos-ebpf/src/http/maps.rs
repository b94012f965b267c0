//! Every map of the object, and what is kept in them.

use core::ffi::c_void;

use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_kernel, bpf_sk_storage_get};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, ProgramArray, RingBuf, SockHash};
use chaos_abi::detour::{AskedPort, Handed, Home, Reader, Stream, TAKEN_ALL, place};
use chaos_abi::http::{HttpCounters, HttpRule, HttpSlot};
use chaos_abi::limit::{EXCHANGES, HTTP_PIPELINE, HTTP_SLOTS, HTTP_SOCKETS, HTTP_TAIL};

use crate::answer::Answer;
use crate::ask::Ask;

/// One cell: the engine is alive until then, nanoseconds of `CLOCK_MONOTONIC`.
#[map]
pub static HEARTBEAT: Array<u64> = Array::with_max_entries(1, 0);

/// Devices with exchanges.
#[map]
pub static HTTP_SLOTS_MAP: Array<HttpSlot> = Array::with_max_entries(HTTP_SLOTS, 0);

/// Exchanges. The last one stands for none.
#[map]
pub static EXCHANGES_MAP: Array<HttpRule> = Array::with_max_entries(EXCHANGES + 1, 0);

/// What responses get: length, headers, body.
#[map]
pub static TAILS: Array<Tail> = Array::with_max_entries(EXCHANGES + 1, 0);

/// What each exchange counted.
#[map]
pub static HTTP_COUNTERS: PerCpuArray<HttpCounters> =
    PerCpuArray::with_max_entries(EXCHANGES + 1, 0);

/// Responses whose old body is being swallowed: begun and done.
#[map]
pub static SWALLOWED: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);

/// Connections with a matched request, by their number.
#[map]
pub static SOCKETS: SockHash<u64> = SockHash::with_max_entries(HTTP_SOCKETS, 0);

/// One cell: where bytes are handed over to the agent, under number 0.
#[map]
pub static DETOUR: SockHash<u32> = SockHash::with_max_entries(1, 0);

/// One cell: the agent's process, whose own sends pass.
#[map]
pub static AGENT: Array<u32> = Array::with_max_entries(1, 0);

/// How many bytes of each connection were handed over to it.
#[btf_map]
pub static HANDED: SkStorage<Handed> = SkStorage::new();

/// How far the agent has brought each connection, written by it.
#[btf_map]
pub static HOMES: SkStorage<Home> = SkStorage::new();

/// Ports to which requests come that are edited.
#[map]
pub static ASKED_PORTS: HashMap<AskedPort, u32> = HashMap::with_max_entries(4096, NO_PREALLOC);

/// Connections to them that were open before: who reads them looks at what is put back first. It has
/// no program.
#[map]
pub static READERS: SockHash<u64> = SockHash::with_max_entries(HTTP_SOCKETS, 0);

/// Connections to them, as each socket knows itself.
#[btf_map]
pub static READER: SkStorage<Reader> = SkStorage::new();

/// Those whose bytes are looked at as they are received, by their number.
#[map]
pub static DIVERTED: SockHash<u64> = SockHash::with_max_entries(HTTP_SOCKETS, 0);

/// What has come of those.
#[map]
pub static STREAMS: HashMap<u64, Stream> = HashMap::with_max_entries(HTTP_SOCKETS, NO_PREALLOC);

/// Bytes on the way to the agent.
#[map]
pub static TAKEN_BYTES: RingBuf = RingBuf::with_byte_size(TAKEN_ALL, 0);

/// One cell: where the agent sends back from, under number 0.
#[map]
pub static RETURNS: SockHash<u32> = SockHash::with_max_entries(1, 0);

/// One cell: a socket that takes nothing, under number 0.
#[map]
pub static NOWHERE: SockHash<u32> = SockHash::with_max_entries(1, 0);

/// Where the kernel keeps something of sockets, by [`chaos_abi::detour::place`]. 0 = it is not known.
#[map]
pub static PLACES: Array<u32> = Array::with_max_entries(place::ALL, 0);

/// What is known of each connection to a port of ours.
#[btf_map]
pub static CONNECTIONS: SkStorage<Connection> = SkStorage::new();

/// The part of a head that has arrived.
#[btf_map]
pub static PARTS: SkStorage<Part> = SkStorage::new();

/// The entry program of a device jumps through this.
#[map]
pub static TO_HTTP_REQUEST: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// The same where packets leave.
#[map]
pub static TO_HTTP_HOLD: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Where requests are read.
#[map]
pub static ASKED: PerCpuArray<Asked> = PerCpuArray::with_max_entries(1, 0);

/// Which of [`ANSWERED`] are in use on this CPU: a task can take another's place in the middle of
/// a program.
#[map]
pub static IN_USE: PerCpuArray<u64> = PerCpuArray::with_max_entries(DEPTH, 0);

/// Where responses are read and made anew.
#[map]
pub static ANSWERED: PerCpuArray<Answered> = PerCpuArray::with_max_entries(DEPTH, 0);

/// `BPF_F_NO_PREALLOC`.
const NO_PREALLOC: u32 = 1;
/// How many tasks of one CPU can be at it.
pub const DEPTH: u32 = 4;
/// Bytes of a head that are looked at.
pub const HEAD: usize = 4096;

/// See [`TAILS`].
#[repr(C)]
pub struct Tail(pub [u8; HTTP_TAIL]);

/// See [`ASKED`]. Twice the room: a part that had arrived, and what arrives now.
#[repr(C)]
pub struct Asked {
    /// The bytes.
    pub bytes: [u8; 2 * HEAD],
    /// Hashes of the headers of one request.
    pub seen: [u64; SEEN],
    /// The request that is being read.
    pub ask: Ask,
    /// What is to be remembered of it: an [`entry`] value.
    pub entry: u64,
    /// Deadline of the exchange that cuts it.
    pub cut_until: u64,
    /// Exchanges that it may be meant by, as bits of the slot's list.
    pub mask: u32,
    /// Those among them that edit requests.
    pub asks: u32,
    /// Those that edit one of this segment.
    pub turning: u32,
    /// Scratch: an address, where the verifier forgets that it is one.
    pub address: u64,
    /// Scratch: what is known of a connection that joins.
    pub stream: Stream,
    /// How many do mean it.
    pub candidates: u32,
    /// 1: some request of this segment is meant.
    pub is_meant: u32,
    /// 1: some request of this segment is cut.
    pub is_cut: u32,
    /// 1: the bytes are no HTTP/1.
    pub is_bad: u32,
    /// Where an unfinished head begins; all ones: there is none.
    pub unfinished: u32,
    /// Which headers of one exchange have been found, one bit each.
    pub hits: u32,
    /// The device's place in [`HTTP_SLOTS_MAP`].
    pub slot: u32,
    /// Where the segment's payload begins in its packet.
    pub payload: u32,
    /// Bytes of it.
    pub size: u32,
    /// Where `bytes` would begin in it, had all of them come with it.
    pub origin: u32,
    /// How far it has been read for chunks.
    pub at: u32,
    /// 1: chunks were followed to its end.
    pub is_through: u32,
}

/// Headers of a request that are remembered.
pub const SEEN: usize = 64;

/// See [`ANSWERED`].
#[repr(C)]
pub struct Answered {
    /// The head as it is.
    pub head: [u8; HEAD],
    /// What is sent.
    pub out: [u8; 4 * HEAD],
    /// Delays of the exchanges that mean this response, together, nanoseconds.
    pub wait: u64,
    /// Which of the request's exchanges those are, one bit each.
    pub meant: u32,
    /// How many of them change bytes.
    pub edits: u32,
    /// The exchange whose counters and whose edit are looked at.
    pub chosen: u32,
    /// 1: the response cannot be followed by another one.
    pub is_closing: u32,
    /// The response that is being read.
    pub answer: Answer,
}

/// See [`PARTS`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Part(pub [u8; HEAD]);

/// What is known of one connection.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Connection {
    /// Its number in [`SOCKETS`], the kernel's own of the socket; 0 = it has not joined. Written by the request side.
    pub id: u64,
    /// Bytes of the request's body, or of one chunk of it, that are still to come; all ones: nobody
    /// knows.
    pub request_left: u64,
    /// The sequence number that comes next.
    pub next: u32,
    /// What the last request acknowledged.
    pub acked: u32,
    /// Bytes of a head that has arrived in part.
    pub part: u32,
    /// Requests so far that count.
    pub asked: u32,
    /// 1: more at a time than can be told apart, or no HTTP/1 any more. Everything passes.
    pub deaf: u32,
    /// 1: some request has come before the response to the one before it was through.
    pub pipelines: u32,
    /// Where in a request's body of chunks: one of [`crate::chunk`]'s.
    pub request_chunk: u32,
    /// A request was cut: whatever comes is cut too, until then.
    pub cut_until: u64,
    /// Bytes of the response's body, or of one chunk of it, that are still to come. Written by the
    /// response side.
    pub left: u64,
    /// Responses so far.
    pub answered: u32,
    /// One of the `PHASE_` constants.
    pub phase: u32,
    /// 1: what is still to come of the body is thrown away. 2: its end will not be found.
    pub swallow: u32,
    /// `asked` when the response began.
    pub since: u32,
    /// Bytes of a head that wait for the rest of it.
    pub corked: u32,
    /// Where in a body of chunks: one of [`crate::chunk`]'s.
    pub chunk: u32,
    /// How far a message has been read for them.
    pub at: u32,
    /// Bytes of that message.
    pub size: u32,
    /// The exchange that means this response.
    pub exchange: u32,
    /// Nothing with a payload leaves before, nanoseconds of `CLOCK_MONOTONIC`. Written by the
    /// response side.
    pub until: u64,
    /// The requests: [`entry`] values.
    pub requests: [u64; HTTP_PIPELINE as usize],
}

/// Marks a number that is not the kernel's: such a connection cannot be handed over.
pub const NO_COOKIE: u64 = 1 << 63;

/// A response begins.
pub const PHASE_HEAD: u32 = 0;
/// `left` bytes of a body.
pub const PHASE_BODY: u32 = 1;
/// A body whose end is not known: until the next request arrives.
pub const PHASE_REST: u32 = 2;
/// No HTTP/1 any more.
pub const PHASE_OVER: u32 = 3;

/// The agent has it: bytes are handed over until it has brought all of them on.
pub const PHASE_AWAY: u32 = 4;

/// The state of a socket. With `flags` of 1 it is made where there is none.
///
/// # Safety
/// `sk` is a socket that the verifier knows.
#[inline(always)]
pub unsafe fn connection(sk: *mut c_void, flags: u64) -> Option<&'static mut Connection> {
    let map = (&raw const CONNECTIONS).cast_mut().cast();
    // SAFETY: as promised; the value lives as long as the socket.
    unsafe {
        bpf_sk_storage_get(map, sk, core::ptr::null_mut(), flags).cast::<Connection>().as_mut()
    }
}

/// The part of a head that a socket has received.
///
/// # Safety
/// See [`connection`].
#[inline(always)]
pub unsafe fn part(sk: *mut c_void, flags: u64) -> Option<&'static mut Part> {
    let map = (&raw const PARTS).cast_mut().cast();
    // SAFETY: as promised.
    unsafe { bpf_sk_storage_get(map, sk, core::ptr::null_mut(), flags).cast::<Part>().as_mut() }
}

/// How many of this socket's bytes were handed over. With `flags` of 1 it is made where it is not.
///
/// # Safety
/// See [`connection`].
#[inline(always)]
pub unsafe fn handed(sk: *mut c_void, flags: u64) -> Option<&'static mut Handed> {
    let map = (&raw const HANDED).cast_mut().cast();
    // SAFETY: as promised.
    unsafe { bpf_sk_storage_get(map, sk, core::ptr::null_mut(), flags).cast::<Handed>().as_mut() }
}

/// How far the agent has brought this socket's bytes.
///
/// # Safety
/// See [`connection`].
#[inline(always)]
pub unsafe fn home(sk: *mut c_void) -> Option<&'static Home> {
    let map = (&raw const HOMES).cast_mut().cast();
    // SAFETY: as promised.
    unsafe { bpf_sk_storage_get(map, sk, core::ptr::null_mut(), 0).cast::<Home>().as_ref() }
}

/// What a socket knows of itself as a reader. With `flags` of 1 it is made where it is not.
///
/// # Safety
/// See [`connection`].
#[inline(always)]
pub unsafe fn reader(sk: *mut c_void, flags: u64) -> Option<&'static mut Reader> {
    let map = (&raw const READER).cast_mut().cast();
    // SAFETY: as promised.
    unsafe { bpf_sk_storage_get(map, sk, core::ptr::null_mut(), flags).cast::<Reader>().as_mut() }
}

/// Reads something that the kernel keeps, at a place of its own behind an address.
///
/// # Safety
/// There is room for `len` bytes at `to`. `scratch` is a word of a map.
#[inline(always)]
pub unsafe fn peek(from: u64, what: u32, scratch: *mut u64, to: *mut c_void, len: u32) -> bool {
    let Some(at) = PLACES.get(what) else { return false };
    if *at == 0 {
        return false;
    }
    // SAFETY: the helper fails where there is nothing.
    unsafe {
        // In a map the verifier forgets that it is an address of a socket's, which allows no sums.
        core::ptr::write_volatile(scratch, from);
        let place = core::ptr::read_volatile(scratch) + *at as u64;
        bpf_probe_read_kernel(to, len, place as *const _) == 0
    }
}

/// Now, where the engine is alive.
#[inline(always)]
pub fn alive() -> Option<u64> {
    // SAFETY: plain helper call.
    let now = unsafe { bpf_ktime_get_ns() };
    let until = *HEARTBEAT.get(0)?;
    if now < until { Some(now) } else { None }
}

/// Counts something of an exchange.
#[inline(always)]
pub fn count(exchange: u32, what: impl FnOnce(&mut HttpCounters)) {
    if let Some(counters) = HTTP_COUNTERS.get_ptr_mut(exchange) {
        // SAFETY: the value of this CPU; a lost update under preemption is one count.
        what(unsafe { &mut *counters });
    }
}

/// A number below a power of two, in a way that the compiler cannot take out again: the verifier
/// needs to see it.
#[inline(always)]
pub fn below<const MASK: u64>(value: u32) -> usize {
    let mut value = value as u64;
    // SAFETY: arithmetic on a register.
    unsafe { core::arch::asm!("{0} &= {1}", inout(reg) value, const MASK) };
    value as usize
}
