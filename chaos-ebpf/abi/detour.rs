//! The detour of HTTP messages: what the BPF program writes in front of bytes that userspace
//! edits.

use crate::Shared;

/// Header of a run of bytes of one connection, on its way to the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DetourHeader {
    /// Number of the connection.
    pub connection: u64,
    /// What is known of the message that begins here; 0: none begins.
    pub begins: u64,
    /// The process that sends them.
    pub pid: u32,
    /// How many bytes follow.
    pub length: u32,
    /// [`MAGIC`]; what has another is no header, and nothing behind it can be told apart.
    pub magic: u32,
    /// Padding, always 0.
    pub zero: u32,
}

/// Marks a [`DetourHeader`].
pub const MAGIC: u32 = 0x6b66_6474;
/// Bytes of the header.
pub const DETOUR_HEADER: u32 = 32;

const _: () = assert!(size_of::<DetourHeader>() == DETOUR_HEADER as usize);

// SAFETY: `repr(C)`, integers only, sizes asserted.
unsafe impl Shared for DetourHeader {}
