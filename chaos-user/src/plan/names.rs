//! Patterns of names: what they mean, said once. The kernel side does the same with tables.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name as text, without the dot at its end: 255 bytes on the wire.
pub const LONGEST: usize = 253;

/// A pattern of names. `?` is any one character, dots included; `*` as the last character is any
/// text, also none; everything else is itself, in upper or lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: String,
    is_prefix: bool,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No name is so long.
    #[error("is longer than any name ({LONGEST} characters)")]
    TooLong,
    /// Names on the wire are ASCII.
    #[error(
        "has characters that no name on the wire has: ASCII only; write an international name as it is asked for (xn--…)"
    )]
    NotAscii,
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(written: &str) -> Result<Self, PatternError> {
        if !written.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(PatternError::NotAscii);
        }
        let (text, is_prefix) = match written.strip_suffix('*') {
            Some(text) => (text, true),
            // The dot of a full name is not asked for as a character.
            None => (written.strip_suffix('.').unwrap_or(written), false),
        };
        if text.len() > LONGEST {
            return Err(PatternError::TooLong);
        }
        Ok(Self { text: text.to_ascii_lowercase(), is_prefix })
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What would be read as something else has the dot of a full name behind it.
        let end = match (self.is_prefix, self.text.ends_with(['.', '*'])) {
            (true, _) => "*",
            (false, true) => ".",
            (false, false) => "",
        };
        write!(f, "{}{end}", self.text)
    }
}

impl Pattern {
    /// What stands in front of the `*`, or the whole pattern.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// It ends with `*`.
    #[must_use]
    pub fn is_prefix(&self) -> bool {
        self.is_prefix
    }

    /// It has a `?`.
    #[must_use]
    pub fn is_wild(&self) -> bool {
        self.text.contains('?')
    }

    /// Whether a name matches. The name is as text, without the dot at its end.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let (text, name) = (self.text.as_bytes(), name.as_bytes());
        let fits = if self.is_prefix { name.len() >= text.len() } else { name.len() == text.len() };
        fits && text.iter().zip(name).all(|(p, n)| *p == b'?' || *p == n.to_ascii_lowercase())
    }
}

/// Names that are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Names(BTreeSet<Pattern>);

impl Names {
    /// Those that one of these patterns matches; without any, every name.
    pub fn of(patterns: impl IntoIterator<Item = Pattern>) -> Self {
        Self(patterns.into_iter().collect())
    }

    /// Every name is meant.
    #[must_use]
    pub fn is_every(&self) -> bool {
        self.0.is_empty()
    }

    /// The patterns, sorted.
    pub fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.0.iter()
    }

    /// How many patterns there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// There is no pattern.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a name is meant.
    #[must_use]
    pub fn hold(&self, name: &str) -> bool {
        self.is_every() || self.0.iter().any(|pattern| pattern.matches(name))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,260}") {
            if let Ok(pattern) = text.parse::<Pattern>() {
                prop_assert!(pattern.text().len() <= LONGEST);
                prop_assert_eq!(pattern.to_string().parse(), Ok(pattern));
            }
        }

        #[test]
        fn a_name_matches_itself_its_beginnings_and_with_any_character_replaced(
            name in "[a-z0-9-]{1,9}(\\.[a-z0-9-]{1,9}){0,3}",
            at in any::<prop::sample::Index>(),
        ) {
            let at = at.index(name.len());
            let beginning = format!("{}*", &name[..at]);
            let replaced = format!("{}?{}", &name[..at], &name[at + 1..]);
            for pattern in [name.as_str(), &beginning, &replaced] {
                prop_assert!(pattern.parse::<Pattern>().unwrap().matches(&name), "{}", pattern);
                let more = format!("{name}x");
                let is_open = pattern.ends_with('*');
                prop_assert_eq!(pattern.parse::<Pattern>().unwrap().matches(&more), is_open);
            }
        }
    }

    fn matches(pattern: &str, name: &str) -> bool {
        pattern.parse::<Pattern>().unwrap().matches(name)
    }

    #[test]
    fn patterns_mean_what_they_mean_elsewhere() {
        for (pattern, name, is_meant) in [
            ("google.com", "google.com", true),
            ("google.com", "www.google.com", false),
            ("google.com", "google.com.default.svc.cluster.local", false),
            ("Google.Com", "gOOgle.com", true),
            ("google.com.", "google.com", true),
            ("goo?le.com", "google.com", true),
            ("goo?le.com", "goole.com", false),
            ("google?com", "google.com", true),
            ("google.*", "google.com", true),
            ("google.*", "google.", true),
            ("google.*", "google", false),
            ("web*", "web.shop.svc.cluster.local", true),
            ("we?.*", "web.shop", true),
            ("*", "anything.at.all", true),
            ("*.google.com", "www.google.com", false),
            ("", "", true),
            (".", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, name), is_meant, "{pattern:?} and {name:?}");
        }
    }

    #[test]
    fn a_pattern_is_read_as_it_is_written() {
        for text in ["google.com", "a?b.*", "*", ""] {
            let pattern: Pattern = text.parse().unwrap();
            assert_eq!(pattern.to_string(), text);
            assert_eq!(pattern.to_string().parse(), Ok(pattern));
        }
        assert_eq!("x".repeat(254).parse::<Pattern>(), Err(PatternError::TooLong));
        assert_eq!("bücher.example".parse::<Pattern>(), Err(PatternError::NotAscii));
        assert_eq!("a b".parse::<Pattern>(), Err(PatternError::NotAscii));
    }

    #[test]
    fn no_pattern_means_every_name() {
        assert!(Names::default().hold("a.b"));
        assert!(Names::of(["a.*".parse().unwrap()]).hold("a.b"));
        assert!(!Names::of(["a.*".parse().unwrap()]).hold("b.a"));
    }
}
