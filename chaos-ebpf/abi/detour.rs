//! The detour of HTTP messages: what the BPF program writes in front of bytes that userspace
//! edits.

use crate::Shared;
use crate::limit::HTTP_PIPELINE;

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

/// Marks a [`DetourHeader`].
pub const MAGIC: u32 = 0x6b66_6474;
/// Bytes of the header.
pub const DETOUR_HEADER: u32 = 24 + 8 * HTTP_PIPELINE;

const _: () = assert!(size_of::<DetourHeader>() == DETOUR_HEADER as usize);

const _: () = assert!(size_of::<Handed>() == 8);
const _: () = assert!(size_of::<Home>() == 16);

// SAFETY: `repr(C)`, integers only, sizes asserted.
unsafe impl Shared for DetourHeader {}
// SAFETY: as above.
unsafe impl Shared for Handed {}
// SAFETY: as above.
unsafe impl Shared for Home {}
