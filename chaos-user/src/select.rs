//! Selection: which workloads an experiment acts on. Pure; the seed comes in as an argument.

use std::net::IpAddr;

use crate::plan::Cgroup;

/// A workload that a selector can choose: on a bare host a namespace, unit, cgroup, container or
/// process; on a cluster a pod. Made by `node`, read by `select` and the lowering of faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// As the user names it: `netns:web`, `unit:nginx.service`.
    pub name: String,
    /// File of its network namespace; empty where there is no host (`kfault explain`).
    pub netns: String,
    /// Inode of that namespace; 0 without a host.
    pub inode: u64,
    /// `Some`: only sockets of this cgroup are the target (the devices are shared with others).
    pub cgroup: Option<Cgroup>,
    /// Every device of the namespace.
    pub devices: Vec<String>,
    /// The device of the IPv4 default route, else of the IPv6 one, else the only device that
    /// is not loopback.
    pub default_device: Option<String>,
    /// Its addresses, without loopback and link-local ones, sorted.
    pub addresses: Vec<IpAddr>,
}
