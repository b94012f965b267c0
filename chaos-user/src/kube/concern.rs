//! What a piece of news means for experiments.

use std::collections::BTreeSet;

use kube::api::DynamicObject;

use super::cache::{Cache, Name};

/// What a piece of news concerns.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Concern {
    /// Experiments that have to be looked at.
    pub experiments: BTreeSet<Name>,
    /// A pod that has changed; experiments that wait for pods have to be looked at.
    pub pod: Option<String>,
    /// Services have changed; experiments with a target have to be looked at.
    pub services: bool,
    /// Everything has to be looked at.
    pub everything: bool,
}

impl Cache {
    /// The experiments that have to be looked at.
    #[must_use]
    pub fn concerned(&self, concern: &Concern) -> BTreeSet<Name> {
        let mut out = concern.experiments.clone();
        if concern.everything {
            out.extend(self.experiments.keys().cloned());
        }
        let is_concerned = |object: &DynamicObject| {
            (concern.services && object.data["spec"]["target"].is_object())
                || concern.pod.as_deref().is_some_and(|pod| is_about(object, pod))
        };
        let others = self.experiments.iter().filter(|(_, object)| is_concerned(object));
        out.extend(others.map(|(name, _)| name.clone()));
        out
    }
}

/// True when a pod is a target, or might become one.
fn is_about(object: &DynamicObject, pod: &str) -> bool {
    let spec = &object.data["spec"];
    // Our own kinds say it without the detour.
    if spec["kfault"]["follow"] == true || spec["follow"] == true {
        return true;
    }
    let records = &object.data["status"]["experiment"]["containerRecords"];
    // Without records it waits for pods.
    let Some(records) = records.as_array() else { return true };
    let names = |id: &str| id.strip_prefix(pod).is_some_and(|r| r.is_empty() || r.starts_with('/'));
    records.iter().any(|record| record["id"].as_str().is_some_and(names))
}
