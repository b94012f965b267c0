//! Amounts as Kubernetes writes them: `64Mi` is binary, `64M` is decimal.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A whole number of bytes or of whatever is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(pub u64);

/// Why a text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// No number in front.
    #[error("must begin with a number that is not negative")]
    Number,
    /// Unknown unit.
    #[error(
        "unknown unit \"{0}\" (allowed: Ki, Mi, Gi, Ti, multiples of 1024; k, M, G, T, of 1000)"
    )]
    Unit(String),
    /// More than 2^64.
    #[error("does not fit into 64 bits")]
    Overflow,
}

impl FromStr for Quantity {
    type Err = QuantityError;

    /// Decimals (`1.5Gi`) are cut to whole units.
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let end = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let scale: u64 = match unit {
            "" => 1,
            "k" => 1_000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            "T" => 1_000_000_000_000,
            "Ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            "Ti" => 1 << 40,
            other => return Err(QuantityError::Unit(other.to_owned())),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError::Number);
        }
        let digits = |text: &str| match text {
            "" => Ok(0u64),
            text => text.parse().map_err(|_| QuantityError::Overflow),
        };
        let part = |text: &str| -> Result<u64, QuantityError> {
            // More digits than a unit of 2^40 can tell apart.
            let text = &text[..text.len().min(12)];
            let denominator = 10u128.pow(text.len() as u32);
            let all = u128::from(digits(text)?) * u128::from(scale) / denominator;
            u64::try_from(all).map_err(|_| QuantityError::Overflow)
        };
        let whole = digits(whole)?.checked_mul(scale);
        let all = whole.and_then(|whole| whole.checked_add(part(fraction).ok()?));
        all.map(Self).ok_or(QuantityError::Overflow)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_those_of_kubernetes() {
        for (text, want) in
            [("64Mi", 64 << 20), ("64M", 64_000_000), ("1.5Gi", 3 << 29), ("12", 12), (".5k", 500)]
        {
            assert_eq!(text.parse(), Ok(Quantity(want)), "{text}");
        }
        for text in ["", "Mi", "-1", "1MB", "1 Mi", "1.2.3", "99999999999Ti", "1m"] {
            assert!(text.parse::<Quantity>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_it_prints_it_reads(count: u64) {
            prop_assert_eq!(Quantity(count).to_string().parse(), Ok(Quantity(count)));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9]{0,30}\\.?[0-9]{0,30}[kKMGTi]{0,2}\\PC?") {
            let _ = text.parse::<Quantity>();
        }
    }
}
