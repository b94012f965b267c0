//! Schemas in the form that the API server takes: *structural*, that is, every part says what it
//! is in its own place, and nothing is a choice between types.

use serde_json::{Map, Value};

/// Keywords that say nothing to the API server, or that it refuses.
const DROPPED: [&str; 3] = ["$schema", "title", "examples"];
/// Integer formats of Rust, and those of the API server that hold them. Of others the API server
/// only complains.
const FORMATS: [(&str, &str); 10] = [
    ("int8", "int32"),
    ("uint8", "int32"),
    ("int16", "int32"),
    ("uint16", "int32"),
    ("int32", "int32"),
    ("uint32", "int64"),
    ("int64", "int64"),
    ("uint64", "int64"),
    ("int", "int64"),
    ("uint", "int64"),
];

/// Rewrites a schema that has all its parts in place.
///
/// `null` is no type here: the API server takes an absent field and a field that is `null` for
/// the same, unless the schema says `nullable`, which keeps the `null`.
pub fn structural(schema: &mut Value) {
    let Value::Object(node) = schema else { return };
    for keyword in DROPPED {
        node.remove(keyword);
    }
    choices(node, "anyOf");
    choices(node, "oneOf");
    constants(node);
    types(node);
    if let Some(Value::String(text)) = node.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    if let Some(Value::Object(properties)) = node.get_mut("properties") {
        properties.values_mut().for_each(structural);
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(part) = node.get_mut(keyword) {
            structural(part);
        }
    }
}

/// A choice that is none: one part and `null`, or nothing but constants.
fn choices(node: &mut Map<String, Value>, keyword: &str) {
    let Some(Value::Array(parts)) = node.remove(keyword) else { return };
    let mut parts: Vec<_> = parts
        .into_iter()
        .filter(|part| part.get("type").is_none_or(|kind| kind != "null"))
        .collect();
    if let [part] = parts.as_mut_slice() {
        structural(part);
        if let Value::Object(part) = part.take() {
            for (keyword, value) in part {
                // What the field says of itself comes first.
                node.entry(keyword).or_insert(value);
            }
        }
        return;
    }
    let words: Vec<_> = parts.iter().flat_map(words).cloned().collect();
    if parts.iter().all(words_only) {
        node.insert("type".to_owned(), "string".into());
        node.insert("enum".to_owned(), words.into());
    } else {
        node.insert(keyword.to_owned(), parts.into());
    }
}

/// The constants that a part allows.
fn words(part: &Value) -> impl Iterator<Item = &Value> {
    part.get("const")
        .into_iter()
        .chain(part.get("enum").and_then(Value::as_array).into_iter().flatten())
}

fn words_only(part: &Value) -> bool {
    words(part).next().is_some() && words(part).all(Value::is_string)
}

fn constants(node: &mut Map<String, Value>) {
    if let Some(word) = node.remove("const") {
        node.insert("enum".to_owned(), vec![word].into());
    }
    if let Some(Value::Array(words)) = node.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
}

fn types(node: &mut Map<String, Value>) {
    if let Some(Value::Array(kinds)) = node.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [kind] = kinds.as_mut_slice() {
            let kind = kind.take();
            node.insert("type".to_owned(), kind);
        }
    }
    if let Some(Value::String(format)) = node.get_mut("format")
        && let Some((name, known)) = FORMATS.iter().find(|(name, _)| name == format)
    {
        *format = (*known).to_owned();
        if *name == "uint32" {
            // The format that holds it holds more.
            node.entry("maximum").or_insert_with(|| u32::MAX.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rewritten(mut schema: Value) -> Value {
        structural(&mut schema);
        schema
    }

    #[test]
    fn what_may_be_absent_is_no_choice() {
        assert_eq!(
            rewritten(json!({"type": ["string", "null"], "title": "A"})),
            json!({"type": "string"})
        );
        assert_eq!(
            rewritten(json!({
                "description": "outer\n one",
                "anyOf": [{"type": "object", "description": "inner"}, {"type": "null"}]
            })),
            json!({"type": "object", "description": "outer one"})
        );
    }

    #[test]
    fn words_with_a_sentence_each_are_an_enumeration() {
        let words = json!({"oneOf": [
            {"type": "string", "const": "a", "description": "one"},
            {"type": "string", "enum": ["b", "c"]}
        ]});
        let want = json!({"type": "string", "enum": ["a", "b", "c"]});
        assert_eq!(rewritten(words.clone()), want);
        assert_eq!(rewritten(json!({"anyOf": [words, {"type": "null"}]})), want);
    }

    #[test]
    fn integers_have_formats_that_hold_them() {
        let schema = json!({"properties": {"a": {"type": "integer", "format": "uint32"}}});
        let want = json!({"properties": {
            "a": {"type": "integer", "format": "int64", "maximum": 4_294_967_295_u32}
        }});
        assert_eq!(rewritten(schema), want);
    }

    #[test]
    fn a_real_choice_is_left_for_the_tests_to_find() {
        let choice = json!({"oneOf": [{"type": "string"}, {"type": "integer"}]});
        assert_eq!(rewritten(choice.clone()), choice);
    }
}
