//! The addresses of both sides, in PeerSets that all nodes share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;

use super::super::cache::Cache;
use super::super::{KubeError, objects};
use super::{Look, ask::unless_gone};
use crate::api::nodefault::{GROUP, VERSION};
use crate::api::peerset::{self, Spec, arrange};
use crate::api::status::{DesiredPhase, Status};
use crate::fault::Experiment;
use crate::fault::lifecycle::{self, RecordKey};
use crate::select::seed_for;

/// A side, and everybody on it with their addresses.
type Side = (&'static str, BTreeMap<String, Vec<IpAddr>>);

impl Look {
    /// The Services in front of each side whose addresses matter. What of them cannot be matched
    /// is warned of.
    pub(super) fn find_services(&mut self, cache: &Cache, keys: &[RecordKey]) {
        let is_running = lifecycle::desired(&self.world) == DesiredPhase::Run;
        let experiment = self.parsed.experiment.as_ref().filter(|_| is_running);
        let sides = experiment.map(Experiment::peer_sides).unwrap_or_default();
        let mut warnings = Vec::new();
        for side in sides {
            let of_side = keys.iter().filter(|(key, _)| key == side);
            // A pod that was replaced is another pod.
            let is_same = |id: &str, uid: &str| self.identity(id) == Some(uid) && !uid.is_empty();
            let uids: BTreeSet<&str> = of_side
                .filter_map(|(_, id)| Some((id, self.pods.get(id)?.uid.as_str())))
                .filter(|(id, uid)| is_same(id, uid))
                .map(|(_, uid)| uid)
                .collect();
            let front = cache.services.in_front_of(&uids);
            let field = if *side == "." { "spec.selector" } else { "spec.target.selector" };
            for (service, (meant, all)) in front.partly {
                warnings.push(format!(
                    "{field}: {meant} of the {all} endpoints of the Service {service} are chosen, \
                     so what is sent to its ClusterIP is not matched; choose all of them (mode: \
                     all), or name the Service in spec.externalTargets"
                ));
            }
            self.services.insert(*side, front.whole);
        }
        self.world.warnings.extend(warnings);
    }

    /// Everybody on each side whose addresses matter, as they are to be known on every node.
    pub(super) fn peers(&self, experiment: &Experiment, status: &Status) -> Vec<Side> {
        let side = |side: &&'static str| {
            let pods = self.chosen_pods(status, side).into_iter();
            let pods = pods.map(|pod| (pod.id(), pod.addresses.clone()));
            let services = self.services.get(side).into_iter().flatten();
            let services =
                services.map(|(name, addresses)| (format!("service:{name}"), addresses.clone()));
            (*side, pods.chain(services).collect())
        };
        experiment.peer_sides().iter().map(side).collect()
    }

    /// Writes the PeerSets of the experiment where they have changed, and tells their names.
    pub(super) async fn share_peers(
        &self,
        client: &Client,
        peers: Vec<Side>,
    ) -> Result<Vec<String>, KubeError> {
        let (namespace, _) = objects::split(&self.name.key);
        let api = objects::of(client, &objects::peer_sets(), namespace);
        let mut names = Vec::new();
        for (side, wanted) in peers {
            let start = self.set_name(side);
            let known: BTreeMap<usize, Spec> = self
                .sets
                .iter()
                .filter_map(|(name, set)| {
                    Some((name.strip_prefix(&start)?.parse().ok()?, set.clone()))
                })
                .collect();
            for (number, set) in arrange(side, wanted, &known) {
                let name = format!("{start}{number}");
                if known.get(&number) != Some(&set) {
                    self.write_set(&api, &name, &set, known.contains_key(&number)).await?;
                }
                names.push(name);
            }
        }
        Ok(names)
    }

    /// What the names of a side's sets begin with. An object of the same name that was deleted
    /// has others: its sets may still be known somewhere.
    fn set_name(&self, side: &str) -> String {
        let (_, own) = objects::split(&self.name.key);
        let uid = self.object.uid().unwrap_or_default();
        let hash = seed_for(2, &format!("{}/{}/{uid}", self.name.kind, self.name.key));
        let start: String = own.chars().take(200).collect();
        let side = if side == "." { "sources" } else { "targets" };
        format!("{start}-{:08x}-{side}-", hash as u32)
    }

    async fn write_set(
        &self,
        api: &Api<DynamicObject>,
        name: &str,
        set: &Spec,
        is_known: bool,
    ) -> Result<(), KubeError> {
        let parameters = PatchParams {
            field_manager: Some("kfault-controller".to_owned()),
            ..PatchParams::default()
        };
        if !is_known {
            let (namespace, _) = objects::split(&self.name.key);
            let object = json!({
                "apiVersion": format!("{GROUP}/{VERSION}"),
                "kind": peerset::KIND,
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "ownerReferences": [self.owner()],
                },
                "spec": set,
            });
            let object: DynamicObject = serde_json::from_value(object).map_err(|error| {
                KubeError::Object { object: name.to_owned(), reason: error.to_string() }
            })?;
            match api.create(&PostParams::default(), &object).await {
                Ok(_) => return Ok(()),
                // The watch has not told us of it yet.
                Err(kube::Error::Api(error)) if error.code == 409 => {}
                Err(error) => {
                    return Err(KubeError::api(format!("create the PeerSet {name}"))(error));
                }
            }
        }
        let patch = json!({ "spec": set });
        let patched = api.patch(name, &parameters, &Patch::Merge(&patch)).await;
        // One that was deleted is made again by the next look, at the watch's word.
        unless_gone(patched.map(drop), || format!("change the PeerSet {name}"))
    }
}
