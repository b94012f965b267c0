//! The agent's end of the API server: NodeFaults of its node come in, answers go out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::{KubeError, objects};
use crate::api::nodefault::{Answer, FINALIZER, NODE_LABEL, Spec, Task, Tasks};
use crate::api::peerset::{self, Sets};

/// The field manager of our patches.
const MANAGER: &str = "kfault-agent";
/// How often the node's lease is renewed.
const RENEW: Duration = Duration::from_secs(5);
/// A lease of this name per node says that its agent can talk to the API server.
const LEASE_PREFIX: &str = "kfault-agent-";
/// How long one request may take before it counts as unanswered.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where and for whom an agent works.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node's name.
    pub node: String,
    /// Namespace of the agent's lease.
    pub namespace: String,
    /// Without an answer of the API server for so long, every fault of the node ends.
    pub cut_off: Duration,
    /// Only NodeFaults of this namespace.
    pub only: Option<String>,
}

/// Name of the lease of a node's agent.
#[must_use]
pub fn lease_name(node: &str) -> String {
    format!("{LEASE_PREFIX}{node}")
}

/// Carries tasks in and answers out until `answers` closes. Every request runs beside the others,
/// so that one without an answer delays nothing, least of all the cut-off.
///
/// # Errors
/// None today; trouble with the API server is retried.
pub async fn serve(
    client: Client,
    options: Options,
    tasks: watch::Sender<Tasks>,
    mut answers: mpsc::UnboundedReceiver<Answer>,
) -> Result<(), KubeError> {
    let resource = objects::node_faults();
    let api: Api<DynamicObject> = objects::all(&client, &resource, options.only.as_deref());
    let config = watcher::Config::default().labels(&format!("{NODE_LABEL}={}", options.node));
    let mut events = watcher(api, config).default_backoff().boxed();
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &objects::peer_sets());
    let mut sets = watcher(api, watcher::Config::default()).default_backoff().boxed();
    let mut known = Known::default();
    let mut outbox = Outbox::new(client.clone());
    let (tell_heard, mut renewals) = mpsc::unbounded_channel();
    let _renewing = Stopped(tokio::spawn(renew_for_ever(client, options.clone(), tell_heard)));
    let mut heard = Instant::now();
    let mut is_cut_off = false;
    loop {
        tokio::select! {
            event = events.next() => {
                let Some(event) = event else { return Ok(()) };
                match event {
                    Ok(event) => {
                        if known.take(event) && !is_cut_off {
                            tasks.send_replace(known.tasks());
                        }
                    }
                    Err(error) => tracing::warn!(%error, "the watch of NodeFaults was interrupted"),
                }
            }
            event = sets.next() => {
                let Some(event) = event else { return Ok(()) };
                match event {
                    Ok(event) => {
                        if known.take_set(event) && !is_cut_off {
                            tasks.send_replace(known.tasks());
                        }
                    }
                    Err(error) => tracing::warn!(%error, "the watch of PeerSets was interrupted"),
                }
            }
            answer = answers.recv() => {
                let Some(answer) = answer else { return Ok(()) };
                outbox.put(answer);
                // Several at once become one write each.
                while let Ok(more) = answers.try_recv() {
                    outbox.put(more);
                }
                outbox.send(&known);
            }
            Some(done) = outbox.writes.join_next() => outbox.written(done, &known),
            Some(renewed) = renewals.recv() => {
                heard = renewed;
                if is_cut_off {
                    is_cut_off = false;
                    tracing::warn!("the API server answers again");
                    tasks.send_replace(known.tasks());
                }
                // What could not be written is tried again.
                outbox.send(&known);
            }
            () = sleep_until(heard + options.cut_off), if !is_cut_off => {
                is_cut_off = true;
                tracing::error!("cut off from the API server: every fault of this node ends");
                tasks.send_replace(Tasks::new());
            }
        }
    }
}

/// A task that ends with its owner.
struct Stopped(JoinHandle<()>);

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Renews the lease, and tells when a renewal that had an answer was asked for.
async fn renew_for_ever(client: Client, options: Options, heard: mpsc::UnboundedSender<Instant>) {
    let mut renewal = interval(RENEW);
    renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let asked = renewal.tick().await;
        match timeout(PATIENCE, renew(&client, &options)).await {
            Ok(Ok(())) => {
                if heard.send(asked).is_err() {
                    return;
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "the agent's lease was not renewed"),
            Err(_) => tracing::warn!("the API server does not answer"),
        }
    }
}

/// Answers on their way: at most one write per object at a time, and the newest answer wins.
struct Outbox {
    client: Client,
    queue: BTreeMap<String, Answer>,
    busy: BTreeSet<String>,
    writes: JoinSet<(Answer, Result<(), KubeError>)>,
}

impl Outbox {
    fn new(client: Client) -> Self {
        Self { client, queue: BTreeMap::new(), busy: BTreeSet::new(), writes: JoinSet::new() }
    }

    fn put(&mut self, answer: Answer) {
        self.queue.insert(answer.key.clone(), answer);
    }

    fn send(&mut self, known: &Known) {
        let free: Vec<String> =
            self.queue.keys().filter(|key| !self.busy.contains(*key)).cloned().collect();
        for key in free {
            let Some(answer) = self.queue.remove(&key) else { continue };
            let is_going = known.tasks.get(&key).is_some_and(|task| task.is_going);
            let finalizers = known.finalizers.get(&key).cloned().unwrap_or_default();
            let client = self.client.clone();
            self.busy.insert(key);
            self.writes.spawn(async move {
                let written = timeout(PATIENCE, write(&client, &answer, is_going, &finalizers));
                let done = written.await.unwrap_or_else(|_| {
                    let reason = format!("no answer within {} s", PATIENCE.as_secs());
                    Err(KubeError::Object { object: answer.key.clone(), reason })
                });
                (answer, done)
            });
        }
    }

    fn written(&mut self, done: Result<(Answer, Result<(), KubeError>), JoinError>, known: &Known) {
        let (answer, done) = match done {
            Ok(done) => done,
            Err(error) => return tracing::error!(%error, "a write has panicked"),
        };
        self.busy.remove(&answer.key);
        match done {
            Ok(()) => self.send(known),
            Err(error) => {
                tracing::warn!(%error, "an answer was not written");
                // Unless there is a newer one already; with the next renewal.
                self.queue.entry(answer.key.clone()).or_insert(answer);
            }
        }
    }
}

/// The NodeFaults of the node and the PeerSets of all, as the watches tell of them.
#[derive(Default)]
struct Known {
    /// Without their sets.
    tasks: Tasks,
    finalizers: BTreeMap<String, Vec<String>>,
    /// What a new list has shown so far.
    listed: Option<Tasks>,
    /// By `namespace/name`.
    sets: Sets,
    listed_sets: Option<Sets>,
}

impl Known {
    /// The tasks, each with those of its sets that were seen.
    fn tasks(&self) -> Tasks {
        let with_sets = |(key, task): (&String, &Task)| {
            let (namespace, _) = objects::split(key);
            let set = |name: &String| {
                let set = self.sets.get(&format!("{namespace}/{name}"))?;
                Some((name.clone(), set.clone()))
            };
            let sets = task.spec.peers.iter().filter_map(set).collect();
            (key.clone(), Task { sets, ..task.clone() })
        };
        self.tasks.iter().map(with_sets).collect()
    }

    /// True when a set that a task names has changed.
    fn take_set(&mut self, event: Event<DynamicObject>) -> bool {
        fn read(object: &DynamicObject) -> Option<(String, peerset::Spec)> {
            let key = objects::key(&object.metadata);
            match serde_json::from_value(object.data["spec"].clone()) {
                Ok(set) => Some((key, set)),
                Err(error) => {
                    tracing::error!(key, %error, "a PeerSet of another version is ignored");
                    None
                }
            }
        }
        match event {
            Event::Init => {
                self.listed_sets = Some(Sets::new());
                false
            }
            Event::InitApply(object) => {
                if let (Some((key, set)), Some(listed)) = (read(&object), &mut self.listed_sets) {
                    listed.insert(key, set);
                }
                false
            }
            Event::InitDone => {
                let listed = self.listed_sets.take().unwrap_or_default();
                let is_changed = listed != self.sets;
                self.sets = listed;
                is_changed
            }
            Event::Apply(object) => {
                let Some((key, set)) = read(&object) else { return false };
                let before = self.sets.insert(key.clone(), set);
                self.names(&key) && before.as_ref() != self.sets.get(&key)
            }
            Event::Delete(object) => {
                let key = objects::key(&object.metadata);
                self.sets.remove(&key).is_some() && self.names(&key)
            }
        }
    }

    /// True when a task names this set.
    fn names(&self, set: &str) -> bool {
        let (namespace, name) = objects::split(set);
        self.tasks.iter().any(|(key, task)| {
            objects::split(key).0 == namespace && task.spec.peers.iter().any(|one| one == name)
        })
    }

    /// True when the tasks have changed.
    fn take(&mut self, event: Event<DynamicObject>) -> bool {
        let before = self.tasks.clone();
        match event {
            Event::Init => self.listed = Some(Tasks::new()),
            Event::InitApply(object) => {
                if let (Some((key, task)), Some(listed)) =
                    (self.read(&object), self.listed.as_mut())
                {
                    listed.insert(key, task);
                }
            }
            Event::InitDone => {
                if let Some(listed) = self.listed.take() {
                    self.tasks = listed;
                }
            }
            Event::Apply(object) => {
                if let Some((key, task)) = self.read(&object) {
                    self.tasks.insert(key, task);
                }
            }
            Event::Delete(object) => {
                let key = objects::key(&object.metadata);
                self.tasks.remove(&key);
                self.finalizers.remove(&key);
            }
        }
        self.tasks != before
    }

    fn read(&mut self, object: &DynamicObject) -> Option<(String, Task)> {
        let key = objects::key(&object.metadata);
        self.finalizers.insert(key.clone(), object.finalizers().to_vec());
        let spec: Spec = match serde_json::from_value(object.data["spec"].clone()) {
            Ok(spec) => spec,
            Err(error) => {
                tracing::error!(key, %error, "a NodeFault of another version is ignored");
                return None;
            }
        };
        let generation = object.metadata.generation.unwrap_or_default();
        Some((
            key,
            Task {
                generation,
                spec,
                sets: Sets::new(),
                is_going: object.metadata.deletion_timestamp.is_some(),
            },
        ))
    }
}

/// Writes an answer into the object's status, and lets the object go when all is over.
async fn write(
    client: &Client,
    answer: &Answer,
    is_going: bool,
    finalizers: &[String],
) -> Result<(), KubeError> {
    let (namespace, name) = objects::split(&answer.key);
    let api = objects::of(client, &objects::node_faults(), namespace);
    let parameters =
        PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let patch = json!({ "status": answer.status });
    let written = api.patch_status(name, &parameters, &Patch::Merge(&patch)).await;
    match written {
        Ok(_) => {}
        // It has gone meanwhile: there is nobody left to tell.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(error) => return Err(KubeError::api(format!("answer {}", answer.key))(error)),
    }
    if !(is_going && answer.is_over) {
        return Ok(());
    }
    let finalizers: Vec<&String> = finalizers.iter().filter(|one| *one != FINALIZER).collect();
    let patch = json!({ "metadata": { "finalizers": finalizers } });
    match api.patch(name, &parameters, &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(KubeError::api(format!("let {} go", answer.key))(error)),
    }
}

/// Says that this agent can talk to the API server.
async fn renew(client: &Client, options: &Options) -> Result<(), KubeError> {
    let api: Api<Lease> = Api::namespaced(client.clone(), &options.namespace);
    let name = lease_name(&options.node);
    let lease = Lease {
        metadata: kube::core::ObjectMeta { name: Some(name.clone()), ..Default::default() },
        spec: Some(LeaseSpec {
            holder_identity: Some(options.node.clone()),
            lease_duration_seconds: Some(options.cut_off.as_secs() as i32),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        }),
    };
    let parameters = PatchParams::apply(MANAGER).force();
    api.patch(&name, &parameters, &Patch::Apply(&lease))
        .await
        .map(drop)
        .map_err(KubeError::api(format!("renew the lease {name}")))
}
