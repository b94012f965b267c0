//! Sockets that leave their maps while their connections go on.
//!
//! A server whose thread waits in `recv` is told `EAGAIN`, which it has not asked for, when it is woken
//! by anything but data and its socket is in a map (`tcp_msg_wait_data`, `tcp_bpf_recvmsg`, seen on 6.18);
//! most servers close the connection then. Signals wake it, a freezer does, and so does room to send: where the end of a large response had to wait for some, the kernel tells so once more when
//! there is plenty (`SOCK_NOSPACE`, `sk_stream_write_space`).
//!
//! So a socket whose file is not one that never waits leaves with the first packet behind which nothing is
//! left to be done for its responses, before its server reads again. It stays where its client does not
//! wait for responses, which have to be counted then, and where requests are edited, for it is the server's
//! reading that matters; but not behind a response that had to wait for room.

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{bpf_map_delete_elem, bpf_tcp_sock};
use chaos_abi::detour::{HAD, Reader, place, reader as state};

use crate::chunk;
use crate::maps::{
    ASKED, Connection, DIVERTED, PHASE_BODY, PHASE_HEAD, PHASE_REST, READERS, SOCKETS, STREAMS,
    peek, reader,
};
use crate::turn::{copied, load};

/// `SOCK_NOSPACE`, as a bit of `socket.flags`.
const NO_SPACE: u64 = 1 << 2;
const NONBLOCKING: u32 = 0o4000;

/// Takes a socket that sends a packet out of the maps, where it has to and can. `c` is what is known of it.
///
/// # Safety
/// `sk` is a full socket that the verifier knows.
#[inline(always)]
pub unsafe fn look(sk: *mut bpf_sock, c: Option<&mut Connection>) {
    // SAFETY: as promised.
    unsafe {
        let joined = c.filter(|c| c.id != 0);
        let reading = reader(sk.cast(), 0).filter(|reader| reader.state != state::LEFT);
        if joined.is_none() && reading.is_none() {
            return;
        }
        // The value of this CPU: what sends is not interrupted by what arrives.
        let Some(asked) = ASKED.get_ptr_mut(0) else { return };
        let scratch = &raw mut (*asked).address;
        let Some(flags) = waits(sk, scratch) else { return };
        let has_waited = flags & NO_SPACE != 0;
        if let Some(c) = joined
            && (has_waited || c.pipelines == 0)
        {
            quit(c);
        }
        if let Some(reader) = reading
            && has_waited
        {
            stop(sk, reader, scratch);
        }
    }
}

/// Flags of a socket whose threads wait where they ask for something.
#[inline(always)]
unsafe fn waits(sk: *mut bpf_sock, scratch: *mut u64) -> Option<u64> {
    let (mut socket, mut flags, mut file, mut mode) = (0u64, 0u64, 0u64, 0u32);
    // SAFETY: what is read has the size of its kind.
    let is_known = unsafe {
        peek(sk as u64, place::SOCKET, scratch, (&raw mut socket).cast(), 8)
            && socket != 0
            && peek(socket, place::FILE, scratch, (&raw mut file).cast(), 8)
            && file != 0
            && peek(file, place::FILE_FLAGS, scratch, (&raw mut mode).cast(), 4)
            && peek(socket, place::SOCKET_FLAGS, scratch, (&raw mut flags).cast(), 8)
    };
    (is_known && mode & NONBLOCKING == 0).then_some(flags)
}

/// Responses are not looked at any more, until the next request that is meant.
#[inline(always)]
unsafe fn quit(c: &mut Connection) {
    let is_passing = c.phase == PHASE_HEAD || c.phase == PHASE_BODY || c.phase == PHASE_REST;
    if !is_passing || c.asked != c.answered || c.swallow != 0 || c.corked != 0 {
        return;
    }
    let number = c.id;
    let map = (&raw const SOCKETS).cast_mut().cast();
    // SAFETY: plain helper call.
    if unsafe { bpf_map_delete_elem(map, (&raw const number).cast()) } == 0 {
        c.phase = PHASE_HEAD;
        c.left = 0;
        c.chunk = chunk::NONE;
        c.id = 0;
    }
}

/// Requests are not diverted any more, until the server waits again. Where it has been given some of the
/// agent's, the socket has to stay: it is out of step with the network.
#[inline(always)]
unsafe fn stop(sk: *mut bpf_sock, reader: &mut Reader, scratch: *mut u64) {
    let number = reader.number;
    let key = (&raw const number).cast();
    // SAFETY: plain helper calls.
    unsafe {
        if reader.state == state::DIVERTED {
            let Some(stream) = STREAMS.get_ptr_mut(&number) else { return };
            let tcp = bpf_tcp_sock(sk);
            if tcp.is_null() || load(&raw const (*stream).from) & HAD != 0 {
                return;
            }
            // What it has not read would be lost.
            let arrived = (*tcp).rcv_nxt;
            if copied(sk, scratch).is_none_or(|copied| copied != arrived) {
                return;
            }
            bpf_map_delete_elem((&raw const DIVERTED).cast_mut().cast(), key);
            let _ = STREAMS.remove(&number);
        }
        bpf_map_delete_elem((&raw const READERS).cast_mut().cast(), key);
        reader.state = state::LEFT;
    }
}
