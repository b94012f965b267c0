//! The API as it is registered in a cluster: spec and status of every kind, plain and complete.
//!
//! Owns: which fields there are, which must be given, what may stand in them, and a sentence on
//! each, which becomes its description in the cluster. Refuses: what a field means and whether
//! fields fit together (that is `fault`). The API server holds objects to these schemas before
//! anybody reads them, and drops fields that they do not name.
//!
//! What must be given here is what the public API demands, never more: an object that it takes
//! is taken. A root type is named like its kind.

pub mod block;
pub mod cloud;
pub mod dns;
pub mod embedded;
pub mod free;
pub mod http;
pub mod internal;
pub mod io;
pub mod jvm;
pub mod kernel;
pub mod network;
pub mod own;
pub mod physical;
pub mod pod;
pub mod remote;
pub mod schedule;
pub mod selector;
pub mod status;
pub mod statuscheck;
pub mod stress;
pub mod throttle;
pub mod time;
pub mod workflow;
