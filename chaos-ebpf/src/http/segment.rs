//! A TCP segment, as the stable helpers show it.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_skb_load_bytes, bpf_skb_load_bytes_relative};

const FROM_NETWORK_HEADER: u32 = 1;
const IPV4: u32 = 0x0800u16.to_be() as u32;
const IPV6: u32 = 0x86ddu16.to_be() as u32;
const TCP: u8 = 6;
const FIN: u32 = 1;

/// What is known of it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Segment {
    /// As the socket lookup wants it: addresses and ports in network order.
    pub tuple: [u32; 9],
    /// Bytes of `tuple`.
    pub tuple_len: u32,
    /// Port that it goes to, host order.
    pub port: u32,
    /// Sequence number of its first byte.
    pub sequence: u32,
    /// What it acknowledges.
    pub acked: u32,
    /// Where its payload begins, from the start of the packet.
    pub payload: u32,
    /// Bytes of payload.
    pub len: u32,
    /// 1: the sender says nothing more behind it.
    pub is_last: u32,
}

#[inline(always)]
fn load<const N: usize>(skb: *mut __sk_buff, offset: u32) -> Option<[u32; N]> {
    let mut words = [0u32; N];
    let at = words.as_mut_ptr().cast();
    // SAFETY: the buffer has this size; the helper fills it or fails.
    let failed = unsafe {
        bpf_skb_load_bytes_relative(skb.cast(), offset, at, N as u32 * 4, FROM_NETWORK_HEADER)
    };
    if failed != 0 { None } else { Some(words) }
}

/// Reads a segment with payload, or the last one; `None` for everything else.
#[inline(always)]
pub fn parse(skb: *mut __sk_buff, link: u32) -> Option<Segment> {
    // SAFETY: the context is valid.
    let (protocol, whole) = unsafe { ((*skb).protocol, (*skb).len) };
    let mut tuple = [0u32; 9];
    let (tuple_len, header, total);
    if protocol == IPV4 {
        let h: [u32; 5] = load(skb, 0)?;
        let first = u32::from_be(h[0]);
        header = (first >> 24 & 15) * 4;
        let is_fragment = u32::from_be(h[1]) & 0x3fff != 0;
        if first >> 28 != 4 || header < 20 || is_fragment || (u32::from_be(h[2]) >> 16) as u8 != TCP
        {
            return None;
        }
        (tuple[0], tuple[1]) = (h[3], h[4]);
        tuple_len = 12;
        total = first & 0xffff;
    } else if protocol == IPV6 {
        let h: [u32; 10] = load(skb, 0)?;
        if u32::from_be(h[0]) >> 28 != 6 || (u32::from_be(h[1]) >> 8) as u8 != TCP {
            return None;
        }
        header = 40;
        let mut i = 0;
        while i < 8 {
            tuple[i] = h[2 + i];
            i += 1;
        }
        tuple_len = 36;
        let length = u32::from_be(h[1]) >> 16;
        total = if length == 0 { 0 } else { length + 40 };
    } else {
        return None;
    }
    let t: [u32; 4] = load(skb, header)?;
    tuple[if tuple_len == 12 { 2 } else { 8 }] = t[0];
    let payload = header + (u32::from_be(t[3]) >> 28) * 4;
    // A frame may be padded; a large one may be too long for the field.
    let total = if total == 0 { whole.wrapping_sub(link) } else { total };
    let is_last = u32::from_be(t[3]) >> 16 & FIN;
    if payload > total || total > whole || payload == total && is_last == 0 {
        return None;
    }
    Some(Segment {
        tuple,
        tuple_len,
        port: u32::from_be(t[0]) & 0xffff,
        sequence: u32::from_be(t[1]),
        acked: u32::from_be(t[2]),
        payload: payload + link,
        len: total - payload,
        is_last,
    })
}

impl Segment {
    /// Loads `len` bytes of its payload from `skip` on.
    ///
    /// # Safety
    /// There is room for `len` bytes at `to`.
    #[inline(always)]
    pub unsafe fn load(&self, skb: *mut __sk_buff, skip: u32, to: *mut u8, len: u32) -> bool {
        // SAFETY: as promised.
        unsafe {
            // The other helper reads the linear part only, and a payload is mostly elsewhere.
            bpf_skb_load_bytes(skb.cast(), self.payload + skip, to.cast(), len) == 0
        }
    }
}
