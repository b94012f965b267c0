//! The sockets whose responses are looked at.

use aya_ebpf::bindings::{__sk_buff, BPF_NOEXIST, bpf_sock};
use aya_ebpf::helpers::generated::{
    bpf_get_smp_processor_id, bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_map_update_elem,
    bpf_sk_assign, bpf_sk_release, bpf_tcp_sock,
};

use crate::maps::{Connection, NO_COOKIE, SOCKETS};
use crate::request::{ESTABLISHED, lookup};
use crate::segment::Segment;

/// Lets the socket join: from now on the response side sees what it sends.
#[inline(always)]
pub fn join(skb: *mut __sk_buff, segment: &Segment, c: &mut Connection, waits: bool) -> bool {
    let sk = lookup(skb, segment);
    if sk.is_null() {
        return false;
    }
    // SAFETY: not null, and released below.
    unsafe {
        let mut is_in = false;
        let mut is_clear = (*sk).state == ESTABLISHED;
        if is_clear && waits {
            // Which of the responses before this one are still to come can be told only if none
            // has begun.
            let tcp = bpf_tcp_sock(sk);
            is_clear = !tcp.is_null() && (*tcp).snd_nxt == segment.acked;
        }
        if is_clear {
            let id = number(skb, sk);
            let map = (&raw const SOCKETS).cast_mut().cast();
            let flags = BPF_NOEXIST as u64;
            is_in = bpf_map_update_elem(map, (&raw const id).cast(), sk.cast(), flags) == 0;
            if is_in {
                c.id = id;
            }
        }
        bpf_sk_release(sk.cast());
        is_in
    }
}

/// The kernel's own number of a socket, which userspace can ask a socket for; another one, of no
/// socket, where it has none to tell.
#[inline(always)]
unsafe fn number(skb: *mut __sk_buff, sk: *mut bpf_sock) -> u64 {
    // SAFETY: the socket is held by the caller. A packet that has its socket tells its number; the
    // stack would look the same socket up.
    unsafe {
        if bpf_sk_assign(skb.cast(), sk.cast(), 0) == 0 {
            let cookie = bpf_get_socket_cookie(skb.cast());
            if cookie != 0 {
                return cookie;
            }
        }
        NO_COOKIE | bpf_ktime_get_ns() << 8 | bpf_get_smp_processor_id() as u64 & 0xff
    }
}
