//! The packet as the stable helpers show it. No offset of a kernel structure is used.

use core::mem::MaybeUninit;

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
    /// The peer's address, words in network order; IPv4 uses the first.
    pub peer: [u32; 4],
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

/// The first `N` words; at least `M`, the rest zero, where the packet ends earlier. `link` bytes
/// of link-layer header lie in front of them. Read in place where they are in the linear part,
/// as headers nearly always are: a helper call costs more than the rest of the matching.
#[inline(always)]
fn head<const N: usize, const M: usize>(skb: *mut __sk_buff, link: u32) -> Option<[u32; N]> {
    // SAFETY: the context is valid.
    let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    let start = data + (link & 15) as usize;
    if start + N * 4 <= end {
        // Not zeroed first: that is a loop over bytes, and costs more than the reading.
        let mut words = MaybeUninit::<[u32; N]>::uninit();
        let at = words.as_mut_ptr().cast::<u32>();
        let mut i = 0;
        while i < N {
            // SAFETY: inside the packet, see the comparison; the verifier checks it again. The
            // machine is BPF, where a word may lie anywhere in a packet on every architecture
            // with efficient unaligned access; `read_unaligned` would read byte by byte. The
            // array has N words.
            unsafe { at.add(i).write(core::ptr::read_volatile((start + i * 4) as *const u32)) };
            i += 1;
        }
        // SAFETY: all N words have been written.
        return Some(unsafe { words.assume_init() });
    }
    let mut words = [0u32; N];
    let at = words.as_mut_ptr().cast();
    // SAFETY: the buffer is N words long and M is at most N.
    let failed = unsafe {
        bpf_skb_load_bytes_relative(skb.cast(), 0, at, N as u32 * 4, FROM_NETWORK_HEADER) != 0
            && bpf_skb_load_bytes_relative(skb.cast(), 0, at, M as u32 * 4, FROM_NETWORK_HEADER)
                != 0
    };
    if failed { None } else { Some(words) }
}

/// Reads an IPv4 or IPv6 packet; `None` for everything that no fault applies to: other
/// protocols, malformed headers, and IPv6 neighbour discovery (as ARP for IPv4, it belongs to
/// the link and not to the peers).
#[inline(always)]
pub fn parse(skb: *mut __sk_buff, link: u32, peer_is_destination: bool) -> Option<Packet> {
    // SAFETY: the context is valid for the whole program.
    let protocol = unsafe { (*skb).protocol };
    if protocol == IPV4 {
        parse4(skb, link, peer_is_destination)
    } else if protocol == IPV6 {
        parse6(skb, link, peer_is_destination)
    } else {
        None
    }
}

/// The peer's port. `word` is the word behind a transport header at the usual place, `usual`.
#[inline(always)]
fn port(skb: *mut __sk_buff, packet: &Packet, word: u32, usual: u32, destination: bool) -> u32 {
    if packet.transport == 0 || (packet.protocol != TCP && packet.protocol != UDP) {
        return NO_PORT;
    }
    let ports = if packet.transport == usual {
        u32::from_be(word)
    } else {
        let Some(bytes) = load::<4>(skb, packet.transport) else { return NO_PORT };
        u32::from_be_bytes(bytes)
    };
    if destination { ports & 0xffff } else { ports >> 16 }
}

#[inline(always)]
fn parse4(skb: *mut __sk_buff, link: u32, peer_is_destination: bool) -> Option<Packet> {
    let h = head::<6, 5>(skb, link)?;
    let first = u32::from_be(h[0]);
    let header = (first >> 24 & 15) * 4;
    if first >> 28 != 4 || header < 20 {
        return None;
    }
    let later_fragment = u32::from_be(h[1]) & 0x1fff != 0;
    let mut packet = Packet {
        family: 4,
        protocol: u32::from_be(h[2]) >> 16 & 0xff,
        transport: if later_fragment { 0 } else { header },
        port: NO_PORT,
        peer: [if peer_is_destination { h[4] } else { h[3] }, 0, 0, 0],
    };
    packet.port = port(skb, &packet, h[5], 20, peer_is_destination);
    Some(packet)
}

#[inline(always)]
fn parse6(skb: *mut __sk_buff, link: u32, peer_is_destination: bool) -> Option<Packet> {
    let h = head::<11, 10>(skb, link)?;
    if u32::from_be(h[0]) >> 28 != 6 {
        return None;
    }
    let mut protocol = u32::from_be(h[1]) >> 8 & 0xff;
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
    let at = if peer_is_destination { 6 } else { 2 };
    let peer = [h[at], h[at + 1], h[at + 2], h[at + 3]];
    let mut packet = Packet { family: 6, protocol, transport, port: NO_PORT, peer };
    packet.port = port(skb, &packet, h[10], 40, peer_is_destination);
    Some(packet)
}

/// Sets `tc_index`, which travels with clones and stays on the node.
#[inline(always)]
pub fn mark(skb: *mut __sk_buff, value: u32) {
    // SAFETY: the context is valid and the field writable for classifiers.
    unsafe { core::ptr::write_volatile(&raw mut (*skb).tc_index, value) }
}
