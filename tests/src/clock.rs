//! `CLOCK_MONOTONIC`, which both ends of a probe share.

use std::time::Duration;

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[must_use]
pub fn now_ns() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: plain call with a valid pointer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut t) };
    t.tv_sec.cast_unsigned() * 1_000_000_000 + t.tv_nsec.cast_unsigned()
}

/// Sleeps until `at_ns` of `CLOCK_MONOTONIC`; returns at once when that has passed.
pub fn sleep_until(at_ns: u64) {
    let at = libc::timespec {
        tv_sec: (at_ns / 1_000_000_000).cast_signed(),
        tv_nsec: (at_ns % 1_000_000_000).cast_signed(),
    };
    // SAFETY: plain call with a valid pointer; an early return by a signal is repeated.
    while unsafe {
        libc::clock_nanosleep(
            libc::CLOCK_MONOTONIC,
            libc::TIMER_ABSTIME,
            &raw const at,
            std::ptr::null_mut(),
        )
    } == libc::EINTR
    {}
}

/// A duration as whole nanoseconds.
#[must_use]
pub fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Asks `done` every 10 ms until it is true or the time is over. Says whether it became true.
pub fn wait_for(patience: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = now_ns() + ns(patience);
    loop {
        if done() {
            return true;
        }
        if now_ns() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
