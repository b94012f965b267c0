//! Reading an object field by field, so that every mistake is found and named, not only the first.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::finding::Findings;
use super::written::Written;

/// An object that is being read. What has not been read when [`Fields::finish`] is called is
/// unknown: upstream drops it without a word, we say so.
#[derive(Debug)]
pub struct Fields<'a> {
    path: String,
    map: &'a Map<String, Value>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// Begins to read `value`, found at `path`. An error is noted when it is not an object.
    pub fn of(value: &'a Value, path: &str, findings: &mut Findings) -> Option<Self> {
        match value {
            Value::Object(map) => Some(Self { path: path.to_owned(), map, known: Vec::new() }),
            other => {
                wrong_type(path, other, "an object (fields, one a line)", findings);
                None
            }
        }
    }

    /// Path of the field `name`.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The value of `name`; `null` is as good as absent.
    pub fn value(&mut self, name: &'static str) -> Option<&'a Value> {
        if !self.known.contains(&name) {
            self.known.push(name);
        }
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// True when the field is there and not `null`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !value.is_null())
    }

    /// Declares fields that are known and of no interest.
    pub fn ignore(&mut self, names: &[&'static str]) {
        self.known.extend(names);
    }

    /// Notes an error when `name` is absent; `allowed` says what may stand there.
    pub fn require(&self, name: &str, allowed: &str, findings: &mut Findings) {
        if !self.has(name) {
            findings.missing(&self.path(name), allowed);
        }
    }

    /// A text.
    pub fn text(&mut self, name: &'static str, findings: &mut Findings) -> Option<&'a str> {
        match self.value(name)? {
            Value::String(text) => Some(text),
            other => {
                wrong_type(&self.path(name), other, "a text", findings);
                None
            }
        }
    }

    /// A text that is parsed. `way_out` is added to the parser's complaint.
    pub fn parsed<T>(
        &mut self,
        name: &'static str,
        way_out: &str,
        findings: &mut Findings,
    ) -> Option<Written<T>>
    where
        T: FromStr,
        T::Err: Display,
    {
        let value = self.value(name)?;
        let Value::String(text) = value else {
            let quoted = match value {
                Value::Number(number) => number.to_string().parse::<T>().is_ok(),
                _ => false,
            };
            if quoted {
                wrong_type(&self.path(name), value, "a text", findings);
            } else {
                let reason = format!("must be a text, is {}; {way_out}", found(value));
                findings.invalid(&self.path(name), value, reason);
            }
            return None;
        };
        match Written::parse(text) {
            Ok(written) => Some(written),
            Err(error) => {
                findings.invalid(&self.path(name), text, format!("{error}; {way_out}"));
                None
            }
        }
    }

    /// One of a few words.
    pub fn word<T: Copy>(
        &mut self,
        name: &'static str,
        words: &[(&'static str, T)],
        findings: &mut Findings,
    ) -> Option<T> {
        let text = self.text(name, findings)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let allowed: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            let advice = match allowed.iter().find(|word| word.eq_ignore_ascii_case(text)) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => "write one of them".to_owned(),
            };
            let reason = format!("allowed: {}; {advice}", allowed.join(", "));
            findings.invalid(&self.path(name), &text, reason);
        }
        found
    }

    /// `true` or `false`.
    pub fn switch(&mut self, name: &'static str, findings: &mut Findings) -> Option<bool> {
        match self.value(name)? {
            Value::Bool(value) => Some(*value),
            other => {
                wrong_type(&self.path(name), other, "true or false", findings);
                None
            }
        }
    }

    /// A whole number from `least` to `most`.
    pub fn number(
        &mut self,
        name: &'static str,
        least: u64,
        most: u64,
        findings: &mut Findings,
    ) -> Option<u64> {
        let number = self.whole(name, least.into(), most.into(), findings)?;
        u64::try_from(number).ok()
    }

    /// A whole number from `least` to `most`, which may be below zero.
    pub fn integer(
        &mut self,
        name: &'static str,
        least: i64,
        most: i64,
        findings: &mut Findings,
    ) -> Option<i64> {
        let number = self.whole(name, least.into(), most.into(), findings)?;
        i64::try_from(number).ok()
    }

    fn whole(
        &mut self,
        name: &'static str,
        least: i128,
        most: i128,
        findings: &mut Findings,
    ) -> Option<i128> {
        let value = self.value(name)?;
        let path = self.path(name);
        let allowed = format!("a whole number from {least} to {most}");
        let Value::Number(number) = value else {
            let text = value.as_str().filter(|text| text.parse::<i64>().is_ok());
            let advice = match text {
                Some(text) => format!("write it without quotes: {text}"),
                None => "write a number".to_owned(),
            };
            let reason = format!("must be {allowed}, is {}; {advice}", found(value));
            findings.invalid(&path, value, reason);
            return None;
        };
        match whole(number) {
            Some(n) if (least..=most).contains(&n) => Some(n),
            _ => {
                findings.invalid(&path, value, format!("allowed: {allowed}; write such a number"));
                None
            }
        }
    }

    /// An object.
    pub fn object(&mut self, name: &'static str, findings: &mut Findings) -> Option<Fields<'a>> {
        let value = self.value(name)?;
        Fields::of(value, &self.path(name), findings)
    }

    /// A list, with the path of each element.
    pub fn list(
        &mut self,
        name: &'static str,
        findings: &mut Findings,
    ) -> Vec<(String, &'a Value)> {
        let path = self.path(name);
        match self.value(name) {
            None => Vec::new(),
            Some(Value::Array(items)) => {
                items.iter().enumerate().map(|(i, item)| (format!("{path}[{i}]"), item)).collect()
            }
            Some(other) => {
                wrong_type(&path, other, "a list", findings);
                Vec::new()
            }
        }
    }

    /// A list of texts.
    pub fn texts(&mut self, name: &'static str, findings: &mut Findings) -> Vec<String> {
        let mut out = Vec::new();
        for (path, item) in self.list(name, findings) {
            match item {
                Value::String(text) => out.push(text.clone()),
                other => wrong_type(&path, other, "a text", findings),
            }
        }
        out
    }

    /// A map from text to text.
    pub fn text_map(
        &mut self,
        name: &'static str,
        findings: &mut Findings,
    ) -> BTreeMap<String, String> {
        let path = self.path(name);
        let mut out = BTreeMap::new();
        for (key, value) in self.map_of(name, findings) {
            match value {
                Value::String(text) => {
                    out.insert(key.clone(), text.clone());
                }
                other => wrong_type(&entry(&path, key), other, "a text", findings),
            }
        }
        out
    }

    /// A map from text to lists of texts.
    pub fn texts_map(
        &mut self,
        name: &'static str,
        findings: &mut Findings,
    ) -> BTreeMap<String, Vec<String>> {
        let path = self.path(name);
        let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, value) in self.map_of(name, findings) {
            let path = entry(&path, key);
            let Value::Array(items) = value else {
                wrong_type(&path, value, "a list of texts", findings);
                continue;
            };
            let texts = out.entry(key.clone()).or_default();
            for (i, item) in items.iter().enumerate() {
                match item {
                    Value::String(text) => texts.push(text.clone()),
                    other => wrong_type(&format!("{path}[{i}]"), other, "a text", findings),
                }
            }
        }
        out
    }

    fn map_of(
        &mut self,
        name: &'static str,
        findings: &mut Findings,
    ) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        let path = self.path(name);
        let map = match self.value(name) {
            None => None,
            Some(Value::Object(map)) => Some(map),
            Some(other) => {
                wrong_type(&path, other, "a map (key: value)", findings);
                None
            }
        };
        map.into_iter().flatten()
    }

    /// Fields that nobody has asked for.
    pub fn unread(&self) -> impl Iterator<Item = &'a str> {
        let keys = self.map.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key);
        keys.map(String::as_str).filter(|key| !self.known.contains(key))
    }

    /// Warns about every field that was not read.
    pub fn finish(self, findings: &mut Findings) {
        for key in self.map.keys().filter(|key| !self.known.contains(&key.as_str())) {
            let meant = self.known.iter().find(|known| known.eq_ignore_ascii_case(key));
            let advice = match meant {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            findings.warn(&self.path(key), format!("unknown field, dropped; {advice}"));
        }
    }
}

/// Path of an entry of a map. Keys may hold points, so they stand in brackets.
#[must_use]
pub fn entry(map: &str, key: &str) -> String {
    format!("{map}[{key}]")
}

/// The number, when it is whole.
fn whole(number: &serde_json::Number) -> Option<i128> {
    if let Some(n) = number.as_u64() {
        return Some(i128::from(n));
    }
    if let Some(n) = number.as_i64() {
        return Some(i128::from(n));
    }
    // 10.0 is the number 10 in JSON and YAML.
    let n = number.as_f64()?;
    (n.fract() == 0.0 && n.abs() < 9.0e15).then_some(n as i128)
}

fn wrong_type(path: &str, value: &Value, wanted: &str, findings: &mut Findings) {
    let advice = match value {
        Value::Bool(_) | Value::Number(_) if wanted == "a text" => {
            format!("put it in quotes: \"{value}\"")
        }
        _ => format!("write {wanted}"),
    };
    findings.invalid(path, value, format!("must be {wanted}, is {}; {advice}", found(value)));
}

fn found(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing (null)",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_number_where_a_text_belongs_is_answered_with_quotes() {
        let (value, mut findings) = (json!({"loss": 50}), Findings::default());
        let mut fields = Fields::of(&value, "spec.loss", &mut findings).unwrap();
        assert_eq!(fields.text("loss", &mut findings), None);
        let text = findings.errors[0].to_string();
        assert!(text.ends_with("must be a text, is a number; put it in quotes: \"50\""), "{text}");
    }

    #[test]
    fn an_unknown_field_is_named_with_what_is_known() {
        let (value, mut findings) = (json!({"Mode": "one", "scheduler": {}}), Findings::default());
        let mut fields = Fields::of(&value, "spec", &mut findings).unwrap();
        assert_eq!(fields.text("mode", &mut findings), None);
        fields.finish(&mut findings);
        let said: Vec<_> = findings.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "spec.Mode: unknown field, dropped; did you mean \"mode\"?",
                "spec.scheduler: unknown field, dropped; known here: mode"
            ]
        );
    }

    #[test]
    fn numbers_outside_their_range_are_refused_with_the_range() {
        for bad in [json!(-1), json!(5_000_000_000u64), json!(1.5), json!(1e300)] {
            let (value, mut findings) = (json!({ "limit": bad }), Findings::default());
            let mut fields = Fields::of(&value, "spec", &mut findings).unwrap();
            assert_eq!(fields.number("limit", 1, u64::from(u32::MAX), &mut findings), None);
            assert!(findings.errors[0].to_string().contains("from 1 to 4294967295"));
        }
    }
}
