//! How long to wait before a worker that has ended is started again.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Doubles from 1 s to 60 s. A worker that lived for longer than the longest wait begins anew.
#[derive(Clone, Copy, Debug)]
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Backoff {
    /// The wait after a worker that lived so long.
    pub fn after(&mut self, lived: Duration) -> Duration {
        if lived > LONGEST {
            self.0 = FIRST;
        }
        let wait = self.0;
        self.0 = (wait * 2).min(LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_a_minute_and_starts_anew_after_a_good_time() {
        let mut backoff = Backoff::default();
        let brief = Duration::from_millis(100);
        let waits: Vec<u64> = (0..9).map(|_| backoff.after(brief).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(backoff.after(Duration::from_secs(61)).as_secs(), 1);
        assert_eq!(backoff.after(brief).as_secs(), 2);
    }
}
