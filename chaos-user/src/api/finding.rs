//! What parsing and validation have to say: errors that refuse a document, and warnings.

use serde::{Serialize, Serializer, ser::SerializeStruct};
use thiserror::Error;

/// Why a field makes a document unusable. The variants differ in what the reader can do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FieldError {
    /// The value is not allowed: change it.
    #[error("{}: Invalid value: {value}: {reason}", upstream_path(.field))]
    Invalid {
        /// Path as in the manifest: `spec.delay.latency`.
        field: String,
        /// The value, as JSON.
        value: String,
        /// What is wrong, what is allowed, what to do.
        reason: String,
    },
    /// The field is missing: add it.
    #[error("{}: Required value: {reason}", upstream_path(.field))]
    Missing {
        /// Path as in the manifest.
        field: String,
        /// What is allowed.
        reason: String,
    },
    /// The value is right but this version cannot do it: choose something else.
    #[error("{}: Invalid value: {value}: not supported by this version: {reason}", upstream_path(.field))]
    Unsupported {
        /// Path as in the manifest.
        field: String,
        /// The value, as JSON.
        value: String,
        /// What is missing and what works in its place.
        reason: String,
    },
}

impl FieldError {
    /// Path of the field, as in the manifest. Empty: the whole document.
    #[must_use]
    pub fn field(&self) -> &str {
        match self {
            Self::Invalid { field, .. }
            | Self::Missing { field, .. }
            | Self::Unsupported { field, .. } => field,
        }
    }

    /// True when the manifest is right and only this version cannot do it.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported { .. })
    }
}

impl Serialize for FieldError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("FieldError", 3)?;
        out.serialize_field("field", self.field())?;
        out.serialize_field("message", &self.to_string())?;
        out.serialize_field("unsupported", &self.is_unsupported())?;
        out.end()
    }
}

/// Something accepted that does not do what its text suggests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// Path of the field, as in the manifest.
    pub field: String,
    /// What happens instead, and what to write.
    pub message: String,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// All that one document's parsing and validation found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Any of these refuses the document.
    pub errors: Vec<FieldError>,
    /// These do not.
    pub warnings: Vec<Warning>,
}

impl Findings {
    /// Notes a value that is not allowed; `value` is shown as JSON.
    pub fn invalid(&mut self, field: &str, value: &impl Serialize, reason: impl Into<String>) {
        let (field, value) = (field.to_owned(), shown(value));
        self.errors.push(FieldError::Invalid { field, value, reason: reason.into() });
    }

    /// Notes a missing field.
    pub fn missing(&mut self, field: &str, reason: impl Into<String>) {
        let field = field.to_owned();
        self.errors.push(FieldError::Missing { field, reason: reason.into() });
    }

    /// Notes a value that this version cannot serve.
    pub fn unsupported(&mut self, field: &str, value: &impl Serialize, reason: impl Into<String>) {
        let (field, value) = (field.to_owned(), shown(value));
        self.errors.push(FieldError::Unsupported { field, value, reason: reason.into() });
    }

    /// Takes what was found in a part of the document, whose path began with `from` there and
    /// begins with `to` here.
    pub fn adopt(&mut self, part: Self, from: &str, to: &str) {
        let moved = |field: String| match field.strip_prefix(from) {
            Some(rest) => format!("{to}{rest}"),
            None => field,
        };
        self.errors.extend(part.errors.into_iter().map(|mut error| {
            match &mut error {
                FieldError::Invalid { field, .. }
                | FieldError::Missing { field, .. }
                | FieldError::Unsupported { field, .. } => *field = moved(std::mem::take(field)),
            }
            error
        }));
        self.warnings.extend(
            part.warnings
                .into_iter()
                .map(|Warning { field, message }| Warning { field: moved(field), message }),
        );
    }

    /// Notes something that does not do what it seems to.
    pub fn warn(&mut self, field: &str, message: impl Into<String>) {
        self.warnings.push(Warning { field: field.to_owned(), message: message.into() });
    }
}

/// A value as JSON, cut where it would fill the screen.
fn shown(value: &impl Serialize) -> String {
    const LONGEST: usize = 200;
    let text = serde_json::to_string(value).unwrap_or_else(|_| "?".to_owned());
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

/// `spec.delay.latency` as upstream's admission webhook writes it: `Spec.Delay.Latency`.
fn upstream_path(field: &str) -> String {
    if field.is_empty() {
        return "Document".to_owned();
    }
    let mut out = String::with_capacity(field.len());
    let (mut start, mut depth) = (true, 0usize);
    for c in field.chars() {
        if start {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        // What stands in brackets is a key or an index of the manifest, spelled as there.
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        start = c == '.' && depth == 0;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_upstreams_shape() {
        let mut findings = Findings::default();
        findings.invalid("spec.delay.latency", &"1S", "unknown unit \"S\"");
        assert_eq!(
            findings.errors[0].to_string(),
            "Spec.Delay.Latency: Invalid value: \"1S\": unknown unit \"S\""
        );
    }

    #[test]
    fn a_key_is_named_as_it_is_spelled() {
        let mut findings = Findings::default();
        findings.missing("spec.selector.labelSelectors[app.kubernetes.io/name]", "a text");
        let text = findings.errors[0].to_string();
        assert!(
            text.starts_with("Spec.Selector.LabelSelectors[app.kubernetes.io/name]: "),
            "{text}"
        );
    }

    #[test]
    fn a_huge_value_is_cut() {
        let mut findings = Findings::default();
        findings.invalid("spec", &"é".repeat(10_000), "no");
        assert!(findings.errors[0].to_string().len() < 500);
    }
}
