//! The API that people write: value types and the envelope of a manifest. Pure.
//!
//! Owns: what a duration, a percentage, a rate, a selector is, and how a manifest's text becomes
//! an object whose every mistake is named by file, document and field. Refuses: what a kind means
//! (that is `fault`), clocks, files, clients. Anyone may use it.

pub mod bytes;
pub mod crd;
pub mod cron;
pub mod document;
pub mod duration;
pub mod fields;
pub mod figures;
pub mod finding;
pub mod kind;
pub mod latency;
pub mod metadata;
pub mod mode;
pub mod nodefault;
pub mod peerset;
pub mod percent;
pub mod quantity;
pub mod rate;
pub mod selector;
pub mod status;
pub mod written;
