//! Measurements with plain sockets, from outside.

pub mod dns;
pub mod dns_load;
pub mod foreign;
pub mod http;
pub mod http_load;
pub mod nginx;
pub mod node;
pub mod ping;
pub mod process;
pub mod tcp;
pub mod udp;
pub mod work;

use std::os::fd::AsRawFd;

/// Sets an integer socket option as far as the kernel allows.
fn set(socket: &impl AsRawFd, level: i32, option: i32, value: i32) {
    // SAFETY: a valid descriptor and an integer of the stated size.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        );
    }
}

/// The errno of an error, 0 where there is none.
#[must_use]
pub fn errno(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}
