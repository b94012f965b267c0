//! The definitions of our API, as a cluster takes them.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::structural::structural;
use crate::api::crd::block::BlockChaos;
use crate::api::crd::cloud::{AWSChaos, AzureChaos, GCPChaos};
use crate::api::crd::dns::DNSChaos;
use crate::api::crd::http::HTTPChaos;
use crate::api::crd::internal::{PodHttpChaos, PodIOChaos, PodNetworkChaos};
use crate::api::crd::io::IOChaos;
use crate::api::crd::jvm::JVMChaos;
use crate::api::crd::kernel::KernelChaos;
use crate::api::crd::network::NetworkChaos;
use crate::api::crd::own::{NodeFault, PeerSet};
use crate::api::crd::physical::{PhysicalMachine, PhysicalMachineChaos};
use crate::api::crd::pod::PodChaos;
use crate::api::crd::remote::RemoteCluster;
use crate::api::crd::schedule::Schedule;
use crate::api::crd::statuscheck::StatusCheck;
use crate::api::crd::stress::StressChaos;
use crate::api::crd::throttle::ThrottleChaos;
use crate::api::crd::time::TimeChaos;
use crate::api::crd::workflow::{Workflow, WorkflowNode};
use crate::api::kind::{GROUP, OWN_GROUP, VERSION};

/// A column of `kubectl get`: name, type, path.
type Column = (&'static str, &'static str, &'static str);

const ACTION: Column = ("action", "string", ".spec.action");
const DURATION: Column = ("duration", "string", ".spec.duration");
/// What every experiment shows behind its own columns.
const SUMMARY: [Column; 3] = [
    ("Phase", "string", ".status.kfault.phase"),
    ("Targets", "integer", ".status.kfault.targets"),
    ("Injected", "integer", ".status.kfault.injected"),
];
const NODE: Column = ("Node", "string", ".spec.node");
const PHASE: Column = ("Phase", "string", ".status.phase");
/// The API server adds it only where there is no other column.
const AGE: Column = ("Age", "date", ".metadata.creationTimestamp");

/// What a definition says beside its schema.
struct Definition {
    group: &'static str,
    kind: String,
    schema: Value,
    /// Objects live in namespaces.
    is_namespaced: bool,
    short_name: Option<&'static str>,
    /// The status is an endpoint of its own. Experiments have none: clients of the public API
    /// write the whole object.
    has_status_endpoint: bool,
    columns: Vec<Column>,
}

/// Every definition, in the order of their files.
#[must_use]
pub fn all() -> Vec<Value> {
    let definitions = vec![
        experiment::<AWSChaos>(&[ACTION, DURATION]),
        experiment::<AzureChaos>(&[ACTION, DURATION]),
        experiment::<BlockChaos>(&[ACTION, DURATION]),
        experiment::<DNSChaos>(&[ACTION, DURATION]),
        experiment::<GCPChaos>(&[ACTION, DURATION]),
        experiment::<HTTPChaos>(&[DURATION]),
        experiment::<IOChaos>(&[ACTION, DURATION]),
        experiment::<JVMChaos>(&[ACTION, DURATION]),
        experiment::<KernelChaos>(&[DURATION]),
        experiment::<NetworkChaos>(&[ACTION, DURATION]),
        experiment::<PhysicalMachineChaos>(&[ACTION, DURATION]),
        experiment::<PodChaos>(&[]),
        experiment::<StressChaos>(&[DURATION]),
        experiment::<TimeChaos>(&[DURATION]),
        plain::<PhysicalMachine>(),
        plain::<Schedule>(),
        reporting::<PodHttpChaos>(),
        reporting::<PodIOChaos>(),
        reporting::<PodNetworkChaos>(),
        Definition { is_namespaced: false, ..reporting::<RemoteCluster>() },
        reporting::<StatusCheck>(),
        Definition { short_name: Some("wf"), ..reporting::<Workflow>() },
        Definition { short_name: Some("wfn"), ..reporting::<WorkflowNode>() },
        Definition {
            group: OWN_GROUP,
            columns: vec![NODE, PHASE, AGE],
            ..reporting::<NodeFault>()
        },
        Definition { group: OWN_GROUP, ..plain::<PeerSet>() },
        Definition { group: OWN_GROUP, ..experiment::<ThrottleChaos>(&[DURATION]) },
    ];
    let mut all: Vec<_> = definitions.into_iter().map(|definition| definition.json()).collect();
    all.sort_by_key(|definition| definition["metadata"]["name"].to_string());
    all
}

/// A kind that injects.
fn experiment<T: JsonSchema>(columns: &[Column]) -> Definition {
    let columns = columns.iter().copied().chain(SUMMARY).chain([AGE]).collect();
    Definition { columns, ..plain::<T>() }
}

/// A kind whose status is an endpoint of its own.
fn reporting<T: JsonSchema>() -> Definition {
    Definition { has_status_endpoint: true, ..plain::<T>() }
}

/// A kind with nothing special to it.
fn plain<T: JsonSchema>() -> Definition {
    Definition {
        group: GROUP,
        kind: T::schema_name().into_owned(),
        schema: schema::<T>(),
        is_namespaced: true,
        short_name: None,
        has_status_endpoint: false,
        columns: Vec::new(),
    }
}

/// The schema of a root type, all in one piece.
fn schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::default().with(|settings| {
        settings.meta_schema = None;
        settings.inline_subschemas = true;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    structural(&mut schema);
    schema
}

/// The word for objects of a kind in URLs. A chaos is never plural.
fn plural(kind: &str) -> String {
    let one = kind.to_lowercase();
    if one.ends_with("chaos") { one } else { one + "s" }
}

impl Definition {
    fn json(self) -> Value {
        let Self { group, kind, schema, is_namespaced, short_name, has_status_endpoint, columns } =
            self;
        let plural = plural(&kind);
        let mut names = json!({
            "kind": kind,
            "listKind": format!("{kind}List"),
            "plural": plural,
            "singular": kind.to_lowercase(),
        });
        if let Some(short_name) = short_name {
            names["shortNames"] = json!([short_name]);
        }
        let subresources = if has_status_endpoint { json!({"status": {}}) } else { json!({}) };
        let mut version = json!({
            "name": VERSION,
            "served": true,
            "storage": true,
            "schema": {"openAPIV3Schema": schema},
            "subresources": subresources,
        });
        if !columns.is_empty() {
            version["additionalPrinterColumns"] = columns
                .iter()
                .map(|(name, kind, path)| json!({"name": name, "type": kind, "jsonPath": path}))
                .collect();
        }
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {
                "group": group,
                "names": names,
                "scope": if is_namespaced { "Namespaced" } else { "Cluster" },
                "versions": [version],
            },
        })
    }
}
