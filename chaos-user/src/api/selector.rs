//! Which pods an experiment may act on.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::fields::{Fields, entry};
use super::finding::Findings;

/// `selector`: every criterion that is given must hold, except that `nodes` and `nodeSelectors`
/// are a union and `pods` makes all others void. Nothing given: every pod of `namespaces`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Namespaces; the object's own when none is given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Labels that must be equal.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub label_selectors: BTreeMap<String, String>,
    /// Labels that must meet an expression.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expression_selectors: Vec<Expression>,
    /// Annotations that must be equal.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotation_selectors: BTreeMap<String, String>,
    /// Fields of the pod that must be equal.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub field_selectors: BTreeMap<String, String>,
    /// Phases, any of which must hold; a `!` in front excludes one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pod_phase_selectors: Vec<String>,
    /// Names of nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Labels of nodes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selectors: BTreeMap<String, String>,
    /// Names of pods by namespace. Makes every other criterion void.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pods: BTreeMap<String, Vec<String>>,
}

/// A condition on a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Expression {
    /// The label.
    pub key: String,
    /// What must hold.
    pub operator: Operator,
    /// Its values; none for `Exists` and `DoesNotExist`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// What must hold for a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Operator {
    /// Its value is in the list.
    In,
    /// It is absent or its value is not in the list.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

const OPERATORS: [(&str, Operator); 4] = [
    ("In", Operator::In),
    ("NotIn", Operator::NotIn),
    ("Exists", Operator::Exists),
    ("DoesNotExist", Operator::DoesNotExist),
];

const PHASES: [&str; 5] = ["Pending", "Running", "Succeeded", "Failed", "Unknown"];

/// Fields of a pod that the API server can select by.
const POD_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
];

impl Selector {
    /// Reads a selector; `namespace` is the object's own, for the default.
    pub fn read(mut fields: Fields<'_>, namespace: &str, findings: &mut Findings) -> Self {
        let mut selector = Self {
            namespaces: fields.texts("namespaces", findings),
            label_selectors: fields.text_map("labelSelectors", findings),
            expression_selectors: expressions(&mut fields, findings),
            annotation_selectors: fields.text_map("annotationSelectors", findings),
            field_selectors: fields.text_map("fieldSelectors", findings),
            pod_phase_selectors: fields.texts("podPhaseSelectors", findings),
            nodes: fields.texts("nodes", findings),
            node_selectors: fields.text_map("nodeSelectors", findings),
            pods: fields.texts_map("pods", findings),
        };
        selector.check(&fields, namespace, findings);
        fields.finish(findings);
        if selector.namespaces.is_empty() {
            selector.namespaces.push(namespace.to_owned());
        }
        selector
    }

    fn check(&self, fields: &Fields<'_>, own: &str, findings: &mut Findings) {
        for (i, phase) in self.pod_phase_selectors.iter().enumerate() {
            let name = phase.strip_prefix('!').unwrap_or(phase);
            if !PHASES.contains(&name) {
                let path = format!("{}[{i}]", fields.path("podPhaseSelectors"));
                let reason = format!(
                    "allowed: {}, each with ! in front to exclude it; write one of them",
                    PHASES.join(", ")
                );
                findings.invalid(&path, phase, reason);
            }
        }
        for key in self.field_selectors.keys().filter(|key| !POD_FIELDS.contains(&key.as_str())) {
            let path = entry(&fields.path("fieldSelectors"), key);
            findings.warn(
                &path,
                format!(
                    "the API server may not select pods by this field; known: {}",
                    POD_FIELDS.join(", ")
                ),
            );
        }
        for (key, value) in &self.annotation_selectors {
            if !is_label_value(value) {
                let path = entry(&fields.path("annotationSelectors"), key);
                findings.warn(&path, "annotations are compared as labels: a value that is no legal label never matches");
            }
        }
        if !self.pods.is_empty() && self.has_criteria(own) {
            findings.warn(
                &fields.path("pods"),
                "every other criterion of this selector is ignored because pods are named",
            );
        }
    }

    /// Something that pods by name make void. The own namespace is none: it is the default.
    fn has_criteria(&self, own: &str) -> bool {
        let Self {
            namespaces,
            label_selectors,
            expression_selectors,
            annotation_selectors,
            field_selectors,
            pod_phase_selectors,
            nodes,
            node_selectors,
            pods: _,
        } = self;
        !(namespaces.iter().all(|namespace| namespace == own)
            && label_selectors.is_empty()
            && expression_selectors.is_empty()
            && annotation_selectors.is_empty()
            && field_selectors.is_empty()
            && pod_phase_selectors.is_empty()
            && nodes.is_empty()
            && node_selectors.is_empty())
    }
}

fn expressions(fields: &mut Fields<'_>, findings: &mut Findings) -> Vec<Expression> {
    let mut out = Vec::new();
    for (path, item) in fields.list("expressionSelectors", findings) {
        let Some(mut fields) = Fields::of(item, &path, findings) else { continue };
        fields.require("key", "the name of a label", findings);
        fields.require("operator", "allowed: In, NotIn, Exists, DoesNotExist", findings);
        let key = fields.text("key", findings);
        let operator = fields.word("operator", &OPERATORS, findings);
        let values = fields.texts("values", findings);
        let (Some(key), Some(operator)) = (key, operator) else { continue };
        let path = fields.path("values");
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                findings.missing(&path, "the operators In and NotIn need at least one value");
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                findings.invalid(
                    &path,
                    &values,
                    "the operators Exists and DoesNotExist take no values; remove them",
                );
            }
            _ => {}
        }
        fields.finish(findings);
        out.push(Expression { key: key.to_owned(), operator, values });
    }
    out
}

/// The value of a label: at most 63 letters, digits, `-`, `_`, `.`, with an alphanumeric at both ends.
fn is_label_value(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_alphanumeric();
    text.is_empty()
        || (text.len() <= 63
            && text.starts_with(alphanumeric)
            && text.ends_with(alphanumeric)
            && text.chars().all(|c| alphanumeric(c) || matches!(c, '-' | '_' | '.')))
}

impl fmt::Display for Selector {
    /// For people: `pods of namespace default with app=web`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.pods.is_empty() {
            let names: Vec<_> = self
                .pods
                .iter()
                .flat_map(|(namespace, pods)| {
                    pods.iter().map(move |pod| format!("{namespace}/{pod}"))
                })
                .collect();
            return write!(f, "pods {}", names.join(", "));
        }
        let several = if self.namespaces.len() == 1 { "" } else { "s" };
        write!(f, "pods of namespace{several} {}", self.namespaces.join(", "))?;
        let mut criteria = Vec::new();
        let pairs = |map: &BTreeMap<String, String>| {
            map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>()
        };
        criteria.extend(pairs(&self.label_selectors));
        for Expression { key, operator, values } in &self.expression_selectors {
            let word = OPERATORS.iter().find(|(_, o)| o == operator).map_or("", |(word, _)| word);
            criteria.push(match values.as_slice() {
                [] => format!("{key} {word}"),
                values => format!("{key} {word} ({})", values.join(", ")),
            });
        }
        criteria.extend(
            pairs(&self.annotation_selectors).into_iter().map(|s| format!("annotation {s}")),
        );
        criteria.extend(pairs(&self.field_selectors));
        if !self.pod_phase_selectors.is_empty() {
            criteria.push(format!("phase {}", self.pod_phase_selectors.join(" or ")));
        }
        if !criteria.is_empty() {
            write!(f, " with {}", criteria.join(" and "))?;
        }
        let mut nodes = self.nodes.clone();
        nodes.extend(pairs(&self.node_selectors));
        if !nodes.is_empty() {
            write!(f, ", on nodes {}", nodes.join(" or "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(value: &Value) -> (Selector, Findings) {
        let mut findings = Findings::default();
        let fields = Fields::of(value, "spec.selector", &mut findings).unwrap();
        (Selector::read(fields, "here", &mut findings), findings)
    }

    #[test]
    fn an_empty_selector_means_every_pod_of_the_own_namespace() {
        let (selector, findings) = read(&json!({}));
        assert_eq!(selector.namespaces, ["here"]);
        assert_eq!(findings, Findings::default());
        assert_eq!(selector.to_string(), "pods of namespace here");
    }

    #[test]
    fn every_field_of_the_api_is_read_and_written_alike() {
        let value = json!({
            "namespaces": ["a", "b"],
            "labelSelectors": {"app": "web"},
            "expressionSelectors": [{"key": "tier", "operator": "NotIn", "values": ["x"]}, {"key": "y", "operator": "Exists"}],
            "annotationSelectors": {"k": "v"},
            "fieldSelectors": {"metadata.name": "p"},
            "podPhaseSelectors": ["Running", "!Failed"],
            "nodes": ["n1"],
            "nodeSelectors": {"zone": "z"},
        });
        let (selector, findings) = read(&value);
        assert_eq!(findings, Findings::default());
        assert_eq!(serde_json::to_value(&selector).unwrap(), value);
        assert_eq!(
            selector.to_string(),
            "pods of namespaces a, b with app=web and tier NotIn (x) and y Exists and annotation k=v \
             and metadata.name=p and phase Running or !Failed, on nodes n1 or zone=z"
        );
    }

    #[test]
    fn criteria_that_cannot_hold_are_refused() {
        for bad in [
            json!({"expressionSelectors": [{"key": "a", "operator": "Is", "values": ["x"]}]}),
            json!({"expressionSelectors": [{"key": "a", "operator": "In"}]}),
            json!({"expressionSelectors": [{"key": "a", "operator": "Exists", "values": ["x"]}]}),
            json!({"expressionSelectors": [{"operator": "Exists"}]}),
            json!({"podPhaseSelectors": ["running"]}),
            json!({"labelSelectors": {"a": 1}}),
            json!({"namespaces": "default"}),
            json!({"pods": {"default": "web"}}),
        ] {
            assert_eq!(read(&bad).1.errors.len(), 1, "{bad}");
        }
    }

    #[test]
    fn pods_by_name_make_other_criteria_void_and_a_warning_says_so() {
        let (_, findings) = read(&json!({"pods": {"d": ["web"]}, "labelSelectors": {"a": "b"}}));
        assert!(findings.warnings[0].message.contains("ignored because pods are named"));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-zA-Z!./]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let key = prop_oneof![
                Just("namespaces".to_owned()),
                Just("labelSelectors".to_owned()),
                Just("expressionSelectors".to_owned()),
                Just("pods".to_owned()),
                Just("key".to_owned()),
                Just("operator".to_owned()),
                Just("values".to_owned()),
                Just("podPhaseSelectors".to_owned()),
                "[a-z]{1,4}",
            ];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((key, inner), 0..4)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_value_makes_it_panic_and_what_it_writes_it_reads(value in any_json()) {
            let mut findings = Findings::default();
            if let Some(fields) = Fields::of(&value, "spec.selector", &mut findings) {
                let selector = Selector::read(fields, "here", &mut findings);
                if findings.errors.is_empty() {
                    let written = serde_json::to_value(&selector).unwrap();
                    prop_assert_eq!(read(&written).0, selector);
                }
            }
        }
    }
}
