//! The detour: messages that the kernel cannot edit in place pass through here.
//!
//! Owns: one thread that takes messages in from the kernel, holds them, edits them and sends them
//! to where they belong, in order. Refuses: looking at anything that the kernel did not send here.
//!
//! [`desk`] decides, and has neither a clock nor sockets; [`worker`] is the thread; [`frame`] is
//! how the kernel hands bytes over, [`hold`] how a server's socket is written to.
//!
//! Memory is bounded for each connection and for all of them: what exceeds it is let go, late or
//! not, edited or not, and counted. Whoever does not take its bytes then is cut off, because bytes
//! of a stream cannot be left out.

pub mod desk;
pub mod frame;
pub mod hold;
mod limits;
mod pad;
mod poll;
mod tally;
pub mod worker;

#[cfg(test)]
mod desk_tests;
#[cfg(test)]
mod worker_tests;
