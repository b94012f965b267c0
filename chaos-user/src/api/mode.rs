//! How many of the selected objects an experiment acts on: `mode` and `value`.

use serde::Serialize;

use super::fields::Fields;
use super::finding::Findings;

/// How many of the matching objects are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One, at random.
    One,
    /// Every one.
    All,
    /// So many at random, at least 1, or all when there are fewer.
    Fixed(u64),
    /// This percentage, 1 to 100, rounded up, at random.
    FixedPercent(u8),
    /// A random percentage from 0 to this one (1 to 100), rounded up; may be none.
    RandomMaxPercent(u8),
}

/// `mode` and `value` as they stand in an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModeFields {
    /// The word.
    pub mode: &'static str,
    /// Its argument.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl Mode {
    /// Its fields, as in a manifest.
    #[must_use]
    pub fn fields(self) -> ModeFields {
        let (mode, value) = match self {
            Self::One => ("one", None),
            Self::All => ("all", None),
            Self::Fixed(n) => ("fixed", Some(n.to_string())),
            Self::FixedPercent(n) => ("fixed-percent", Some(n.to_string())),
            Self::RandomMaxPercent(n) => ("random-max-percent", Some(n.to_string())),
        };
        ModeFields { mode, value }
    }

    /// Reads `mode` and `value`, both required where the mode needs them.
    pub fn read(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<Self> {
        #[derive(Clone, Copy)]
        enum Word {
            One,
            All,
            Fixed,
            FixedPercent,
            RandomMaxPercent,
        }
        const WORDS: [(&str, Word); 5] = [
            ("one", Word::One),
            ("all", Word::All),
            ("fixed", Word::Fixed),
            ("fixed-percent", Word::FixedPercent),
            ("random-max-percent", Word::RandomMaxPercent),
        ];
        fields.require(
            "mode",
            "allowed: one, all, fixed, fixed-percent, random-max-percent",
            findings,
        );
        let word = fields.word("mode", &WORDS, findings);
        // A value that is no text gets its own error.
        let mistyped = fields.value("value").is_some_and(|value| !value.is_string());
        let value = fields.text("value", findings).filter(|text| !text.is_empty());
        let number = |most: u64, findings: &mut Findings| {
            if mistyped {
                return None;
            }
            let allowed = if most == 100 { "1 to 100" } else { "1 up" };
            let path = fields.path("value");
            let Some(text) = value else {
                findings.missing(
                    &path,
                    format!("this mode needs a whole number from {allowed}, in quotes"),
                );
                return None;
            };
            match text.parse::<i64>().ok().and_then(|n| u64::try_from(n).ok()) {
                Some(n) if (1..=most).contains(&n) => Some(n),
                _ => {
                    findings.invalid(
                        &path,
                        &text,
                        format!("must be a whole number from {allowed}; write one in quotes"),
                    );
                    None
                }
            }
        };
        let percent =
            |findings: &mut Findings| number(100, findings).and_then(|n| u8::try_from(n).ok());
        let mode = match word? {
            Word::One => Self::One,
            Word::All => Self::All,
            Word::Fixed => Self::Fixed(number(u64::MAX, findings)?),
            Word::FixedPercent => Self::FixedPercent(percent(findings)?),
            Word::RandomMaxPercent => Self::RandomMaxPercent(percent(findings)?),
        };
        if let (Self::One | Self::All, Some(_)) = (mode, value) {
            let word = mode.fields().mode;
            findings.warn(
                &fields.path("value"),
                format!("mode \"{word}\" takes no value; it is ignored"),
            );
        }
        Some(mode)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(value: &serde_json::Value) -> (Option<Mode>, Findings) {
        let mut findings = Findings::default();
        let mut fields = Fields::of(value, "spec", &mut findings).unwrap();
        (Mode::read(&mut fields, &mut findings), findings)
    }

    #[test]
    fn what_the_webhook_refuses_is_refused() {
        for (mode, value) in [
            ("fixed", "0"),
            ("fixed", "-1"),
            ("fixed", "x"),
            ("fixed", ""),
            ("fixed-percent", "0"),
            ("fixed-percent", "101"),
            ("random-max-percent", "1.5"),
            ("some", "1"),
        ] {
            let (read, findings) = read(&json!({"mode": mode, "value": value}));
            assert_eq!(read, None);
            assert_eq!(findings.errors.len(), 1, "{mode} {value}");
        }
    }

    #[test]
    fn a_value_that_nobody_reads_is_warned_of() {
        let (mode, findings) = read(&json!({"mode": "all", "value": "3"}));
        assert_eq!(mode, Some(Mode::All));
        assert_eq!(
            findings.warnings[0].to_string(),
            "spec.value: mode \"all\" takes no value; it is ignored"
        );
    }

    proptest! {
        #[test]
        fn what_it_writes_it_reads(n in 1u64..=i64::MAX as u64, percent in 1u8..=100) {
            for mode in [Mode::One, Mode::All, Mode::Fixed(n), Mode::FixedPercent(percent), Mode::RandomMaxPercent(percent)] {
                let (read, findings) = read(&serde_json::to_value(mode.fields()).unwrap());
                prop_assert_eq!(read, Some(mode));
                prop_assert_eq!(findings, Findings::default());
            }
        }
    }
}
