//! The envelope of every object: `apiVersion`, `kind` and `metadata`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::fields::{Fields, entry};
use super::finding::Findings;
use super::kind::{API_VERSION, Kind, OWN_API_VERSION};

/// Annotation that pauses an experiment, with the literal value `true` only.
pub const PAUSE: &str = "experiment.chaos-mesh.org/pause";
/// Namespace of an object that names none.
pub const DEFAULT_NAMESPACE: &str = "default";
/// Names and namespaces end at this length.
const LONGEST_NAME: usize = 253;

/// `metadata` of an object, as far as it means something here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Metadata {
    /// The object's name: a DNS-1123 subdomain.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Metadata {
    /// True when the pause annotation says so.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.annotations.get(PAUSE).is_some_and(|value| value == "true")
    }
}

/// What kind of object `root` is. Notes why it is none that can be served; [`Kind::Later`] is
/// returned as it is, for the caller to answer.
pub fn kind(root: &mut Fields<'_>, findings: &mut Findings) -> Option<Kind> {
    let version = root.text("apiVersion", findings).map(str::to_owned);
    let name = root.text("kind", findings).map(str::to_owned);
    root.require("apiVersion", &format!("allowed: {API_VERSION}, {OWN_API_VERSION}"), findings);
    root.require("kind", &format!("allowed: {}", Kind::served()), findings);
    let (version, name) = (version?, name?);
    let kind = Kind::find(&name);
    let wanted = kind.map_or(API_VERSION, Kind::api_version);
    if version != wanted && (kind.is_some() || version != OWN_API_VERSION) {
        let group = wanted.split('/').next();
        let ours = version.split('/').next() == group;
        let what =
            if ours { "this version of the group does not exist" } else { "another API group" };
        findings.invalid("apiVersion", &version, format!("{what}; write {wanted}"));
        return None;
    }
    if kind.is_none() {
        let advice = match Kind::nearly(&name) {
            Some(nearly) => format!("did you mean \"{nearly}\"?"),
            None => format!("no such kind in {API_VERSION}; allowed: {}", Kind::served()),
        };
        findings.invalid("kind", &name, advice);
    }
    kind
}

/// Reads `metadata`.
pub fn metadata(root: &mut Fields<'_>, findings: &mut Findings) -> Option<Metadata> {
    root.require("metadata", "an object with at least `name`", findings);
    let mut fields = root.object("metadata", findings)?;
    fields.require("name", "lower-case letters, digits, '-' and '.'", findings);
    let name = fields.text("name", findings);
    let namespace = fields.text("namespace", findings).filter(|text| !text.is_empty());
    let labels = fields.text_map("labels", findings);
    let annotations = fields.text_map("annotations", findings);
    // What the API server adds; harmless in an object that was fetched from a cluster.
    fields.ignore(&[
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    ]);
    fields.finish(findings);
    if let Some(name) = name.filter(|name| !is_subdomain(name)) {
        let reason = "must be lower-case letters, digits, '-' and '.', begin and end with a letter \
             or digit, and have at most 253 characters; rename it";
        findings.invalid("metadata.name", &name, reason);
    }
    if let Some(namespace) = namespace.filter(|namespace| !is_label(namespace)) {
        let reason = "must be lower-case letters, digits and '-', begin and end with a letter or \
             digit, and have at most 63 characters; rename it";
        findings.invalid("metadata.namespace", &namespace, reason);
    }
    if let Some(value) = annotations.get(PAUSE).filter(|value| *value != "true") {
        findings.warn(
            &entry("metadata.annotations", PAUSE),
            format!(
                "only \"true\" pauses an experiment; {} leaves it running",
                Value::from(value.as_str())
            ),
        );
    }
    Some(Metadata {
        name: name?.to_owned(),
        namespace: namespace.unwrap_or(DEFAULT_NAMESPACE).to_owned(),
        labels,
        annotations,
    })
}

/// A DNS-1123 label: `[a-z0-9]([-a-z0-9]*[a-z0-9])?`, at most 63 characters.
fn is_label(text: &str) -> bool {
    let ends = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|b| ends(Some(b)) || *b == b'-')
}

/// A DNS-1123 subdomain: labels with points between, at most 253 characters. Its labels may be
/// longer than 63, as for the API server.
fn is_subdomain(text: &str) -> bool {
    let part = |p: &str| {
        let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        p.starts_with(ends) && p.ends_with(ends) && p.chars().all(|c| ends(c) || c == '-')
    };
    text.len() <= LONGEST_NAME && text.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> (Option<Kind>, Option<Metadata>, Findings) {
        let mut findings = Findings::default();
        let mut root = Fields::of(value, "", &mut findings).unwrap();
        let kind = kind(&mut root, &mut findings);
        let metadata = metadata(&mut root, &mut findings);
        (kind, metadata, findings)
    }

    #[test]
    fn an_object_without_a_namespace_is_in_default() {
        let (kind, metadata, findings) = read(
            &json!({"apiVersion": API_VERSION, "kind": Kind::Network.name(), "metadata": {"name": "a"}}),
        );
        assert_eq!(kind, Some(Kind::Network));
        assert_eq!(metadata.unwrap().namespace, "default");
        assert_eq!(findings, Findings::default());
    }

    #[test]
    fn a_strange_kind_group_or_name_is_refused_with_what_is_allowed() {
        for (value, want) in [
            (
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}),
                "another API group",
            ),
            (
                json!({"apiVersion": API_VERSION, "kind": "Netchaos", "metadata": {"name": "a"}}),
                "allowed: ",
            ),
            (
                json!({"apiVersion": API_VERSION, "kind": "networkchaos", "metadata": {"name": "a"}}),
                "did you mean",
            ),
            (
                json!({"apiVersion": API_VERSION, "kind": Kind::Network.name(), "metadata": {"name": "A_b"}}),
                "lower-case",
            ),
            (
                json!({"apiVersion": API_VERSION, "kind": Kind::Network.name(), "metadata": {}}),
                "Required value",
            ),
            (json!({"kind": Kind::Network.name(), "metadata": {"name": "a"}}), "Required value"),
        ] {
            let (_, _, findings) = read(&value);
            assert!(findings.errors[0].to_string().contains(want), "{:?}", findings.errors);
        }
    }

    #[test]
    fn only_the_literal_true_pauses() {
        for (value, paused, warnings) in [("true", true, 0), ("True", false, 1), ("", false, 1)] {
            let (_, metadata, findings) = read(&json!({
                "apiVersion": API_VERSION, "kind": Kind::Network.name(),
                "metadata": {"name": "a", "annotations": {PAUSE: value}}
            }));
            assert_eq!(metadata.unwrap().is_paused(), paused);
            assert_eq!(findings.warnings.len(), warnings);
        }
    }
}
