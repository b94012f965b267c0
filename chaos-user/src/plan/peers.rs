//! Peer sets as prefix tables in which the longest matching prefix decides alone.
//!
//! A set is a union: a packet matches when any entry does. The kernel looks up one prefix only,
//! so the ports of shorter prefixes are pushed into the longer ones here, once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use chaos_abi::limit::PORTS_PER_PREFIX;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Name, Peers, Prefix};

/// What the kernel looks up: the longest prefix that holds an address says which ports match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerTable {
    /// IPv4.
    pub v4: BTreeMap<Ipv4Net, Ports>,
    /// IPv6.
    pub v6: BTreeMap<Ipv6Net, Ports>,
}

/// What matches on a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// Every protocol and port. `ports` is empty then.
    pub any: bool,
    /// TCP and UDP packets with one of these ports at the peer; at most
    /// [`PORTS_PER_PREFIX`].
    pub ports: BTreeSet<u16>,
}

/// Why a peer set has no table.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PeerError {
    /// The plan was made without a host.
    #[error("the addresses of {workload} are not known: the plan was made without a host")]
    Unbound {
        /// The workload.
        workload: String,
    },
    /// A name without an address.
    #[error(
        "the name {name} has no address; check spec.externalTargets, or the resolver of this host"
    )]
    Unresolved {
        /// The name.
        name: String,
    },
    /// Too many ports.
    #[error(
        "{net} is limited to {ports} ports, those of shorter prefixes around it included; at most {PORTS_PER_PREFIX} are possible, so name fewer ports or leave them out"
    )]
    Ports {
        /// The prefix.
        net: IpNet,
        /// How many ports it would have.
        ports: usize,
    },
}

impl Ports {
    fn add(&mut self, port: Option<u16>) {
        match port {
            None => self.make_any(),
            Some(_) if self.any => {}
            Some(port) => {
                self.ports.insert(port);
            }
        }
    }

    fn inherit(&mut self, outer: &Self) {
        if outer.any {
            self.make_any();
        } else if !self.any {
            self.ports.extend(&outer.ports);
        }
    }

    fn make_any(&mut self) {
        self.any = true;
        self.ports.clear();
    }

    /// True when a packet with this peer port matches; `None` is a packet without ports.
    #[must_use]
    pub fn matches(&self, port: Option<u16>) -> bool {
        self.any || port.is_some_and(|port| self.ports.contains(&port))
    }
}

impl PeerTable {
    /// True when packets with this peer address and port match: what the kernel decides.
    #[must_use]
    pub fn matches(&self, address: IpAddr, port: Option<u16>) -> bool {
        let ports = match address {
            IpAddr::V4(address) => {
                longest(&self.v4, IpNet::from(IpAddr::V4(address)), |net| match net {
                    IpNet::V4(net) => Some(net),
                    IpNet::V6(_) => None,
                })
            }
            IpAddr::V6(address) => {
                longest(&self.v6, IpNet::from(IpAddr::V6(address)), |net| match net {
                    IpNet::V6(net) => Some(net),
                    IpNet::V4(_) => None,
                })
            }
        };
        ports.is_some_and(|ports| ports.matches(port))
    }
}

/// The entry of the longest prefix that holds `net`.
fn longest<N: Ord>(
    table: &BTreeMap<N, Ports>,
    mut net: IpNet,
    key: impl Fn(IpNet) -> Option<N>,
) -> Option<&Ports> {
    loop {
        if let Some(ports) = key(net.trunc()).and_then(|key| table.get(&key)) {
            return Some(ports);
        }
        net = net.supernet()?;
    }
}

/// The table of a peer set. `resolved` holds the addresses of its names, by [`Name::host`].
/// A set that means everyone becomes `0.0.0.0/0` and `::/0`. Takes n·log(n) steps.
///
/// # Errors
/// See [`PeerError`].
pub fn compile(
    peers: &Peers,
    resolved: &BTreeMap<String, Vec<IpAddr>>,
) -> Result<PeerTable, PeerError> {
    let Peers { prefixes, names, workloads } = peers;
    if let Some(workload) = workloads.first() {
        return Err(PeerError::Unbound { workload: workload.clone() });
    }
    let mut table = PeerTable::default();
    if peers.is_everyone() {
        let any = Ports { any: true, ports: BTreeSet::new() };
        table.v4.insert(Ipv4Net::default(), any.clone());
        table.v6.insert(Ipv6Net::default(), any);
        return Ok(table);
    }
    let mut add = |net: IpNet, port| match net.trunc() {
        IpNet::V4(net) => table.v4.entry(net).or_default().add(port),
        IpNet::V6(net) => table.v6.entry(net).or_default().add(port),
    };
    for Prefix { net, port } in prefixes {
        add(*net, *port);
    }
    for Name { host, port } in names {
        let addresses = resolved.get(host).map_or(&[][..], Vec::as_slice);
        if addresses.is_empty() {
            return Err(PeerError::Unresolved { name: host.clone() });
        }
        for address in addresses {
            add(address.to_canonical().into(), *port);
        }
    }
    let PeerTable { v4, v6 } = table;
    Ok(PeerTable { v4: push_down(v4)?, v6: push_down(v6)? })
}

/// A prefix of one family.
trait Net: Copy + Ord + Into<IpNet> {
    fn holds(&self, other: &Self) -> bool;
}

impl Net for Ipv4Net {
    fn holds(&self, other: &Self) -> bool {
        self.contains(other)
    }
}

impl Net for Ipv6Net {
    fn holds(&self, other: &Self) -> bool {
        self.contains(other)
    }
}

/// Gives each prefix what the shorter ones around it admit, and leaves out those that say
/// nothing new. In the table's order a prefix comes right after those that hold it, so the
/// nearest one is on top of the stack.
fn push_down<N: Net>(table: BTreeMap<N, Ports>) -> Result<BTreeMap<N, Ports>, PeerError> {
    let mut out: Vec<(N, Ports)> = Vec::new();
    let mut around: Vec<usize> = Vec::new();
    for (net, mut ports) in table {
        while around.last().is_some_and(|top| !out[*top].0.holds(&net)) {
            around.pop();
        }
        let outer = around.last().map(|top| &out[*top].1);
        if let Some(outer) = outer {
            ports.inherit(outer);
        }
        if ports.ports.len() > PORTS_PER_PREFIX {
            return Err(PeerError::Ports { net: net.into(), ports: ports.ports.len() });
        }
        if outer != Some(&ports) {
            around.push(out.len());
            out.push((net, ports));
        }
    }
    Ok(out.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn prefix(text: &str, port: impl Into<Option<u16>>) -> Prefix {
        Prefix { net: text.parse().unwrap(), port: port.into() }
    }

    fn table(prefixes: Vec<Prefix>) -> Result<PeerTable, PeerError> {
        compile(&Peers { prefixes, ..Peers::default() }, &BTreeMap::new())
    }

    fn matches(table: &PeerTable, address: &str, port: impl Into<Option<u16>>) -> bool {
        table.matches(address.parse().unwrap(), port.into())
    }

    #[test]
    fn a_wide_prefix_and_a_port_inside_it_both_match_what_they_say() {
        let table = table(vec![prefix("10.0.0.0/8", 443), prefix("10.1.0.0/16", 80)]).unwrap();
        assert!(matches(&table, "10.1.2.3", 80));
        assert!(matches(&table, "10.1.2.3", 443));
        assert!(matches(&table, "10.2.2.3", 443));
        assert!(!matches(&table, "10.2.2.3", 80));
        assert!(!matches(&table, "10.1.2.3", None));
        assert!(!matches(&table, "11.1.2.3", 443));
    }

    #[test]
    fn a_prefix_inside_one_without_a_port_says_nothing_new() {
        let table = table(vec![prefix("10.0.0.0/8", None), prefix("10.1.0.0/16", 80)]).unwrap();
        assert_eq!(table.v4.len(), 1);
        assert!(matches(&table, "10.1.2.3", 81));
    }

    #[test]
    fn default_routes_and_everyone_match_all_of_their_family() {
        let v4 = table(vec![prefix("0.0.0.0/0", None)]).unwrap();
        assert!(matches(&v4, "255.255.255.255", None) && matches(&v4, "0.0.0.0", 1));
        assert!(!matches(&v4, "::1", None));
        let v6 = table(vec![prefix("::/0", 53)]).unwrap();
        assert!(
            matches(&v6, "ffff::", 53)
                && !matches(&v6, "ffff::", 54)
                && !matches(&v6, "1.1.1.1", 53)
        );
        let everyone = compile(&Peers::default(), &BTreeMap::new()).unwrap();
        assert!(matches(&everyone, "1.2.3.4", None) && matches(&everyone, "2001:db8::1", 1));
    }

    #[test]
    fn names_match_all_their_addresses_of_both_families() {
        let name = Name { host: "db.example".to_owned(), port: Some(5432) };
        let peers = Peers { names: vec![name], ..Peers::default() };
        let resolved = ["10.0.0.1", "2001:db8::1", "::ffff:10.0.0.2"].map(|a| a.parse().unwrap());
        let resolved = BTreeMap::from([("db.example".to_owned(), resolved.to_vec())]);
        let table = compile(&peers, &resolved).unwrap();
        for address in ["10.0.0.1", "2001:db8::1", "10.0.0.2"] {
            assert!(matches(&table, address, 5432) && !matches(&table, address, 5433));
        }
        let unresolved = PeerError::Unresolved { name: "db.example".to_owned() };
        assert_eq!(compile(&peers, &BTreeMap::new()), Err(unresolved));
    }

    #[test]
    fn a_plan_without_a_host_has_no_table() {
        let peers =
            Peers { workloads: vec!["spec.target.selector".to_owned()], ..Peers::default() };
        assert!(matches!(compile(&peers, &BTreeMap::new()), Err(PeerError::Unbound { .. })));
    }

    #[test]
    fn too_many_ports_are_refused_with_prefix_and_limit_inherited_ones_included() {
        let wide = (1..=9).map(|port| prefix("10.0.0.0/8", port));
        let narrow = (9..=17).map(|port| prefix("10.1.0.0/16", port));
        let error = table(wide.chain(narrow).collect()).unwrap_err();
        assert_eq!(error, PeerError::Ports { net: "10.1.0.0/16".parse().unwrap(), ports: 17 });
        assert!(
            error.to_string().contains("10.1.0.0/16")
                && error.to_string().contains("16 are possible")
        );
        assert!(table((1..=16).map(|port| prefix("10.0.0.0/8", port)).collect()).is_ok());
    }

    #[test]
    fn ten_thousand_prefixes_inherit_from_those_around_them() {
        let host = |i: u32| prefix(&format!("{}/32", Ipv4Addr::from_bits(0x0a00_0000 + i)), 80);
        let mut prefixes: Vec<_> = (0..10_000).map(host).collect();
        prefixes.extend((0..24).map(|length| Prefix {
            net: IpNet::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), length).unwrap().trunc(),
            port: Some(if length % 2 == 0 { 443 } else { 53 }),
        }));
        let table = table(prefixes).unwrap();
        assert_eq!(table.v4.values().map(|ports| ports.ports.len()).max(), Some(3));
    }

    /// Addresses and prefixes that overlap often.
    fn any_net() -> impl Strategy<Value = IpNet> {
        (any::<bool>(), 0u8..4, 0u8..4, prop::sample::select(vec![0u8, 8, 15, 16, 17, 31, 32]))
            .prop_map(|(v6, a, b, length)| {
                if v6 {
                    let address = Ipv6Addr::new(
                        u16::from(a),
                        u16::from(b) << 14,
                        0,
                        0,
                        0,
                        0,
                        0,
                        u16::from(b),
                    );
                    IpNet::new(address.into(), if length == 32 { 128 } else { length }).unwrap()
                } else {
                    IpNet::new(Ipv4Addr::new(10, a, b << 6, b).into(), length).unwrap()
                }
            })
    }

    fn any_port() -> impl Strategy<Value = Option<u16>> {
        prop_oneof![2 => (1u16..8).prop_map(Some), 1 => Just(None)]
    }

    proptest! {
        #[test]
        fn the_longest_prefix_alone_decides_as_any_entry_would(
            entries in prop::collection::vec((any_net(), any_port()), 1..24),
            probes in prop::collection::vec((any_net(), any_port()), 32),
        ) {
            let prefixes: Vec<Prefix> = entries.into_iter().map(|(net, port)| Prefix { net, port }).collect();
            let table = table(prefixes.clone()).unwrap();
            for (probe, port) in probes {
                let address = probe.addr();
                let naive = prefixes.iter().any(|entry| {
                    entry.net.contains(&address) && (entry.port.is_none() || entry.port == port)
                });
                prop_assert_eq!(table.matches(address, port), naive, "{} {:?}", address, port);
            }
        }
    }
}
