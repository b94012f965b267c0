//! Limits of the chosen containers, for a while: processor time, memory, disks, tasks, network; or
//! everything at once, when they are frozen.
//!
//! Owns: the kind's fields, what is refused and warned of, and the lowering to strains and rules.
//! Refuses: setting limits (that is `engine`'s). A kind of our own, so its fields are as
//! Kubernetes writes such things: quantities (`64Mi`) and percentages (`50%`).

mod lower;
mod spec;

pub use lower::lower;
pub use spec::ThrottleChaos;

#[cfg(test)]
mod tests;
