//! What the controller knows of the cluster, kept by watches.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ContainerStatus, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DynamicObject};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};

pub use super::concern::Concern;
use super::objects;
use super::services::{self, Services};
use crate::api::kind::{Kind, SCHEDULE};
use crate::api::{nodefault, peerset};
use crate::select::pods;

/// Kind, namespace and name of an experiment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// `NetworkChaos`, …
    pub kind: &'static str,
    /// `namespace/name`.
    pub key: String,
}

/// A NodeFault as the controller reads it.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The object.
    pub object: DynamicObject,
    /// Its spec; `None` when another version wrote it.
    pub spec: Option<nodefault::Spec>,
    /// What its agent has answered.
    pub status: nodefault::Status,
    /// The experiment that owns it.
    pub owner: Option<Name>,
}

/// One thing that a watch has told.
pub enum News {
    /// Of an experiment's kind.
    Experiment(&'static str, Event<DynamicObject>),
    /// Of a pod.
    Pod(Box<Event<Pod>>),
    /// Of a node.
    Node(Box<Event<Node>>),
    /// Of a namespace.
    Namespace(Event<Namespace>),
    /// Of a NodeFault.
    Fault(Event<DynamicObject>),
    /// Of a PeerSet.
    Peers(Event<DynamicObject>),
    /// Of a Service.
    Service(Box<Event<Service>>),
    /// Of a part of a Service's endpoints.
    Endpoints(Box<Event<EndpointSlice>>),
    /// Of an agent's lease.
    Lease(Event<Lease>),
}

/// Everything that is watched.
pub type Watches = SelectAll<BoxStream<'static, Result<News, watcher::Error>>>;

/// Watches the kinds that this version serves and what they depend on. `only`: one namespace.
pub fn watch(client: &Client, kinds: &[Kind], own: &str, only: Option<&str>) -> Watches {
    fn boxed<K: 'static + Send>(
        stream: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
        news: impl Fn(Event<K>) -> News + Send + 'static,
    ) -> BoxStream<'static, Result<News, watcher::Error>> {
        stream.map(move |event| event.map(&news)).boxed()
    }
    let config = watcher::Config::default;
    let mut all = SelectAll::new();
    for kind in kinds {
        let name = kind.name();
        let api = objects::all(client, &objects::experiments(*kind), only);
        let stream = watcher(api, config()).default_backoff();
        all.push(boxed(stream, move |event| News::Experiment(name, event)));
    }
    let pods: Api<Pod> = in_reach(client, only);
    all.push(boxed(watcher(pods, config()).default_backoff(), |event| News::Pod(Box::new(event))));
    let faults = objects::all(client, &objects::node_faults(), only);
    all.push(boxed(watcher(faults, config()).default_backoff(), News::Fault));
    let peers = objects::all(client, &objects::peer_sets(), only);
    all.push(boxed(watcher(peers, config()).default_backoff(), News::Peers));
    let services: Api<Service> = in_reach(client, only);
    all.push(boxed(watcher(services, config()).default_backoff(), |event| {
        News::Service(Box::new(event))
    }));
    let endpoints: Api<EndpointSlice> = in_reach(client, only);
    all.push(boxed(watcher(endpoints, config()).default_backoff(), |event| {
        News::Endpoints(Box::new(event))
    }));
    let leases: Api<Lease> = Api::namespaced(client.clone(), own);
    all.push(boxed(watcher(leases, config()).default_backoff(), News::Lease));
    if only.is_none() {
        let nodes: Api<Node> = Api::all(client.clone());
        all.push(boxed(watcher(nodes, config()).default_backoff(), |event| {
            News::Node(Box::new(event))
        }));
        let namespaces: Api<Namespace> = Api::all(client.clone());
        all.push(boxed(watcher(namespaces, config()).default_backoff(), News::Namespace));
    }
    all
}

/// Objects of every namespace, or of the one that we are limited to.
fn in_reach<K>(client: &Client, only: Option<&str>) -> Api<K>
where
    K: kube::Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match only {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// What is known.
#[derive(Default)]
pub struct Cache {
    /// Experiments.
    pub experiments: BTreeMap<Name, DynamicObject>,
    /// Pods by `namespace/name`.
    pub pods: BTreeMap<String, pods::Pod>,
    /// Labels of nodes.
    pub nodes: BTreeMap<String, BTreeMap<String, String>>,
    /// Annotations of namespaces.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// NodeFaults by `namespace/name`.
    pub faults: BTreeMap<String, Fault>,
    /// PeerSets by `namespace/name`, each with the experiment that owns it.
    pub sets: BTreeMap<String, (Option<Name>, peerset::Spec)>,
    /// Services and what is behind them.
    pub services: Services,
    /// When the agent of a node last renewed its lease.
    pub agents: BTreeMap<String, Timestamp>,
    /// Lists that are under way, by watch: what they have shown so far.
    listing: BTreeMap<&'static str, BTreeSet<String>>,
    listed: BTreeSet<&'static str>,
}

/// What became of an object, whatever its kind.
enum Change<K> {
    Is(K),
    Gone(String),
    Nothing,
    /// After a list: what is not in it has gone.
    Only(BTreeSet<String>),
}

impl Cache {
    /// True when each of `watches` watches has shown everything once.
    #[must_use]
    pub fn is_complete(&self, watches: usize) -> bool {
        self.listed.len() >= watches
    }

    fn change<K: ResourceExt>(&mut self, watch: &'static str, event: Event<K>) -> Change<K> {
        let key = |object: &K| objects::key(object.meta());
        match event {
            Event::Init => {
                self.listing.insert(watch, BTreeSet::new());
                Change::Nothing
            }
            Event::InitApply(object) => {
                if let Some(seen) = self.listing.get_mut(watch) {
                    seen.insert(key(&object));
                }
                Change::Is(object)
            }
            Event::InitDone => {
                self.listed.insert(watch);
                self.listing.remove(watch).map_or(Change::Nothing, Change::Only)
            }
            Event::Apply(object) => Change::Is(object),
            Event::Delete(object) => Change::Gone(key(&object)),
        }
    }

    /// Takes a piece of news.
    pub fn take(&mut self, news: News) -> Concern {
        match news {
            News::Experiment(kind, event) => self.experiment(kind, event),
            News::Pod(event) => self.pod(*event),
            News::Node(event) => self.node(*event),
            News::Namespace(event) => {
                match self.change("Namespace", event) {
                    Change::Is(namespace) => {
                        let annotations = namespace.annotations().clone();
                        self.namespaces.insert(namespace.name_any(), annotations);
                    }
                    Change::Gone(key) => {
                        self.namespaces.remove(objects::split(&key).1);
                    }
                    Change::Only(keys) => {
                        self.namespaces.retain(|name, _| keys.contains(&format!("/{name}")));
                    }
                    Change::Nothing => {}
                }
                Concern::default()
            }
            News::Fault(event) => self.fault(event),
            News::Peers(event) => self.peers(event),
            News::Service(event) => self.service(*event),
            News::Endpoints(event) => self.endpoints(*event),
            News::Lease(event) => {
                if let Change::Is(lease) = self.change("Lease", event)
                    && let Some(spec) = lease.spec
                    && let (Some(node), Some(time)) = (spec.holder_identity, spec.renew_time)
                {
                    self.agents.insert(node, time.0);
                }
                Concern::default()
            }
        }
    }

    fn experiment(&mut self, kind: &'static str, event: Event<DynamicObject>) -> Concern {
        let mut concern = Concern::default();
        match self.change(kind, event) {
            Change::Is(object) => {
                let name = Name { kind, key: objects::key(&object.metadata) };
                concern.experiments.extend(schedule_of(&object));
                self.experiments.insert(name.clone(), object);
                concern.experiments.insert(name);
            }
            Change::Gone(key) => {
                let gone = self.experiments.remove(&Name { kind, key });
                concern.experiments.extend(gone.as_ref().and_then(schedule_of));
            }
            Change::Only(keys) => {
                self.experiments.retain(|name, _| name.kind != kind || keys.contains(&name.key));
            }
            Change::Nothing => {}
        }
        concern
    }

    fn pod(&mut self, event: Event<Pod>) -> Concern {
        let changed = match self.change("Pod", event) {
            Change::Is(object) => {
                let pod = pod(&object);
                let key = pod.id();
                if self.pods.get(&key) == Some(&pod) {
                    return Concern::default();
                }
                self.pods.insert(key.clone(), pod);
                key
            }
            Change::Gone(key) => {
                self.pods.remove(&key);
                key
            }
            Change::Only(keys) => {
                self.pods.retain(|key, _| keys.contains(key));
                return Concern { everything: true, ..Concern::default() };
            }
            Change::Nothing => return Concern::default(),
        };
        Concern { pod: Some(changed), ..Concern::default() }
    }

    fn node(&mut self, event: Event<Node>) -> Concern {
        match self.change("Node", event) {
            Change::Is(node) => {
                self.nodes.insert(node.name_any(), node.labels().clone());
                Concern::default()
            }
            Change::Gone(key) => {
                self.nodes.remove(objects::split(&key).1);
                Concern { everything: true, ..Concern::default() }
            }
            Change::Only(keys) => {
                self.nodes.retain(|name, _| keys.contains(&format!("/{name}")));
                Concern::default()
            }
            Change::Nothing => Concern::default(),
        }
    }

    fn fault(&mut self, event: Event<DynamicObject>) -> Concern {
        let mut concern = Concern::default();
        match self.change("NodeFault", event) {
            Change::Is(object) => {
                let fault = fault(object);
                concern.experiments.extend(fault.owner.clone());
                self.faults.insert(objects::key(&fault.object.metadata), fault);
            }
            Change::Gone(key) => {
                let gone = self.faults.remove(&key);
                concern.experiments.extend(gone.and_then(|fault| fault.owner));
            }
            Change::Only(keys) => {
                self.faults.retain(|key, _| keys.contains(key));
                concern.everything = true;
            }
            Change::Nothing => {}
        }
        concern
    }

    fn peers(&mut self, event: Event<DynamicObject>) -> Concern {
        let mut concern = Concern::default();
        match self.change("PeerSet", event) {
            Change::Is(object) => {
                let key = objects::key(&object.metadata);
                // One of another version is written anew.
                let spec = serde_json::from_value(object.data["spec"].clone()).unwrap_or_default();
                let set = (owner(&object), spec);
                concern.experiments.extend(set.0.clone());
                self.sets.insert(key, set);
            }
            Change::Gone(key) => {
                let gone = self.sets.remove(&key);
                concern.experiments.extend(gone.and_then(|(owner, _)| owner));
            }
            Change::Only(keys) => {
                self.sets.retain(|key, _| keys.contains(key));
                concern.everything = true;
            }
            Change::Nothing => {}
        }
        concern
    }

    fn service(&mut self, event: Event<Service>) -> Concern {
        let change = self.change("Service", event);
        let is_changed = changed(&mut self.services.addresses, change, |service| {
            Some(services::addresses(service)).filter(|addresses| !addresses.is_empty())
        });
        Concern { services: is_changed, ..Concern::default() }
    }

    fn endpoints(&mut self, event: Event<EndpointSlice>) -> Concern {
        let change = self.change("EndpointSlice", event);
        let is_changed = changed(&mut self.services.slices, change, services::slice);
        Concern { services: is_changed, ..Concern::default() }
    }

    /// PeerSets of an experiment, by name.
    #[must_use]
    pub fn sets_of(&self, name: &Name) -> peerset::Sets {
        let own = self.sets.iter().filter(|(_, (owner, _))| owner.as_ref() == Some(name));
        own.map(|(key, (_, set))| (objects::split(key).1.to_owned(), set.clone())).collect()
    }

    /// NodeFaults of an experiment, by node.
    #[must_use]
    pub fn faults_of(&self, name: &Name) -> BTreeMap<String, Fault> {
        let of = |fault: &&Fault| fault.owner.as_ref() == Some(name);
        let node = |fault: &Fault| fault.spec.as_ref().map(|spec| spec.node.clone());
        self.faults
            .values()
            .filter(of)
            .filter_map(|fault| Some((node(fault)?, fault.clone())))
            .collect()
    }
}

/// The schedule that has started an experiment.
fn schedule_of(object: &DynamicObject) -> Option<Name> {
    let owner = object.owner_references().iter().find(|owner| owner.kind == SCHEDULE)?;
    let namespace = object.namespace().unwrap_or_default();
    Some(Name { kind: SCHEDULE, key: format!("{namespace}/{}", owner.name) })
}

/// Takes a change of something that is kept reduced; true when what is kept has changed.
fn changed<K: ResourceExt, V: PartialEq>(
    all: &mut BTreeMap<String, V>,
    change: Change<K>,
    reduced: impl Fn(&K) -> Option<V>,
) -> bool {
    match change {
        Change::Is(object) => {
            let (key, now) = (objects::key(object.meta()), reduced(&object));
            let is_changed = all.get(&key) != now.as_ref();
            match now {
                Some(now) => all.insert(key, now),
                None => all.remove(&key),
            };
            is_changed
        }
        Change::Gone(key) => all.remove(&key).is_some(),
        Change::Only(keys) => {
            all.retain(|key, _| keys.contains(key));
            true
        }
        Change::Nothing => false,
    }
}

/// The experiment that owns an object of ours.
fn owner(object: &DynamicObject) -> Option<Name> {
    let namespace = object.namespace().unwrap_or_default();
    object.owner_references().iter().find_map(|owner| {
        let kind = Kind::find(&owner.kind)?.name();
        Some(Name { kind, key: format!("{namespace}/{}", owner.name) })
    })
}

fn fault(object: DynamicObject) -> Fault {
    let owner = owner(&object);
    let spec = serde_json::from_value(object.data["spec"].clone()).ok();
    let status = serde_json::from_value(object.data["status"].clone()).unwrap_or_default();
    Fault { object, spec, status, owner }
}

/// The id of a container that runs: `containerd://ID` in the API.
fn running(all: &Option<Vec<ContainerStatus>>, name: &str) -> String {
    let one = all.iter().flatten().find(|one| one.name == name);
    let runs = one.filter(|one| one.state.as_ref().is_some_and(|state| state.running.is_some()));
    let id = runs.and_then(|one| one.container_id.as_deref()).unwrap_or_default();
    id.split_once("://").map_or(id, |(_, id)| id).to_owned()
}

fn pod(object: &Pod) -> pods::Pod {
    let spec = object.spec.clone().unwrap_or_default();
    let status = object.status.clone().unwrap_or_default();
    let ips = status.pod_ips.clone().unwrap_or_default();
    let mut addresses: Vec<_> = ips.iter().filter_map(|ip| ip.ip.parse().ok()).collect();
    addresses.sort_unstable();
    let fields = [
        ("spec.restartPolicy", spec.restart_policy),
        ("spec.schedulerName", spec.scheduler_name),
        ("spec.serviceAccountName", spec.service_account_name),
        ("status.podIP", status.pod_ip),
        ("status.nominatedNodeName", status.nominated_node_name),
    ];
    pods::Pod {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        labels: object.labels().clone(),
        annotations: object.annotations().clone(),
        node: spec.node_name.unwrap_or_default(),
        phase: status.phase.unwrap_or_default(),
        addresses,
        host_network: spec.host_network.unwrap_or_default(),
        containers: spec
            .containers
            .into_iter()
            .map(|container| pods::Container {
                id: running(&status.container_statuses, &container.name),
                name: container.name,
                image: container.image.unwrap_or_default(),
            })
            .collect(),
        fields: fields.into_iter().filter_map(|(path, value)| Some((path, value?))).collect(),
        is_going: object.metadata.deletion_timestamp.is_some(),
    }
}
