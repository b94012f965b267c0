//! What the thread waits for: descriptors, a time, and somebody who wakes it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Descriptors by number, and a timer.
#[derive(Debug)]
pub struct Poll {
    epoll: OwnedFd,
    timer: OwnedFd,
}

/// Wakes who polls.
#[derive(Debug)]
pub struct Wake(OwnedFd);

const TIMER: u64 = u64::MAX;

impl Poll {
    /// One that waits for nothing.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain calls.
        let (epoll, timer) = unsafe {
            (
                libc::epoll_create1(libc::EPOLL_CLOEXEC),
                libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC),
            )
        };
        let poll = Self { epoll: descriptor(epoll)?, timer: descriptor(timer)? };
        poll.watch(poll.timer.as_raw_fd(), TIMER, libc::EPOLLIN)?;
        Ok(poll)
    }

    /// Waits for one more; `events` as epoll has them.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn watch(&self, fd: RawFd, id: u64, events: i32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: id };
        // SAFETY: valid descriptors and a valid pointer.
        let failed = unsafe {
            libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event)
        };
        if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Waits for it no more. Needed before it is closed where others have it open as well.
    pub fn leave(&self, fd: RawFd) {
        // SAFETY: a valid descriptor; the event is not looked at.
        unsafe {
            libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut())
        };
    }

    /// Waits until something is ready, or until a time of `CLOCK_MONOTONIC`, nanoseconds. Numbers
    /// of what is ready.
    pub fn wait(&self, until: Option<u64>) -> Vec<u64> {
        // 0 would mean never.
        let at = until.map_or(0, |at| at.max(1));
        let value = libc::itimerspec {
            it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: libc::timespec {
                tv_sec: (at / 1_000_000_000).cast_signed(),
                tv_nsec: (at % 1_000_000_000).cast_signed(),
            },
        };
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
        // SAFETY: valid descriptors and pointers; as many events as the array holds.
        let ready = unsafe {
            libc::timerfd_settime(
                self.timer.as_raw_fd(),
                libc::TFD_TIMER_ABSTIME,
                &raw const value,
                std::ptr::null_mut(),
            );
            libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), 64, -1)
        };
        let ready = usize::try_from(ready).unwrap_or(0);
        // The timer is set anew each time, which clears it.
        events.iter().take(ready).map(|event| event.u64).filter(|id| *id != TIMER).collect()
    }
}

impl Wake {
    /// One that `poll` tells by `id`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(poll: &Poll, id: u64) -> io::Result<Self> {
        // SAFETY: plain call.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        let wake = Self(descriptor(fd)?);
        poll.watch(wake.0.as_raw_fd(), id, libc::EPOLLIN)?;
        Ok(wake)
    }

    /// The same one, for somebody else.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn twin(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Wakes.
    pub fn now(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight bytes into an eventfd.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// It has been heard.
    pub fn heard(&self) {
        let mut bytes = [0u8; 8];
        // SAFETY: eight bytes from an eventfd.
        unsafe { libc::read(self.0.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
    }
}

fn descriptor(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned it to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
