//! Durations in Go's syntax.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// A duration as Go writes it: signed nanoseconds, about ±292 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoDuration {
    /// Nanoseconds, may be negative.
    pub nanos: i64,
}

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DurationError {
    /// Empty, or nothing but a sign.
    #[error("a duration needs a number and a unit")]
    Empty,
    /// Something that is neither digit nor point stands where a number belongs.
    #[error("expected a number at \"{0}\"")]
    Number(String),
    /// A number without a unit.
    #[error("missing unit after \"{0}\"")]
    NoUnit(String),
    /// A unit that does not exist. Units are lower case.
    #[error("unknown unit \"{0}\" (allowed: ns, us, µs, ms, s, m, h)")]
    Unit(String),
    /// More than 292 years.
    #[error("does not fit into 64 bits of nanoseconds (about 292 years)")]
    Overflow,
}

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

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

impl FromStr for GoDuration {
    type Err = DurationError;

    /// Everything that Go's `time.ParseDuration` takes: `1m30s`, `-1.5h`, `.5ms`, `0`.
    fn from_str(text: &str) -> Result<Self, DurationError> {
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self { nanos: 0 });
        }
        if rest.is_empty() {
            return Err(DurationError::Empty);
        }
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let (nanos, tail) = term(rest)?;
            total = total.checked_add(nanos).ok_or(DurationError::Overflow)?;
            rest = tail;
        }
        let signed = if negative { -i128::from(total) } else { i128::from(total) };
        let nanos = i64::try_from(signed).map_err(|_| DurationError::Overflow)?;
        Ok(Self { nanos })
    }
}

/// One number with its unit, and what follows.
fn term(text: &str) -> Result<(u64, &str), DurationError> {
    let end = |s: &str| s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
    let (whole, rest) = text.split_at(end(text));
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(tail) => tail.split_at(end(tail)),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::Number(text.to_owned()));
    }
    let unit_end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, tail) = rest.split_at(unit_end);
    if unit.is_empty() {
        return Err(DurationError::NoUnit(text[..text.len() - tail.len()].to_owned()));
    }
    let scale = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, scale)| *scale)
        .ok_or_else(|| DurationError::Unit(unit.to_owned()))?;
    let whole: u64 = match whole {
        "" => 0,
        digits => digits.parse().map_err(|_| DurationError::Overflow)?,
    };
    let nanos = whole.checked_mul(scale).ok_or(DurationError::Overflow)?;
    let nanos = nanos.checked_add(part(fraction, scale)).ok_or(DurationError::Overflow)?;
    Ok((nanos, tail))
}

/// `0.fraction` of `scale`, cut to whole nanoseconds. Digits behind the 18th do not count.
fn part(fraction: &str, scale: u64) -> u64 {
    let (mut value, mut unit) = (0u128, 1u128);
    for digit in fraction.bytes().take(18) {
        value = value * 10 + u128::from(digit - b'0');
        unit *= 10;
    }
    u64::try_from(value * u128::from(scale) / unit).unwrap_or(u64::MAX)
}

impl fmt::Display for GoDuration {
    /// As Go prints it: `1m30s`, `500ms`, `1.5µs`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.nanos.unsigned_abs();
        if all == 0 {
            return f.write_str("0s");
        }
        if self.nanos < 0 {
            f.write_str("-")?;
        }
        if all < 1_000_000_000 {
            let (scale, unit) = match all {
                0..1_000 => (1, "ns"),
                1_000..1_000_000 => (1_000, "µs"),
                _ => (1_000_000, "ms"),
            };
            return write!(f, "{}{unit}", decimal(all, scale));
        }
        let minutes = all / 60_000_000_000;
        if minutes >= 60 {
            write!(f, "{}h", minutes / 60)?;
        }
        if minutes > 0 {
            write!(f, "{}m", minutes % 60)?;
        }
        write!(f, "{}s", decimal(all % 60_000_000_000, 1_000_000_000))
    }
}

/// `value / scale` without trailing zeros; `scale` is a power of ten.
fn decimal(value: u64, scale: u64) -> String {
    let (whole, fraction) = (value / scale, value % scale);
    if fraction == 0 {
        return whole.to_string();
    }
    let digits = scale.ilog10() as usize;
    let fraction = format!("{fraction:0digits$}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nanos(text: &str) -> Result<i64, DurationError> {
        text.parse::<GoDuration>().map(|d| d.nanos)
    }

    #[test]
    fn everything_that_go_takes_is_taken() {
        for (text, want) in [
            ("0", 0),
            ("-0", 0),
            ("+5s", 5_000_000_000),
            ("-1.5h", -5_400_000_000_000),
            (".5ms", 500_000),
            ("5.s", 5_000_000_000),
            ("1h15m30.918s", 4_530_918_000_000),
            ("12µs", 12_000),
            ("12μs34ns", 12_034),
            ("0.3333333333333333333h", 1_200_000_000_000 - 1),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
        ] {
            assert_eq!(nanos(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_upstream_refuses_is_refused() {
        for text in ["", "-", "400S", "1S", "1", "1SSS", ".s", "s", "1 s", " 1s", "1s ", "1e3s"] {
            assert!(nanos(text).is_err(), "{text:?}");
        }
        assert_eq!(nanos("9223372036854775808ns"), Err(DurationError::Overflow));
        assert_eq!(nanos("3000000h"), Err(DurationError::Overflow));
    }

    #[test]
    fn it_prints_as_go_prints() {
        for (nanos, want) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (500_000_000, "500ms"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (-1_500_000_000, "-1.5s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(GoDuration { nanos }.to_string(), want);
        }
    }

    proptest! {
        #[test]
        fn what_it_prints_it_reads(nanos: i64) {
            let duration = GoDuration { nanos };
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = text.parse::<GoDuration>();
        }

        #[test]
        fn no_likely_text_makes_it_panic(text in "[-+]?([0-9]{0,22}(\\.[0-9]{0,22})?(ns|us|µs|ms|s|m|h|x)?){0,4}") {
            let _ = text.parse::<GoDuration>();
        }
    }
}
