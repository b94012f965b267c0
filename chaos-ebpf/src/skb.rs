//! The packet as the stable helpers show it. No offset of a kernel structure is used.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes_relative;
use chaos_abi::limit::EXTENSION_HEADERS;

/// `BPF_HDR_START_NET`: offsets count from the network header, whatever the link layer.
pub const FROM_NETWORK_HEADER: u32 = 1;

/// `ETH_P_IP` and `ETH_P_IPV6` as `__sk_buff::protocol` holds them (network order).
const IPV4: u32 = 0x0800u16.to_be() as u32;
const IPV6: u32 = 0x86ddu16.to_be() as u32;

/// Protocol numbers.
pub const TCP: u32 = 6;
/// See [`TCP`].
pub const UDP: u32 = 17;
const ICMPV6: u32 = 58;

/// Which end of a packet is the peer.
pub const PEER_IS_DESTINATION: bool = true;
/// See [`PEER_IS_DESTINATION`].
pub const PEER_IS_SOURCE: bool = false;

/// What matching needs to know of a packet.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Packet {
    /// 4 or 6.
    pub family: u32,
    /// Transport protocol.
    pub protocol: u32,
    /// Offset of the transport header from the network header; 0 = there is none (a later
    /// fragment).
    pub transport: u32,
    /// The peer's port, or [`NO_PORT`].
    pub port: u32,
    /// The peer's address; IPv4 uses the first four bytes.
    pub peer: [u8; 16],
}

/// The packet has no ports, or none that can be read.
pub const NO_PORT: u32 = u32::MAX;

/// Loads bytes at an offset from the network header.
#[inline(always)]
pub fn load<const N: usize>(skb: *mut __sk_buff, offset: u32) -> Option<[u8; N]> {
    let mut buffer = [0u8; N];
    // SAFETY: the buffer is N bytes long and the helper writes N bytes or fails.
    let failed = unsafe {
        bpf_skb_load_bytes_relative(
            skb.cast(),
            offset,
            buffer.as_mut_ptr().cast(),
            N as u32,
            FROM_NETWORK_HEADER,
        )
    };
    if failed != 0 { None } else { Some(buffer) }
}

/// Reads an IPv4 or IPv6 packet; `None` for everything that no fault applies to: other
/// protocols, malformed headers, and IPv6 neighbour discovery (as ARP for IPv4, it belongs to
/// the link and not to the peers).
#[inline(always)]
pub fn parse(skb: *mut __sk_buff, peer_is_destination: bool) -> Option<Packet> {
    // SAFETY: the context is valid for the whole program.
    let protocol = unsafe { (*skb).protocol };
    if protocol == IPV4 {
        parse4(skb, peer_is_destination)
    } else if protocol == IPV6 {
        parse6(skb, peer_is_destination)
    } else {
        None
    }
}

/// The port of the peer out of the first four bytes behind `offset`, which `head` holds where it
/// is long enough (the usual case, without a second look at the packet).
#[inline(always)]
fn port<const N: usize>(
    skb: *mut __sk_buff,
    head: &[u8; N],
    packet: &Packet,
    peer_is_destination: bool,
) -> u32 {
    if packet.transport == 0 || (packet.protocol != TCP && packet.protocol != UDP) {
        return NO_PORT;
    }
    let ports = if packet.transport as usize == N - 4 {
        [head[N - 4], head[N - 3], head[N - 2], head[N - 1]]
    } else {
        let Some(ports) = load::<4>(skb, packet.transport) else { return NO_PORT };
        ports
    };
    if peer_is_destination {
        (ports[2] as u32) << 8 | ports[3] as u32
    } else {
        (ports[0] as u32) << 8 | ports[1] as u32
    }
}

/// The first `N` bytes; at least `M`, the rest zero, where the packet ends earlier.
#[inline(always)]
fn head<const N: usize, const M: usize>(skb: *mut __sk_buff) -> Option<[u8; N]> {
    if let Some(bytes) = load::<N>(skb, 0) {
        return Some(bytes);
    }
    let short: [u8; M] = load(skb, 0)?;
    let mut bytes = [0u8; N];
    let mut i = 0;
    while i < M {
        bytes[i] = short[i];
        i += 1;
    }
    Some(bytes)
}

#[inline(always)]
fn parse4(skb: *mut __sk_buff, peer_is_destination: bool) -> Option<Packet> {
    let h: [u8; 24] = head::<24, 20>(skb)?;
    let header = ((h[0] & 15) as u32) * 4;
    if h[0] >> 4 != 4 || header < 20 {
        return None;
    }
    let later_fragment = ((h[6] & 0x1f) as u32) << 8 | h[7] as u32 != 0;
    let mut peer = [0u8; 16];
    let from = if peer_is_destination { 16 } else { 12 };
    peer[0] = h[from];
    peer[1] = h[from + 1];
    peer[2] = h[from + 2];
    peer[3] = h[from + 3];
    let mut packet = Packet {
        family: 4,
        protocol: h[9] as u32,
        transport: if later_fragment { 0 } else { header },
        port: NO_PORT,
        peer,
    };
    packet.port = port(skb, &h, &packet, peer_is_destination);
    Some(packet)
}

#[inline(always)]
fn parse6(skb: *mut __sk_buff, peer_is_destination: bool) -> Option<Packet> {
    let h: [u8; 44] = head::<44, 40>(skb)?;
    if h[0] >> 4 != 6 {
        return None;
    }
    let mut protocol = h[6] as u32;
    let mut transport = 40u32;
    let mut i = 0;
    while i < EXTENSION_HEADERS {
        // Hop-by-hop, routing, destination options, fragment (RFC 8200 section 4).
        if protocol != 0 && protocol != 43 && protocol != 60 && protocol != 44 {
            break;
        }
        let e: [u8; 4] = load(skb, transport)?;
        if protocol == 44 {
            if ((e[2] as u32) << 8 | e[3] as u32) & 0xfff8 != 0 {
                transport = 0;
                protocol = e[0] as u32;
                break;
            }
            transport += 8;
        } else {
            transport += (e[1] as u32 + 1) * 8;
        }
        protocol = e[0] as u32;
        i += 1;
    }
    if protocol == ICMPV6 && transport != 0 {
        let kind: [u8; 1] = load(skb, transport)?;
        // Router and neighbour solicitation, advertisement, redirect (RFC 4861).
        if kind[0] >= 133 && kind[0] <= 137 {
            return None;
        }
    }
    let mut peer = [0u8; 16];
    let from = if peer_is_destination { 24 } else { 8 };
    let mut i = 0;
    while i < 16 {
        peer[i] = h[from + i];
        i += 1;
    }
    let mut packet = Packet { family: 6, protocol, transport, port: NO_PORT, peer };
    packet.port = port(skb, &h, &packet, peer_is_destination);
    Some(packet)
}
