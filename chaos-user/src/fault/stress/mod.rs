//! Load on processors, memory and disks of the chosen containers.
//!
//! Owns: the kind's fields, the dialect of stress-ng in which some of them are written, what is
//! refused and warned of, and the lowering to strains. Refuses: working (that is `engine`'s).

mod dialect;
mod lower;
mod spec;

pub use lower::lower;
pub use spec::{Cpu, Extension, Memory, StressChaos};

#[cfg(test)]
mod tests;
