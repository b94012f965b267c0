//! Devices, addresses and default routes of a network namespace, asked through rtnetlink.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::NodeError;
use crate::engine::netns::enter_and_run;

/// Room for one datagram of a dump; the kernel fills at most 32 KiB.
const DATAGRAM: usize = 64 * 1024;

/// What a namespace has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Every device, in the kernel's order.
    pub devices: Vec<String>,
    /// The device of the IPv4 default route, else of the IPv6 one, else the only device (or
    /// the only one that is up) besides loopback.
    pub default_device: Option<String>,
    /// Addresses without loopback and link-local ones, sorted.
    pub addresses: Vec<IpAddr>,
}

/// Looks into a namespace; `None` is our own.
pub fn look(netns: Option<&Path>) -> Result<Network, NodeError> {
    let path = netns.unwrap_or(Path::new("/proc/thread-self/ns/net"));
    let dumped = match netns {
        None => dump(),
        Some(file) => {
            let file = File::open(file).map_err(|e| NodeError::unreadable("open", file, e))?;
            enter_and_run(&file, dump).and_then(|dumped| dumped)
        }
    };
    dumped.map_err(|e| NodeError::unreadable("ask the devices of", path, e))
}

/// True when the file is a namespace, not something left behind at its path.
#[must_use]
pub fn is_namespace(file: &Path) -> bool {
    let Ok(path) = CString::new(file.as_os_str().as_bytes()) else {
        return false;
    };
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the path is a C string, and `stat` has room for the answer.
    if unsafe { libc::statfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the call succeeded, so the kernel has filled `stat`.
    let stat = unsafe { stat.assume_init() };
    stat.f_type == libc::NSFS_MAGIC
}

fn dump() -> io::Result<Network> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let (mut links, mut addresses, mut routes) = (Vec::new(), Vec::new(), Vec::new());
    request(&socket, RouteNetlinkMessage::GetLink(LinkMessage::default()), |answer| {
        if let RouteNetlinkMessage::NewLink(link) = answer {
            links.push(link);
        }
    })?;
    request(&socket, RouteNetlinkMessage::GetAddress(AddressMessage::default()), |answer| {
        if let RouteNetlinkMessage::NewAddress(address) = answer {
            addresses.push(address);
        }
    })?;
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        request(&socket, RouteNetlinkMessage::GetRoute(message), |answer| {
            if let RouteNetlinkMessage::NewRoute(route) = answer {
                routes.push(route);
            }
        })?;
    }
    Ok(summarise(&links, &addresses, &routes))
}

/// Sends one dump request and hands over every answer.
fn request(
    socket: &Socket,
    message: RouteNetlinkMessage,
    mut each: impl FnMut(RouteNetlinkMessage),
) -> io::Result<()> {
    let mut packet = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(message));
    packet.header.flags = NLM_F_DUMP | NLM_F_REQUEST;
    packet.header.sequence_number = 1;
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut buffer = vec![0u8; DATAGRAM];
    loop {
        let size = socket.recv(&mut &mut buffer[..], 0)?;
        let mut rest = &buffer[..size];
        while let Some(length) = message_length(rest) {
            match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&rest[..length]) {
                Ok(NetlinkMessage { payload, .. }) => match payload {
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(answer) => each(answer),
                    _ => {}
                },
                // A newer kernel's attribute must not hide every other device.
                Err(error) => tracing::warn!(%error, "an answer of rtnetlink was not understood"),
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// Length of the first message, header included; `None` when there is none.
fn message_length(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    (16..=bytes.len()).contains(&length).then_some(length)
}

fn summarise(
    links: &[LinkMessage],
    addresses: &[AddressMessage],
    routes: &[RouteMessage],
) -> Network {
    let names: HashMap<u32, &str> =
        links.iter().filter_map(|link| Some((link.header.index, name_of(link)?))).collect();
    let default_device = [AddressFamily::Inet, AddressFamily::Inet6]
        .iter()
        .find_map(|family| default_route(routes, *family))
        .and_then(|index| names.get(&index).map(|name| (*name).to_owned()))
        .or_else(|| only_device(links));
    let mut found: Vec<IpAddr> =
        addresses.iter().filter_map(own_address).filter(|a| !is_local(a)).collect();
    found.sort_unstable();
    found.dedup();
    let names_of_others = links.iter().filter_map(name_of).filter(|name| !is_ours(name));
    Network {
        devices: names_of_others.map(str::to_owned).collect(),
        default_device,
        addresses: found,
    }
}

/// The engine puts a device of its own into the namespaces that it acts on.
fn is_ours(name: &str) -> bool {
    let number = name.strip_prefix("kfault");
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn name_of(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

/// The device of the default route with the lowest metric in the main table.
fn default_route(routes: &[RouteMessage], family: AddressFamily) -> Option<u32> {
    routes
        .iter()
        .filter(|route| {
            let header = &route.header;
            header.address_family == family
                && header.destination_prefix_length == 0
                && header.table == RouteHeader::RT_TABLE_MAIN
                && header.kind == RouteType::Unicast
        })
        .filter_map(|route| {
            let metric = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Priority(metric) => Some(*metric),
                _ => None,
            });
            let device = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                RouteAttribute::MultiPath(hops) => hops.first().map(|hop| hop.interface_index),
                _ => None,
            });
            Some((metric.unwrap_or(0), device?))
        })
        .min_by_key(|(metric, _)| *metric)
        .map(|(_, device)| device)
}

/// The only device besides loopback, else the only such device that is up: tunnel modules put
/// a device that is down into every namespace.
fn only_device(links: &[LinkMessage]) -> Option<String> {
    let is_other = |link: &&LinkMessage| {
        !link.header.flags.contains(LinkFlags::Loopback) && !name_of(link).is_some_and(is_ours)
    };
    let others: Vec<&LinkMessage> = links.iter().filter(is_other).collect();
    let up: Vec<&LinkMessage> =
        others.iter().copied().filter(|link| link.header.flags.contains(LinkFlags::Up)).collect();
    match (others.as_slice(), up.as_slice()) {
        ([one], _) | (_, [one]) => name_of(one).map(str::to_owned),
        _ => None,
    }
}

fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    // On a point-to-point link `Address` is the other end and `Local` our own.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

fn is_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || *v4 == Ipv4Addr::UNSPECIFIED,
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unicast_link_local() || *v6 == Ipv6Addr::UNSPECIFIED
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, flags: LinkFlags) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = flags;
        link.attributes.push(LinkAttribute::IfName(name.into()));
        link
    }

    fn route(family: AddressFamily, device: u32, metric: u32) -> RouteMessage {
        let mut route = RouteMessage::default();
        route.header.address_family = family;
        route.header.table = RouteHeader::RT_TABLE_MAIN;
        route.header.kind = RouteType::Unicast;
        route.attributes.push(RouteAttribute::Oif(device));
        route.attributes.push(RouteAttribute::Priority(metric));
        route
    }

    fn default_of(links: &[LinkMessage], routes: &[RouteMessage]) -> Option<String> {
        summarise(links, &[], routes).default_device
    }

    #[test]
    fn the_default_device_is_the_ipv4_route_then_ipv6_then_the_only_one() {
        let lo = link(1, "lo", LinkFlags::Loopback | LinkFlags::Up);
        let eth0 = link(2, "eth0", LinkFlags::Up);
        let eth1 = link(3, "eth1", LinkFlags::Up);
        let tunnel = link(4, "tunl0", LinkFlags::empty());
        let both = [lo.clone(), eth0.clone(), eth1];
        let (v4, v6) = (AddressFamily::Inet, AddressFamily::Inet6);
        assert_eq!(default_of(&both, &[route(v6, 2, 1), route(v4, 3, 9)]).as_deref(), Some("eth1"));
        assert_eq!(default_of(&both, &[route(v4, 3, 9), route(v4, 2, 5)]).as_deref(), Some("eth0"));
        assert_eq!(default_of(&both, &[route(v6, 2, 1)]).as_deref(), Some("eth0"));
        assert_eq!(default_of(&both, &[]), None);
        assert_eq!(default_of(&[lo.clone(), tunnel, eth0], &[]).as_deref(), Some("eth0"));
        let ours = link(5, "kfault0", LinkFlags::Up);
        let alone = [lo.clone(), ours, link(2, "veth1", LinkFlags::Up)];
        assert_eq!(default_of(&alone, &[]).as_deref(), Some("veth1"));
        assert_eq!(summarise(&alone, &[], &[]).devices, ["lo", "veth1"]);
        assert_eq!(default_of(&[lo], &[]), None);
    }

    #[test]
    fn loopback_and_link_local_addresses_are_nobodys_peer() {
        let address = |text: &str| {
            let mut message = AddressMessage::default();
            message.attributes.push(AddressAttribute::Address(text.parse().unwrap()));
            message
        };
        let addresses =
            ["::1", "10.0.0.2", "127.0.0.1", "fe80::1", "169.254.1.1", "fd00::2"].map(address);
        let found = summarise(&[], &addresses, &[]).addresses;
        assert_eq!(found, ["10.0.0.2", "fd00::2"].map(|a| a.parse::<IpAddr>().unwrap()));
    }

    #[test]
    fn our_own_namespace_can_be_asked() {
        assert!(is_namespace(Path::new("/proc/thread-self/ns/net")));
        assert!(!is_namespace(Path::new("/proc/version")));
        let network = look(None).unwrap();
        assert!(network.devices.iter().any(|name| name == "lo"), "{network:?}");
    }
}
