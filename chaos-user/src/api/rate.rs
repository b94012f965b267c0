//! Rates as tc writes them: `1mbit` is bits per second, `1mbps` is **bytes** per second.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate {
    /// Bytes per second.
    pub bytes: u64,
}

/// Why a text is no rate.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RateError {
    /// No digits in front.
    #[error("must begin with a whole number without a sign")]
    Number,
    /// The unit is missing.
    #[error("has no unit (allowed: bit, kbit, mbit, gbit, tbit, bps, kbps, mbps, gbps, tbps)")]
    NoUnit,
    /// The unit is unknown.
    #[error(
        "unknown unit \"{0}\" (allowed: bit, kbit, mbit, gbit, tbit for bits per second; bps, kbps, mbps, gbps, tbps for bytes per second)"
    )]
    Unit(String),
    /// More than 2^64 bytes per second.
    #[error("does not fit into 64 bits of bytes per second")]
    Overflow,
    /// Between 0 and 1 byte per second.
    #[error("is less than one byte per second (8bit)")]
    TooSmall,
}

/// Unit, and what one of it is in bits per second. Multiples are decimal, as in tc.
const UNITS: [(&str, u64); 10] = [
    ("bit", 1),
    ("kbit", 1_000),
    ("mbit", 1_000_000),
    ("gbit", 1_000_000_000),
    ("tbit", 1_000_000_000_000),
    ("bps", 8),
    ("kbps", 8_000),
    ("mbps", 8_000_000),
    ("gbps", 8_000_000_000),
    ("tbps", 8_000_000_000_000),
];

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        if digits.is_empty() {
            return Err(RateError::Number);
        }
        let unit = unit.trim().to_ascii_lowercase();
        if unit.is_empty() {
            return Err(RateError::NoUnit);
        }
        let scale = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, scale)| *scale)
            .ok_or_else(|| RateError::Unit(unit.clone()))?;
        let count: u64 = digits.parse().map_err(|_| RateError::Overflow)?;
        let bits = u128::from(count) * u128::from(scale);
        if (1..8).contains(&bits) {
            return Err(RateError::TooSmall);
        }
        Ok(Self { bytes: u64::try_from(bits / 8).map_err(|_| RateError::Overflow)? })
    }
}

impl fmt::Display for Rate {
    /// In the largest unit that needs no fraction: `1mbit`, `125bps`. Parses back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from(self.bytes) * 8;
        let (unit, scale) = UNITS[..5]
            .iter()
            .rev()
            .find(|(_, scale)| bits != 0 && bits % u128::from(*scale) == 0)
            .copied()
            .unwrap_or(UNITS[0]);
        let count = bits / u128::from(scale);
        if u64::try_from(count).is_ok() {
            write!(f, "{count}{unit}")
        } else {
            write!(f, "{}bps", self.bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bit_is_bits_and_bps_is_bytes() {
        for (text, want) in [
            ("8bit", 1),
            ("1mbit", 125_000),
            ("1mbps", 1_000_000),
            ("1 MBit", 125_000),
            ("  10\tKbps ", 10_000),
            ("0bps", 0),
            ("1tbps", 1_000_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Rate { bytes: want }), "{text}");
        }
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in
            ["", "mbit", "1", "1.5mbit", "-1mbit", "+1mbit", "1mb", "1kibit", "1m bit", "7bit"]
        {
            assert!(text.parse::<Rate>().is_err(), "{text:?}");
        }
        assert_eq!("18446744073709551616bit".parse::<Rate>(), Err(RateError::Overflow));
        assert_eq!("18446744073709551615tbps".parse::<Rate>(), Err(RateError::Overflow));
    }

    proptest! {
        #[test]
        fn what_it_prints_it_reads(bytes: u64) {
            let rate = Rate { bytes };
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = text.parse::<Rate>();
        }

        #[test]
        fn no_likely_text_makes_it_panic(text in " ?[0-9]{0,22} ?[kKmMgGtT]?(bit|bps|BPS) ?") {
            let _ = text.parse::<Rate>();
        }
    }
}
