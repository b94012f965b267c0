//! Asking the nodes: what each NodeFault shall say.

use std::collections::{BTreeMap, BTreeSet};

use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::super::cache::Fault;
use super::super::choice::{pod_of, reduced};
use super::super::server::Way;
use super::super::{KubeError, objects};
use super::Look;
use crate::api::kind::Kind;
use crate::api::nodefault::{self, Container, FINALIZER as AGENT_FINALIZER, NODE_LABEL, Pod, Spec};
use crate::api::status::{DesiredPhase, Record, Status};
use crate::fault::{Experiment, lifecycle};
use crate::select::{pods, seed_for};

impl Look {
    /// Creates, changes and deletes NodeFaults, so that they say what shall be the case.
    pub(super) async fn ask(&self, client: &Client, status: &Status) -> Result<(), KubeError> {
        let (namespace, _) = objects::split(&self.name.key);
        let api = objects::of(client, &objects::node_faults(), namespace);
        let parameters = PatchParams {
            field_manager: Some("kfault-controller".to_owned()),
            ..PatchParams::default()
        };
        if self.world.is_deleted {
            for (node, fault) in &self.faults {
                let name = fault.object.name_any();
                if fault.object.metadata.deletion_timestamp.is_none() {
                    let deleted = api.delete(&name, &DeleteParams::default()).await;
                    unless_gone(deleted.map(drop), || format!("delete the NodeFault {name}"))?;
                }
                if self.silent.contains(node) {
                    let patch = json!({ "metadata": { "finalizers": null } });
                    let patched = api.patch(&name, &parameters, &Patch::Merge(&patch)).await;
                    unless_gone(patched.map(drop), || format!("let the NodeFault {name} go"))?;
                }
            }
            return Ok(());
        }
        let is_running = status.experiment.desired_phase == Some(DesiredPhase::Run);
        if !is_running {
            for fault in self.faults.values().filter(|f| f.spec.as_ref().is_some_and(|s| s.run)) {
                end(&api, &parameters, fault).await?;
            }
            return Ok(());
        }
        let Some(experiment) = &self.parsed.experiment else { return Ok(()) };
        // Without addresses a rule would match nothing, in silence.
        if self.way == Way::Server || self.is_unresolved {
            return Ok(());
        }
        let peers = self.share_peers(client, self.peers(experiment, status)).await?;
        let wanted = self.wanted(status, experiment, &peers);
        for fault in self.faults.values().filter(|f| f.spec.as_ref().is_some_and(|s| s.run)) {
            // Every target of that node has gone.
            if fault.spec.as_ref().is_some_and(|spec| !wanted.contains_key(&spec.node)) {
                end(&api, &parameters, fault).await?;
            }
        }
        for (node, spec) in wanted {
            let object = self.node_fault(&node, &spec)?;
            match self.faults.get(&node) {
                Some(fault) if fault.spec.as_ref() == Some(&spec) => {}
                Some(fault) => {
                    let name = fault.object.name_any();
                    let patch = json!({ "spec": object.data["spec"] });
                    let patched = api.patch(&name, &parameters, &Patch::Merge(&patch)).await;
                    unless_gone(patched.map(drop), || format!("change the NodeFault {name}"))?;
                }
                None => match api.create(&PostParams::default(), &object).await {
                    Ok(_) => {}
                    // The watch has not told us of it yet.
                    Err(kube::Error::Api(error)) if error.code == 409 => {}
                    Err(error) => {
                        return Err(KubeError::api(format!("create a NodeFault for node {node}"))(
                            error,
                        ));
                    }
                },
            }
        }
        Ok(())
    }

    /// The pods of one side, as far as they are those that were chosen, each once.
    pub(super) fn chosen_pods(&self, status: &Status, side: &str) -> Vec<&pods::Pod> {
        let chosen = status.kfault.as_ref().map(|summary| &summary.chosen);
        let is_by_container =
            self.parsed.experiment.as_ref().is_some_and(Experiment::kills_containers);
        let mut known = BTreeSet::new();
        let records = status.experiment.container_records.iter().flatten();
        records
            .filter(|record| record.selector_key == side)
            .filter_map(|record| {
                // Frozen: a pod that was replaced is another pod.
                let uid = chosen.and_then(|chosen| chosen.get(&record.id));
                let is_frozen =
                    |pod: &&pods::Pod| is_by_container || uid.is_none_or(|uid| *uid == pod.uid);
                self.pods.get(pod_of(&record.id)).filter(is_frozen)
            })
            .filter(|pod| known.insert(pod.uid.as_str()))
            .collect()
    }

    /// What each node shall do.
    fn wanted(
        &self,
        status: &Status,
        experiment: &Experiment,
        peers: &[String],
    ) -> BTreeMap<String, Spec> {
        let nobody = BTreeMap::new();
        let chosen = status.kfault.as_ref().map_or(&nobody, |summary| &summary.chosen);
        let is_by_container = experiment.containers().is_some();
        let records = || status.experiment.container_records.iter().flatten();
        let sources = self.chosen_pods(status, ".");
        let targets = experiment.target().map(|_| self.chosen_pods(status, ".Target"));
        let container = |record: &Record| {
            let pod = self.pods.get(pod_of(&record.id)).filter(|_| is_by_container)?;
            let name = record.id.rsplit('/').next().unwrap_or_default();
            // One that is to die is the one that was chosen; else the one there is now is meant.
            let id = if experiment.kills_containers() {
                chosen.get(&record.id).cloned()
            } else {
                let now = pod.containers.iter().find(|container| container.name == name);
                now.map(|container| container.id.clone())
            };
            Some(Container {
                pod: pod.id(),
                uid: pod.uid.clone(),
                node: pod.node.clone(),
                container: name.to_owned(),
                id: id.unwrap_or_default(),
            })
        };
        let containers: Vec<Container> = records().filter_map(container).collect();
        let all = sources.iter().chain(targets.iter().flatten());
        let nodes: BTreeSet<&String> =
            all.map(|pod| &pod.node).filter(|node| !node.is_empty()).collect();
        let seed = seed_for(0, &self.object.uid().unwrap_or_default()) as u32;
        let mut object = experiment.object();
        // Pausing is the controller's business.
        object["metadata"] = json!({
            "name": self.object.name_any(),
            "namespace": self.object.namespace().unwrap_or_default(),
        });
        let here = |node: &str, pods: &[&pods::Pod]| -> Vec<Pod> {
            pods.iter().filter(|pod| pod.node == node).map(|pod| reduced(pod)).collect()
        };
        let spec = |node: &str| Spec {
            node: node.to_owned(),
            run: true,
            until: lifecycle::until(&self.world),
            experiment: object.clone(),
            seed,
            sources: here(node, &sources),
            targets: targets.as_deref().map(|all| here(node, all)),
            peers: peers.to_vec(),
            containers: containers.iter().filter(|one| one.node == node).cloned().collect(),
            names: self.resolved.clone(),
        };
        nodes.into_iter().map(|node| (node.clone(), spec(node))).collect()
    }

    /// The experiment, as the owner of what is made for it.
    pub(super) fn owner(&self) -> Value {
        json!({
            "apiVersion": Kind::api_version_of(self.name.kind),
            "kind": self.name.kind,
            "name": objects::split(&self.name.key).1,
            "uid": self.object.uid().unwrap_or_default(),
            "controller": true,
            "blockOwnerDeletion": true,
        })
    }

    fn node_fault(&self, node: &str, spec: &Spec) -> Result<DynamicObject, KubeError> {
        let (namespace, own) = objects::split(&self.name.key);
        let hash = seed_for(1, &format!("{}/{}/{node}", self.name.kind, self.name.key));
        // An object's name ends at 253 characters.
        let start: String = own.chars().take(200).collect();
        let name = format!("{start}-{:08x}", hash as u32);
        let object = json!({
            "apiVersion": format!("{}/{}", nodefault::GROUP, nodefault::VERSION),
            "kind": nodefault::KIND,
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": { NODE_LABEL: node },
                "finalizers": [AGENT_FINALIZER],
                "ownerReferences": [self.owner()],
            },
            "spec": spec,
        });
        serde_json::from_value(object)
            .map_err(|error| KubeError::Object { object: name, reason: error.to_string() })
    }
}

/// What a NodeFault asks for shall end.
async fn end(
    api: &Api<DynamicObject>,
    parameters: &PatchParams,
    fault: &Fault,
) -> Result<(), KubeError> {
    let name = fault.object.name_any();
    let patch = json!({ "spec": { "run": false } });
    let patched = api.patch(&name, parameters, &Patch::Merge(&patch)).await;
    unless_gone(patched.map(drop), || format!("end the NodeFault {name}"))
}

pub(super) fn unless_gone(
    done: kube::Result<()>,
    doing: impl FnOnce() -> String,
) -> Result<(), KubeError> {
    match done {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map_err(KubeError::api(doing())),
    }
}
