//! The BPF programs of HTTP faults, an object of its own.
//!
//! - [`request`]: where packets arrive for a server: which requests are meant. The socket of the
//!   first one joins a socket map ([`join`]); others never do, and keep their speed.
//! - [`response`]: what the server sends on such a socket, before it is sent: which response
//!   belongs to which request, and what becomes of it.
//! - [`hold`]: where packets leave: when those of a delayed response may. [`leave`]: sockets that must
//!   not stay in a map.
//! - [`ask`] and [`answer`]: the two parsers. [`meant`] and [`wild`]: which requests are meant.
//! - [`body`] and [`chunk`]: where a body ends, by its number of bytes or in chunks. [`upload`]: the
//!   same for the chunks of a request.
//! - [`turn`]: requests that the agent edits. [`received`]: their bytes, where sockets receive them.
//! - [`choice`]: which exchanges mean a response. [`away`]: responses that the agent edits.
//! - [`segment`]: a TCP segment as helpers show it. [`maps`]: every map.
//!
//! A parser that is in doubt lets the bytes through and counts that. There is one writer for each
//! word of a connection's state: the request side runs where packets arrive, the response side
//! holds the socket's lock.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod answer;
#[cfg(target_arch = "bpf")]
mod ask;
#[cfg(target_arch = "bpf")]
mod away;
#[cfg(target_arch = "bpf")]
mod body;
#[cfg(target_arch = "bpf")]
mod choice;
#[cfg(target_arch = "bpf")]
mod chunk;
#[cfg(target_arch = "bpf")]
mod hold;
#[cfg(target_arch = "bpf")]
mod join;
#[cfg(target_arch = "bpf")]
mod leave;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod meant;
#[cfg(target_arch = "bpf")]
mod received;
#[cfg(target_arch = "bpf")]
mod request;
#[cfg(target_arch = "bpf")]
mod response;
#[cfg(target_arch = "bpf")]
mod segment;
#[cfg(target_arch = "bpf")]
mod turn;
#[cfg(target_arch = "bpf")]
mod upload;
#[cfg(target_arch = "bpf")]
mod wild;

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
