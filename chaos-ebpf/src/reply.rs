//! Answers made out of the packet itself: a TCP reset, or ICMP "port unreachable". They tell the
//! sender at once that its peer is not to be had, as `REJECT` of a packet filter does.

use aya_ebpf::bindings::{__sk_buff, BPF_F_INGRESS, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::generated::{
    bpf_clone_redirect, bpf_csum_diff, bpf_redirect, bpf_skb_change_tail, bpf_skb_load_bytes,
    bpf_skb_load_bytes_relative, bpf_skb_store_bytes,
};
use chaos_abi::target::{Slot, flag};

use crate::maps::{FRAME, Frame};
use crate::skb::{FROM_NETWORK_HEADER, Packet, TCP, mark};

/// The packet was leaving: the answer goes up our own stack.
pub const TO_OUR_STACK: u64 = BPF_F_INGRESS as u64;
/// The packet was arriving: the answer goes out of the same device.
pub const TO_THE_WIRE: u64 = 0;

pub const ETHERNET: u32 = 14;
const ACK: u8 = 0x10;
const RST: u8 = 0x04;

/// Turns the packet into its refusal and sends that; `None` when no answer may be given (a
/// reset, an error message, a multicast, a later fragment) or none can be made.
#[inline(always)]
pub fn refuse(skb: *mut __sk_buff, packet: &Packet, device: &Slot, way: u64) -> Option<i32> {
    let link = device.link_header;
    if link != 0 && link != ETHERNET {
        return None;
    }
    if packet.family == 4 {
        if packet.transport != 20 {
            return None;
        }
        if packet.protocol == TCP { reset4(skb, link)? } else { unreachable4(skb, link)? }
    } else {
        if packet.transport != 40 {
            return None;
        }
        if packet.protocol == TCP { reset6(skb, link)? } else { unreachable6(skb, link)? }
    }
    send_back(skb, device, way)
}

/// Turns a TCP packet that has arrived over loopback into a reset of its receiver, which was about to
/// take it: an answer to its sender would come without a route, as a martian. What the sender sends
/// again finds nobody, and is answered by the stack. Nothing checks checksums there.
#[inline(always)]
pub fn reset_receiver(skb: *mut __sk_buff, packet: &Packet, device: &Slot) -> bool {
    if packet.protocol != TCP || packet.transport == 0 {
        return false;
    }
    let flags = [RST | ACK];
    let at = device.link_header + packet.transport + 13;
    // SAFETY: one byte is read from `flags`.
    unsafe { bpf_skb_store_bytes(skb, at, flags.as_ptr().cast(), 1, 0) == 0 }
}

/// Sends what the packet has been turned into back to where the packet came from.
#[inline(always)]
pub fn send_back(skb: *mut __sk_buff, device: &Slot, way: u64) -> Option<i32> {
    if way == TO_OUR_STACK && device.flags & flag::LOOPBACK != 0 {
        // What leaves this device arrives by itself, and with its route: a packet to 127.0.0.1
        // that comes without one is a martian.
        return Some(TC_ACT_UNSPEC);
    }
    if device.link_header == ETHERNET {
        swap_addresses(skb)?;
    }
    if way == TO_THE_WIRE {
        // A packet that arrives may have been given its receiver's socket, and would take it along to
        // whoever the answer is for. A clone has none. Nor is the answer what the packet was marked as.
        mark(skb, 0);
        // SAFETY: plain helper call.
        unsafe { bpf_clone_redirect(skb, device.ifindex, 0) };
        return Some(TC_ACT_SHOT);
    }
    // SAFETY: plain helper call.
    Some(unsafe { bpf_redirect(device.ifindex, way) as i32 })
}

#[inline(always)]
fn swap_addresses(skb: *mut __sk_buff) -> Option<()> {
    let (mut to, mut from) = ([0u8; 6], [0u8; 6]);
    // SAFETY: six bytes each time.
    unsafe {
        if bpf_skb_load_bytes(skb.cast(), 0, to.as_mut_ptr().cast(), 6) != 0
            || bpf_skb_load_bytes(skb.cast(), 6, from.as_mut_ptr().cast(), 6) != 0
            || bpf_skb_store_bytes(skb, 0, from.as_ptr().cast(), 6, 0) != 0
            || bpf_skb_store_bytes(skb, 6, to.as_ptr().cast(), 6, 0) != 0
        {
            return None;
        }
    }
    Some(())
}

/// Loads the start of the packet into the frame and clears the answer.
#[inline(always)]
fn ask<const N: usize>(skb: *mut __sk_buff) -> Option<&'static mut Frame> {
    // SAFETY: per-CPU memory, and programs on one CPU do not interrupt each other here.
    let frame = unsafe { &mut *FRAME.get_ptr_mut(0)? };
    // SAFETY: `asked` holds at least N bytes; the constant is checked where it is instantiated.
    let failed = unsafe {
        bpf_skb_load_bytes_relative(
            skb.cast(),
            0,
            frame.asked.as_mut_ptr().cast(),
            const {
                assert!(N <= 64);
                N as u32
            },
            FROM_NETWORK_HEADER,
        )
    };
    if failed != 0 {
        return None;
    }
    frame.out = [0; 96];
    Some(frame)
}

/// Replaces everything behind the link-layer header.
#[inline(always)]
fn replace<const N: usize>(skb: *mut __sk_buff, link: u32, bytes: &[u8; 96]) -> Option<()> {
    // SAFETY: N bytes, at most 96, are read from `bytes`.
    unsafe {
        if bpf_skb_change_tail(skb, link + N as u32, 0) != 0
            || bpf_skb_store_bytes(skb, link, bytes.as_ptr().cast(), N as u32, 0) != 0
        {
            return None;
        }
    }
    Some(())
}

/// Adds `SIZE` bytes at `AT` to an Internet checksum (RFC 1071). A helper does it, so that the
/// bytes stay in memory and off the BPF stack.
#[inline(always)]
pub fn sum<const AT: usize, const SIZE: u32>(out: &mut [u8; 96], seed: u32) -> u32 {
    const { assert!(AT + SIZE as usize <= 96 && SIZE % 4 == 0) };
    // SAFETY: SIZE bytes from AT on lie inside `out`, see the assertion.
    unsafe {
        bpf_csum_diff(core::ptr::null_mut(), 0, out.as_mut_ptr().add(AT).cast(), SIZE, seed) as u32
    }
}

/// What a pseudo header adds to a checksum besides the addresses.
pub const fn pseudo(protocol: u8, length: u16) -> u32 {
    (protocol as u16).to_be() as u32 + length.to_be() as u32
}

/// Folds a checksum and writes it at `AT`.
#[inline(always)]
pub fn finish<const AT: usize>(out: &mut [u8; 96], total: u32) {
    let folded = (total & 0xffff) + (total >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let bytes = (!(folded as u16)).to_ne_bytes();
    out[AT] = bytes[0];
    out[AT + 1] = bytes[1];
}

#[inline(always)]
fn header4(out: &mut [u8; 96], asked: &[u8; 64], length: u8, protocol: u8) {
    out[0] = 0x45;
    out[3] = length;
    out[6] = 0x40;
    out[8] = 64;
    out[9] = protocol;
    let mut i = 0;
    while i < 4 {
        out[12 + i] = asked[16 + i];
        out[16 + i] = asked[12 + i];
        i += 1;
    }
    let total = sum::<0, 20>(out, 0);
    finish::<10>(out, total);
}

#[inline(always)]
fn header6(out: &mut [u8; 96], asked: &[u8; 64], payload: u8, protocol: u8) {
    out[0] = 0x60;
    out[5] = payload;
    out[6] = protocol;
    out[7] = 64;
    let mut i = 0;
    while i < 16 {
        out[8 + i] = asked[24 + i];
        out[24 + i] = asked[8 + i];
        i += 1;
    }
}

/// Writes the TCP header of a reset at `AT` (RFC 9293 section 3.10.7, "reset generation"),
/// without its checksum. `length` is the answered packet's length from `AT` on.
#[inline(always)]
fn reset<const AT: usize>(out: &mut [u8; 96], asked: &[u8; 64], length: u32) -> Option<()> {
    let flags = asked[AT + 13];
    if flags & RST != 0 {
        return None;
    }
    out[AT] = asked[AT + 2];
    out[AT + 1] = asked[AT + 3];
    out[AT + 2] = asked[AT];
    out[AT + 3] = asked[AT + 1];
    out[AT + 12] = 0x50;
    if flags & ACK != 0 {
        let mut i = 0;
        while i < 4 {
            out[AT + 4 + i] = asked[AT + 8 + i];
            i += 1;
        }
        out[AT + 13] = RST;
    } else {
        let sequence =
            u32::from_be_bytes([asked[AT + 4], asked[AT + 5], asked[AT + 6], asked[AT + 7]]);
        let payload = length.wrapping_sub(((asked[AT + 12] >> 4) as u32) * 4);
        // SYN and FIN occupy a sequence number each.
        let control = (flags & 1) as u32 + (flags >> 1 & 1) as u32;
        let expected = sequence.wrapping_add(payload).wrapping_add(control).to_be_bytes();
        let mut i = 0;
        while i < 4 {
            out[AT + 8 + i] = expected[i];
            i += 1;
        }
        out[AT + 13] = RST | ACK;
    }
    Some(())
}

#[inline(always)]
fn reset4(skb: *mut __sk_buff, link: u32) -> Option<()> {
    let Frame { out, asked } = ask::<40>(skb)?;
    let total = (asked[2] as u32) << 8 | asked[3] as u32;
    header4(out, asked, 40, 6);
    reset::<20>(out, asked, total.wrapping_sub(20))?;
    let addresses = sum::<12, 8>(out, pseudo(6, 20));
    let total = sum::<20, 20>(out, addresses);
    finish::<36>(out, total);
    replace::<40>(skb, link, out)
}

#[inline(always)]
fn reset6(skb: *mut __sk_buff, link: u32) -> Option<()> {
    let Frame { out, asked } = ask::<60>(skb)?;
    let length = (asked[4] as u32) << 8 | asked[5] as u32;
    header6(out, asked, 20, 6);
    reset::<40>(out, asked, length)?;
    let addresses = sum::<8, 32>(out, pseudo(6, 20));
    let total = sum::<40, 20>(out, addresses);
    finish::<56>(out, total);
    replace::<60>(skb, link, out)
}

/// RFC 792: destination unreachable (3), port unreachable (3), with the header and eight bytes
/// of what is answered. Never in answer to an error (RFC 1122 section 3.2.2).
#[inline(always)]
fn unreachable4(skb: *mut __sk_buff, link: u32) -> Option<()> {
    let Frame { out, asked } = ask::<28>(skb)?;
    let is_icmp_error = asked[9] == 1 && asked[20] != 8;
    if is_icmp_error || asked[16] >= 224 {
        return None;
    }
    header4(out, asked, 56, 1);
    out[20] = 3;
    out[21] = 3;
    let mut i = 0;
    while i < 28 {
        out[28 + i] = asked[i];
        i += 1;
    }
    let total = sum::<20, 36>(out, 0);
    finish::<22>(out, total);
    replace::<56>(skb, link, out)
}

/// RFC 4443 section 3.1: destination unreachable (1), port unreachable (4).
#[inline(always)]
fn unreachable6(skb: *mut __sk_buff, link: u32) -> Option<()> {
    let Frame { out, asked } = ask::<48>(skb)?;
    let is_icmp_error = asked[6] == 58 && asked[40] != 128;
    if is_icmp_error || asked[24] == 0xff {
        return None;
    }
    header6(out, asked, 56, 58);
    out[40] = 1;
    out[41] = 4;
    let mut i = 0;
    while i < 48 {
        out[48 + i] = asked[i];
        i += 1;
    }
    let addresses = sum::<8, 32>(out, pseudo(58, 56));
    let total = sum::<40, 56>(out, addresses);
    finish::<42>(out, total);
    replace::<96>(skb, link, out)
}
