//! One look at one experiment: what is written, what is asked of the nodes, when to look again.
//!
//! Records are persisted before anybody is asked to act on them, so that a controller that dies
//! in between finds the same targets.

mod ask;
mod instances;
mod orphans;
mod peers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{DynamicObject, PostParams};
use kube::{Client, ResourceExt};

pub use self::orphans::Orphans;
use super::cache::{self, Cache, Name};
use super::choice::{Reach, chosen, pod_of};
use super::events::Teller;
use super::names::{self, Names};
use super::server::{self, Deed, Way};
use super::{KubeError, objects};
use crate::api::kind::Kind;
use crate::api::metadata::PAUSE;
use crate::api::nodefault::{Counted, Pod};
use crate::api::peerset::Sets;
use crate::api::status::{DesiredPhase, Status};
use crate::fault::lifecycle::{self, Asked, Event, Known, RecordKey, Report, Step, What, World};
use crate::fault::{self, Experiment, Fault, Parsed};
use crate::select::pods;

/// The finalizer of experiments.
const FINALIZER: &str = "chaos-mesh/records";
/// Annotation that drops the finalizer whatever the targets say.
const CLEAN: &str = "chaos-mesh.chaos-mesh.org/cleanFinalizer";
/// An agent that has been silent for so long has ended its faults by itself: its own cut-off
/// (30 s), the lease of its rules (5 s), and something for clocks that differ.
pub const SILENT: Duration = Duration::from_secs(40);

/// Everything that a look needs, copied out of the cache.
pub struct Look {
    /// The experiment.
    pub name: Name,
    object: DynamicObject,
    parsed: Parsed,
    status: Status,
    world: World,
    faults: BTreeMap<String, cache::Fault>,
    way: Way,
    /// Its PeerSets.
    sets: Sets,
    /// ClusterIPs of the Services that stand in front of a side and nobody else.
    services: BTreeMap<&'static str, BTreeMap<String, Vec<IpAddr>>>,
    /// Pods that records name.
    pods: BTreeMap<String, pods::Pod>,
    /// kfault's own image.
    image: Option<String>,
    /// What the experiment's names stand for.
    resolved: BTreeMap<String, Vec<IpAddr>>,
    /// One of them stands for nothing.
    is_unresolved: bool,
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
    /// What keeps a schedule from starting something: told once.
    pub complaint: Option<String>,
}

impl Look {
    /// Prepares a look; `None` when the experiment exists no more.
    #[must_use]
    pub fn new(cache: &Cache, name: &Name, reach: &Reach, now: Timestamp) -> Option<Self> {
        let object = cache.experiments.get(name)?.clone();
        let status: Status =
            serde_json::from_value(object.data["status"].clone()).unwrap_or_default();
        let parsed = fault::parse_object(
            &objects::key(&object.metadata),
            objects::whole(name.kind, &object),
        );
        let faults = cache.faults_of(name);
        let duration = parsed.experiment.as_ref().and_then(Experiment::duration);
        let way = parsed.experiment.as_ref().map_or(Way::Nodes, Way::of);
        let mut warnings: Vec<String> = parsed.warnings.iter().map(ToString::to_string).collect();
        warnings.extend(parsed.errors.iter().map(ToString::to_string));
        let told = faults.values().flat_map(|fault| &fault.status.strains);
        let notes = told.flat_map(|strain| {
            strain.notes.iter().map(|note| format!("{}: {note}", strain.record))
        });
        warnings.extend(notes);
        let mut world = World {
            now,
            created: object.creation_timestamp().map_or(now, |time| time.0),
            is_deleted: object.metadata.deletion_timestamp.is_some(),
            is_paused: object.annotations().get(PAUSE).is_some_and(|value| value == "true"),
            is_one_shot: parsed.experiment.as_ref().is_some_and(Experiment::is_one_shot),
            is_for_nodes: matches!(
                parsed.experiment.as_ref().map(|experiment| &experiment.fault),
                Some(Fault::Network(_))
            ),
            follows: parsed.experiment.as_ref().is_some_and(Experiment::follows),
            duration,
            chosen: None,
            identities: BTreeMap::new(),
            reports: BTreeMap::new(),
            counted: Counted::of(faults.values().flat_map(|fault| &fault.status.rules)),
            warnings,
        };
        if lifecycle::needs_choice(&status, &world)
            && let Some(experiment) = &parsed.experiment
        {
            let chosen = chosen(cache, experiment, reach, &object, &status);
            if let Ok(chosen) = &chosen {
                world.identities.clone_from(&chosen.identities);
            }
            world.chosen = Some(chosen.map(|chosen| chosen.keys));
        }
        let mut look = Self {
            name: name.clone(),
            object,
            parsed,
            status,
            world,
            faults,
            way,
            sets: cache.sets_of(name),
            services: BTreeMap::new(),
            pods: BTreeMap::new(),
            image: reach.image.clone(),
            resolved: BTreeMap::new(),
            is_unresolved: false,
            silent: BTreeSet::new(),
        };
        look.gather(cache);
        Some(look)
    }

    /// Pods of the records, agents that are silent, and what each record's node says.
    fn gather(&mut self, cache: &Cache) {
        let nodes: BTreeSet<String> = self.faults.keys().cloned().collect();
        let silent = nodes.into_iter().filter(|node| is_silent(cache, node, self.world.now));
        self.silent = silent.collect();
        let keys: Vec<RecordKey> = match &self.world.chosen {
            Some(Ok(keys)) => keys.clone(),
            _ => {
                let records = self.status.experiment.container_records.iter().flatten();
                records.map(|record| (record.selector_key.clone(), record.id.clone())).collect()
            }
        };
        let pods = keys.iter().filter_map(|(_, id)| cache.pods.get(pod_of(id)));
        self.pods.extend(pods.map(|pod| (pod.id(), pod.clone())));
        self.find_services(cache, &keys);
        for (key, id) in keys {
            // What the server is asked for is known when it has answered.
            let report = self.report(&key, &id).filter(|_| self.way == Way::Nodes);
            if let Some(report) = report {
                self.world.reports.insert((key, id), report);
            }
        }
    }

    fn report(&self, key: &str, id: &str) -> Option<Report> {
        match self.asked(key, id) {
            // A container that ended with its pod is as dead as it was to be.
            Some(Report::Gone) if self.world.is_one_shot => Some(Report::Injected),
            // A pod on its way out loses its processes first.
            Some(Report::Failed(_)) if self.is_going(id) => Some(Report::Gone),
            report => report,
        }
    }

    /// The uid of the pod that a record means; that of the pod there is, where none is known.
    fn identity(&self, id: &str) -> Option<&str> {
        let is_by_container =
            self.parsed.experiment.as_ref().is_some_and(Experiment::kills_containers);
        let known = if is_by_container {
            // What is on record for a container is the container's id.
            let asked = self.faults.values().filter_map(|fault| fault.spec.as_ref());
            let mut asked = asked.flat_map(|spec| &spec.sources);
            asked.find(|pod| pod.id() == pod_of(id)).map(|pod| &pod.uid)
        } else {
            match &self.world.chosen {
                Some(Ok(_)) => self.world.identities.get(id),
                _ => self.status.kfault.as_ref().and_then(|summary| summary.chosen.get(id)),
            }
        };
        known.or_else(|| self.pods.get(pod_of(id)).map(|pod| &pod.uid)).map(String::as_str)
    }

    fn is_going(&self, id: &str) -> bool {
        self.pods.get(pod_of(id)).is_some_and(|pod| pod.is_going)
    }

    /// The NodeFault that asks for the fault of the pod with this uid, and the pod as it knows it.
    fn task(&self, key: &str, uid: Option<&str>) -> Option<(&cache::Fault, &Pod)> {
        self.faults.values().find_map(|fault| {
            let spec = fault.spec.as_ref()?;
            let side = if key == "." { Some(&spec.sources) } else { spec.targets.as_ref() };
            let is_meant = |pod: &&Pod| pod.node == spec.node && Some(pod.uid.as_str()) == uid;
            Some((fault, side?.iter().find(is_meant)?))
        })
    }

    /// What the agents know of a record.
    fn asked(&self, key: &str, id: &str) -> Option<Report> {
        let identity = self.identity(id);
        let now = self.pods.get(pod_of(id)).map(|pod| pod.uid.as_str());
        let asked = self.task(key, identity).map(|(fault, pod)| {
            let generation = fault.object.metadata.generation.unwrap_or_default();
            // It may not have heard of the last change yet.
            let answers = fault.status.records.iter();
            let answer = answers
                .filter(|_| fault.status.observed_generation == generation)
                .find(|record| record.id == id && record.key == key)
                .map(|record| (record.state, record.message.as_str()));
            let silent = self.silent.contains(&pod.node).then_some(SILENT.as_secs());
            Asked { node: &pod.node, silent, answer }
        });
        let known = Known { lives: identity.is_some() && now == identity, asked };
        lifecycle::heard(&known, lifecycle::desired(&self.world))
    }

    /// Writes what has changed and asks the nodes.
    ///
    /// # Errors
    /// [`KubeError`]; the look is to be repeated.
    pub async fn act(mut self, teller: &Teller, names: &Names) -> Result<Outcome, KubeError> {
        let client = &teller.client;
        let has_names = self.resolve(names).await;
        if self.way == Way::Server {
            self.do_deeds(client).await;
        }
        let is_forced = self.object.annotations().get(CLEAN).is_some_and(|value| value == "forced");
        let Step { mut status, holds, mut events, again } =
            lifecycle::step(&self.status, &self.world);
        status.instances = self.instances(&status);
        let has_finalizer = self.object.finalizers().iter().any(|f| f == FINALIZER);
        if self.world.is_deleted && !has_finalizer {
            return Ok(Outcome::default());
        }
        if let Some(reason) = self.refusal() {
            // Said once, when it is first seen.
            let known = self.status.kfault.as_ref().map(|summary| summary.warnings.as_slice());
            if known.is_none_or(|known| !known.starts_with(&self.world.warnings)) {
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
            let inited = Event { component: "initFinalizers", what: What::FinalizerInited };
            events.splice(0..0, [inited, Event::updated("initFinalizers", "finalizer")]);
        }
        if !keeps && has_finalizer {
            self.object.finalizers_mut().retain(|finalizer| finalizer != FINALIZER);
            events.push(Event { component: "cleanFinalizers", what: What::FinalizerRemoved });
            events.push(Event::updated("cleanFinalizers", "finalizer"));
        }
        let is_changed = status != self.status || keeps != has_finalizer;
        let mut outcome = Outcome { again, ..Outcome::default() };
        if has_names {
            let again = outcome.again.unwrap_or(names::AGAIN);
            outcome.again = Some(again.min(names::AGAIN));
        }
        if self.way == Way::Server && self.world.chosen.as_ref().is_some_and(Result::is_ok) {
            // Now that they are on record, something may happen to them.
            outcome.again = Some(Duration::ZERO);
        }
        // Targets that are asked to act are on record first; an end is on record afterwards.
        let is_running = status.experiment.desired_phase == Some(DesiredPhase::Run);
        if !is_running {
            self.ask(client, &status).await?;
        }
        if is_changed {
            outcome.written = Some(self.write(client, &status).await?);
            teller.tell(&self.name, &self.object, events);
        }
        if is_running {
            self.ask(client, &status).await?;
        }
        Ok(outcome)
    }

    /// Looks the experiment's names up, as long as it acts; true when it has some.
    async fn resolve(&mut self, names: &Names) -> bool {
        let own = self.parsed.experiment.as_ref().map(Experiment::names).unwrap_or_default();
        if own.is_empty() || lifecycle::desired(&self.world) == DesiredPhase::Stop {
            return false;
        }
        match names.resolve(&own).await {
            Ok(resolved) => self.resolved = resolved,
            Err(reason) => {
                self.is_unresolved = true;
                for record in self.status.experiment.container_records.iter().flatten() {
                    let key = (record.selector_key.clone(), record.id.clone());
                    // Where it acts, it acts with the addresses from before.
                    let report = self.world.reports.entry(key).or_insert(Report::Recovered);
                    if *report != Report::Injected {
                        *report = Report::Failed(reason.clone());
                    }
                }
            }
        }
        true
    }

    /// Kills pods, and makes them fail or work again, as far as they are on record.
    async fn do_deeds(&mut self, client: &Client) {
        let Some(Fault::Pod(spec)) = self.parsed.experiment.as_ref().map(|one| &one.fault) else {
            return;
        };
        let desired = lifecycle::desired(&self.world);
        let nobody = BTreeMap::new();
        let chosen = self.status.kfault.as_ref().map_or(&nobody, |summary| &summary.chosen);
        for record in self.status.experiment.container_records.iter().flatten() {
            let pod = self.pods.get(&record.id);
            let is_failing = pod.is_some_and(|pod| {
                chosen.get(&record.id) == Some(&pod.uid)
                    && server::fails_by(&pod.annotations, &self.name.key)
            });
            let is_done = match (desired, spec.action.is_one_shot()) {
                (DesiredPhase::Run, true) => record.phase.is_injected(),
                (DesiredPhase::Run, false) => is_failing,
                (DesiredPhase::Stop, is_one_shot) => {
                    is_one_shot || (!record.phase.is_injected() && !is_failing)
                }
            };
            let report = if is_done {
                if desired == DesiredPhase::Run { Report::Injected } else { Report::Recovered }
            } else {
                let uid = chosen.get(&record.id).map(String::as_str).unwrap_or_default();
                let (by, image) = (self.name.key.as_str(), self.image.as_deref());
                let deed = Deed { pod: &record.id, uid, spec, by, desired, image };
                deed.act(client).await
            };
            self.world.reports.insert((record.selector_key.clone(), record.id.clone()), report);
        }
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
}

/// True when the agent of a node has ended its faults by itself, or its node is gone.
fn is_silent(cache: &Cache, node: &str, now: Timestamp) -> bool {
    let is_silent = cache.agents.get(node).is_some_and(|renewed| {
        Duration::try_from(now.duration_since(*renewed)).is_ok_and(|age| age > SILENT)
    });
    // An agent that is heard works, whether or not there is a Node object.
    let is_unknown = !cache.agents.contains_key(node);
    is_silent || (is_unknown && !cache.nodes.is_empty() && !cache.nodes.contains_key(node))
}

fn refused(reason: &str, is_unsupported: bool) -> Vec<Event> {
    let mut all = vec![Event::failed("records", "apply chaos", reason)];
    if is_unsupported {
        let what = What::NotSupported(reason.to_owned());
        all.push(Event { component: "records", what });
    }
    all
}

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
