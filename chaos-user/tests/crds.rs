//! The definitions of the API: what the API server takes, keeps and shows.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "crds/admit.rs"]
mod admit;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use admit::{KEYWORDS, PRESERVE, admit};
use chaos_user::api::crd::block::BlockChaos;
use chaos_user::api::crd::cloud::{AWSChaos, AzureChaos, GCPChaos};
use chaos_user::api::crd::dns::DNSChaos;
use chaos_user::api::crd::http::HTTPChaos;
use chaos_user::api::crd::internal::{PodHttpChaos, PodIOChaos, PodNetworkChaos};
use chaos_user::api::crd::io::IOChaos;
use chaos_user::api::crd::jvm::JVMChaos;
use chaos_user::api::crd::kernel::KernelChaos;
use chaos_user::api::crd::network::NetworkChaos;
use chaos_user::api::crd::physical::{PhysicalMachine, PhysicalMachineChaos};
use chaos_user::api::crd::pod::PodChaos;
use chaos_user::api::crd::remote::RemoteCluster;
use chaos_user::api::crd::schedule::Schedule;
use chaos_user::api::crd::statuscheck::StatusCheck;
use chaos_user::api::crd::stress::StressChaos;
use chaos_user::api::crd::throttle::ThrottleChaos;
use chaos_user::api::crd::time::TimeChaos;
use chaos_user::api::crd::workflow::{Workflow, WorkflowNode};
use chaos_user::api::document::documents;
use chaos_user::api::kind::{GROUP, Kind};
use chaos_user::cli::explain::{Explained, explain};
use chaos_user::kube::crds;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What `kubectl apply` can write into its annotation.
const ANNOTATION: usize = 256 * 1024;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The schema of a definition.
fn schema_of(definition: &Value) -> &Value {
    &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

/// Schemas by kind.
fn schemas() -> BTreeMap<String, Value> {
    let kind =
        |definition: &Value| definition["spec"]["names"]["kind"].as_str().unwrap().to_owned();
    crds::all().iter().map(|definition| (kind(definition), schema_of(definition).clone())).collect()
}

/// Every part of a schema, with its path.
fn parts<'a>(path: &str, schema: &'a Value, all: &mut Vec<(String, &'a Value)>) {
    all.push((path.to_owned(), schema));
    for (name, part) in schema["properties"].as_object().into_iter().flatten() {
        parts(&format!("{path}.{name}"), part, all);
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(part) = schema.get(keyword) {
            parts(&format!("{path}[]"), part, all);
        }
    }
}

/// Manifests of a folder of the repository: file and text.
fn manifests(folder: &str) -> Vec<(String, String)> {
    let files = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|file| file.extension().is_some_and(|extension| extension == "yaml"))
        .map(|file| (file.display().to_string(), fs::read_to_string(&file).unwrap()))
        .collect()
}

/// Every document of the examples and of the golden cases, with what kfault says of it.
fn explained() -> Vec<(Value, Explained)> {
    let inputs = [manifests("deploy/examples"), manifests("tests/golden/cases")].concat();
    let mut all = Vec::new();
    for (file, text) in &inputs {
        let said = explain(&[(file.clone(), text.clone())]);
        for document in documents(file, text).into_iter().filter_map(Result::ok) {
            let index = document.place.index;
            let said = said.iter().find(|said| said.index == index && said.kind.is_some());
            all.extend(said.map(|said| (document.value.clone(), said.clone())));
        }
    }
    assert!(all.len() > 100, "{} documents", all.len());
    all
}

#[test]
fn every_definition_is_what_the_api_server_means_by_one() {
    for definition in crds::all() {
        let name = &definition["metadata"]["name"];
        let known: CustomResourceDefinition = serde_json::from_value(definition.clone()).unwrap();
        let known = serde_json::to_value(&known).unwrap();
        // Bounds are floating point there.
        assert_eq!(numbers(&known), numbers(&definition), "{name}");
        let bytes = definition.to_string().len();
        assert!(bytes < ANNOTATION, "{name}: {bytes} bytes are too many for kubectl apply");
    }
}

/// The same value with every number as floating point.
fn numbers(value: &Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().into(),
        Value::Array(items) => items.iter().map(numbers).collect(),
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), numbers(v))).collect(),
        other => other.clone(),
    }
}

#[test]
fn every_schema_is_structural() {
    for (kind, schema) in schemas() {
        let mut all = Vec::new();
        parts(&kind, &schema, &mut all);
        for (path, part) in all {
            for keyword in part.as_object().unwrap().keys().filter(|keyword| *keyword != PRESERVE) {
                assert!(KEYWORDS.contains(&keyword.as_str()), "{path}: {keyword}");
            }
            let kind = part["type"].as_str().unwrap_or_else(|| panic!("{path}: {part}"));
            match kind {
                "object" => {
                    let says = ["properties", "additionalProperties", PRESERVE];
                    let says = says.iter().filter(|keyword| part.get(keyword).is_some()).count();
                    assert_eq!(says, 1, "{path}: an object says what is in it, once");
                }
                "array" => assert!(part["items"].is_object(), "{path}"),
                "integer" => {
                    assert!(part["format"] == "int32" || part["format"] == "int64", "{path}")
                }
                "string" | "boolean" => {}
                other => panic!("{path}: {other}"),
            }
            let properties = part["properties"].as_object();
            for (name, property) in properties.into_iter().flatten() {
                let text = property["description"].as_str().unwrap_or_default();
                assert!(text.ends_with('.') && !text.contains('\n'), "{path}.{name}: {text:?}");
            }
            for name in part["required"].as_array().into_iter().flatten() {
                assert!(part["properties"].get(name.as_str().unwrap()).is_some(), "{path}: {name}");
            }
        }
    }
}

#[test]
fn a_default_is_a_value_that_is_taken() {
    for (kind, schema) in schemas() {
        let mut all = Vec::new();
        parts(&kind, &schema, &mut all);
        for (path, part) in all.iter().filter(|(_, part)| part.get("default").is_some()) {
            let object = serde_json::json!({"value": part["default"]});
            let schema = serde_json::json!({"type": "object", "properties": {"value": part}});
            assert_eq!(admit(&schema, &object).errors, [""; 0], "{path}");
            assert_ne!(part["default"], serde_json::json!([]), "{path}: a list that nobody wrote");
        }
    }
}

const ACTION: &str = "action";
const DURATION: &str = "duration";
/// What a cluster has to be told of each kind beside its schema: plural, whether the status is an
/// endpoint of its own, what must be given, and the columns of the public API.
const KINDS: [(&str, &str, bool, bool, &[&str]); 23] = [
    ("AWSChaos", "awschaos", false, true, &[ACTION, DURATION]),
    ("AzureChaos", "azurechaos", false, true, &[ACTION, DURATION]),
    ("BlockChaos", "blockchaos", false, true, &[ACTION, DURATION]),
    ("DNSChaos", "dnschaos", false, true, &[ACTION, DURATION]),
    ("GCPChaos", "gcpchaos", false, true, &[ACTION, DURATION]),
    ("HTTPChaos", "httpchaos", false, false, &[DURATION]),
    ("IOChaos", "iochaos", false, false, &[ACTION, DURATION]),
    ("JVMChaos", "jvmchaos", false, false, &[ACTION, DURATION]),
    ("KernelChaos", "kernelchaos", false, true, &[DURATION]),
    ("NetworkChaos", "networkchaos", false, true, &[ACTION, DURATION]),
    ("PhysicalMachine", "physicalmachines", false, true, &[]),
    ("PhysicalMachineChaos", "physicalmachinechaos", false, true, &[ACTION, DURATION]),
    ("PodChaos", "podchaos", false, true, &[]),
    ("PodHttpChaos", "podhttpchaos", true, false, &[]),
    ("PodIOChaos", "podiochaos", true, false, &[]),
    ("PodNetworkChaos", "podnetworkchaos", true, true, &[]),
    ("RemoteCluster", "remoteclusters", true, false, &[]),
    ("Schedule", "schedules", false, true, &[]),
    ("StatusCheck", "statuschecks", true, true, &[]),
    ("StressChaos", "stresschaos", false, true, &[DURATION]),
    ("TimeChaos", "timechaos", false, true, &[DURATION]),
    ("Workflow", "workflows", true, true, &[]),
    ("WorkflowNode", "workflownodes", true, true, &[]),
];
/// Kinds that inject nothing by themselves.
const NOT_EXPERIMENTS: [&str; 9] = [
    "PhysicalMachine",
    "PodHttpChaos",
    "PodIOChaos",
    "PodNetworkChaos",
    "RemoteCluster",
    "Schedule",
    "StatusCheck",
    "Workflow",
    "WorkflowNode",
];

#[test]
fn a_cluster_is_told_of_each_kind_what_the_public_api_says() {
    let all = crds::all();
    for (kind, plural, has_status_endpoint, needs_spec, columns) in KINDS {
        let definition = all.iter().find(|d| d["spec"]["names"]["kind"] == kind).unwrap();
        let (spec, version) = (&definition["spec"], &definition["spec"]["versions"][0]);
        assert_eq!(definition["metadata"]["name"], format!("{plural}.{GROUP}"));
        assert_eq!(spec["names"]["plural"], plural);
        assert_eq!(spec["names"]["singular"], kind.to_lowercase());
        let short = match kind {
            "Workflow" => serde_json::json!(["wf"]),
            "WorkflowNode" => serde_json::json!(["wfn"]),
            _ => Value::Null,
        };
        assert_eq!(spec["names"]["shortNames"], short, "{kind}");
        let scope = if kind == "RemoteCluster" { "Cluster" } else { "Namespaced" };
        assert_eq!(spec["scope"], scope, "{kind}");
        assert_eq!(version["name"], "v1alpha1");
        assert_eq!(version["subresources"].get("status").is_some(), has_status_endpoint, "{kind}");
        let schema = schema_of(definition);
        assert_eq!(schema["required"] == serde_json::json!(["spec"]), needs_spec, "{kind}");
        let shown = version["additionalPrinterColumns"].as_array();
        let shown: Vec<_> =
            shown.into_iter().flatten().map(|c| c["name"].as_str().unwrap()).collect();
        let ours = ["Phase", "Targets", "Injected", "Age"];
        let ours = if NOT_EXPERIMENTS.contains(&kind) { &ours[..0] } else { &ours[..] };
        assert_eq!(shown, [columns, ours].concat(), "{kind}");
    }
}

#[test]
fn the_program_prints_every_definition() {
    let said = Command::new(env!("CARGO_BIN_EXE_kfault")).arg("crds").output().unwrap();
    assert!(said.status.success(), "{said:?}");
    let printed = documents("stdout", std::str::from_utf8(&said.stdout).unwrap());
    let printed: Vec<_> = printed.into_iter().map(|document| document.unwrap().value).collect();
    assert_eq!(printed, crds::all());
}

#[test]
fn every_kind_of_the_group_has_a_definition() {
    let ours = crds::all();
    let public: Vec<_> = ours.iter().filter(|d| d["spec"]["group"] == GROUP).collect();
    for definition in &public {
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap();
        assert!(Kind::find(kind).is_some(), "{kind}");
    }
    assert_eq!((public.len(), ours.len()), (23, 26));
}

#[test]
fn the_api_server_takes_what_kfault_takes_and_drops_what_kfault_says_it_drops() {
    let schemas = schemas();
    for (document, said) in explained() {
        let Some(schema) = said.kind.as_deref().and_then(|kind| schemas.get(kind)) else {
            continue;
        };
        let place = format!("{}, document {}", said.file, said.index);
        let admitted = admit(schema, &document);
        if !said.accepted {
            continue;
        }
        assert_eq!(admitted.errors, [""; 0], "{place}");
        let dropped: Vec<_> = said
            .warnings
            .iter()
            .filter(|warning| warning.message.starts_with("unknown field"))
            // The API server drops unknown metadata without being told.
            .filter(|warning| !warning.field.starts_with("metadata."))
            .map(|warning| warning.field.clone())
            .collect();
        let mut pruned = admitted.pruned;
        pruned.sort();
        let mut dropped = dropped;
        dropped.sort();
        assert_eq!(pruned, dropped, "{place}");
        // What kfault makes of it, defaults and all, is as good.
        let filled = admit(schema, said.object.as_ref().unwrap());
        assert_eq!((filled.errors, filled.pruned), (Vec::new(), Vec::new()), "{place}");
    }
}

#[test]
fn what_the_api_server_refuses_kfault_refuses_too() {
    let schemas = schemas();
    let mut refused = 0;
    for (document, said) in explained() {
        let Some(schema) = said.kind.as_deref().and_then(|kind| schemas.get(kind)) else {
            continue;
        };
        let errors = admit(schema, &document).errors;
        refused += usize::from(!errors.is_empty());
        let place = format!("{}, document {}", said.file, said.index);
        assert!(errors.is_empty() || !said.accepted, "{place}: {errors:?}");
    }
    assert!(refused > 20, "{refused} documents");
}

/// Objects by kind, with every field of the API given.
fn full() -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for (file, text) in manifests("chaos-user/tests/crds/full") {
        for document in documents(&file, &text) {
            let object = document.unwrap().value;
            all.insert(object["kind"].as_str().unwrap().to_owned(), object);
        }
    }
    let specs: BTreeMap<_, _> =
        all.iter().map(|(kind, object)| (kind.to_lowercase(), object["spec"].clone())).collect();
    let schemas = schemas();
    for (kind, object) in &mut all {
        fill(&schemas[kind], object, &specs);
    }
    all
}

/// Puts the spec of a kind wherever a field is named after the kind and not given.
fn fill(schema: &Value, value: &mut Value, specs: &BTreeMap<String, Value>) {
    match value {
        Value::Object(map) => {
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                if let (false, Some(spec)) =
                    (map.contains_key(name), specs.get(&name.to_lowercase()))
                {
                    map.insert(name.clone(), spec.clone());
                }
                if let Some(value) = map.get_mut(name) {
                    fill(property, value, specs);
                }
            }
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| fill(&schema["items"], item, specs));
        }
        _ => {}
    }
}

/// Paths of the parts of a schema that a value makes use of.
fn used(path: &str, schema: &Value, value: &Value, all: &mut BTreeSet<String>) {
    all.insert(path.to_owned());
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(value) = value.get(name) {
            used(&format!("{path}.{name}"), property, value, all);
        }
    }
    for item in value.as_array().into_iter().flatten() {
        used(&format!("{path}[]"), &schema["items"], item, all);
    }
    if let Some(entry) = schema.get("additionalProperties") {
        for value in value.as_object().unwrap().values() {
            used(&format!("{path}[]"), entry, value, all);
        }
    }
}

#[test]
fn an_object_with_every_field_survives_unchanged() {
    let full = full();
    // What controller and nodes tell each other is free in form.
    for (kind, schema) in schemas().into_iter().filter(|(kind, _)| Kind::find(kind).is_some()) {
        let object = &full[&kind];
        let admitted = admit(&schema, object);
        assert_eq!((admitted.errors, admitted.pruned), (Vec::new(), Vec::new()), "{kind}");
        assert_eq!(&admitted.object, object, "{kind}");
        let (mut all, mut given) = (Vec::new(), BTreeSet::new());
        parts(&kind, &schema, &mut all);
        used(&kind, &schema, object, &mut given);
        let missing: Vec<_> =
            all.iter().map(|(path, _)| path).filter(|p| !given.contains(*p)).collect();
        assert!(missing.is_empty(), "the full object lacks {missing:?}");
    }
}

/// Reads an object into its type and writes it again.
fn through<T: Serialize + DeserializeOwned + JsonSchema>(full: &BTreeMap<String, Value>) {
    let kind = T::schema_name();
    let read: T = serde_json::from_value(full[kind.as_ref()].clone()).unwrap();
    let mut want = full[kind.as_ref()].clone();
    for name in ["apiVersion", "kind", "metadata"] {
        want.as_object_mut().unwrap().remove(name);
    }
    assert_eq!(serde_json::to_value(&read).unwrap(), without_null(&want), "{kind}");
}

fn without_null(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), without_null(value)))
            .collect(),
        Value::Array(items) => items.iter().map(without_null).collect(),
        other => other.clone(),
    }
}

#[test]
fn every_type_reads_and_writes_all_its_fields() {
    let full = full();
    through::<AWSChaos>(&full);
    through::<AzureChaos>(&full);
    through::<BlockChaos>(&full);
    through::<DNSChaos>(&full);
    through::<GCPChaos>(&full);
    through::<HTTPChaos>(&full);
    through::<IOChaos>(&full);
    through::<JVMChaos>(&full);
    through::<KernelChaos>(&full);
    through::<NetworkChaos>(&full);
    through::<PhysicalMachine>(&full);
    through::<PhysicalMachineChaos>(&full);
    through::<PodChaos>(&full);
    through::<PodHttpChaos>(&full);
    through::<PodIOChaos>(&full);
    through::<PodNetworkChaos>(&full);
    through::<RemoteCluster>(&full);
    through::<Schedule>(&full);
    through::<StatusCheck>(&full);
    through::<StressChaos>(&full);
    through::<ThrottleChaos>(&full);
    through::<TimeChaos>(&full);
    through::<Workflow>(&full);
    through::<WorkflowNode>(&full);
}
