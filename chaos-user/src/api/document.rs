//! A manifest's text: one or more documents, YAML or JSON.

use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

/// Where a document was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The file as the user named it; `-` is standard input.
    pub file: String,
    /// Number of the document in its file, from 0.
    pub index: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, document {}", self.file, self.index)
    }
}

/// A document that is not empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Where it was found.
    pub place: Place,
    /// What it says.
    pub value: Value,
}

/// Why a text holds no documents.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DocumentError {
    /// Neither YAML nor JSON.
    #[error("{place}: is neither YAML nor JSON: {reason}")]
    Syntax {
        /// The document that cannot be read; those behind it are not looked at.
        place: Place,
        /// What the parser says, with line and column.
        reason: String,
    },
}

/// The documents of a file. Empty ones are skipped and counted.
///
/// # Errors
/// [`DocumentError::Syntax`] in place of the first document that cannot be read; what stands
/// behind it is not returned.
#[must_use]
pub fn documents(file: &str, text: &str) -> Vec<Result<Document, DocumentError>> {
    let place = |index| Place { file: file.to_owned(), index };
    let mut values = yaml(text);
    // JSON with tabs, or objects without separators, is no YAML.
    if values.iter().any(Result::is_err) && text.trim_start().starts_with(['{', '[']) {
        let stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        if let Ok(all) = stream.collect::<Result<Vec<_>, _>>() {
            values = all.into_iter().map(Ok).collect();
        }
    }
    let mut out = Vec::new();
    for (index, value) in values.into_iter().enumerate() {
        match value {
            Ok(Value::Null) => {}
            Ok(value) => out.push(Ok(Document { place: place(index), value })),
            Err(reason) => out.push(Err(DocumentError::Syntax { place: place(index), reason })),
        }
    }
    out
}

fn yaml(text: &str) -> Vec<Result<Value, String>> {
    let mut out = Vec::new();
    for document in serde_norway::Deserializer::from_str(text) {
        let value = serde_norway::Value::deserialize(document).map_err(|error| error.to_string());
        let failed = value.is_err();
        out.push(value.and_then(merged).and_then(json));
        if failed {
            break;
        }
    }
    out
}

/// Merge keys (`<<: *name`) put where they belong, as `kubectl` does.
fn merged(mut value: serde_norway::Value) -> Result<serde_norway::Value, String> {
    value.apply_merge().map_err(|error| format!("{error}; write `<<:` in front of a map"))?;
    Ok(value)
}

/// YAML's values as JSON's, the way `kubectl` sees them.
fn json(value: serde_norway::Value) -> Result<Value, String> {
    use serde_norway::Value as Yaml;
    Ok(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => Value::Bool(value),
        Yaml::String(text) => Value::String(text),
        Yaml::Number(number) => serde_json::to_value(&number)
            .ok()
            .filter(|value| !value.is_null())
            .ok_or_else(|| format!("the number {number} is not finite; write a finite one"))?,
        Yaml::Sequence(items) => {
            Value::Array(items.into_iter().map(json).collect::<Result<_, _>>()?)
        }
        Yaml::Mapping(mapping) => {
            let mut map = Map::new();
            for (key, value) in mapping {
                map.insert(key_text(key)?, json(value)?);
            }
            Value::Object(map)
        }
        // A tag (`!something`) means nothing to the API.
        Yaml::Tagged(tagged) => json(tagged.value)?,
    })
}

fn key_text(key: serde_norway::Value) -> Result<String, String> {
    use serde_norway::Value as Yaml;
    match key {
        Yaml::String(text) => Ok(text),
        Yaml::Bool(value) => Ok(value.to_string()),
        Yaml::Number(number) => Ok(number.to_string()),
        _ => Err("a key is neither a text nor a number; write `key: value`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn values(text: &str) -> Vec<(usize, Value)> {
        documents("f", text)
            .into_iter()
            .map(|d| d.unwrap())
            .map(|d| (d.place.index, d.value))
            .collect()
    }

    #[test]
    fn empty_documents_are_skipped_and_counted() {
        let text = "# only a comment\n---\na: 1\n---\n---\n# nothing\n---\nb: 2\n";
        assert_eq!(values(text), [(0, json!({"a": 1})), (3, json!({"b": 2}))]);
        assert_eq!(values(""), []);
    }

    #[test]
    fn merge_keys_are_merged() {
        let text = "a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n";
        let want = json!({"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}});
        assert_eq!(values(text), [(0, want)]);
        assert!(documents("f", "<<: 1\n")[0].is_err());
    }

    #[test]
    fn json_with_tabs_and_json_lines_are_read() {
        assert_eq!(values("{\n\t\"a\": 1\n}"), [(0, json!({"a": 1}))]);
        assert_eq!(values("{\"a\":1}\n{\"b\":2}"), [(0, json!({"a": 1})), (1, json!({"b": 2}))]);
    }

    #[test]
    fn a_syntax_error_names_file_document_and_line() {
        let all = documents("x.yaml", "a: 1\n---\nb: [1\n---\nc: 2\n");
        let error = all.last().unwrap().as_ref().unwrap_err().to_string();
        assert!(error.starts_with("x.yaml, document 1: is neither YAML nor JSON: "), "{error}");
        assert!(error.contains("line"), "{error}");
    }

    #[test]
    fn a_key_twice_and_a_number_that_is_none_are_errors() {
        assert!(documents("f", "a: 1\na: 2\n")[0].is_err());
        assert!(documents("f", "a: .nan\n")[0].is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(\\PC|[\\n\\t:{}\\[\\]\"'&*!|>-])*") {
            let _ = documents("f", &text);
        }

        #[test]
        fn what_is_written_as_json_is_read(keys in proptest::collection::vec(("[a-z]{1,8}", any::<i64>()), 0..8)) {
            let map: Map<String, Value> = keys.into_iter().map(|(k, v)| (k, v.into())).collect();
            let value = Value::Object(map);
            prop_assert_eq!(values(&value.to_string()), [(0, value)]);
        }
    }
}
