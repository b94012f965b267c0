//! Faults of the network: delay, loss, duplicates, corruption, rates and partitions.
//!
//! Owns: the kind's fields, what they default to, what is refused and warned of, and what each
//! of them becomes as rules. Refuses: how a rule is put into the kernel.

mod block;
mod check;
mod external;
mod lower;
mod spec;
mod words;

pub use self::block::{BandwidthBlock, ChanceBlock, DelayBlock, RateBlock, ReorderBlock};
pub(super) use self::check::check;
pub use self::external::{External, ExternalError};
pub(super) use self::lower::lower;
pub use self::spec::{Action, Extension, NetworkChaos, Side};
