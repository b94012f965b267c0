//! The agent's end of the API server: NodeFaults of its node come in, answers go out.

use std::collections::BTreeMap;
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
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{KubeError, objects};
use crate::api::nodefault::{Answer, FINALIZER, NODE_LABEL, Spec, Task, Tasks};

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
}

/// Name of the lease of a node's agent.
#[must_use]
pub fn lease_name(node: &str) -> String {
    format!("{LEASE_PREFIX}{node}")
}

/// Carries tasks in and answers out until `answers` closes.
///
/// # Errors
/// [`KubeError`] when the lease cannot be set up for another reason than a server that does not
/// answer; afterwards, trouble is retried.
pub async fn serve(
    client: Client,
    options: Options,
    tasks: watch::Sender<Tasks>,
    mut answers: mpsc::UnboundedReceiver<Answer>,
) -> Result<(), KubeError> {
    let resource = objects::node_faults();
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let config = watcher::Config::default().labels(&format!("{NODE_LABEL}={}", options.node));
    let mut events = watcher(api, config).default_backoff().boxed();
    let mut known = Known::default();
    let mut queue: BTreeMap<String, Answer> = BTreeMap::new();
    let mut renewal = interval(RENEW);
    renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    let mut is_cut_off = false;
    loop {
        tokio::select! {
            event = events.next() => {
                let Some(event) = event else { return Ok(()) };
                match event {
                    Ok(event) => {
                        if known.take(event) && !is_cut_off {
                            tasks.send_replace(known.tasks.clone());
                        }
                    }
                    Err(error) => tracing::warn!(%error, "the watch of NodeFaults was interrupted"),
                }
            }
            answer = answers.recv() => {
                let Some(answer) = answer else { return Ok(()) };
                queue.insert(answer.key.clone(), answer);
                // Several at once become one write each.
                while let Ok(more) = answers.try_recv() {
                    queue.insert(more.key.clone(), more);
                }
                if flush(&client, &mut queue, &known).await {
                    heard = Instant::now();
                }
            }
            _ = renewal.tick() => {
                match tokio::time::timeout(PATIENCE, renew(&client, &options)).await {
                    Ok(Ok(())) => heard = Instant::now(),
                    Ok(Err(error)) => tracing::warn!(%error, "the agent's lease was not renewed"),
                    Err(_) => tracing::warn!("the API server does not answer"),
                }
                // What could not be written is tried again.
                flush(&client, &mut queue, &known).await;
                let is_silent = heard.elapsed() >= options.cut_off;
                if is_silent != is_cut_off {
                    is_cut_off = is_silent;
                    if is_silent {
                        tracing::error!("cut off from the API server: every fault of this node ends");
                        tasks.send_replace(Tasks::new());
                    } else {
                        tracing::warn!("the API server answers again");
                        tasks.send_replace(known.tasks.clone());
                    }
                }
            }
        }
    }
}

/// The NodeFaults of the node, as the watch tells of them.
#[derive(Default)]
struct Known {
    tasks: Tasks,
    finalizers: BTreeMap<String, Vec<String>>,
    /// What a new list has shown so far.
    listed: Option<Tasks>,
}

impl Known {
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
            Task { generation, spec, is_going: object.metadata.deletion_timestamp.is_some() },
        ))
    }
}

/// Writes all answers; those that fail stay in the queue. True: the API server has answered.
async fn flush(client: &Client, queue: &mut BTreeMap<String, Answer>, known: &Known) -> bool {
    let mut is_answered = false;
    for (key, answer) in std::mem::take(queue) {
        match tokio::time::timeout(PATIENCE, write(client, &answer, known)).await {
            Ok(Ok(())) => is_answered = true,
            Ok(Err(error)) => {
                tracing::warn!(%error, "an answer was not written");
                queue.insert(key, answer);
            }
            Err(_) => {
                tracing::warn!(key, "the API server does not answer");
                queue.insert(key, answer);
            }
        }
    }
    is_answered
}

/// Writes an answer into the object's status, and lets the object go when all is over.
async fn write(client: &Client, answer: &Answer, known: &Known) -> Result<(), KubeError> {
    let (namespace, name) = objects::split(&answer.key);
    let api = objects::of(client, &objects::node_faults(), namespace);
    let parameters =
        PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let is_going = known.tasks.get(&answer.key).is_some_and(|task| task.is_going);
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
    let finalizers: Vec<&String> = known
        .finalizers
        .get(&answer.key)
        .into_iter()
        .flatten()
        .filter(|f| *f != FINALIZER)
        .collect();
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
