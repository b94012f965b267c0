//! What the API server does with an object of a kind whose schema it knows: it drops what the
//! schema does not name, and `null` where the schema does not allow it, and then checks the rest.
//! As small as our schemas are; a keyword that it does not know is a failure.

use chaos_user::api::latency::Latency;
use serde_json::{Map, Value};

/// Every keyword that is understood here.
pub const KEYWORDS: [&str; 13] = [
    "additionalProperties",
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maximum",
    "minimum",
    "nullable",
    "pattern",
    "properties",
    "required",
    "type",
];
pub const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
/// The one pattern that our schemas hold: that of [`Latency`].
pub const PATTERN: &str = r"^[0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h)$";

/// What became of an object.
#[derive(Debug, Default)]
pub struct Admitted {
    /// What is stored.
    pub object: Value,
    /// Paths of what was dropped.
    pub pruned: Vec<String>,
    /// Why it is refused.
    pub errors: Vec<String>,
}

/// Admits a whole object.
pub fn admit(schema: &Value, object: &Value) -> Admitted {
    let mut out = Admitted::default();
    let mut rest = object.as_object().cloned().unwrap_or_default();
    // The API server knows these by itself, whatever a schema says.
    let own = ["apiVersion", "kind", "metadata"].map(|name| (name, rest.remove(name)));
    let mut admitted = out.value(schema, &Value::Object(rest), "");
    for (name, value) in own {
        if let (Value::Object(admitted), Some(value)) = (&mut admitted, value) {
            admitted.insert(name.to_owned(), value);
        }
    }
    out.object = admitted;
    out
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

impl Admitted {
    fn value(&mut self, schema: &Value, value: &Value, path: &str) -> Value {
        if value.is_null() && schema["nullable"] == true {
            return Value::Null;
        }
        let wanted = schema["type"].as_str().unwrap_or_else(|| panic!("{path}: no type"));
        match (wanted, value) {
            ("object", Value::Object(map)) => return self.object(schema, map, path),
            ("array", Value::Array(items)) => {
                let item = |(i, item)| self.value(&schema["items"], item, &format!("{path}[{i}]"));
                return items.iter().enumerate().map(item).collect();
            }
            ("string", Value::String(text)) => self.text(schema, text, path),
            ("boolean", Value::Bool(_)) => {}
            ("integer", Value::Number(number)) if number.as_i64().is_some() => {
                self.integer(schema, number.as_i64().unwrap(), path);
            }
            _ => self.errors.push(format!("{path}: {value} is no {wanted}")),
        }
        value.clone()
    }

    fn object(&mut self, schema: &Value, map: &Map<String, Value>, path: &str) -> Value {
        let mut out = Map::new();
        for (name, value) in map {
            let path = join(path, name);
            let property = &schema["properties"][name];
            let entry = &schema["additionalProperties"];
            if property.is_object() {
                if !value.is_null() || property["nullable"] == true {
                    out.insert(name.clone(), self.value(property, value, &path));
                }
            } else if entry.is_object() {
                out.insert(name.clone(), self.value(entry, value, &path));
            } else if schema[PRESERVE] == true {
                out.insert(name.clone(), value.clone());
            } else {
                self.pruned.push(path);
            }
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().unwrap();
            if !out.contains_key(name) {
                self.errors.push(format!("{}: must be given", join(path, name)));
            }
        }
        Value::Object(out)
    }

    fn text(&mut self, schema: &Value, text: &str, path: &str) {
        let is_allowed = schema["enum"].as_array().is_none_or(|all| all.iter().any(|w| w == text));
        if !is_allowed {
            self.errors.push(format!("{path}: {text} is not one of {}", schema["enum"]));
        }
        if let Some(pattern) = schema["pattern"].as_str() {
            assert_eq!(pattern, PATTERN, "{path}");
            if text.parse::<Latency>().is_err() {
                self.errors.push(format!("{path}: {text} does not match {pattern}"));
            }
        }
    }

    fn integer(&mut self, schema: &Value, number: i64, path: &str) {
        let (least, most) = match schema["format"].as_str() {
            Some("int32") => (i64::from(i32::MIN), i64::from(i32::MAX)),
            Some("int64") => (i64::MIN, i64::MAX),
            other => panic!("{path}: the format {other:?} of an integer"),
        };
        let least = schema["minimum"].as_i64().unwrap_or(least).max(least);
        let most = schema["maximum"].as_i64().unwrap_or(most).min(most);
        if !(least..=most).contains(&number) {
            self.errors.push(format!("{path}: {number} is not from {least} to {most}"));
        }
    }
}
