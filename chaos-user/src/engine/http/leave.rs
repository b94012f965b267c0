//! Connections that have been diverted, when that comes to its end.
//!
//! What was put back for a server counts as read from the network (`tcp_bpf_recvmsg_parser`, up to
//! Linux 6.18): a socket on which that has happened is out of step with the network, and would lose as
//! many bytes as soon as it is plain again. Such a connection ends: the server finds that its client
//! says no more, and closes when it has answered. The others go on.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::engine::detour::hold;

/// How often it is looked.
const PACE: Duration = Duration::from_millis(5);

/// Waits until servers have read what was put back for them, at most until `end`; what is not read
/// then is cut. Ends connections that are out of step. How many of both.
pub fn all(sockets: &[OwnedFd], end: Instant) -> usize {
    let mut out: Vec<&OwnedFd> = Vec::new();
    for socket in sockets {
        if hold::is_out_of_step(socket.as_fd()) {
            hold::say_no_more(socket.as_fd());
            out.push(socket);
        }
    }
    let mut busy: Vec<&OwnedFd> = sockets.iter().collect();
    loop {
        busy.retain(|socket| hold::is_unread(socket.as_fd()));
        out.retain(|socket| hold::is_open(socket.as_fd()));
        if (busy.is_empty() && out.is_empty()) || Instant::now() >= end {
            break;
        }
        std::thread::sleep(PACE);
    }
    let mut cut = 0;
    for socket in busy.into_iter().chain(out) {
        hold::reset(socket.as_fd());
        cut += 1;
    }
    cut
}
