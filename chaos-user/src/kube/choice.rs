//! Which pods and containers an experiment acts on, chosen from what is known of the cluster.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use kube::api::DynamicObject;

use super::cache::Cache;
use crate::api::nodefault::Pod;
use crate::fault::lifecycle::RecordKey;
use crate::fault::{Choice, Experiment};
use crate::select::pods::{self, Surroundings, matching};
use crate::select::{choose, seed_for};

/// Who may be chosen, beyond what selectors say.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Only pods of this namespace.
    pub only: Option<String>,
    /// The namespace that kfault runs in: its own pods are never chosen.
    pub own: String,
    /// kfault's own image, where it is known.
    pub image: Option<String>,
    /// Only pods of namespaces with the annotation `chaos-mesh.org/inject: enabled`.
    pub filter: bool,
}

/// Targets that were chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Their records.
    pub keys: Vec<RecordKey>,
    /// Uids of pods and ids of containers, by the id of their records.
    pub identities: BTreeMap<String, String>,
}

/// The targets of an experiment, chosen now.
///
/// # Errors
/// A sentence, when there is nothing to choose from.
pub fn chosen(
    cache: &Cache,
    experiment: &Experiment,
    reach: &Reach,
    object: &DynamicObject,
) -> Result<Chosen, String> {
    let around = Surroundings {
        nodes: cache.nodes.iter().map(|(name, labels)| (name.as_str(), labels)).collect(),
        allowed: allowed(cache, reach),
    };
    let uid = object.uid().unwrap_or_default();
    let mut out = Chosen::default();
    let mut is_anybody = false;
    let mut side = |key: &str, choice: &Choice| -> Result<(), String> {
        let others = cache.pods.values().filter(|pod| !is_own(pod, reach));
        let pods = matching(&choice.selector, others, &around);
        let named = pods.iter().map(|pod| (pod.id(), *pod));
        let chosen = choose(choice.mode, named, seed_for(0, &format!("{uid}{key}")))
            .map_err(|_| "no pod is selected".to_owned())?;
        for pod in chosen {
            is_anybody = true;
            let parts = match experiment.containers() {
                Some(names) => containers(pod, names),
                None => vec![(pod.id(), pod.uid.clone())],
            };
            for (id, identity) in parts {
                out.keys.push((key.to_owned(), id.clone()));
                out.identities.insert(id, identity);
            }
        }
        Ok(())
    };
    side(".", experiment.source())?;
    if let Some(target) = experiment.target() {
        side(".Target", target)?;
    }
    // A random share may be nobody at all.
    if is_anybody
        && out.keys.is_empty()
        && let Some(names) = experiment.containers()
    {
        return Err(format!("no selected pod has a container {}", names.join(" or ")));
    }
    Ok(out)
}

/// The containers of these names, each with its id, which is empty while it does not run.
fn containers(pod: &pods::Pod, names: &[String]) -> Vec<(String, String)> {
    let all = pod.containers.iter().filter(|container| names.contains(&container.name));
    all.map(|container| (format!("{}/{}", pod.id(), container.name), container.id.clone()))
        .collect()
}

fn is_own(pod: &pods::Pod, reach: &Reach) -> bool {
    const NAME: &str = "app.kubernetes.io/name";
    pod.namespace == reach.own && pod.labels.get(NAME).is_some_and(|name| name == "kfault")
}

/// `namespace/pod` of a record's id, which may name a container behind it.
#[must_use]
pub fn pod_of(id: &str) -> &str {
    match id.match_indices('/').nth(1) {
        Some((end, _)) => &id[..end],
        None => id,
    }
}

/// A pod as agents are told of it.
#[must_use]
pub fn reduced(pod: &pods::Pod) -> Pod {
    Pod {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        node: pod.node.clone(),
        addresses: pod.addresses.clone(),
        host_network: pod.host_network,
    }
}

fn allowed<'a>(cache: &'a Cache, reach: &'a Reach) -> Option<BTreeSet<&'a str>> {
    const INJECT: &str = "chaos-mesh.org/inject";
    let is_enabled = |notes: &BTreeMap<String, String>| {
        notes.get(INJECT).is_some_and(|value| value == "enabled")
    };
    let open = || -> BTreeSet<&str> {
        let all = cache.namespaces.iter().filter(|(_, notes)| is_enabled(notes));
        all.map(|(name, _)| name.as_str()).collect()
    };
    match (&reach.only, reach.filter) {
        (None, false) => None,
        (None, true) => Some(open()),
        (Some(only), _) => Some([only.as_str()].into()),
    }
}
