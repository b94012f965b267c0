//! Which pods and containers an experiment acts on, chosen from what is known of the cluster.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use kube::api::DynamicObject;

use super::cache::Cache;
use crate::api::nodefault::Pod;
use crate::api::status::Status;
use crate::fault::lifecycle::RecordKey;
use crate::fault::{Choice, Experiment};
use crate::select::pods::{self, Surroundings, matching};
use crate::select::{choose, fill_up, seed_for};

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

/// The targets of an experiment, chosen now. One that follows keeps those of `before`, its status,
/// that still live.
///
/// # Errors
/// A sentence, when there is nothing to choose from.
pub fn chosen(
    cache: &Cache,
    experiment: &Experiment,
    reach: &Reach,
    object: &DynamicObject,
    before: &Status,
) -> Result<Chosen, String> {
    let around = Surroundings {
        nodes: cache.nodes.iter().map(|(name, labels)| (name.as_str(), labels)).collect(),
        allowed: allowed(cache, reach),
    };
    let uid = object.uid().unwrap_or_default();
    let is_first = before.experiment.container_records.is_none();
    let mut out = Chosen::default();
    let mut is_anybody = false;
    let mut side = |key: &str, choice: &Choice| -> Result<(), String> {
        let others = cache.pods.values().filter(|pod| !is_own(pod, reach));
        let pods = matching(&choice.selector, others, &around);
        let seed = seed_for(0, &format!("{uid}{key}"));
        let follows = experiment.follows();
        let named: Vec<_> = pods
            .into_iter()
            .filter(|pod| !follows || runs(pod))
            .map(|pod| (pod.id(), pod))
            .collect();
        let chosen = if is_first {
            choose(choice.mode, named.into_iter(), seed)
                .map_err(|_| "no pod is selected".to_owned())?
        } else {
            let kept = kept(cache, before, key, experiment.kills_containers());
            fill_up(choice.mode, kept.map(|pod| (pod.id(), pod)), named.into_iter(), seed)
        };
        for pod in chosen {
            is_anybody = true;
            let parts = match experiment.containers() {
                Some(names) => containers(pod, names)
                    .into_iter()
                    .map(|(id, container)| match experiment.kills_containers() {
                        true => (id, container),
                        false => (id, pod.uid.clone()),
                    })
                    .collect(),
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
    if out.keys.is_empty()
        && is_first
        && is_anybody
        && let Some(names) = experiment.containers()
    {
        return Err(format!("no selected pod has a container {}", names.join(" or ")));
    }
    Ok(out)
}

/// A pod that follows becomes a target when it runs: before, there is nothing to act on.
fn runs(pod: &pods::Pod) -> bool {
    pod.phase == "Running" && !pod.node.is_empty()
}

/// Pods of a side's records that still are the ones that were chosen, and have not ended.
fn kept<'a>(
    cache: &'a Cache,
    before: &'a Status,
    side: &'a str,
    is_by_container: bool,
) -> impl Iterator<Item = &'a pods::Pod> {
    let chosen = before.kfault.as_ref().map(|summary| &summary.chosen);
    let records = before.experiment.container_records.iter().flatten();
    records.filter(move |record| record.selector_key == side).filter_map(move |record| {
        let pod = cache.pods.get(pod_of(&record.id))?;
        let has_ended = matches!(pod.phase.as_str(), "Succeeded" | "Failed");
        let identity = chosen.and_then(|chosen| chosen.get(&record.id));
        let is_same = is_by_container || identity.is_none_or(|uid| *uid == pod.uid);
        (is_same && !has_ended).then_some(pod)
    })
}

/// The containers of these names, or the first, each with its id, which is empty while it does
/// not run.
fn containers(pod: &pods::Pod, names: &[String]) -> Vec<(String, String)> {
    let first = pod.containers.first().filter(|_| names.is_empty());
    let all = pod.containers.iter().filter(|container| names.contains(&container.name));
    let all = first.into_iter().chain(all);
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

/// A pod as the agent of its node is told of it.
#[must_use]
pub fn reduced(pod: &pods::Pod) -> Pod {
    Pod {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        node: pod.node.clone(),
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
