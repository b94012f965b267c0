//! The configurations by which the API server asks us, as a cluster takes them.

use serde_json::{Value, json};

use super::admission::{self, Question};
use super::certificate::CONFIGURATION;
use super::objects;
use crate::api::kind::{Kind, VERSION};

/// What is asked about: not a status, a finalizer or a label, so that a controller that does not
/// answer keeps nothing from ending.
const CONDITION: &str = "request.operation == 'CREATE' || object.?spec != oldObject.?spec";
/// Seconds until a request counts as not answered.
const PATIENCE: u32 = 5;

/// Both configurations, one webhook per kind in each. The certificate's authority is added by the
/// controller when it runs.
#[must_use]
pub fn configurations() -> [Value; 2] {
    Question::ALL.map(|question| {
        let kind = match question {
            Question::Mutate => "MutatingWebhookConfiguration",
            Question::Validate => "ValidatingWebhookConfiguration",
        };
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": { "name": CONFIGURATION },
            "webhooks": admission::kinds().map(|kind| webhook(question, kind)).collect::<Vec<_>>(),
        })
    })
}

fn webhook(question: Question, kind: Kind) -> Value {
    json!({
        "name": admission::name(question, kind),
        "admissionReviewVersions": ["v1"],
        "clientConfig": { "service": {
            "name": "chaos-controller-manager",
            "namespace": "chaos-mesh",
            "path": admission::path(question, kind),
        } },
        // An object that nobody has checked is not stored.
        "failurePolicy": "Fail",
        "matchConditions": [{ "name": "its-meaning", "expression": CONDITION }],
        "rules": [{
            "apiGroups": [kind.group()],
            "apiVersions": [VERSION],
            "operations": ["CREATE", "UPDATE"],
            "resources": [objects::experiments(kind).plural],
        }],
        "sideEffects": "None",
        "timeoutSeconds": PATIENCE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_both_webhooks() {
        for configuration in configurations() {
            let hooks = configuration["webhooks"].as_array().unwrap();
            assert_eq!(hooks.len(), admission::kinds().count());
            let resources = hooks.iter().map(|hook| &hook["rules"][0]["resources"][0]);
            assert!(resources.clone().any(|name| name == "networkchaos"));
            assert!(resources.clone().any(|name| name == "schedules"));
        }
    }
}
