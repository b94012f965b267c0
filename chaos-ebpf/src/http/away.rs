//! Responses that the kernel cannot edit: they are handed over to the agent, and all that follows
//! them on their connection is too, until the agent has brought everything on.

use aya_ebpf::bindings::{BPF_F_INGRESS, sk_action, sk_msg_md};
use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_msg_pop_data, bpf_msg_pull_data, bpf_msg_push_data,
    bpf_msg_redirect_hash,
};
use chaos_abi::detour::{DETOUR_HEADER, DetourHeader, MAGIC};
use chaos_abi::limit::HTTP_PIPELINE;

use crate::chunk;
use crate::maps::{
    AGENT, Connection, DETOUR, PHASE_AWAY, PHASE_HEAD, PHASE_OVER, below, handed, home,
};
use crate::response::bounds;

const MAKE: u64 = 1;

/// What becomes of bytes that follow a response which was handed over.
pub enum Course {
    /// The agent itself sends: they pass.
    Passes,
    /// Everything that was handed over has gone on: they are looked at again.
    Home,
    /// They were handed over too.
    Away,
    /// They could not be, and must not pass.
    Lost,
}

/// Decides about a message on a connection that the agent has.
///
/// # Safety
/// The context is valid and has a socket.
#[inline(always)]
pub unsafe fn follow(msg: *mut sk_msg_md, c: &mut Connection, size: u32) -> Course {
    if is_agent() {
        return Course::Passes;
    }
    // SAFETY: the context is valid, and has a socket.
    let (home, handed) = unsafe {
        let sk = (*msg).__bindgen_anon_3.sk;
        if sk.is_null() {
            return Course::Lost;
        }
        (home(sk.cast()), handed(sk.cast(), 0))
    };
    if let (Some(home), Some(handed)) = (home, handed) {
        // SAFETY: a map value, which the agent replaces.
        let taken = unsafe { core::ptr::read_volatile(&raw const home.taken) };
        if taken == handed.bytes {
            c.phase = if home.is_over != 0 { PHASE_OVER } else { PHASE_HEAD };
            return Course::Home;
        }
    }
    // SAFETY: as promised.
    if unsafe { hand(msg, c, size, c.answered) } { Course::Away } else { Course::Lost }
}

/// A socket of which nothing is known is the agent's own: what it sends there tells who it is.
#[inline(always)]
pub fn introduce() -> u32 {
    if let Some(agent) = AGENT.get_ptr_mut(0) {
        // SAFETY: a map value.
        unsafe { *agent = process() };
    }
    sk_action::SK_DROP
}

/// True in the process that bytes are handed over to.
#[inline(always)]
fn is_agent() -> bool {
    AGENT.get(0).is_some_and(|agent| *agent == process())
}

/// The process that sends.
#[inline(always)]
fn process() -> u32 {
    // SAFETY: plain helper call.
    (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32
}

/// Hands a message over, behind a header that tells the requests from number `first` on. False: it
/// is as it was.
///
/// # Safety
/// See [`follow`].
#[inline(always)]
pub unsafe fn hand(msg: *mut sk_msg_md, c: &mut Connection, size: u32, first: u32) -> bool {
    // SAFETY: plain helper calls; every access is compared with the message's end, and places are
    // masked.
    unsafe {
        let sk = (*msg).__bindgen_anon_3.sk;
        if sk.is_null() {
            return false;
        }
        let Some(handed) = handed(sk.cast(), MAKE) else { return false };
        if bpf_msg_push_data(msg, 0, DETOUR_HEADER, 0) != 0 {
            return false;
        }
        let mut is_handed = false;
        if bpf_msg_pull_data(msg, 0, DETOUR_HEADER, 0) == 0 {
            let (data, end) = bounds(msg);
            if data + DETOUR_HEADER as usize <= end {
                let header = data as *mut DetourHeader;
                write(&raw mut (*header).magic, MAGIC);
                write(&raw mut (*header).pid, process());
                write(&raw mut (*header).length, size);
                write(&raw mut (*header).count, c.asked.wrapping_sub(first));
                write(&raw mut (*header).connection, c.id);
                let mut i = 0;
                while i < HTTP_PIPELINE {
                    let place = below::<{ HTTP_PIPELINE as u64 - 1 }>(first.wrapping_add(i));
                    let request = *(&raw const c.requests).cast::<u64>().add(place);
                    write((&raw mut (*header).requests).cast::<u64>().add(i as usize), request);
                    i += 1;
                }
                let (map, mut key) = ((&raw const DETOUR).cast_mut().cast(), 0u32);
                let verdict =
                    bpf_msg_redirect_hash(msg, map, (&raw mut key).cast(), BPF_F_INGRESS as u64);
                is_handed = verdict == sk_action::SK_PASS as i64;
            }
        }
        if is_handed {
            c.answered = c.asked;
            handed.bytes += size as u64;
            c.phase = PHASE_AWAY;
            c.chunk = chunk::NONE;
            c.left = 0;
        } else {
            bpf_msg_pop_data(msg, 0, DETOUR_HEADER, 0);
        }
        is_handed
    }
}

#[inline(always)]
unsafe fn write<T>(to: *mut T, value: T) {
    // SAFETY: as promised by the caller; volatile, or writes are merged into wider ones.
    unsafe { core::ptr::write_volatile(to, value) };
}
