//! The delay line: where a device has no queue that keeps departure times, its held packets
//! wait here.
//!
//! The egress program writes a [`LineHeader`] in front of a frame and redirects it to a TAP
//! device in the same namespace. One thread holds the frames of all lines and writes each back
//! at its time; the TAP's ingress program sends it out of the device it came from.
//!
//! A TAP device carries Ethernet frames. Packets of a device without a link-layer header (a tunnel)
//! go back behind an Ethernet header of ours, which the kernel takes off again when it redirects
//! them to such a device.
//!
//! Frames that are overdue by more than [`OVERDUE_NS`] (the process was stopped, say) are thrown
//! away: a late burst would be a fault that nobody declared.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex};

use chaos_abi::line::{LINE_HEADER, MAGIC};

/// A frame that is later than this is dropped, nanoseconds.
pub const OVERDUE_NS: u64 = 250_000_000;
/// Bytes that all lines together may hold.
const MEMORY: usize = 256 << 20;
/// `struct virtio_net_hdr`.
const VNET: usize = 10;
const HEADER: usize = LINE_HEADER as usize;
const ETHERNET: usize = 14;
/// A 64 KiB segmentation-offload frame, its link header, ours and virtio's.
const LARGEST: usize = 65_536 + 64 + HEADER + VNET;

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUN_F_CSUM_TSO4_TSO6: libc::c_ulong = 0x01 | 0x02 | 0x04;

/// What one line did.
#[derive(Debug, Default)]
pub struct LineStats {
    /// Frames held now.
    pub held: AtomicU64,
    /// Frames dropped because they were overdue or memory was short.
    pub dropped: AtomicU64,
}

enum Message {
    Add(u64, Held),
    Remove(u64),
}

/// The thread's end of a line.
struct Held {
    tap: File,
    stats: Arc<LineStats>,
    /// Its packets have no link-layer header.
    is_bare: bool,
}

/// One line; dropping it removes its TAP device.
pub struct Line {
    id: u64,
    control: Arc<Control>,
    /// What it did.
    pub stats: Arc<LineStats>,
}

/// Fields are dropped in this order: the thread must find the sender gone when it is woken for
/// the last time, or it waits for ever.
struct Control {
    sender: Mutex<Sender<Message>>,
    wake: Wake,
}

/// An event that the thread waits for; dropping it is the last one.
struct Wake(OwnedFd);

impl Control {
    fn send(&self, message: Message) {
        if let Ok(sender) = self.sender.lock() {
            let _ = sender.send(message);
        }
        self.wake.now();
    }
}

impl Wake {
    fn now(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight bytes into an eventfd.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        self.now();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.control.send(Message::Remove(self.id));
    }
}

/// The thread behind all lines.
pub struct Lines {
    control: Arc<Control>,
    next: u64,
}

impl Lines {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn start() -> io::Result<Self> {
        let wake = descriptor(
            // SAFETY: plain call.
            unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) },
        )?;
        let (sender, receiver) = channel();
        let worker = Worker::new(receiver, wake.try_clone()?)?;
        let control = Arc::new(Control { sender: Mutex::new(sender), wake: Wake(wake) });
        std::thread::Builder::new()
            .name("kfault-line".into())
            .stack_size(512 * 1024)
            .spawn(move || worker.run())?;
        Ok(Self { control, next: 1 })
    }

    /// Takes over a TAP made by [`tap`]. `is_bare`: for packets without a link-layer header.
    pub fn add(&mut self, tap: File, is_bare: bool) -> Line {
        let id = self.next;
        self.next += 1;
        let stats = Arc::new(LineStats::default());
        let held = Held { tap, stats: Arc::clone(&stats), is_bare };
        self.control.send(Message::Add(id, held));
        Line { id, control: Arc::clone(&self.control), stats }
    }
}

/// Makes a TAP device in the calling thread's network namespace; returns it with its name. It
/// lives as long as the file.
///
/// # Errors
/// ENOENT without the `tun` module, EPERM without the right to use it.
pub fn tap() -> io::Result<(File, String)> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut request = [0u8; 40];
    for (place, byte) in request.iter_mut().take(15).zip(*b"kfault%d") {
        *place = byte;
    }
    let flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as u16;
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: a `struct ifreq` of 40 bytes; then flags by value; then file status flags.
    unsafe {
        if libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) != 0
            || libc::ioctl(file.as_raw_fd(), TUNSETOFFLOAD, TUN_F_CSUM_TSO4_TSO6) != 0
            || libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) != 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    let length = request[..16].iter().position(|byte| *byte == 0).unwrap_or(16);
    Ok((file, String::from_utf8_lossy(&request[..length]).into_owned()))
}

fn descriptor(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned it to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid pointer; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// A frame that waits: when, in which order it came, whose, and its bytes (virtio header and
/// frame, our header taken out).
type Waiting = Reverse<(u64, u64, u64, Vec<u8>)>;

struct Worker {
    receiver: Receiver<Message>,
    wake: OwnedFd,
    epoll: OwnedFd,
    timer: OwnedFd,
    lines: BTreeMap<u64, Held>,
    waiting: BinaryHeap<Waiting>,
    spare: Vec<Vec<u8>>,
    bytes: usize,
    order: u64,
}

const WAKE: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;

impl Worker {
    fn new(receiver: Receiver<Message>, wake: OwnedFd) -> io::Result<Self> {
        // SAFETY: plain calls.
        let (epoll, timer) = unsafe {
            (
                libc::epoll_create1(libc::EPOLL_CLOEXEC),
                libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC),
            )
        };
        let worker = Self {
            receiver,
            wake,
            epoll: descriptor(epoll)?,
            timer: descriptor(timer)?,
            lines: BTreeMap::new(),
            waiting: BinaryHeap::new(),
            spare: Vec::new(),
            bytes: 0,
            order: 0,
        };
        worker.watch(worker.wake.as_raw_fd(), WAKE)?;
        worker.watch(worker.timer.as_raw_fd(), TIMER)?;
        Ok(worker)
    }

    fn watch(&self, fd: RawFd, id: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: id };
        // SAFETY: valid descriptors and a valid pointer.
        let failed = unsafe {
            libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event)
        };
        if failed != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn run(mut self) {
        // SAFETY: plain call. Timers of this thread fire on time, not up to 50 µs later.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
        let mut buffer = vec![0u8; LARGEST];
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 32];
        loop {
            self.release();
            self.set_timer();
            // SAFETY: as many events as the array holds.
            let ready =
                unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), 32, -1) };
            let ready = usize::try_from(ready).unwrap_or(0);
            for event in events.iter().take(ready) {
                match event.u64 {
                    WAKE => {
                        if !self.control_messages() {
                            return;
                        }
                    }
                    TIMER => drain(self.timer.as_raw_fd()),
                    id => self.read(id, &mut buffer),
                }
            }
        }
    }

    /// False when nobody is left to send any.
    fn control_messages(&mut self) -> bool {
        drain(self.wake.as_raw_fd());
        loop {
            match self.receiver.try_recv() {
                Ok(Message::Add(id, held)) => {
                    if self.watch(held.tap.as_raw_fd(), id).is_ok() {
                        self.lines.insert(id, held);
                    }
                }
                // Closing the file removes the device; its frames find no line and are dropped.
                Ok(Message::Remove(id)) => drop(self.lines.remove(&id)),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn read(&mut self, id: u64, buffer: &mut [u8]) {
        // A bounded burst, so that frames that are due are not kept waiting by those that come.
        for _ in 0..64 {
            let Some(Held { tap, stats, is_bare }) = self.lines.get_mut(&id) else { return };
            let Ok(length) = tap.read(buffer) else { return };
            let Some(Unwrapped { departure, vnet, ethernet, packet }) =
                unwrap_frame(&buffer[..length], *is_bare)
            else {
                continue;
            };
            if self.bytes + length > MEMORY {
                stats.dropped.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            stats.held.fetch_add(1, Ordering::Relaxed);
            let mut frame = self.spare.pop().unwrap_or_default();
            frame.clear();
            frame.extend_from_slice(&vnet);
            frame.extend_from_slice(ethernet);
            frame.extend_from_slice(packet);
            self.bytes += frame.len();
            self.order += 1;
            self.waiting.push(Reverse((departure, self.order, id, frame)));
        }
    }

    fn release(&mut self) {
        loop {
            let now = monotonic_ns();
            match self.waiting.peek() {
                Some(Reverse((departure, ..))) if *departure <= now => {}
                _ => return,
            }
            let Some(Reverse((departure, _, id, frame))) = self.waiting.pop() else { return };
            self.bytes -= frame.len();
            if let Some(Held { tap, stats, .. }) = self.lines.get_mut(&id) {
                stats.held.fetch_sub(1, Ordering::Relaxed);
                if now - departure > OVERDUE_NS || tap.write(&frame).is_err() {
                    stats.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            if self.spare.len() < 256 && frame.capacity() <= 4096 {
                self.spare.push(frame);
            }
        }
    }

    fn set_timer(&self) {
        let at = self.waiting.peek().map_or(0, |Reverse((departure, ..))| (*departure).max(1));
        let value = libc::itimerspec {
            it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: libc::timespec {
                tv_sec: (at / 1_000_000_000).cast_signed(),
                tv_nsec: (at % 1_000_000_000).cast_signed(),
            },
        };
        // SAFETY: a valid descriptor and pointer.
        unsafe {
            libc::timerfd_settime(
                self.timer.as_raw_fd(),
                libc::TFD_TIMER_ABSTIME,
                &raw const value,
                std::ptr::null_mut(),
            )
        };
    }
}

fn drain(fd: RawFd) {
    let mut bytes = [0u8; 8];
    // SAFETY: eight bytes from an eventfd or timerfd.
    unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) };
}

/// A frame without our header.
struct Unwrapped<'a> {
    departure: u64,
    vnet: [u8; VNET],
    /// The Ethernet header that a bare packet gets.
    ethernet: &'static [u8],
    packet: &'a [u8],
}

/// Ethernet headers without addresses.
const IPV4: [u8; ETHERNET] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x08, 0x00];
const IPV6: [u8; ETHERNET] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x86, 0xdd];

/// The frame behind our header, or `None` where there is no such header (the device's own
/// chatter).
fn unwrap_frame(bytes: &[u8], is_bare: bool) -> Option<Unwrapped<'_>> {
    let header = bytes.get(VNET..VNET + HEADER)?;
    if header[..4] != MAGIC.to_ne_bytes() {
        return None;
    }
    let departure = u64::from_ne_bytes(header[8..16].try_into().ok()?);
    let mut vnet: [u8; VNET] = bytes[..VNET].try_into().ok()?;
    let packet = &bytes[VNET + HEADER..];
    let ethernet: &[u8] = match packet.first() {
        _ if !is_bare => &[],
        Some(first) if first >> 4 == 6 => &IPV6,
        _ => &IPV4,
    };
    // `hdr_len` (2..4) and `csum_start` (6..8) count from the start of the frame; without a
    // checksum to fill in, the latter is 0 and stays so.
    for at in [2, 6] {
        let value = u16::from_ne_bytes([vnet[at], vnet[at + 1]]);
        let moved = value.checked_sub(HEADER as u16).map_or(0, |less| less + ethernet.len() as u16);
        vnet[at..at + 2].copy_from_slice(&moved.to_ne_bytes());
    }
    Some(Unwrapped { departure, vnet, ethernet, packet })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_without_our_mark_is_not_ours() {
        assert!(unwrap_frame(&[0; 64], false).is_none());
        assert!(unwrap_frame(&[0; 4], false).is_none());
    }

    #[test]
    fn offsets_of_the_virtio_header_move_by_our_header() {
        let mut bytes = [0u8; 64];
        bytes[2..4].copy_from_slice(&82u16.to_ne_bytes());
        bytes[6..8].copy_from_slice(&50u16.to_ne_bytes());
        bytes[10..14].copy_from_slice(&MAGIC.to_ne_bytes());
        bytes[18..26].copy_from_slice(&7u64.to_ne_bytes());
        let Some(frame) = unwrap_frame(&bytes, false) else { panic!("ours") };
        assert_eq!((frame.departure, frame.packet.len()), (7, 64 - VNET - HEADER));
        assert_eq!(frame.vnet[2..4], 66u16.to_ne_bytes());
        assert_eq!(frame.vnet[6..8], 34u16.to_ne_bytes());
        assert!(frame.ethernet.is_empty());
    }

    #[test]
    fn a_packet_without_a_link_header_goes_back_behind_one() {
        let mut bytes = [0u8; 64];
        bytes[6..8].copy_from_slice(&36u16.to_ne_bytes());
        bytes[10..14].copy_from_slice(&MAGIC.to_ne_bytes());
        for (version, kind) in [(0x45, [0x08, 0x00]), (0x60, [0x86, 0xdd])] {
            bytes[VNET + HEADER] = version;
            let Some(frame) = unwrap_frame(&bytes, true) else { panic!("ours") };
            assert_eq!(frame.ethernet[12..], kind);
            // The transport header lies 20 bytes into the packet.
            assert_eq!(frame.vnet[6..8], 34u16.to_ne_bytes());
            assert_eq!(frame.vnet[2..4], [0, 0]);
        }
    }
}
