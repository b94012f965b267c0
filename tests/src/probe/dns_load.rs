//! As many DNS queries as are answered, many of them for one system call: the client shall not be
//! what is measured.

use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::dns::{PORT, Query};
use crate::ns::Ns;

/// Room for one answer.
const ROOM: usize = 512;
/// What has not come by then was lost.
const LOST: Duration = Duration::from_millis(200);

/// How many answers come in a second when so many queries are on their way at once.
pub fn answers_per_second(
    ns: &Ns,
    to: IpAddr,
    name: &str,
    in_flight: usize,
    time: Duration,
) -> Result<f64> {
    ns.run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("a socket")?;
        socket.set_read_timeout(Some(LOST)).context("a timeout")?;
        socket.connect((to, PORT)).context("connect to a resolver")?;
        let mut query = Query::a(name).bytes(7);
        let mut room = vec![[0u8; ROOM]; in_flight];
        let mut answers = 0;
        let begun = Instant::now();
        let mut missing = in_flight;
        while begun.elapsed() < time {
            send(&socket, &mut query, missing).context("send queries")?;
            let Ok(sizes) = receive(&socket, &mut room) else {
                missing = in_flight;
                continue;
            };
            ensure!(sizes.iter().all(|size| *size > query.len()), "an answer without an address");
            answers += sizes.len();
            missing = sizes.len();
        }
        Ok(answers as f64 / begun.elapsed().as_secs_f64())
    })
}

fn message(part: &mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: integers and pointers, for which zero is a value.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = part;
    message.msg_hdr.msg_iovlen = 1;
    message
}

fn part(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

fn send(socket: &UdpSocket, query: &mut [u8], count: usize) -> io::Result<()> {
    let mut one = part(query);
    let mut all: Vec<_> = (0..count).map(|_| message(&mut one)).collect();
    // SAFETY: a valid descriptor, and messages that live until the end of the call.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), all.as_mut_ptr(), all.len() as u32, 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The sizes of what has come, one at least.
fn receive(socket: &UdpSocket, room: &mut [[u8; ROOM]]) -> io::Result<Vec<usize>> {
    let mut parts: Vec<_> = room.iter_mut().map(|bytes| part(bytes)).collect();
    let mut all: Vec<_> = parts.iter_mut().map(message).collect();
    // SAFETY: a valid descriptor, and messages with room that live until the end of the call.
    let got = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            all.as_mut_ptr(),
            all.len() as u32,
            libc::MSG_WAITFORONE,
            std::ptr::null_mut(),
        )
    };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    Ok(all[..got].iter().map(|message| message.msg_len as usize).collect())
}
