//! The contract between the BPF programs and userspace.
//!
//! Owns: every type that crosses the kernel boundary, every limit, and the pure
//! arithmetic that both sides must do alike. Refuses: dependencies, features,
//! `bool`, `usize`, `Option` and Rust enums in shared memory. Anyone may use it.
#![cfg_attr(not(test), no_std)]

pub mod counter;
pub mod detour;
pub mod dns;
pub mod http;
pub mod limit;
pub mod line;
pub mod peer;
pub mod rule;
pub mod target;
pub mod verdict;

/// A type that may be copied to and from a BPF map byte by byte.
///
/// # Safety
/// The type is `repr(C)`, has no padding that is not a named field, holds fixed-width
/// integers only, and every bit pattern is a valid value.
pub unsafe trait Shared: Copy + 'static {}

// SAFETY: plain integers.
unsafe impl Shared for u32 {}
// SAFETY: plain integers.
unsafe impl Shared for u64 {}
