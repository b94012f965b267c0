//! Percentages that the API writes as text: `loss: "12.5"`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A percentage as written; any finite number, because upstream checks no range.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Percent {
    /// The number as written.
    pub written: f64,
}

/// Why a text is no percentage.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PercentError {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// A percent sign is not part of the syntax.
    #[error("is a plain number of percent, without the sign %")]
    Sign,
    /// Not a number at all.
    #[error("is not a number")]
    NotANumber,
    /// Infinite, NaN, or beyond 32-bit floats.
    #[error("is not a finite number")]
    NotFinite,
}

impl Percent {
    /// The percentage as a share from 0 to 1, cut to that range.
    #[must_use]
    pub fn share(self) -> f64 {
        self.written.clamp(0.0, 100.0) / 100.0
    }

    /// True when the number lies outside 0 to 100, so that [`Percent::share`] cuts it.
    #[must_use]
    pub fn is_cut(self) -> bool {
        !(0.0..=100.0).contains(&self.written)
    }
}

impl FromStr for Percent {
    type Err = PercentError;

    fn from_str(text: &str) -> Result<Self, PercentError> {
        if text.is_empty() {
            return Err(PercentError::Empty);
        }
        if text.ends_with('%') {
            return Err(PercentError::Sign);
        }
        let written: f64 = text.parse().map_err(|_| PercentError::NotANumber)?;
        // Upstream parses 32-bit floats; what overflows there is refused there.
        if !(written as f32).is_finite() {
            return Err(PercentError::NotFinite);
        }
        // -0 is 0.
        Ok(Self { written: written + 0.0 })
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.written.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finite_numbers_are_percentages() {
        for (text, want) in
            [("50", 0.5), ("0.1", 0.001), ("1e1", 0.1), ("+5", 0.05), ("5.", 0.05), ("-0", 0.0)]
        {
            assert_eq!(text.parse::<Percent>().unwrap().share(), want, "{text}");
        }
    }

    #[test]
    fn what_lies_outside_is_cut_and_says_so() {
        for (text, want) in [("150", 1.0), ("-3", 0.0)] {
            let percent: Percent = text.parse().unwrap();
            assert!(percent.is_cut());
            assert_eq!(percent.share(), want);
        }
    }

    #[test]
    fn what_is_no_finite_number_is_refused() {
        for text in ["", "%", "50%", "ten", "NaN", "inf", "-Infinity", "1e39", " 5", "1,5"] {
            assert!(text.parse::<Percent>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_share_is_always_a_probability(written in -1e30f64..1e30) {
            let share = Percent { written }.share();
            prop_assert!((0.0..=1.0).contains(&share));
        }

        #[test]
        fn what_it_prints_it_reads(written in -1e6f64..1e6) {
            let percent = Percent { written };
            prop_assert_eq!(percent.to_string().parse(), Ok(percent));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = text.parse::<Percent>();
        }
    }
}
