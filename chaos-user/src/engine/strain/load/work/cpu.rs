//! Computing: a share of one processor, by the worker's own processor time.

use std::convert::Infallible;
use std::hint::black_box;

use super::super::trouble::Trouble;
use crate::engine::line::monotonic_ns;

/// How often it looks at the clocks. A worker at 30 % computes 6 ms of it.
const SLICE_NS: u64 = 20_000_000;

/// How much of what it could not use (it was throttled, stopped, or others came first) it makes up
/// for: together with a slice, no burst is longer than 100 ms.
const DEFICIT_NS: u64 = 80_000_000;

/// Steps between two looks at the clock, about 10 µs.
const STEPS: u32 = 10_000;

/// How much processor time is due.
struct Pace {
    percent: u64,
    /// When it was asked last.
    last_ns: u64,
    /// Processor time in all that the worker may have used by then, in hundredths of a
    /// nanosecond, so that nothing is rounded away.
    due: u64,
}

impl Pace {
    fn new(percent: u32, now_ns: u64, used_ns: u64) -> Self {
        Self { percent: percent.min(100).into(), last_ns: now_ns, due: used_ns * 100 }
    }

    /// Until which processor time to compute, given the time and what has been used.
    fn until(&mut self, now_ns: u64, used_ns: u64) -> u64 {
        let passed = now_ns.saturating_sub(self.last_ns);
        self.last_ns = now_ns;
        let most = used_ns.saturating_add(DEFICIT_NS).saturating_mul(100);
        self.due = self.due.saturating_add(passed.saturating_mul(self.percent)).min(most);
        self.due / 100
    }
}

/// Computes this percentage of the time, for ever.
pub fn compute(percent: u32) -> Result<Infallible, Trouble> {
    let mut pace = Pace::new(percent, monotonic_ns(), used_ns());
    let mut seed = 1;
    loop {
        let goal = pace.until(monotonic_ns(), used_ns());
        while used_ns() < goal {
            for _ in 0..STEPS {
                seed = black_box(step(seed));
            }
        }
        let now = monotonic_ns();
        sleep_until(now - now % SLICE_NS + SLICE_NS);
    }
}

/// Something to compute (xorshift).
fn step(mut seed: u64) -> u64 {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^ (seed << 17)
}

/// Processor time of this thread, nanoseconds.
fn used_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid pointer; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

fn sleep_until(at_ns: u64) {
    let at = libc::timespec {
        tv_sec: (at_ns / 1_000_000_000).cast_signed(),
        tv_nsec: (at_ns % 1_000_000_000).cast_signed(),
    };
    // SAFETY: a valid pointer; when a signal ends the sleep early, the next look is early too.
    unsafe {
        let none = std::ptr::null_mut();
        libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &raw const at, none)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A processor that gives `speed` percent of the time, 0 while it is throttled.
    struct Model {
        now: u64,
        used: u64,
        longest: u64,
    }

    impl Model {
        fn slice(&mut self, pace: &mut Pace, speed: u64) {
            let wanted = pace.until(self.now, self.used).saturating_sub(self.used);
            let got = if speed == 0 { 0 } else { wanted };
            self.longest = self.longest.max(got);
            self.used += got;
            let took = (got * 100).checked_div(speed).unwrap_or(0);
            self.now = (self.now + took) / SLICE_NS * SLICE_NS + SLICE_NS;
        }
    }

    fn run(percent: u32, speeds: &[(u64, u64)]) -> (Model, Vec<u64>) {
        let mut model = Model { now: 0, used: 0, longest: 0 };
        let mut pace = Pace::new(percent, 0, 0);
        let mut used = Vec::new();
        for (seconds, speed) in speeds {
            for _ in 0..*seconds {
                let (start, end) = (model.used, model.now + 1_000_000_000);
                while model.now < end {
                    model.slice(&mut pace, *speed);
                }
                used.push((model.used - start) / 1_000_000);
            }
        }
        (model, used)
    }

    #[test]
    fn every_second_has_its_share() {
        for percent in [0, 1, 10, 30, 50, 73, 99, 100] {
            let (model, seconds) = run(percent, &[(10, 100)]);
            for used in &seconds[1..] {
                let error = used.abs_diff(u64::from(percent) * 10);
                assert!(error <= 1, "{percent} %: {used} ms in a second");
            }
            assert!(model.longest <= 100_000_000, "{percent} %: {} ns", model.longest);
        }
    }

    #[test]
    fn a_deficit_is_made_up_for_a_little_and_forgiven_otherwise() {
        let (model, seconds) = run(50, &[(5, 100), (60, 0), (5, 100)]);
        let after = &seconds[65..];
        assert!(after[0] <= 600, "the first second after a minute: {} ms", after[0]);
        assert!(after[1].abs_diff(500) <= 1, "the next one: {} ms", after[1]);
        assert!(model.longest <= 100_000_000, "a burst of {} ns", model.longest);
    }

    #[test]
    fn a_processor_that_is_too_slow_is_used_as_it_is() {
        let (_, seconds) = run(80, &[(10, 40)]);
        assert!(seconds[2..].iter().all(|used| used.abs_diff(400) <= 40), "{seconds:?}");
    }

    #[test]
    fn small_shares_are_not_rounded_away() {
        let mut pace = Pace::new(1, 0, 0);
        let mut goal = 0;
        for n in 1..=1000 {
            goal = pace.until(n * 7, goal);
        }
        assert_eq!(goal, 70);
    }
}
