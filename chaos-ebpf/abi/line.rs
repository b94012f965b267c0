//! The delay line: what the BPF program writes in front of a frame that userspace holds.

use crate::Shared;

/// Header of a frame on its way through the delay line. 16 bytes, so that the frame behind it
/// keeps its alignment.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineHeader {
    /// [`MAGIC`]; anything else on the device is not ours and is thrown away.
    pub magic: u32,
    /// Padding, always 0.
    pub zero: u32,
    /// When the frame has to leave, nanoseconds of `CLOCK_MONOTONIC`.
    pub departure_ns: u64,
}

/// Marks a frame that carries a [`LineHeader`].
pub const MAGIC: u32 = 0x6b66_6c74;
/// Bytes that the header adds in front of a frame.
pub const LINE_HEADER: u32 = 16;

const _: () = assert!(size_of::<LineHeader>() == LINE_HEADER as usize);

// SAFETY: `repr(C)`, integers only, sizes asserted.
unsafe impl Shared for LineHeader {}
