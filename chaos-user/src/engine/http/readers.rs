//! Connections that exist when an exchange begins that edits requests: they become readers of what the
//! agent sends back.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use aya::maps::{MapData, SkStorage, SockHash};
use chaos_abi::detour::{AskedPort, Reader, reader};

use crate::engine::detour::hold;
use crate::engine::error::EngineError;
use crate::engine::netns;
use crate::engine::object::Pod;
use crate::plan::exchange::Exchange;

/// `BPF_NOEXIST`.
const NEW: u64 = 1;

/// The port of an exchange, as the kernel knows its namespace.
///
/// # Errors
/// [`EngineError::Gone`] where the namespace is no more; what the kernel says otherwise.
pub fn port(exchange: &Exchange) -> Result<AskedPort, EngineError> {
    let file: &Path = exchange.sockets.netns.as_ref();
    let netns = netns::within(file, own_namespace)?
        .map_err(|e| EngineError::os("ask for the number of a network namespace", e))?;
    Ok(AskedPort { netns, port: u64::from(exchange.port) })
}

/// The kernel's number of the namespace of this thread.
fn own_namespace() -> io::Result<u64> {
    // SAFETY: plain call.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned it to us alone.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    hold::namespace_of(socket.as_raw_fd()).ok_or_else(io::Error::last_os_error)
}

/// Makes readers of the open connections to a port. Where a thread waits in the kernel for bytes of
/// the network alone, the next request has to reach it as it is. Those that are readers already stay
/// what they are; those for which a map has no room stay plain.
pub fn join(
    at: AskedPort,
    readers: &mut SockHash<&mut MapData, u64>,
    states: &mut SkStorage<&mut MapData, Pod<Reader>>,
) {
    let mut joined: Vec<(u32, RawFd, OwnedFd, u64)> = Vec::new();
    hold::each_of(|pid, number, socket| {
        let fd = socket.as_raw_fd();
        let is_it = hold::local_port(fd) == Some(at.port as u16)
            && hold::namespace_of(fd) == Some(at.netns)
            && hold::is_open(socket.as_fd());
        if is_it
            && let Some(cookie) = hold::cookie_of(fd)
            && readers.insert(cookie, fd, 0).is_ok()
        {
            joined.push((pid, number, socket, cookie));
        }
    });
    // Who waits now may have begun before its socket joined.
    for (pid, number, socket, cookie) in joined {
        let state = if is_waited_for(pid, number) { reader::WAITS } else { reader::OPEN };
        let state = Pod(Reader { number: cookie, state, since: 0 });
        if let Err(error) = states.insert(&socket.as_raw_fd(), state, NEW) {
            tracing::debug!(%error, "an open connection is a reader already, or stays plain");
        }
    }
}

/// Whether a thread of a process is inside of a call that reads from this descriptor.
fn is_waited_for(pid: u32, number: RawFd) -> bool {
    let reads = [
        libc::SYS_read,
        libc::SYS_readv,
        libc::SYS_recvfrom,
        libc::SYS_recvmsg,
        libc::SYS_recvmmsg,
    ];
    let all = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    all.filter_map(|thread| fs::read_to_string(thread.path().join("syscall")).ok()).any(|line| {
        let mut words = line.split(' ');
        let call = words.next().and_then(|word| word.parse::<libc::c_long>().ok());
        let first = words.next().and_then(|word| word.strip_prefix("0x"));
        let first = first.and_then(|word| u64::from_str_radix(word, 16).ok());
        call.is_some_and(|call| reads.contains(&call)) && first == u64::try_from(number).ok()
    })
}

/// The cgroup that all others are in.
///
/// # Errors
/// [`EngineError::Unsupported`] where there is no hierarchy of v2.
pub fn root_cgroup() -> Result<File, EngineError> {
    let mount =
        crate::engine::cgroup::cgroup_mount().ok_or_else(crate::engine::cgroup::no_cgroup)?;
    File::open(&mount).map_err(|e| EngineError::os(format!("open {}", mount.display()), e))
}
