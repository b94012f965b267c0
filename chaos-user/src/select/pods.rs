//! Which pods a selector means.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::api::selector::{Expression, Operator, Selector};

/// A pod, as far as selectors and faults look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// The node that it runs on; empty while it has none.
    pub node: String,
    /// `status.phase`.
    pub phase: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// It shares the node's network.
    pub host_network: bool,
    /// Its containers, in order, without init containers.
    pub containers: Vec<Container>,
    /// Fields that selectors may name and that are not above.
    pub fields: BTreeMap<&'static str, String>,
    /// It is being deleted.
    pub is_going: bool,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its id, without the runtime's name; empty while it does not run.
    pub id: String,
    /// Its image, as the pod asks for it.
    pub image: String,
}

impl Pod {
    /// `namespace/name`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn field(&self, path: &str) -> Option<&str> {
        match path {
            "metadata.name" => Some(&self.name),
            "metadata.namespace" => Some(&self.namespace),
            "spec.nodeName" => Some(&self.node),
            "status.phase" => Some(&self.phase),
            other => self.fields.get(other).map(String::as_str),
        }
    }
}

/// What selection needs to know beside the pods.
#[derive(Clone, Debug, Default)]
pub struct Surroundings<'a> {
    /// Labels of each node.
    pub nodes: BTreeMap<&'a str, &'a BTreeMap<String, String>>,
    /// Namespaces that pods may be chosen from; `None`: all.
    pub allowed: Option<BTreeSet<&'a str>>,
}

/// The pods that a selector means, in the order given. Pods that are on their way out are none.
#[must_use]
pub fn matching<'a>(
    selector: &Selector,
    pods: impl IntoIterator<Item = &'a Pod>,
    around: &Surroundings<'_>,
) -> Vec<&'a Pod> {
    let nodes = nodes(selector, around);
    let allowed =
        |pod: &Pod| around.allowed.as_ref().is_none_or(|all| all.contains(pod.namespace.as_str()));
    pods.into_iter()
        .filter(|pod| !pod.is_going && allowed(pod))
        .filter(|pod| {
            if selector.pods.is_empty() {
                meets(selector, pod, nodes.as_ref())
            } else {
                selector.pods.get(&pod.namespace).is_some_and(|names| names.contains(&pod.name))
            }
        })
        .collect()
}

/// `nodes` and `nodeSelectors` are a union. `None`: any node.
fn nodes<'a>(selector: &'a Selector, around: &Surroundings<'a>) -> Option<BTreeSet<&'a str>> {
    if selector.nodes.is_empty() && selector.node_selectors.is_empty() {
        return None;
    }
    let mut names: BTreeSet<&str> = selector.nodes.iter().map(String::as_str).collect();
    if !selector.node_selectors.is_empty() {
        let fits = |labels: &BTreeMap<String, String>| holds(labels, &selector.node_selectors);
        names.extend(around.nodes.iter().filter(|(_, labels)| fits(labels)).map(|(name, _)| *name));
    }
    Some(names)
}

fn holds(all: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| all.get(key) == Some(value))
}

fn meets(selector: &Selector, pod: &Pod, nodes: Option<&BTreeSet<&str>>) -> bool {
    selector.namespaces.contains(&pod.namespace)
        && holds(&pod.labels, &selector.label_selectors)
        && holds(&pod.annotations, &selector.annotation_selectors)
        && selector.expression_selectors.iter().all(|expression| expressed(expression, pod))
        && selector.field_selectors.iter().all(|(path, value)| {
            // A field that is not there is as good as an empty one, as the API server has it.
            pod.field(path).unwrap_or_default() == value
        })
        && in_phase(&selector.pod_phase_selectors, &pod.phase)
        && nodes.is_none_or(|names| names.contains(pod.node.as_str()))
}

fn expressed(expression: &Expression, pod: &Pod) -> bool {
    let value = pod.labels.get(&expression.key);
    let is_listed = value.is_some_and(|value| expression.values.contains(value));
    match expression.operator {
        Operator::In => is_listed,
        Operator::NotIn => !is_listed,
        Operator::Exists => value.is_some(),
        Operator::DoesNotExist => value.is_none(),
    }
}

/// Included phases are alternatives, excluded ones are all excluded.
fn in_phase(phases: &[String], phase: &str) -> bool {
    let (out, into): (Vec<&str>, Vec<&str>) =
        phases.iter().map(String::as_str).partition(|word| word.starts_with('!'));
    (into.is_empty() || into.contains(&phase))
        && !out.iter().any(|word| word.trim_start_matches('!') == phase)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: &str, name: &str, node: &str, app: &str) -> Pod {
        Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            node: node.to_owned(),
            phase: "Running".to_owned(),
            labels: [("app".to_owned(), app.to_owned())].into(),
            ..Pod::default()
        }
    }

    fn chosen(selector: &Selector, pods: &[Pod]) -> Vec<String> {
        let disk: BTreeMap<String, String> = [("disk".to_owned(), "ssd".to_owned())].into();
        let none = BTreeMap::new();
        let around = Surroundings { nodes: [("n1", &disk), ("n2", &none)].into(), allowed: None };
        matching(selector, pods, &around).into_iter().map(|pod| pod.name.clone()).collect()
    }

    fn own() -> Selector {
        Selector { namespaces: vec!["default".to_owned()], ..Selector::default() }
    }

    #[test]
    fn criteria_are_met_together() {
        let pods = [
            pod("default", "a", "n1", "web"),
            pod("default", "b", "n2", "web"),
            pod("default", "c", "n1", "db"),
            pod("other", "d", "n1", "web"),
        ];
        assert_eq!(chosen(&own(), &pods), ["a", "b", "c"]);
        let web = Selector { label_selectors: [("app".into(), "web".into())].into(), ..own() };
        assert_eq!(chosen(&web, &pods), ["a", "b"]);
        let on = Selector { nodes: vec!["n2".to_owned()], ..web.clone() };
        assert_eq!(chosen(&on, &pods), ["b"]);
        let union = Selector { node_selectors: [("disk".into(), "ssd".into())].into(), ..on };
        assert_eq!(chosen(&union, &pods), ["a", "b"]);
        let not = Expression {
            key: "app".to_owned(),
            operator: Operator::NotIn,
            values: vec!["web".to_owned()],
        };
        let rest = Selector { expression_selectors: vec![not], ..own() };
        assert_eq!(chosen(&rest, &pods), ["c"]);
        let field =
            Selector { field_selectors: [("metadata.name".into(), "b".into())].into(), ..own() };
        assert_eq!(chosen(&field, &pods), ["b"]);
    }

    #[test]
    fn every_field_that_the_api_names_is_compared() {
        let fields = [
            ("spec.restartPolicy", "Always"),
            ("spec.schedulerName", "default-scheduler"),
            ("spec.serviceAccountName", "default"),
            ("status.podIP", "10.0.0.1"),
            ("status.nominatedNodeName", "n9"),
        ];
        let own_fields = [
            ("metadata.name", "a"),
            ("metadata.namespace", "default"),
            ("spec.nodeName", "n1"),
            ("status.phase", "Running"),
        ];
        let full = Pod {
            fields: fields.into_iter().map(|(path, value)| (path, value.to_owned())).collect(),
            ..pod("default", "a", "n1", "web")
        };
        let pods = [full, Pod { phase: "Pending".to_owned(), ..pod("default", "b", "n2", "web") }];
        for (path, value) in fields.into_iter().chain(own_fields) {
            let wanted = |value: &str| Selector {
                field_selectors: [(path.to_owned(), value.to_owned())].into(),
                ..own()
            };
            let namespace = path == "metadata.namespace";
            let both: &[&str] = if namespace { &["a", "b"] } else { &["a"] };
            assert_eq!(chosen(&wanted(value), &pods), both, "{path}");
            assert!(chosen(&wanted("other"), &pods).is_empty(), "{path}");
        }
        let two = [
            ("metadata.name".to_owned(), "a".to_owned()),
            ("status.phase".to_owned(), "Pending".to_owned()),
        ];
        let neither = Selector { field_selectors: two.into(), ..own() };
        assert!(chosen(&neither, &pods).is_empty(), "all of them must hold");
    }

    #[test]
    fn named_pods_make_every_other_criterion_void() {
        let pods = [pod("default", "a", "n1", "web"), pod("other", "d", "n1", "web")];
        let named = Selector {
            pods: [("other".to_owned(), vec!["d".to_owned(), "gone".to_owned()])].into(),
            label_selectors: [("app".into(), "none".into())].into(),
            ..own()
        };
        assert_eq!(chosen(&named, &pods), ["d"]);
    }

    #[test]
    fn phases_include_and_exclude() {
        for (phases, is_in) in [
            (&[][..], true),
            (&["Running"], true),
            (&["Pending", "Running"], true),
            (&["Pending"], false),
            (&["!Pending"], true),
            (&["!Running"], false),
        ] {
            let phases: Vec<String> = phases.iter().map(|p| (*p).to_owned()).collect();
            assert_eq!(in_phase(&phases, "Running"), is_in, "{phases:?}");
        }
    }

    #[test]
    fn a_pod_that_is_going_is_not_chosen() {
        let pods = [Pod { is_going: true, ..pod("default", "a", "n1", "web") }];
        assert!(chosen(&own(), &pods).is_empty());
    }
}
