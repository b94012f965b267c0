//! Latencies and jitters of network faults: a duration with one number and one unit.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::duration::{DurationError, GoDuration};

/// A latency in nanoseconds, as `^[0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h)$` writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Latency {
    /// Nanoseconds.
    pub nanos: u64,
}

/// Why a text is no latency.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LatencyError {
    /// Not even a duration.
    #[error(transparent)]
    Duration(DurationError),
    /// A unit that does not exist here. Units are lower case.
    #[error("unknown unit \"{0}\" (allowed: ns, us, ms, s, m, h)")]
    Unit(String),
    /// A duration, but with a sign, several units, a `µ`, or a bare 0.
    #[error("one number without a sign and one unit of ns, us, ms, s, m, h are allowed here")]
    Form,
}

impl LatencyError {
    /// The duration's complaint, with the units that are allowed here.
    fn of(error: DurationError) -> Self {
        match error {
            DurationError::Unit(unit) => Self::Unit(unit),
            error => Self::Duration(error),
        }
    }
}

impl FromStr for Latency {
    type Err = LatencyError;

    fn from_str(text: &str) -> Result<Self, LatencyError> {
        let nanos = text.parse::<GoDuration>().map_err(LatencyError::of)?.nanos;
        if !has_form(text) {
            return Err(LatencyError::Form);
        }
        Ok(Self { nanos: u64::try_from(nanos).map_err(|_| LatencyError::Form)? })
    }
}

fn has_form(text: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let unit = text.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let number = &text[..text.len() - unit.len()];
    let well_numbered = match number.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(number),
    };
    well_numbered && matches!(unit, "ns" | "us" | "ms" | "s" | "m" | "h")
}

/// Units, the largest first.
const UNITS: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl fmt::Display for Latency {
    /// In the largest unit that needs no fraction: `90s`, `1500us`. Parses back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, scale) = UNITS
            .iter()
            .find(|(_, scale)| self.nanos != 0 && self.nanos.is_multiple_of(*scale))
            .copied()
            .unwrap_or(("ms", 1_000_000));
        write!(f, "{}{unit}", self.nanos / scale)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_number_and_one_unit_are_a_latency() {
        for (text, want) in
            [("500ms", 500_000_000), ("0.5ms", 500_000), ("0ms", 0), ("1m", 60_000_000_000)]
        {
            assert_eq!(text.parse(), Ok(Latency { nanos: want }), "{text}");
        }
    }

    #[test]
    fn what_the_pattern_refuses_is_refused() {
        for text in ["", "0", "-1ms", "+1ms", "1m30s", "5.ms", ".5ms", "1µs", "1S", "1", "1.2.3s"]
        {
            assert!(text.parse::<Latency>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = text.parse::<Latency>();
        }

        #[test]
        fn a_latency_means_what_the_duration_means(whole in 0u32.., fraction in "(\\.[0-9]{1,12})?", unit in "(ns|us|ms|s)") {
            let text = format!("{whole}{fraction}{unit}");
            let duration: GoDuration = text.parse().unwrap();
            prop_assert_eq!(text.parse(), Ok(Latency { nanos: duration.to_std().unwrap().as_nanos() as u64 }));
        }
    }
}
