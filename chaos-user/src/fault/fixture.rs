//! `spec` of an object for tests: what every kind needs, and more.

use serde_json::{Value, json};

use crate::api::fields::Fields;
use crate::api::finding::Findings;

/// Reads a spec of one pod of the namespace, with these fields more.
pub fn read_spec<T>(
    more: &Value,
    read: impl FnOnce(Fields<'_>, &str, &mut Findings) -> Option<T>,
) -> (Option<T>, Findings) {
    let mut spec = json!({ "selector": {}, "mode": "one" });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let mut findings = Findings::default();
    let fields = Fields::of(&spec, "spec", &mut findings).unwrap();
    let read = read(fields, "default", &mut findings);
    (read, findings)
}
