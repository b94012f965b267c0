//! Amounts of memory: a share of the whole (`50%`) or a human size (`256MB`, decimal multiples).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// An amount of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bytes {
    /// Percent of what there is, 0 to 100.
    Percent(u8),
    /// So many bytes.
    Count(u64),
}

/// Why a text is no amount of memory.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BytesError {
    /// `N%` with N outside 0 to 100, or not a whole number.
    #[error("a percentage is a whole number from 0 to 100 followed by %")]
    Percent,
    /// No number in front.
    #[error("must begin with a number that is not negative")]
    Number,
    /// Unknown unit.
    #[error("unknown unit \"{0}\" (allowed: B, KB, MB, GB, TB, PB, in multiples of 1000, or %)")]
    Unit(String),
    /// More than 2^64 bytes.
    #[error("does not fit into 64 bits of bytes")]
    Overflow,
}

impl FromStr for Bytes {
    type Err = BytesError;

    /// What upstream takes: `N%`, or docker/go-units' `FromHumanSize`, where `KiB` is 1000 too.
    fn from_str(text: &str) -> Result<Self, BytesError> {
        if let Some(number) = text.strip_suffix('%') {
            let percent: u8 = number.parse().map_err(|_| BytesError::Percent)?;
            return if percent <= 100 {
                Ok(Self::Percent(percent))
            } else {
                Err(BytesError::Percent)
            };
        }
        let end = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(BytesError::Number);
        }
        let unit = unit.strip_prefix(' ').unwrap_or(unit);
        let scale = scale(unit).ok_or_else(|| BytesError::Unit(unit.to_owned()))?;
        let whole: u128 = match whole {
            "" => 0,
            digits => digits.parse().map_err(|_| BytesError::Overflow)?,
        };
        let (mut part, mut part_scale) = (0u128, 1u128);
        for digit in fraction.bytes().take(15) {
            part = part * 10 + u128::from(digit - b'0');
            part_scale *= 10;
        }
        let bytes = whole
            .checked_mul(scale)
            .and_then(|n| n.checked_add(part * scale / part_scale))
            .and_then(|n| u64::try_from(n).ok())
            .ok_or(BytesError::Overflow)?;
        Ok(Self::Count(bytes))
    }
}

fn scale(unit: &str) -> Option<u128> {
    let unit = unit.to_ascii_lowercase();
    Some(match unit.as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1_000,
        "m" | "mb" | "mib" => 1_000_000,
        "g" | "gb" | "gib" => 1_000_000_000,
        "t" | "tb" | "tib" => 1_000_000_000_000,
        "p" | "pb" | "pib" => 1_000_000_000_000_000,
        _ => return None,
    })
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Count(bytes) => write!(f, "{bytes}B"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_decimal_and_percentages_whole() {
        for (text, want) in [
            ("256MB", Bytes::Count(256_000_000)),
            ("256 mib", Bytes::Count(256_000_000)),
            ("1.5k", Bytes::Count(1_500)),
            ("12", Bytes::Count(12)),
            ("50%", Bytes::Percent(50)),
        ] {
            assert_eq!(text.parse(), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in
            ["", "%", "101%", "1.5%", "-1", "MB", ".", "1.2.3MB", "1XB", "1 0MB", "99999999999PB"]
        {
            assert!(text.parse::<Bytes>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_it_prints_it_reads(count: u64, percent in 0u8..=100) {
            for bytes in [Bytes::Count(count), Bytes::Percent(percent)] {
                prop_assert_eq!(bytes.to_string().parse(), Ok(bytes));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = text.parse::<Bytes>();
        }

        #[test]
        fn no_likely_text_makes_it_panic(text in "[0-9]{0,40}\\.?[0-9]{0,40} ?[kmgtpx]?(b|ib|%)?") {
            let _ = text.parse::<Bytes>();
        }
    }
}
