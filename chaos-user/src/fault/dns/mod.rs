//! Faults of name resolution: queries for chosen names get an error, or an address at random.
//!
//! Owns: the kind's fields, what is refused and warned of, and the lowering to rules. Refuses:
//! knowing a query from another packet (that is the kernel side's).

mod lower;
mod spec;

pub(super) use self::lower::lower;
pub use self::spec::{Action, DnsChaos, Extension};

#[cfg(test)]
mod tests;
