//! Durations in Go's syntax.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A duration as Go writes it: signed nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration {
    /// Nanoseconds, may be negative.
    pub nanos: i64,
}

impl GoDuration {
    /// The duration, or `None` when it is negative.
    #[must_use]
    pub fn to_std(self) -> Option<Duration> {
        u64::try_from(self.nanos).ok().map(Duration::from_nanos)
    }
}

impl From<Duration> for GoDuration {
    fn from(value: Duration) -> Self {
        Self { nanos: i64::try_from(value.as_nanos()).unwrap_or(i64::MAX) }
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ns", self.nanos)
    }
}

impl FromStr for GoDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_suffix("ns").ok_or("no unit")?;
        Ok(Self { nanos: digits.parse().map_err(|e| format!("{e}"))? })
    }
}
