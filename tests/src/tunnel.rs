//! A device whose other end is this process: what leaves through it is read here.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::ns::Ns;

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;

/// A TUN device: packets without a link-layer header. It goes when dropped.
pub struct Tunnel(File);

impl Tunnel {
    /// Makes one in a namespace.
    pub fn open(ns: &Ns, name: &str) -> Result<Self> {
        ns.run(|| {
            let file = File::options()
                .read(true)
                .write(true)
                .open("/dev/net/tun")
                .context("open /dev/net/tun")?;
            let mut request = [0u8; 40];
            ensure!(name.len() < 16, "{name} is too long for a device");
            request[..name.len()].copy_from_slice(name.as_bytes());
            let flags = (libc::IFF_TUN | libc::IFF_NO_PI) as u16;
            request[16..18].copy_from_slice(&flags.to_ne_bytes());
            // SAFETY: a `struct ifreq` of 40 bytes.
            let done = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
            ensure!(done == 0, "make {name}: {}", std::io::Error::last_os_error());
            Ok(Self(file))
        })
    }

    /// The next UDP packet that leaves; what the kernel says by itself is passed over.
    pub fn read(&self, patience: Duration) -> Result<Vec<u8>> {
        loop {
            let packet = self.read_any(patience)?;
            let protocol = if packet.first().is_some_and(|b| b >> 4 == 6) { 6 } else { 9 };
            if packet.get(protocol) == Some(&17) {
                return Ok(packet);
            }
        }
    }

    fn read_any(&self, patience: Duration) -> Result<Vec<u8>> {
        let mut wait = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let patience = i32::try_from(patience.as_millis()).context("a time")?;
        // SAFETY: one valid descriptor.
        let ready = unsafe { libc::poll(&raw mut wait, 1, patience) };
        ensure!(ready == 1, "no packet within {patience} ms");
        let mut packet = vec![0; 65_536];
        let length = (&self.0).read(&mut packet).context("read a packet")?;
        packet.truncate(length);
        Ok(packet)
    }
}
