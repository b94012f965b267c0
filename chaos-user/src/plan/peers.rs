//! Peer sets as one longest-prefix lookup decides them.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// A compiled peer set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerTable {
    /// IPv4 prefixes.
    pub v4: BTreeMap<Ipv4Net, Ports>,
    /// IPv6 prefixes.
    pub v6: BTreeMap<Ipv6Net, Ports>,
}

/// Ports that a prefix admits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// Every protocol and port.
    pub any: bool,
    /// Only these TCP and UDP ports of the peer.
    pub ports: BTreeSet<u16>,
}

/// Names that cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {}

/// Placeholder until the pure branch lands.
pub fn compile(peers: &super::Peers, _r: &BTreeMap<String, Vec<std::net::IpAddr>>) -> Result<PeerTable, PeerError> {
    let mut t = PeerTable::default();
    for p in &peers.prefixes { match p.net { ipnet::IpNet::V4(n) => { t.v4.insert(n, Ports{any: p.port.is_none(), ports: p.port.into_iter().collect()}); } ipnet::IpNet::V6(n) => { t.v6.insert(n, Ports{any: p.port.is_none(), ports: p.port.into_iter().collect()}); } } }
    Ok(t)
}
