//! Taking hold of another process's socket.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

/// A descriptor of ours for the socket with this cookie, which the process has open, and the
/// process's own number of it. Looks at `hint` first; then reads the links of its descriptors and
/// looks at its sockets one by one.
///
/// # Errors
/// `NotFound` where it has no such socket, or is gone; what the kernel says otherwise (`EPERM`
/// without the right to look into it).
pub fn socket(pid: u32, cookie: u64, hint: Option<RawFd>) -> io::Result<(OwnedFd, RawFd)> {
    // SAFETY: plain call.
    let process = descriptor(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // The number may be of another file by now, which the cookie tells.
    let look = |number: RawFd| -> io::Result<Option<OwnedFd>> {
        let twin = twin(&process, number)?;
        Ok((cookie_of(twin.as_raw_fd()) == Some(cookie)).then_some(twin))
    };
    if let Some(number) = hint
        && let Ok(Some(twin)) = look(number)
    {
        return Ok((twin, number));
    }
    for number in sockets(pid)? {
        match look(number) {
            Ok(Some(twin)) => return Ok((twin, number)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Ok(None) | Err(_) => {}
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// The same, whichever process of ours has it: `hint` is looked at first. For where the numbers of
/// processes that the kernel tells are not ours. Costs a look at every socket that there is.
///
/// # Errors
/// `NotFound` where nobody has it.
pub fn anywhere(cookie: u64, hint: Option<(u32, RawFd)>) -> io::Result<(OwnedFd, (u32, RawFd))> {
    let of = |pid, number| socket(pid, cookie, number).map(|(twin, number)| (twin, (pid, number)));
    if let Some((pid, number)) = hint
        && let Ok(found) = of(pid, Some(number))
    {
        return Ok(found);
    }
    let found = pids().find_map(|pid| of(pid, None).ok());
    found.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Calls for every socket of every process of ours, with a descriptor of ours.
pub fn each(mut what: impl FnMut(OwnedFd)) {
    each_of(|_, _, socket| what(socket));
}

/// The same, with the process and its own number of the socket.
pub fn each_of(mut what: impl FnMut(u32, RawFd, OwnedFd)) {
    for pid in pids() {
        // SAFETY: plain call.
        let process = descriptor(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) });
        let Ok(process) = process else { continue };
        for number in sockets(pid).unwrap_or_default() {
            if let Ok(twin) = twin(&process, number) {
                what(pid, number, twin);
            }
        }
    }
}

/// How many bytes can be sent at once so that all of them fit, at most [`AT_ONCE`]; 0 where there is
/// no room. Each segment costs its own memory beside its bytes.
#[must_use]
pub fn room(socket: RawFd) -> usize {
    let mut all = [0u32; MEMORY];
    let Ok(()) = option(socket, libc::SOL_SOCKET, libc::SO_MEMINFO, &mut all) else {
        return AT_ONCE;
    };
    let mut free = all[SEND_BUFFER].saturating_sub(all[QUEUED]) as usize;
    // 0: as the system has it, which is without a bound.
    let mut most_unsent = [0];
    let is_bounded = option(socket, libc::IPPROTO_TCP, TCP_NOTSENT_LOWAT, &mut most_unsent).is_ok();
    if is_bounded && (1..i32::MAX.unsigned_abs()).contains(&most_unsent[0]) {
        let mut unsent: libc::c_int = 0;
        // SAFETY: a valid descriptor and a number.
        unsafe { libc::ioctl(socket, SIOCOUTQNSD, &raw mut unsent) };
        let unsent = usize::try_from(unsent).unwrap_or(0);
        free = free.min((most_unsent[0] as usize).saturating_sub(unsent));
    }
    if free > 2 * SEGMENT + LEAST {
        return ((free - 2 * SEGMENT) / 2).min(AT_ONCE);
    }
    // One segment is never stopped half way.
    if free > SEGMENT { LEAST } else { 0 }
}

/// Bytes that are sent at once at most.
const AT_ONCE: usize = 16 << 10;
/// Less than any segment holds.
const LEAST: usize = 400;
/// What a segment costs beside its bytes, and more.
const SEGMENT: usize = 1400;
/// Numbers of `SO_MEMINFO`, and two of them: `SK_MEMINFO_SNDBUF`, `SK_MEMINFO_WMEM_QUEUED`.
const MEMORY: usize = 9;
const SEND_BUFFER: usize = 3;
const QUEUED: usize = 5;
const TCP_NOTSENT_LOWAT: libc::c_int = 25;
/// How much has not been sent once.
const SIOCOUTQNSD: libc::Ioctl = 0x894b;

fn option(socket: RawFd, level: libc::c_int, name: libc::c_int, to: &mut [u32]) -> io::Result<()> {
    let mut length = size_of_val(to) as libc::socklen_t;
    // SAFETY: as many bytes as the slice has.
    let failed =
        unsafe { libc::getsockopt(socket, level, name, to.as_mut_ptr().cast(), &raw mut length) };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Cuts the connection, whoever else has the socket open.
pub fn reset(socket: BorrowedFd<'_>) {
    let nobody =
        libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let length = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: a valid descriptor and an address of this length. Connecting to nobody resets a
    // connection; where that is not possible it is shut down.
    unsafe {
        if libc::connect(socket.as_raw_fd(), &raw const nobody, length) != 0 {
            libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR);
        }
    }
}

/// Processes of ours, by their numbers here.
fn pids() -> impl Iterator<Item = u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The numbers that a process has for its sockets.
fn sockets(pid: u32) -> io::Result<Vec<RawFd>> {
    let all = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
    let is_socket = |link: PathBuf| link.as_os_str().as_encoded_bytes().starts_with(b"socket:");
    let sockets = all.filter(|entry| fs::read_link(entry.path()).is_ok_and(is_socket));
    Ok(sockets.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// A descriptor of ours for a file of a process.
fn twin(process: &OwnedFd, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: a valid descriptor.
    descriptor(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })
}

/// The kernel's number of a socket, the same in every process.
#[must_use]
pub fn cookie_of(socket: RawFd) -> Option<u64> {
    let (mut cookie, mut length) = (0u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: eight bytes and their length.
    let failed = unsafe {
        let value = (&raw mut cookie).cast();
        libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_COOKIE, value, &raw mut length)
    };
    (failed == 0).then_some(cookie)
}

/// The kernel's number of the network namespace of a socket, the same in every process.
#[must_use]
pub fn namespace_of(socket: RawFd) -> Option<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let mut halves = [0u32; 2];
    option(socket, libc::SOL_SOCKET, SO_NETNS_COOKIE, &mut halves).ok()?;
    let [first, second] = halves.map(u32::to_ne_bytes);
    Some(u64::from_ne_bytes([first, second].concat().try_into().ok()?))
}

/// The port of our end of a socket of IPv4 or IPv6.
#[must_use]
pub fn local_port(socket: RawFd) -> Option<u16> {
    let mut words = [0u32; 32];
    let mut length = size_of_val(&words) as libc::socklen_t;
    // SAFETY: as many bytes as the array has.
    let failed = unsafe { libc::getsockname(socket, words.as_mut_ptr().cast(), &raw mut length) };
    let [first, second, third, fourth] = words[0].to_ne_bytes();
    let family = libc::c_int::from(u16::from_ne_bytes([first, second]));
    let is_ip = failed == 0 && matches!(family, libc::AF_INET | libc::AF_INET6);
    // Both kinds of address have it in the same place.
    is_ip.then(|| u16::from_be_bytes([third, fourth]))
}

/// Whether a server has still to read something.
#[must_use]
pub fn is_unread(socket: BorrowedFd<'_>) -> bool {
    let events = libc::POLLIN | libc::POLLRDHUP;
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events, revents: 0 };
    // SAFETY: one valid descriptor.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    let is_over = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR;
    ready > 0 && poll.revents & libc::POLLIN != 0 && poll.revents & is_over == 0
}

/// Whether the kernel thinks that another number of bytes has been read of a connection than has come
/// of it, where nothing is left to be read.
#[must_use]
pub fn is_out_of_step(socket: BorrowedFd<'_>) -> bool {
    let mut queued: libc::c_int = 0;
    // SAFETY: a valid descriptor and a number.
    let failed = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut queued) };
    failed == 0 && queued != 0
}

/// Tells whoever reads a connection that nothing comes any more. What it sends still goes.
pub fn say_no_more(socket: BorrowedFd<'_>) {
    // SAFETY: a valid descriptor.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RD) };
}

/// Whether this is a connection of TCP both ends of which may still send.
#[must_use]
pub fn is_open(socket: BorrowedFd<'_>) -> bool {
    const ESTABLISHED: u8 = 1;
    // The state is the first byte.
    let mut first = [0u32];
    let known = option(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, &mut first).is_ok();
    known && first[0].to_ne_bytes().first() == Some(&ESTABLISHED)
}

fn descriptor(fd: libc::c_long) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned it to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_socket_is_found_by_its_cookie_and_outlives_its_owners_descriptor() {
        let _others: Vec<UnixStream> =
            (0..20).flat_map(|_| <[UnixStream; 2]>::from(UnixStream::pair().unwrap())).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let cookie = cookie_of(server.as_raw_fd()).unwrap();
        let begin = Instant::now();
        let (twin, number) = socket(std::process::id(), cookie, None).unwrap();
        println!("found in {:?}", begin.elapsed());
        assert_eq!(number, server.as_raw_fd());
        let us = (std::process::id(), number);
        for hint in [None, Some(us), Some((1, 0))] {
            assert_eq!(anywhere(cookie, hint).unwrap().1, us);
        }
        for hint in [number, number + 1, -1] {
            assert_eq!(socket(std::process::id(), cookie, Some(hint)).unwrap().1, number);
        }
        drop(server);
        let mut twin = TcpStream::from(twin);
        twin.write_all(b"hello").unwrap();
        drop(twin);
        let mut got = String::new();
        client.read_to_string(&mut got).unwrap();
        assert_eq!(got, "hello");
    }

    #[test]
    fn who_is_not_there_is_not_found() {
        let none = socket(std::process::id(), u64::MAX, None).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::NotFound);
        assert!(socket(u32::MAX >> 1, 1, None).is_err());
    }
}
