//! The network of a test: a client, a server and a neighbour that nobody selects, each behind
//! a router of its own namespace, IPv4 and IPv6.
//!
//! ```text
//!  kft-N-client eth0 ──┐
//!  kft-N-server eth0 ──┤ kft-N-router
//!  kft-N-near   eth0 ──┘
//! ```
//!
//! Every neighbour entry is permanent, so that no packet is on the wire that a test did not
//! send.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::clock::wait_for;
use crate::ns::Ns;

/// The target's device in every namespace of a [`Net`].
pub const DEVICE: &str = "eth0";

static NUMBER: AtomicU32 = AtomicU32::new(1);

/// A namespace with an `eth0`.
#[derive(Debug)]
pub struct End {
    /// Where.
    pub ns: Ns,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    place: u8,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

/// Both.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl End {
    /// Its address.
    #[must_use]
    pub fn ip(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }
}

/// The namespaces of one test. All of it goes when dropped.
#[derive(Debug)]
pub struct Net {
    /// The usual target.
    pub client: End,
    /// Whom the client talks to.
    pub server: End,
    /// Talks to the server too, and nobody selects it.
    pub near: End,
    /// Routes between them.
    pub router: Ns,
}

impl Net {
    /// Makes everything.
    pub fn new() -> Result<Self> {
        Self::make(quiet)
    }

    /// One where the packets of a connection keep their order. Else each CPU that sends has a queue of its
    /// own on a veth, and a thread is not the only sender of its connection: the kernel sends when
    /// acknowledgements arrive. Kernels that have no such setting are tested on machines with one CPU.
    pub fn in_order() -> Result<Self> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from).min(32);
        let all = format!("{:x}", (1u64 << cpus) - 1);
        Self::make(|ns| {
            quiet(ns)?;
            ns.sysctl("core/rps_default_mask", &all).or_else(|error| {
                let is_old = error.root_cause().downcast_ref::<std::io::Error>();
                let is_old = is_old.is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound);
                if is_old { Ok(()) } else { Err(error) }
            })
        })
    }

    /// `prepare` is called for each namespace before it has devices.
    fn make(prepare: impl Fn(&Ns) -> Result<()>) -> Result<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |role: &str| format!("{number}-{role}");
        let router = Ns::new(&name("router"))?;
        prepare(&router)?;
        router.sysctl("ipv4/ip_forward", "1")?;
        router.sysctl("ipv6/conf/all/forwarding", "1")?;
        // An unreachable port is reported at once, however many tests there were before.
        router.sysctl("ipv4/icmp_ratelimit", "0")?;
        let end = |place: u8, role: &str| -> Result<End> {
            let end = End {
                ns: Ns::new(&name(role))?,
                v4: Ipv4Addr::new(10, 77, place, 2),
                v6: v6(place, 2),
                place,
            };
            prepare(&end.ns)?;
            end.ns.sysctl("ipv4/icmp_ratelimit", "0")?;
            end.ns.sysctl("ipv6/icmp/ratelimit", "0")?;
            connect(&router, &end)?;
            Ok(end)
        };
        Ok(Self {
            client: end(1, "client")?,
            server: end(2, "server")?,
            near: end(3, "near")?,
            router,
        })
    }

    /// Connects the namespace that the caller is in, as a host with a device of its own.
    pub fn host(&self) -> Result<Host> {
        let end = End { ns: Ns::here()?, v4: Ipv4Addr::new(10, 77, 4, 2), v6: v6(4, 2), place: 4 };
        quiet(&end.ns)?;
        connect(&self.router, &end)?;
        Ok(Host(end))
    }

    /// Gives an end whose device has gone its device back.
    pub fn reconnect(&self, end: &End) -> Result<()> {
        connect(&self.router, end)
    }
}

/// The host as an end of a [`Net`]. Its device goes when dropped.
#[derive(Debug)]
pub struct Host(pub End);

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.ns.batch(&[&format!("link del {DEVICE}")]);
    }
}

/// Nothing speaks on new devices before a test does.
fn quiet(ns: &Ns) -> Result<()> {
    for file in ["router_solicitations", "accept_ra", "accept_dad", "dad_transmits"] {
        ns.sysctl(&format!("ipv6/conf/default/{file}"), "0")?;
    }
    Ok(())
}

fn v6(place: u8, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x77, u16::from(place), 0, 0, 0, 0, host)
}

fn mac(place: u8, host: u8) -> String {
    format!("02:00:00:77:{place:02x}:{host:02x}")
}

fn connect(router: &Ns, end: &End) -> Result<()> {
    let place = end.place;
    let (ours, theirs) = (mac(place, 1), mac(place, 2));
    let (gate4, gate6) = (Ipv4Addr::new(10, 77, place, 1), v6(place, 1));
    let (v4, v6) = (end.v4, end.v6);
    let far = format!("to{place}");
    router.batch(&[
        &format!(
            "link add {far} address {ours} type veth peer name {DEVICE} address {theirs} netns {}",
            end.ns.handle()
        ),
        &format!("addr add {gate4}/24 dev {far}"),
        &format!("addr add {gate6}/64 dev {far} nodad"),
        // The kernel would make an address of its own some time after the device is up.
        &format!("link set {far} addrgenmode none"),
        &format!("link set {far} up"),
        &format!("neigh replace {v4} lladdr {theirs} dev {far} nud permanent"),
        &format!("neigh replace {v6} lladdr {theirs} dev {far} nud permanent"),
    ])?;
    end.ns.batch(&[
        &format!("addr add {v4}/24 dev {DEVICE}"),
        &format!("addr add {v6}/64 dev {DEVICE} nodad"),
        &format!("link set {DEVICE} addrgenmode none"),
        &format!("link set {DEVICE} up"),
        &format!("neigh replace {gate4} lladdr {ours} dev {DEVICE} nud permanent"),
        &format!("neigh replace {gate6} lladdr {ours} dev {DEVICE} nud permanent"),
        &format!("route replace default via {gate4} dev {DEVICE}"),
        &format!("route replace default via {gate6} dev {DEVICE}"),
    ])?;
    settle(router, &far)?;
    settle(&end.ns, DEVICE)
}

/// Waits until a device says that it is up: the kernel tells so up to a second later.
pub fn settle(ns: &Ns, device: &str) -> Result<()> {
    let is_up = || {
        ns.output("ip", &["-o", "link", "show", device])
            .is_ok_and(|line| line.contains(" state UP "))
    };
    let name = ns.name();
    ensure!(wait_for(Duration::from_secs(10), is_up), "{device} in {name} does not come up");
    Ok(())
}
