//! kfault's userspace: one library, one program.
//!
//! Dependencies point one way:
//! `chaos_abi ← fault`; `api ← fault, select ← plan ← engine ← node`; `api, plan ← kube`; `cli`
//! wires. `api`, `fault`, `select` and `plan` are pure: no async, no clock, no files, no client.
//! `engine` alone names aya, `kube` alone the cluster's crates, `cli` alone clap. `cargo xtask
//! lint` holds us to it.

pub mod api;
pub mod cli;
pub mod engine;
pub mod fault;
pub mod kube;
pub mod node;
pub mod plan;
pub mod select;
pub mod telemetry;
