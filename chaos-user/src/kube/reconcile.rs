//! One look at one experiment: what is written, what is asked of the nodes, when to look again.
//!
//! Records are persisted before anybody is asked to act on them, so that a controller that dies
//! in between finds the same targets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::cache::{Cache, Fault, Name};
use super::{KubeError, events, objects};
use crate::api::kind::{API_VERSION, Kind};
use crate::api::metadata::PAUSE;
use crate::api::nodefault::{self, FINALIZER as AGENT_FINALIZER, NODE_LABEL, NodeState, Pod, Spec};
use crate::api::status::{DesiredPhase, Status};
use crate::fault::lifecycle::{self, Event, RecordKey, Report, Step, World};
use crate::fault::{self, Choice, Experiment, Parsed};
use crate::select::pods::{Surroundings, matching};
use crate::select::{choose, seed_for};

/// The finalizer of experiments.
const FINALIZER: &str = "chaos-mesh/records";
/// Annotation that drops the finalizer whatever the targets say.
const CLEAN: &str = "chaos-mesh.chaos-mesh.org/cleanFinalizer";
/// An agent that has been silent for so long has ended its faults by itself: its own cut-off
/// (30 s), the lease of its rules (5 s), and something for clocks that differ.
pub const SILENT: Duration = Duration::from_secs(40);

/// Who may be chosen, beyond what selectors say.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Only pods of this namespace.
    pub only: Option<String>,
    /// Only pods of namespaces with the annotation `chaos-mesh.org/inject: enabled`.
    pub filter: bool,
}

/// Everything that a look needs, copied out of the cache.
pub struct Look {
    /// The experiment.
    pub name: Name,
    object: DynamicObject,
    parsed: Parsed,
    status: Status,
    world: World,
    faults: BTreeMap<String, Fault>,
    /// Pods that records name.
    pods: BTreeMap<String, Pod>,
    /// Agents that have ended their faults by themselves, or whose node is gone.
    silent: BTreeSet<String>,
}

/// What a look leads to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Look again after this time.
    pub again: Option<Duration>,
    /// The object as it was written.
    pub written: Option<DynamicObject>,
}

impl Look {
    /// Prepares a look; `None` when the experiment exists no more.
    #[must_use]
    pub fn new(cache: &Cache, name: &Name, reach: &Reach, now: Timestamp) -> Option<Self> {
        let object = cache.experiments.get(name)?.clone();
        let status: Status =
            serde_json::from_value(object.data["status"].clone()).unwrap_or_default();
        let parsed = fault::parse_object(&objects::key(&object.metadata), whole(name, &object));
        let faults = cache.faults_of(name);
        let duration = parsed.experiment.as_ref().and_then(Experiment::duration);
        let mut warnings: Vec<String> = parsed.warnings.iter().map(ToString::to_string).collect();
        warnings.extend(parsed.errors.iter().map(ToString::to_string));
        let mut world = World {
            now,
            created: object.creation_timestamp().map_or(now, |time| time.0),
            is_deleted: object.metadata.deletion_timestamp.is_some(),
            is_paused: object.annotations().get(PAUSE).is_some_and(|value| value == "true"),
            is_one_shot: false,
            is_for_nodes: true,
            duration,
            chosen: None,
            reports: BTreeMap::new(),
            matched_injected: counted(&faults),
            warnings,
        };
        if lifecycle::needs_choice(&status, &world)
            && let Some(experiment) = &parsed.experiment
        {
            world.chosen = Some(chosen(cache, experiment, reach, &object));
        }
        let mut look = Self {
            name: name.clone(),
            object,
            parsed,
            status,
            world,
            faults,
            pods: BTreeMap::new(),
            silent: BTreeSet::new(),
        };
        look.gather(cache);
        Some(look)
    }

    /// Pods of the records, agents that are silent, and what each record's node says.
    fn gather(&mut self, cache: &Cache) {
        let nodes: BTreeSet<String> = self.faults.keys().cloned().collect();
        for node in nodes {
            let is_silent = cache.agents.get(&node).is_some_and(|renewed| {
                let age = self.world.now.duration_since(*renewed);
                Duration::try_from(age).is_ok_and(|age| age > SILENT)
            });
            let is_gone = !cache.nodes.is_empty() && !cache.nodes.contains_key(&node);
            if is_silent || is_gone {
                self.silent.insert(node);
            }
        }
        let keys: Vec<RecordKey> = match &self.world.chosen {
            Some(Ok(keys)) => keys.clone(),
            _ => {
                let records = self.status.experiment.container_records.iter().flatten();
                records.map(|record| (record.selector_key.clone(), record.id.clone())).collect()
            }
        };
        for (key, id) in keys {
            if let Some(pod) = cache.pods.get(&id) {
                self.pods.insert(id.clone(), reduced(pod));
            }
            let report = self.report(&key, &id);
            if let Some(report) = report {
                self.world.reports.insert((key, id), report);
            }
        }
    }

    fn report(&self, key: &str, id: &str) -> Option<Report> {
        let asked = self.faults.values().find_map(|fault| {
            let spec = fault.spec.as_ref()?;
            let side = if key == "." { Some(&spec.sources) } else { spec.targets.as_ref() };
            let pod = side?.iter().find(|pod| pod.id() == *id && pod.node == spec.node)?;
            Some((fault, pod))
        });
        let Some((fault, pod)) = asked else {
            // Nobody has been asked: the fault cannot act.
            return if self.pods.contains_key(id) {
                Some(Report::Recovered)
                    .filter(|_| lifecycle::desired(&self.world) == DesiredPhase::Stop)
            } else {
                Some(Report::Gone)
            };
        };
        if self.pods.get(id).is_none_or(|now| now.uid != pod.uid) {
            return Some(Report::Gone);
        }
        if self.silent.contains(&pod.node) {
            return Some(match lifecycle::desired(&self.world) {
                DesiredPhase::Run => Report::Failed(format!(
                    "the agent of node {} has been silent for more than {} s, so its faults have ended",
                    pod.node,
                    SILENT.as_secs()
                )),
                DesiredPhase::Stop => Report::Recovered,
            });
        }
        if fault.status.observed_generation != fault.object.metadata.generation.unwrap_or_default()
        {
            // It has not heard of the last change yet.
            return None;
        }
        let record =
            fault.status.records.iter().find(|record| record.id == id && record.key == key)?;
        Some(match record.state {
            NodeState::Injected => Report::Injected,
            NodeState::Recovered => Report::Recovered,
            NodeState::Failed => Report::Failed(record.message.clone()),
        })
    }

    /// Writes what has changed and asks the nodes.
    ///
    /// # Errors
    /// [`KubeError`]; the look is to be repeated.
    pub async fn act(mut self, client: &Client) -> Result<Outcome, KubeError> {
        let is_forced = self.object.annotations().get(CLEAN).is_some_and(|value| value == "forced");
        let Step { mut status, holds, mut events, again } =
            lifecycle::step(&self.status, &self.world);
        let has_finalizer = self.object.finalizers().iter().any(|f| f == FINALIZER);
        if self.world.is_deleted && !has_finalizer {
            return Ok(Outcome::default());
        }
        if let Some(reason) = self.refusal() {
            // Said once, when it is first seen.
            let known = self.status.kfault.as_ref().map(|summary| summary.warnings.as_slice());
            if known != Some(self.world.warnings.as_slice()) {
                events.extend(refused(
                    &reason,
                    self.parsed.errors.iter().all(fault::LoadError::is_unsupported),
                ));
            }
            if let Some(summary) = &mut status.kfault {
                summary.phase = "Failed".to_owned();
            }
        }
        let faults_left = self.world.is_deleted && !self.faults.is_empty();
        let keeps = (holds || faults_left) && !(self.world.is_deleted && is_forced);
        if keeps && !has_finalizer {
            self.object.finalizers_mut().push(FINALIZER.to_owned());
            events
                .insert(0, note("initFinalizers", "FinalizerInited", "Finalizer has been inited"));
        }
        if !keeps && has_finalizer {
            self.object.finalizers_mut().retain(|finalizer| finalizer != FINALIZER);
            events.push(note("cleanFinalizers", "FinalizerInited", "Finalizer has been removed"));
        }
        let is_changed = status != self.status || keeps != has_finalizer;
        let mut outcome = Outcome { again, written: None };
        // Targets that are asked to act are on record first; an end is on record afterwards.
        let is_running = status.experiment.desired_phase == Some(DesiredPhase::Run);
        if !is_running {
            self.ask(client, &status).await?;
        }
        if is_changed {
            outcome.written = Some(self.write(client, &status).await?);
            events::tell(client, &self.name, &self.object, events);
        }
        if is_running {
            self.ask(client, &status).await?;
        }
        Ok(outcome)
    }

    /// Why the object cannot be served, where it cannot.
    fn refusal(&self) -> Option<String> {
        if self.parsed.experiment.is_some() {
            return None;
        }
        let all: Vec<String> = self.parsed.errors.iter().map(ToString::to_string).collect();
        Some(all.join("; "))
    }

    async fn write(
        &mut self,
        client: &Client,
        status: &Status,
    ) -> Result<DynamicObject, KubeError> {
        let kind = Kind::find(self.name.kind).unwrap_or(Kind::Later(self.name.kind));
        let (namespace, name) = objects::split(&self.name.key);
        let api = objects::of(client, &objects::experiments(kind), namespace);
        self.object.data["status"] = serde_json::to_value(status).map_err(|error| {
            KubeError::Object { object: self.name.key.clone(), reason: error.to_string() }
        })?;
        let doing = format!("write the status of {}", self.name.key);
        api.replace(name, &PostParams::default(), &self.object).await.map_err(KubeError::api(doing))
    }

    /// Creates, changes and deletes NodeFaults, so that they say what shall be the case.
    async fn ask(&self, client: &Client, status: &Status) -> Result<(), KubeError> {
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
                let name = fault.object.name_any();
                let patch = json!({ "spec": { "run": false } });
                let patched = api.patch(&name, &parameters, &Patch::Merge(&patch)).await;
                unless_gone(patched.map(drop), || format!("end the NodeFault {name}"))?;
            }
            return Ok(());
        }
        let Some(experiment) = &self.parsed.experiment else { return Ok(()) };
        for (node, spec) in self.wanted(status, experiment) {
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

    /// What each node shall do.
    fn wanted(&self, status: &Status, experiment: &Experiment) -> BTreeMap<String, Spec> {
        let side = |key: &str| -> Vec<Pod> {
            let records = status.experiment.container_records.iter().flatten();
            records
                .filter(|record| record.selector_key == key)
                .filter_map(|record| {
                    // Frozen: a pod that was replaced is another pod.
                    let frozen = self.frozen(&record.id);
                    let pod = self.pods.get(&record.id);
                    pod.filter(|pod| frozen.is_none_or(|uid| uid == pod.uid)).cloned()
                })
                .collect()
        };
        let sources = side(".");
        let targets = experiment.target().map(|_| side(".Target"));
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
        let spec = |node: &str| Spec {
            node: node.to_owned(),
            run: true,
            until: lifecycle::until(&self.world),
            experiment: object.clone(),
            seed,
            sources: sources.clone(),
            targets: targets.clone(),
            names: BTreeMap::<String, Vec<IpAddr>>::new(),
        };
        nodes.into_iter().map(|node| (node.clone(), spec(node))).collect()
    }

    /// The uid of a record's pod when a node was first asked.
    fn frozen(&self, id: &str) -> Option<&str> {
        self.faults.values().find_map(|fault| {
            let spec = fault.spec.as_ref()?;
            let all = spec.sources.iter().chain(spec.targets.iter().flatten());
            all.into_iter().find(|pod| pod.id() == id).map(|pod| pod.uid.as_str())
        })
    }

    fn node_fault(&self, node: &str, spec: &Spec) -> Result<DynamicObject, KubeError> {
        let (namespace, own) = objects::split(&self.name.key);
        let hash = seed_for(1, &format!("{}/{}/{node}", self.name.kind, self.name.key));
        // An object's name ends at 253 characters.
        let start: String = own.chars().take(200).collect();
        let name = format!("{start}-{:08x}", hash as u32);
        let owner = json!({
            "apiVersion": API_VERSION,
            "kind": self.name.kind,
            "name": own,
            "uid": self.object.uid().unwrap_or_default(),
            "controller": true,
            "blockOwnerDeletion": true,
        });
        let object = json!({
            "apiVersion": format!("{}/{}", nodefault::GROUP, nodefault::VERSION),
            "kind": nodefault::KIND,
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": { NODE_LABEL: node },
                "finalizers": [AGENT_FINALIZER],
                "ownerReferences": [owner],
            },
            "spec": spec,
        });
        serde_json::from_value(object)
            .map_err(|error| KubeError::Object { object: name, reason: error.to_string() })
    }
}

fn unless_gone(done: kube::Result<()>, doing: impl FnOnce() -> String) -> Result<(), KubeError> {
    match done {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map_err(KubeError::api(doing())),
    }
}

fn note(component: &'static str, reason: &'static str, message: &str) -> Event {
    Event { component, reason, is_warning: false, message: message.to_owned() }
}

fn refused(reason: &str, is_unsupported: bool) -> Vec<Event> {
    let event = |reason, message| Event { component: "records", reason, is_warning: true, message };
    let mut all = vec![event("Failed", format!("Failed to apply chaos: {reason}"))];
    if is_unsupported {
        all.push(event("NotSupported", format!("{reason} is not supported")));
    }
    all
}

/// The whole object, as a manifest.
fn whole(name: &Name, object: &DynamicObject) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": name.kind,
        "metadata": {
            "name": object.name_any(),
            "namespace": object.namespace().unwrap_or_default(),
            "labels": object.labels(),
        },
        "spec": object.data["spec"],
    })
}

fn counted(faults: &BTreeMap<String, Fault>) -> (u64, u64) {
    let rules = faults.values().flat_map(|fault| &fault.status.rules);
    rules.fold((0, 0), |(matched, injected), rule| {
        (matched + rule.matched, injected + rule.injected)
    })
}

fn reduced(pod: &crate::select::pods::Pod) -> Pod {
    Pod {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        node: pod.node.clone(),
        addresses: pod.addresses.clone(),
        host_network: pod.host_network,
    }
}

/// The targets of an experiment, chosen now.
fn chosen(
    cache: &Cache,
    experiment: &Experiment,
    reach: &Reach,
    object: &DynamicObject,
) -> Result<Vec<RecordKey>, String> {
    let around = Surroundings {
        nodes: cache.nodes.iter().map(|(name, labels)| (name.as_str(), labels)).collect(),
        allowed: allowed(cache, reach),
    };
    let uid = object.uid().unwrap_or_default();
    let side = |key: &str, choice: &Choice| -> Result<Vec<RecordKey>, String> {
        let pods = matching(&choice.selector, cache.pods.values(), &around);
        let named = pods.iter().map(|pod| (pod.id(), pod.id()));
        let chosen = choose(choice.mode, named, seed_for(0, &format!("{uid}{key}")))
            .map_err(|_| "no pod is selected".to_owned())?;
        Ok(chosen.into_iter().map(|id| (key.to_owned(), id)).collect())
    };
    let mut keys = side(".", experiment.source())?;
    if let Some(target) = experiment.target() {
        keys.extend(side(".Target", target)?);
    }
    Ok(keys)
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
