//! The BPF programs of kfault. Off the BPF target this is an empty program, so that the
//! workspace can be checked on any host.
//!
//! - [`maps`]: every map.
//! - [`skb`]: the packet as helpers show it.
//! - [`target`]: hook → slot → rules; the only lookup path.
//! - [`effect`]: what a rule does to a packet it matched.
//! - [`question`]: a DNS query, and whose name it asks for.
//! - [`reply`]: answers made out of the packet itself (TCP reset, ICMP unreachable).
//! - [`programs`]: the entry points, one file per hook family.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod effect;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod programs;
#[cfg(target_arch = "bpf")]
mod question;
#[cfg(target_arch = "bpf")]
mod reply;
#[cfg(target_arch = "bpf")]
mod skb;
#[cfg(target_arch = "bpf")]
mod target;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// Helpers marked GPL-only refuse anything else; the sources are MIT OR Apache-2.0 as well.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
