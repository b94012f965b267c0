//! What the test programs share: guards that make and remove network namespaces and cgroups,
//! probes that measure with plain sockets, a driver for `kfault run`, snapshots of a host.
//!
//! Nothing here looks at kfault from the inside: what is measured is what a program in the
//! target would see.

pub mod bpf;
pub mod cgroup;
pub mod clock;
pub mod firewall;
pub mod kfault;
pub mod manifest;
pub mod net;
pub mod ns;
pub mod probe;
pub mod snapshot;
pub mod stats;
pub mod terminal;
pub mod tunnel;
