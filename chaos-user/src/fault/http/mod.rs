//! HTTP messages that are late, changed, or cut off.
//!
//! Owns: the kind's fields, what is refused and warned of, and the lowering to exchanges. Refuses:
//! reading or writing messages (that is `engine`'s).

mod check;
mod lower;
mod passed;
mod spec;
mod words;

pub use lower::lower;
pub use passed::{protocol, unspoken};
pub use spec::{Actions, Extension, HttpChaos, Tls};

#[cfg(test)]
mod tests;
