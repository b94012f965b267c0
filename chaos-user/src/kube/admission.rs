//! What the API server asks before it stores an object: defaults, refusals, warnings. The same
//! function as `kfault explain`, so that nobody is told two things.

use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, Operation};
use serde_json::{Value, json};

use crate::api::kind::{Kind, SCHEDULE};
use crate::fault::explain::{Explained, explain_object};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// What the object is with its defaults.
    Mutate,
    /// Whether the object may be stored, and what its author should know.
    Validate,
}

impl Question {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Mutate, Self::Validate];

    /// As in the path of a webhook.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Mutate => "mutate",
            Self::Validate => "validate",
        }
    }
}

/// Kinds whose objects the API server asks about.
pub fn kinds() -> impl Iterator<Item = Kind> {
    Kind::experiments().chain([Kind::Later(SCHEDULE)])
}

/// Path of a webhook: `/validate-chaos-mesh-org-v1alpha1-networkchaos`.
#[must_use]
pub fn path(question: Question, kind: Kind) -> String {
    let group = kind.api_version().replace(['.', '/'], "-");
    format!("/{}-{group}-{}", question.word(), kind.name().to_lowercase())
}

/// Name of a webhook: `vnetworkchaos.kb.io`. People know it from error messages.
#[must_use]
pub fn name(question: Question, kind: Kind) -> String {
    let letter = &question.word()[..1];
    format!("{letter}{}.kb.io", kind.name().to_lowercase())
}

/// Answers a request. `only`: the one namespace that this installation serves.
#[must_use]
pub fn answer(
    question: Question,
    request: &AdmissionRequest<DynamicObject>,
    only: Option<&str>,
) -> AdmissionResponse {
    let mut response = AdmissionResponse::from(request);
    let Some(object) = &request.object else { return response };
    let kind = request.kind.kind.as_str();
    let object = whole(request, object);
    let explained = explain_object(kind, object.clone());
    match question {
        Question::Mutate => {
            let with_defaults = defaulted(&object, &explained);
            if with_defaults != object["spec"] {
                let patch = json!([{ "op": "replace", "path": "/spec", "value": with_defaults }]);
                // A patch that is made of values is one that can be read.
                if let Ok(patch) = serde_json::from_value(patch)
                    && let Ok(patched) = AdmissionResponse::from(request).with_patch(patch)
                {
                    response = patched;
                }
            }
            response
        }
        Question::Validate => {
            let mut refusals = refusals(&explained);
            if request.operation == Operation::Update
                && Kind::find(kind).is_some_and(Kind::is_experiment)
                && let Some(old) = &request.old_object
                && is_changed(&whole(request, old), &object, &explained)
            {
                refusals = vec![
                    "Cannot update chaos spec: delete the experiment and create another one"
                        .to_owned(),
                ];
            }
            refusals.extend(only.and_then(|only| elsewhere(request, &explained, only)));
            if !refusals.is_empty() {
                return response.deny(aggregate(&refusals));
            }
            let unsupported = explained.errors.iter().filter(|error| error.unsupported);
            let warnings: Vec<String> = unsupported
                .map(|error| error.message.clone())
                .chain(explained.warnings.iter().map(ToString::to_string))
                .collect();
            response.warnings = Some(warnings).filter(|warnings| !warnings.is_empty());
            response
        }
    }
}

/// The object as a manifest would be. The API server names what has a generated name later.
fn whole(request: &AdmissionRequest<DynamicObject>, object: &DynamicObject) -> Value {
    let metadata = &object.metadata;
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let name = text(&metadata.name).or_else(|| {
        let start = text(&metadata.generate_name)?;
        Some(format!("{}generated", start.trim_end_matches('.')))
    });
    let namespace = text(&metadata.namespace).or_else(|| text(&request.namespace));
    json!({
        "apiVersion": Kind::api_version_of(&request.kind.kind),
        "kind": request.kind.kind,
        "metadata": {
            "name": name.unwrap_or_else(|| request.name.clone()),
            "namespace": namespace.unwrap_or_default(),
            "labels": metadata.labels.clone().unwrap_or_default(),
            "annotations": metadata.annotations.clone().unwrap_or_default(),
        },
        "spec": object.data["spec"],
    })
}

/// `spec` with its defaults. What has a meaning for others only stays as it is.
fn defaulted(object: &Value, explained: &Explained) -> Value {
    match &explained.object {
        Some(with_defaults) => merged(&object["spec"], &with_defaults["spec"]),
        None => object["spec"].clone(),
    }
}

fn merged(written: &Value, with_defaults: &Value) -> Value {
    match (written, with_defaults) {
        (Value::Object(written), Value::Object(with_defaults)) => {
            let mut out = written.clone();
            for (key, value) in with_defaults {
                let before = written.get(key).unwrap_or(&Value::Null);
                out.insert(key.clone(), merged(before, value));
            }
            Value::Object(out)
        }
        _ => with_defaults.clone(),
    }
}

/// What was created keeps its meaning until it is deleted. Defaults that an older version did
/// not write are no change.
fn is_changed(old: &Value, new: &Value, explained: &Explained) -> bool {
    if old["spec"] == new["spec"] {
        return false;
    }
    let before = explain_object("", old.clone());
    defaulted(old, &before) != defaulted(new, explained)
}

fn refusals(explained: &Explained) -> Vec<String> {
    let wrong = explained.errors.iter().filter(|error| !error.unsupported);
    wrong.map(|error| error.message.clone()).collect()
}

/// Why an installation for one namespace cannot serve the object.
fn elsewhere(
    request: &AdmissionRequest<DynamicObject>,
    explained: &Explained,
    only: &str,
) -> Option<String> {
    let own = request.namespace.as_deref().unwrap_or_default();
    if own != only {
        return Some(format!(
            "this installation serves namespace {only} only, not {own}; create it in {only}"
        ));
    }
    let spec = &explained.object.as_ref()?["spec"];
    let wrong =
        ["/selector/namespaces", "/target/selector/namespaces"].into_iter().find_map(|at| {
            let all = spec.pointer(at)?.as_array()?;
            all.iter().filter_map(Value::as_str).find(|name| *name != only)
        })?;
    Some(format!(
        "Spec.Selector.Namespaces: Invalid value: \"{wrong}\": this installation serves namespace {only} only"
    ))
}

/// Several errors as one text, as the API server writes them.
fn aggregate(all: &[String]) -> String {
    match all {
        [one] => one.clone(),
        all => format!("[{}]", all.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kind::API_VERSION;

    fn request(operation: &str, object: Value, old: Value) -> AdmissionRequest<DynamicObject> {
        let kind = object["kind"].clone();
        let request = json!({
            "uid": "u", "name": "", "namespace": "shop", "operation": operation,
            "kind": { "group": "chaos-mesh.org", "version": "v1alpha1", "kind": kind },
            "resource": { "group": "chaos-mesh.org", "version": "v1alpha1", "resource": "x" },
            "userInfo": {}, "object": object, "oldObject": old,
        });
        serde_json::from_value(request).unwrap()
    }

    fn delay(spec: &Value) -> Value {
        let mut all = json!({
            "selector": { "labelSelectors": { "app": "web" } }, "mode": "all",
            "action": "delay", "delay": { "latency": "90ms" },
        });
        for (key, value) in spec.as_object().unwrap() {
            all[key] = value.clone();
        }
        json!({
            "apiVersion": API_VERSION, "kind": Kind::Network.name(),
            "metadata": { "generateName": "web-" }, "spec": all,
        })
    }

    fn create(question: Question, object: Value) -> AdmissionResponse {
        answer(question, &request("CREATE", object, Value::Null), None)
    }

    fn message(response: &AdmissionResponse) -> &str {
        assert!(!response.allowed);
        &response.result.message
    }

    #[test]
    fn defaults_are_those_of_explain() {
        let object = delay(&json!({ "device": "eth0@if3" }));
        let response = create(Question::Mutate, object.clone());
        let patch: Value = serde_json::from_slice(response.patch.as_ref().unwrap()).unwrap();
        let mut manifest = object;
        manifest["metadata"] = json!({ "name": "web", "namespace": "shop" });
        let explained = explain_object("", manifest);
        assert_eq!(patch[0]["value"], explained.object.unwrap()["spec"]);
        assert_eq!(patch[0]["value"]["selector"]["namespaces"], json!(["shop"]));
    }

    #[test]
    fn what_has_its_defaults_is_not_patched() {
        let object = delay(&json!({}));
        let response = create(Question::Mutate, object.clone());
        let patch: Value = serde_json::from_slice(response.patch.as_ref().unwrap()).unwrap();
        let mut whole = object;
        whole["spec"] = patch[0]["value"].clone();
        assert_eq!(create(Question::Mutate, whole).patch, None);
    }

    #[test]
    fn a_wrong_field_is_refused_as_upstream_words_it() {
        let response = create(Question::Validate, delay(&json!({ "delay": { "latency": "1S" } })));
        let message = message(&response);
        assert!(message.starts_with("Spec.Delay.Latency: Invalid value: \"1S\": "), "{message}");
    }

    #[test]
    fn several_errors_are_one_list() {
        let wrong = delay(&json!({ "delay": { "latency": "1S", "jitter": "x" } }));
        let response = create(Question::Validate, wrong);
        let message = message(&response);
        assert!(message.starts_with("[Spec.Delay.") && message.ends_with(']'), "{message}");
    }

    #[test]
    fn what_does_nothing_is_warned_of_and_what_comes_later_too() {
        let object = delay(&json!({ "loss": { "loss": "10" } }));
        let response = create(Question::Validate, object.clone());
        assert!(response.allowed, "{:?}", response.result);
        let mut manifest = object;
        manifest["metadata"] = json!({ "name": "web", "namespace": "shop" });
        let explained = explain_object("", manifest);
        let told: Vec<String> = explained.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(response.warnings.unwrap_or_default(), told);

        let later = json!({
            "apiVersion": API_VERSION, "kind": Kind::experiments().last().unwrap().name(),
            "metadata": { "name": "x" }, "spec": {},
        });
        let response = create(Question::Validate, later);
        let warnings = response.warnings.unwrap();
        assert!(response.allowed && warnings[0].contains("not supported by this version"));
    }

    #[test]
    fn a_spec_never_changes() {
        let (old, new) = (delay(&json!({})), delay(&json!({ "mode": "one" })));
        let update = |old: &Value, new: &Value| {
            answer(Question::Validate, &request("UPDATE", new.clone(), old.clone()), None)
        };
        assert!(message(&update(&old, &new)).starts_with("Cannot update chaos spec"));
        assert!(update(&old, &old).allowed);
        // Stored without defaults, applied again with them.
        let patch = create(Question::Mutate, old.clone()).patch.unwrap();
        let patch: Value = serde_json::from_slice(&patch).unwrap();
        let mut with_defaults = old.clone();
        with_defaults["spec"] = patch[0]["value"].clone();
        assert!(update(&old, &with_defaults).allowed);
    }

    #[test]
    fn a_schedules_block_is_checked_and_defaulted_like_its_kind() {
        let schedule = |latency: &str| {
            let spec = delay(&json!({ "delay": { "latency": latency } }))["spec"].take();
            json!({
                "apiVersion": API_VERSION, "kind": SCHEDULE, "metadata": { "name": "s" },
                "spec": { "schedule": "@every 5s", "type": Kind::Network.name(), "networkChaos": spec },
            })
        };
        let response = create(Question::Validate, schedule("1S"));
        let wrong = message(&response);
        assert!(wrong.starts_with("Spec.NetworkChaos.Delay.Latency: Invalid value"), "{wrong}");
        assert!(create(Question::Validate, schedule("1s")).allowed);
        let patch = create(Question::Mutate, schedule("1s")).patch.unwrap();
        let patch: Value = serde_json::from_slice(&patch).unwrap();
        let spec = &patch[0]["value"];
        assert_eq!(spec["concurrencyPolicy"], "Forbid");
        assert_eq!(spec["networkChaos"]["selector"]["namespaces"], json!(["shop"]));
        assert_eq!(spec["schedule"], "@every 5s");
    }

    #[test]
    fn an_installation_for_one_namespace_serves_no_other() {
        let only = |only, object| {
            answer(Question::Validate, &request("CREATE", object, Value::Null), Some(only))
        };
        assert!(only("shop", delay(&json!({}))).allowed);
        assert!(message(&only("bank", delay(&json!({})))).contains("serves namespace bank only"));
        let far = delay(&json!({ "selector": { "namespaces": ["bank"] } }));
        assert!(message(&only("shop", far)).contains("Invalid value: \"bank\""));
    }

    #[test]
    fn webhooks_have_upstreams_names_and_paths() {
        let path = path(Question::Mutate, Kind::Network);
        assert_eq!(path, "/mutate-chaos-mesh-org-v1alpha1-networkchaos");
        assert_eq!(name(Question::Validate, Kind::Pod), "vpodchaos.kb.io");
    }
}
