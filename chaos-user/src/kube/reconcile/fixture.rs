//! A cluster in memory for tests: an API server that keeps objects and counts writes, nodes whose
//! agents do what they are asked, and pods that come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::{Json, Router};
use jiff::Timestamp;
use kube::Client;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::super::cache::{Cache, Concern, Name, News};
use super::super::choice::Reach;
use super::super::events::Teller;
use super::super::metrics::Metrics;
use super::super::names::Names;
use super::{Look, Orphans};
use crate::api::kind::Kind;
use crate::api::nodefault::{NodeRecord, NodeState, Spec};
use crate::api::peerset;

const FAULTS: &str = "/apis/kfault.dev/v1alpha1/namespaces/default/nodefaults";
const SETS: &str = "/apis/kfault.dev/v1alpha1/namespaces/default/peersets";

/// What the API server holds, by path, and what it was asked to write.
#[derive(Default)]
struct Store {
    objects: BTreeMap<String, Value>,
    writes: Vec<String>,
    version: u64,
}

impl Store {
    /// Numbers an object anew; a changed `spec` is another generation.
    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        let before = self.objects.get(path);
        let generation = before.and_then(|old| old["metadata"]["generation"].as_i64()).unwrap_or(0);
        let is_changed = before.is_none_or(|old| old["spec"] != object["spec"]);
        object["metadata"]["generation"] = json!(generation + i64::from(is_changed));
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn answer(&mut self, method: &Method, path: &str, body: &Value) -> (StatusCode, Value) {
        let failure = |code: StatusCode, reason: &str| {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason,
                "message": reason, "code": code.as_u16(),
            });
            (code, status)
        };
        if path.ends_with("/events") {
            return (StatusCode::CREATED, body.clone());
        }
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        let path = if method == Method::POST { format!("{path}/{name}") } else { path.to_owned() };
        self.writes.push(format!("{method} {path}"));
        match (method.as_str(), self.objects.get(&path).cloned()) {
            ("POST", Some(_)) => failure(StatusCode::CONFLICT, "AlreadyExists"),
            ("POST", None) | ("PUT", Some(_)) => (StatusCode::OK, self.put(&path, body.clone())),
            ("PATCH", Some(mut object)) => {
                merge(&mut object, body);
                (StatusCode::OK, self.put(&path, object))
            }
            ("DELETE", Some(mut object)) => {
                object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                (StatusCode::OK, self.put(&path, object))
            }
            _ => failure(StatusCode::NOT_FOUND, "NotFound"),
        }
    }
}

/// RFC 7386.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut object[key], value);
        }
    }
}

async fn serve(
    State(store): State<Arc<Mutex<Store>>>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> (StatusCode, Json<Value>) {
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let (code, value) = store.lock().unwrap().answer(&method, uri.path(), &body);
    (code, Json(value))
}

/// The cluster, with one experiment `default/e`.
pub struct Cluster {
    store: Arc<Mutex<Store>>,
    /// What the controller knows.
    pub cache: Cache,
    /// The experiment.
    pub name: Name,
    uids: u64,
}

impl Cluster {
    /// One with a network fault, nodes `n0`, `n1`, …, and no pods.
    pub fn new(spec: &Value, nodes: usize) -> Self {
        Self::of(Kind::Network, spec, nodes)
    }

    /// One with an experiment of a kind.
    pub fn of(kind: Kind, spec: &Value, nodes: usize) -> Self {
        let mut cluster = Self {
            store: Arc::default(),
            cache: Cache::default(),
            name: Name { kind: kind.name(), key: "default/e".to_owned() },
            uids: 0,
        };
        for node in 0..nodes {
            let node = json!({ "metadata": { "name": format!("n{node}"), "labels": {} } });
            let node = serde_json::from_value(node).unwrap();
            cluster.cache.take(News::Node(Box::new(Event::Apply(node))));
        }
        let object = json!({
            "apiVersion": kind.api_version(), "kind": kind.name(),
            "metadata": {
                "name": "e", "namespace": "default", "uid": "uid-e",
                "creationTimestamp": Timestamp::now(),
            },
            "spec": spec,
        });
        cluster.store.lock().unwrap().put(&cluster.path(), object);
        cluster.watch();
        cluster
    }

    /// Where the experiment is.
    fn path(&self) -> String {
        let (name, version) = (self.name.kind.to_lowercase(), Kind::api_version_of(self.name.kind));
        format!("/apis/{version}/namespaces/default/{name}/e")
    }

    /// A pod that runs, anew when there is one of its name.
    pub fn pod(&mut self, name: &str, app: &str, node: usize, address: &str) -> Concern {
        self.uids += 1;
        let uid = format!("uid-{name}-{}", self.uids);
        self.pod_with_uid(name, app, node, address, &uid)
    }

    /// The same, with a uid.
    pub fn pod_with_uid(
        &mut self,
        name: &str,
        app: &str,
        node: usize,
        address: &str,
        uid: &str,
    ) -> Concern {
        self.uids += 1;
        let container = format!("c{}", self.uids);
        let pod = json!({
            "metadata": {
                "name": name, "namespace": "default", "uid": uid, "labels": { "app": app },
            },
            "spec": { "nodeName": format!("n{node}"), "containers": [{ "name": "web" }] },
            "status": {
                "phase": "Running", "podIPs": [{ "ip": address }],
                "containerStatuses": [{
                    "name": "web", "image": "", "imageID": "", "ready": true,
                    "restartCount": 0, "state": { "running": {} }, "containerID": format!("containerd://{container}"),
                }],
            },
        });
        let pod = serde_json::from_value(pod).unwrap();
        self.cache.take(News::Pod(Box::new(Event::Apply(pod))))
    }

    /// It has gone.
    pub fn pod_goes(&mut self, name: &str) -> Concern {
        let pod = json!({ "metadata": { "name": name, "namespace": "default" } });
        let pod = serde_json::from_value(pod).unwrap();
        self.cache.take(News::Pod(Box::new(Event::Delete(pod))))
    }

    /// A Service with a ClusterIP of each family, in front of these pods.
    pub fn service(&mut self, name: &str, pods: &[&str]) -> Concern {
        let service = json!({
            "metadata": { "name": name, "namespace": "default" },
            "spec": { "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00:96::9"] },
        });
        let service = serde_json::from_value(service).unwrap();
        self.cache.take(News::Service(Box::new(Event::Apply(service))));
        let endpoints = pods.iter().map(|pod| {
            let uid = self.cache.pods[&format!("default/{pod}")].uid.clone();
            json!({ "addresses": [], "targetRef": { "kind": "Pod", "name": pod, "uid": uid } })
        });
        let slice = json!({
            "metadata": {
                "name": format!("{name}-x"), "namespace": "default",
                "labels": { "kubernetes.io/service-name": name },
            },
            "addressType": "IPv4",
            "endpoints": endpoints.collect::<Vec<_>>(),
        });
        let slice = serde_json::from_value(slice).unwrap();
        self.cache.take(News::Endpoints(Box::new(Event::Apply(slice))))
    }

    /// One look at the experiment; what it has written.
    pub fn look(&mut self) -> Vec<String> {
        let reach = Reach { own: "chaos-mesh".to_owned(), ..Reach::default() };
        let look = Look::new(&self.cache, &self.name, &reach, Timestamp::now()).unwrap();
        let names = Names::new(Arc::new(|_| Box::pin(std::future::pending())));
        let writes = self.with_teller(async |teller| drop(look.act(teller, &names).await.unwrap()));
        self.watch();
        writes
    }

    /// Agents answer and the controller looks until nothing more is written.
    pub fn settle(&mut self) {
        for _ in 0..10 {
            self.agents_answer();
            if self.look().is_empty() {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// Every agent does what it is asked, and says so.
    pub fn agents_answer(&mut self) {
        let mut store = self.store.lock().unwrap();
        let faults: Vec<String> =
            store.objects.keys().filter(|path| path.starts_with(FAULTS)).cloned().collect();
        for path in faults {
            let mut object = store.objects[&path].clone();
            let spec: Spec = serde_json::from_value(object["spec"].clone()).unwrap();
            let state = if spec.run { NodeState::Injected } else { NodeState::Recovered };
            let sources = spec.sources.iter().map(|pod| (".", pod));
            let targets = spec.targets.iter().flatten().map(|pod| (".Target", pod));
            let record = |(key, pod): (&str, &crate::api::nodefault::Pod)| NodeRecord {
                id: pod.id(),
                key: key.to_owned(),
                state,
                message: String::new(),
            };
            let mut records: Vec<NodeRecord> = sources.chain(targets).map(record).collect();
            let mut strains = Vec::new();
            if !spec.containers.is_empty() {
                records.clear();
            }
            for container in &spec.containers {
                let (id, key) = (container.record(), ".".to_owned());
                strains.push(json!({
                    "strain": id, "record": id, "describes": "", "notes": ["it hurts"],
                    "since": "2026-01-01T00:00:00Z",
                }));
                records.push(NodeRecord { id, key, state, message: String::new() });
            }
            let met = json!([{
                "rule": "r", "describes": "", "matched": 2, "injected": 1, "passed": { "tls": 3 },
            }]);
            let rules = if self.name.kind == Kind::Http.name() { met } else { json!([]) };
            object["status"] = json!({
                "observedGeneration": object["metadata"]["generation"], "phase": "Injected",
                "records": records, "rules": rules, "strains": strains,
            });
            store.put(&path, object);
        }
        drop(store);
        self.watch();
    }

    /// The watches bring everything.
    fn watch(&mut self) {
        let objects = self.store.lock().unwrap().objects.clone();
        for (path, object) in objects {
            let object = serde_json::from_value(object).unwrap();
            self.cache.take(if path == self.path() {
                News::Experiment(self.name.kind, Event::Apply(object))
            } else if path.starts_with(FAULTS) {
                News::Fault(Event::Apply(object))
            } else {
                News::Peers(Event::Apply(object))
            });
        }
    }

    /// The experiment was dropped by force, and a node has gone; what is written about that.
    pub fn drop_without(&mut self, node: usize) -> Vec<String> {
        let gone = json!({ "metadata": { "name": "e", "namespace": "default" } });
        let gone = Event::Delete(serde_json::from_value(gone).unwrap());
        self.cache.take(News::Experiment(self.name.kind, gone));
        let node = json!({ "metadata": { "name": format!("n{node}") } });
        let node = Event::Delete(serde_json::from_value(node).unwrap());
        self.cache.take(News::Node(Box::new(node)));
        for fault in self.cache.faults.values_mut() {
            fault.object.metadata.deletion_timestamp =
                serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        }
        let orphans = Orphans::new(&self.cache, &self.name, Timestamp::now());
        self.with_teller(async |teller| {
            if let Some(orphans) = orphans {
                orphans.act(teller).await.unwrap();
            }
        })
    }

    /// Runs something with a client of this cluster; what it has written.
    fn with_teller(&self, work: impl AsyncFnOnce(&Teller)) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let server = Router::new().fallback(serve).with_state(self.store.clone());
        runtime.block_on(async {
            let client = Client::new(server, "default");
            let teller = Teller { client, metrics: Arc::new(Metrics::default()) };
            work(&teller).await;
        });
        std::mem::take(&mut self.store.lock().unwrap().writes)
    }

    /// The experiment's status.
    pub fn status(&self) -> Value {
        self.store.lock().unwrap().objects[&self.path()]["status"].clone()
    }

    /// `id phase injectedCount` of each record.
    pub fn records(&self) -> Vec<String> {
        let status = self.status();
        let records = status["experiment"]["containerRecords"].as_array().cloned();
        let text = |record: &Value| {
            let part = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
            format!("{} {} {}", part("id"), part("phase"), record["injectedCount"])
        };
        records.unwrap_or_default().iter().map(text).collect()
    }

    /// True when a condition holds.
    pub fn is(&self, condition: &str) -> bool {
        let status = self.status();
        let all = status["conditions"].as_array().cloned().unwrap_or_default();
        all.iter().any(|one| one["type"] == condition && one["status"] == "True")
    }

    /// What the nodes are asked that shall act, by node.
    pub fn asked(&self) -> BTreeMap<String, Spec> {
        let store = self.store.lock().unwrap();
        let faults = store.objects.iter().filter(|(path, _)| path.starts_with(FAULTS));
        let specs = faults
            .map(|(_, object)| serde_json::from_value::<Spec>(object["spec"].clone()).unwrap());
        specs.filter(|spec| spec.run).map(|spec| (spec.node.clone(), spec)).collect()
    }

    /// Names of everybody in the PeerSets of one side.
    pub fn peers(&self, side: &str) -> BTreeSet<String> {
        let store = self.store.lock().unwrap();
        let sets = store.objects.iter().filter(|(path, _)| path.starts_with(SETS));
        let sets = sets.map(|(path, object)| {
            let set = serde_json::from_value(object["spec"].clone()).unwrap();
            (path.clone(), set)
        });
        let sets: peerset::Sets = sets.collect();
        let peers = peerset::side(&sets, side).unwrap_or_default();
        peers.into_iter().map(|peer| peer.name.clone()).collect()
    }

    /// Pauses it, or lets it go on.
    pub fn pause(&mut self, is_paused: bool) {
        let path = self.path();
        let mut store = self.store.lock().unwrap();
        let mut object = store.objects[&path].clone();
        object["metadata"]["annotations"] =
            json!({ "experiment.chaos-mesh.org/pause": is_paused.to_string() });
        store.put(&path, object);
        drop(store);
        self.watch();
    }
}
