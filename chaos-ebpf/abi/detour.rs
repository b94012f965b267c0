//! The detour of HTTP messages: what the BPF program writes in front of bytes that userspace
//! edits.

use crate::Shared;
use crate::limit::{EXCHANGES_PER_DEVICE, HTTP_PIPELINE};

/// Header of a run of bytes of one connection, on its way to the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DetourHeader {
    /// [`MAGIC`]; what has another is no header, and nothing behind it can be told apart.
    pub magic: u32,
    /// The process that sends them.
    pub pid: u32,
    /// How many bytes follow.
    pub length: u32,
    /// How many of `requests` count.
    pub count: u32,
    /// Number of the connection.
    pub connection: u64,
    /// Requests that have come since the last run of this connection, in their order, as
    /// [`crate::http::entry`] values.
    pub requests: [u64; HTTP_PIPELINE as usize],
}

/// How many bytes of a connection were handed over, kept with its socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handed {
    /// The bytes, headers of ours not counted.
    pub bytes: u64,
}

/// How far the agent has brought a connection, kept with its socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Home {
    /// Of all bytes that were handed over, so many have gone on.
    pub taken: u64,
    /// 1: what follows is of no interest.
    pub is_over: u64,
}

/// What has come of a connection whose requests the agent may have, by its number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// How far the agent has it, see [`away`].
    pub away: u64,
    /// Sequence number of the byte that the socket gets next.
    pub next: u64,
    /// That of the first byte which the agent gets, with [`HAD`] once it got any.
    pub from: u64,
    /// 1: nothing has come of it before.
    pub is_first: u64,
    /// Sequence number behind what came before the connection was accepted; all ones: nothing did.
    pub early: u64,
    /// What has become of it: one of [`fate`].
    pub fate: u64,
    /// Exchanges that may mean its requests, each as its index and one; 0 = none.
    pub exchanges: [u16; EXCHANGES_PER_DEVICE],
}

/// In [`Stream::from`]: the agent has had bytes of it.
pub const HAD: u64 = 1 << 32;

/// Values of [`Stream::fate`].
pub mod fate {
    /// It goes on.
    pub const LIVES: u64 = 0;
    /// Its client says nothing more, which its server has not been told yet.
    pub const ENDS: u64 = 1;
    /// There was no room for bytes of it, and they are lost.
    pub const LOST: u64 = 2;
}

/// How far the agent has a connection, in one word, which changes as a whole: 0 where it has not. Both
/// numbers are of bytes behind [`Stream::from`].
pub mod away {
    /// The agent has it.
    pub const IS_AWAY: u64 = 1 << 62;
    /// Position of the number of bytes that were let in.
    pub const LET_IN: u32 = 31;
    /// Bits of a number.
    pub const MASK: u64 = (1 << 31) - 1;
}

/// A connection that can be diverted, kept with its socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reader {
    /// Its number.
    pub number: u64,
    /// Whether it is diverted: one of [`reader`].
    pub state: u64,
    /// Where it [`reader::WAITS`]: with what comes behind this sequence number it does no more, if
    /// [`reader::KNOWN`] is in it.
    pub since: u64,
}

/// Places in the kernel's sockets, bytes, in this order.
pub mod place {
    /// What has been read (`tcp_sock.copied_seq`).
    pub const COPIED: u32 = 0;
    /// What its process holds of it (`sock.sk_socket`), null before it is accepted.
    pub const SOCKET: u32 = 1;
    /// In that: whether somebody waits for room to send (`socket.flags`).
    pub const SOCKET_FLAGS: u32 = 2;
    /// In that: its file (`socket.file`).
    pub const FILE: u32 = 3;
    /// In that: how it was opened (`file.f_flags`).
    pub const FILE_FLAGS: u32 = 4;
    /// How many there are.
    pub const ALL: u32 = 5;
}

/// Values of [`Reader::state`].
pub mod reader {
    /// It can be, with a packet before which everything was read.
    pub const OPEN: u64 = 0;
    /// Not yet: somebody waits for its next bytes where only those of the network arrive.
    pub const WAITS: u64 = 1;
    /// It is.
    pub const DIVERTED: u64 = 2;
    /// No more: it is plain, until its next bytes arrive.
    pub const LEFT: u64 = 3;

    /// A sequence number in [`super::Reader::since`] counts.
    pub const KNOWN: u64 = 1 << 32;
}

/// A port of a network namespace to which requests come that are edited.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AskedPort {
    /// The kernel's own number of the namespace (`SO_NETNS_COOKIE`).
    pub netns: u64,
    /// The port.
    pub port: u64,
}

/// Marks a [`DetourHeader`].
pub const MAGIC: u32 = 0x6b66_6474;

/// Bytes that a socket has received, on their way to the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Number of the connection.
    pub connection: u64,
    /// So many of the bytes belong to a request that came before.
    pub skip: u64,
    /// As in [`Stream`].
    pub is_first: u64,
    /// As in [`Stream`].
    pub exchanges: [u16; EXCHANGES_PER_DEVICE],
    /// How many of `bytes` count.
    pub length: u64,
    /// The bytes.
    pub bytes: [u8; TAKEN],
}

/// Bytes of one [`Taken`].
pub const TAKEN: usize = 4096;
/// Bytes of requests that wait for the agent to take them, all connections together.
pub const TAKEN_ALL: u32 = 8 << 20;
/// Bytes of the header.
pub const DETOUR_HEADER: u32 = 24 + 8 * HTTP_PIPELINE;

const _: () = assert!(size_of::<DetourHeader>() == DETOUR_HEADER as usize);

const _: () = assert!(size_of::<Handed>() == 8);
const _: () = assert!(size_of::<Home>() == 16);
const _: () = assert!(size_of::<Stream>() == 48 + 2 * EXCHANGES_PER_DEVICE);
const _: () = assert!(size_of::<Taken>() == 32 + 2 * EXCHANGES_PER_DEVICE + TAKEN);
const _: () = assert!(size_of::<Reader>() == 24);
const _: () = assert!(size_of::<AskedPort>() == 16);

// SAFETY: `repr(C)`, integers only, sizes asserted.
unsafe impl Shared for DetourHeader {}
// SAFETY: as above.
unsafe impl Shared for Handed {}
// SAFETY: as above.
unsafe impl Shared for Home {}
// SAFETY: as above.
unsafe impl Shared for Stream {}
// SAFETY: as above.
unsafe impl Shared for Reader {}
// SAFETY: as above.
unsafe impl Shared for AskedPort {}
// SAFETY: as above.
unsafe impl Shared for Taken {}
