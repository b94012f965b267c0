//! Ending what acts on a cluster from outside: pausing or deleting experiments and schedules, and
//! seeing that nothing of them acts any more.
//!
//! Everything is listed anew with every look, so that what a schedule starts meanwhile is not
//! forgotten. The controller does the work; this asks it, by the API's own means.

use std::collections::BTreeSet;

use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;

use super::cache::Name;
use super::{KubeError, objects};
use crate::api::kind::{Kind, SCHEDULE};
use crate::api::metadata::PAUSE;
use crate::api::status::{DesiredPhase, RecordPhase, Status};
use crate::fault::{self, Experiment};

/// What is to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything, of one namespace or of all.
    All(Option<String>),
    /// These, and what those of them that are schedules have started.
    These(Vec<Name>),
}

/// By which means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// The pause annotation: it can go on later.
    Pause,
    /// Deletion, which waits for recovery.
    Delete,
}

/// Where one object stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing of it acts, and nothing will.
    Ended,
    /// It is over when it is done, and it is done: there is nothing to pause or to recover.
    Done,
    /// It has been asked to end.
    Ending(String),
    /// Its end cannot be asked for by this means.
    Unstoppable(String),
}

/// What one look has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Objects that were asked to end now.
    pub asked: Vec<Name>,
    /// Where each stands. What has been deleted is not there any more.
    pub all: Vec<(Name, Standing)>,
}

/// Ends what is in its scope.
pub struct Stopper {
    client: Client,
    scope: Scope,
    means: Means,
    /// Uids of named schedules: their children are meant, too.
    owners: BTreeSet<String>,
    /// Something was asked of the cluster.
    pub has_asked: bool,
}

impl Stopper {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(client: Client, scope: Scope, means: Means) -> Self {
        Self { client, scope, means, owners: BTreeSet::new(), has_asked: false }
    }

    /// Those of the named objects that do not exist.
    ///
    /// # Errors
    /// [`KubeError`] when the API server cannot be asked.
    pub async fn missing(&self) -> Result<Vec<Name>, KubeError> {
        let Scope::These(names) = &self.scope else { return Ok(Vec::new()) };
        let mut missing = Vec::new();
        for name in names {
            let (namespace, own) = objects::split(&name.key);
            let api = objects::of(&self.client, &resource(name.kind), namespace);
            let doing = || format!("look for {}", id(name));
            match api.get_opt(own).await {
                Ok(Some(_)) => {}
                Ok(None) => missing.push(name.clone()),
                Err(error) => return Err(KubeError::api(doing())(error)),
            }
        }
        Ok(missing)
    }

    /// Asks everything to end that was not asked before, and says where everything stands.
    ///
    /// # Errors
    /// [`KubeError`]; the look can be repeated.
    pub async fn look(&mut self) -> Result<Look, KubeError> {
        let mut look = Look::default();
        for (name, object) in self.list().await? {
            if needs_asking(self.means, &name, &object) {
                self.has_asked = true;
                if self.ask(&name, &object).await? {
                    look.asked.push(name.clone());
                }
            }
            let standing = standing(self.means, &name, &object);
            look.all.push((name, standing));
        }
        Ok(look)
    }

    /// Everything in scope, schedules first: they shall start nothing more.
    async fn list(&mut self) -> Result<Vec<(Name, DynamicObject)>, KubeError> {
        let namespaces: BTreeSet<Option<String>> = match &self.scope {
            Scope::All(namespace) => [namespace.clone()].into(),
            Scope::These(names) => {
                let namespace = |name: &Name| objects::split(&name.key).0.to_owned();
                names.iter().map(|name| Some(namespace(name))).collect()
            }
        };
        let mut all = Vec::new();
        for kind in [Kind::Later(SCHEDULE)].into_iter().chain(Kind::experiments()) {
            for namespace in &namespaces {
                let api = objects::all(&self.client, &resource(kind.name()), namespace.as_deref());
                let listed = match api.list(&ListParams::default()).await {
                    Ok(listed) => listed.items,
                    // A kind that this cluster does not know.
                    Err(kube::Error::Api(status)) if status.code == 404 => continue,
                    Err(error) => {
                        return Err(KubeError::api(format!("list {}", kind.name()))(error));
                    }
                };
                for object in listed {
                    let name = Name { kind: kind.name(), key: objects::key(&object.metadata) };
                    if self.means_it(&name, &object) {
                        all.push((name, object));
                    }
                }
            }
        }
        Ok(all)
    }

    fn means_it(&mut self, name: &Name, object: &DynamicObject) -> bool {
        let Scope::These(names) = &self.scope else { return true };
        if names.contains(name) {
            self.owners.extend(object.uid());
            return true;
        }
        object.owner_references().iter().any(|owner| self.owners.contains(&owner.uid))
    }

    /// False when it has gone meanwhile.
    async fn ask(&self, name: &Name, object: &DynamicObject) -> Result<bool, KubeError> {
        let (namespace, own) = objects::split(&name.key);
        let api = objects::of(&self.client, &resource(name.kind), namespace);
        let done = match self.means {
            Means::Pause => {
                let patch = json!({ "metadata": { "annotations": { PAUSE: "true" } } });
                api.patch(own, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop)
            }
            Means::Delete => {
                // Not another one that has been given the name.
                let parameters = DeleteParams {
                    preconditions: Some(kube::api::Preconditions {
                        uid: object.uid(),
                        resource_version: None,
                    }),
                    ..DeleteParams::default()
                };
                api.delete(own, &parameters).await.map(drop)
            }
        };
        match done {
            Ok(()) => Ok(true),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
            Err(error) => {
                let verb = if self.means == Means::Pause { "pause" } else { "delete" };
                Err(KubeError::api(format!("{verb} {}", id(name)))(error))
            }
        }
    }
}

/// `Kind/namespace/name`.
#[must_use]
pub fn id(name: &Name) -> String {
    format!("{}/{}", name.kind, name.key)
}

fn resource(kind: &'static str) -> kube::api::ApiResource {
    objects::experiments(Kind::find(kind).unwrap_or(Kind::Later(kind)))
}

fn is_paused(object: &DynamicObject) -> bool {
    object.annotations().get(PAUSE).is_some_and(|value| value == "true")
}

/// Whether the object is to be asked now.
fn needs_asking(means: Means, name: &Name, object: &DynamicObject) -> bool {
    if object.metadata.deletion_timestamp.is_some() {
        return false;
    }
    match means {
        Means::Delete => true,
        // Its schedule pauses it, and lets it go on with itself: an annotation of ours would stay.
        Means::Pause if is_of_a_schedule(object) => false,
        Means::Pause => !is_paused(object) && !is_one_shot(name, object),
    }
}

fn is_of_a_schedule(object: &DynamicObject) -> bool {
    object.owner_references().iter().any(|owner| owner.kind == SCHEDULE)
}

fn is_one_shot(name: &Name, object: &DynamicObject) -> bool {
    let parsed = fault::parse_object(&name.key, objects::whole(name.kind, object));
    parsed.experiment.as_ref().is_some_and(Experiment::is_one_shot)
}

/// Where an object stands that was found.
fn standing(means: Means, name: &Name, object: &DynamicObject) -> Standing {
    let status: Status = serde_json::from_value(object.data["status"].clone()).unwrap_or_default();
    let records = status.experiment.container_records.as_deref().unwrap_or_default();
    let acting = records.iter().filter(|record| record.phase != RecordPhase::NotInjected).count();
    let progress = || match acting {
        0 => "the controller has not answered yet".to_owned(),
        acting => format!("{acting} of {} targets not recovered", records.len()),
    };
    if means == Means::Delete || object.metadata.deletion_timestamp.is_some() {
        return Standing::Ending(progress());
    }
    if name.kind == SCHEDULE {
        // Asked a moment ago: the next look sees it.
        let asked = || Standing::Ending("it is being paused".to_owned());
        return if is_paused(object) { Standing::Ended } else { asked() };
    }
    if is_one_shot(name, object) {
        let is_done =
            !records.is_empty() && records.iter().all(|record| record.phase.is_injected());
        return if is_done {
            Standing::Done
        } else {
            let why = "it cannot be paused and still looks for targets: delete it (--delete)";
            Standing::Unstoppable(why.to_owned())
        };
    }
    let is_noted = status.experiment.desired_phase == Some(DesiredPhase::Stop);
    if is_paused(object) && is_noted && acting == 0 {
        return Standing::Ended;
    }
    Standing::Ending(progress())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::api::kind::API_VERSION;

    fn named(kind: Kind) -> Name {
        Name { kind: kind.name(), key: "n/a".to_owned() }
    }

    fn object(kind: Kind, metadata: &Value, spec: &Value, status: &Value) -> DynamicObject {
        let mut object = json!({
            "apiVersion": API_VERSION, "kind": kind.name(),
            "metadata": { "name": "a", "namespace": "n", "uid": "u" },
            "spec": spec, "status": status,
        });
        for (key, value) in metadata.as_object().into_iter().flatten() {
            object["metadata"][key] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    fn status(desired: &str, phases: &[&str]) -> Value {
        let record = |phase: &&str| json!({ "id": "n/p", "selectorKey": ".", "phase": phase });
        json!({ "experiment": {
            "desiredPhase": desired,
            "containerRecords": phases.iter().map(record).collect::<Vec<_>>(),
        } })
    }

    fn delay() -> Value {
        json!({ "action": "delay", "mode": "all", "selector": {}, "delay": { "latency": "1s" } })
    }

    fn paused() -> Value {
        json!({ "annotations": { PAUSE: "true" } })
    }

    fn found(metadata: &Value, status: &Value) -> (bool, Standing) {
        let object = object(Kind::Network, metadata, &delay(), status);
        let name = named(Kind::Network);
        (needs_asking(Means::Pause, &name, &object), standing(Means::Pause, &name, &object))
    }

    #[test]
    fn it_has_ended_when_it_is_paused_and_every_target_has_recovered() {
        let none = json!({});
        let (asks, now) = found(&none, &status("Run", &["Injected", "Injected"]));
        assert!(asks);
        assert_eq!(now, Standing::Ending("2 of 2 targets not recovered".to_owned()));
        let (asks, now) = found(&paused(), &status("Stop", &["Injected/Wait", "Not Injected"]));
        assert!(!asks, "it was asked before");
        assert_eq!(now, Standing::Ending("1 of 2 targets not recovered".to_owned()));
        let (_, now) = found(&paused(), &status("Stop", &["Not Injected", "Not Injected"]));
        assert_eq!(now, Standing::Ended);
    }

    #[test]
    fn without_an_answer_of_the_controller_nothing_has_ended() {
        let silent = Standing::Ending("the controller has not answered yet".to_owned());
        assert_eq!(found(&paused(), &Value::Null).1, silent);
        assert_eq!(found(&paused(), &status("Run", &["Not Injected"])).1, silent);
        // Its duration is over; a longer one would begin anew.
        assert_eq!(found(&json!({}), &status("Stop", &["Not Injected"])).1, silent);
    }

    #[test]
    fn what_is_over_when_it_is_done_is_not_paused() {
        let kill = json!({ "action": "pod-kill", "mode": "all", "selector": {} });
        let name = named(Kind::Pod);
        let done = object(Kind::Pod, &json!({}), &kill, &status("Run", &["Injected"]));
        assert!(!needs_asking(Means::Pause, &name, &done));
        assert_eq!(standing(Means::Pause, &name, &done), Standing::Done);
        let waits = object(Kind::Pod, &json!({}), &kill, &Value::Null);
        assert!(matches!(standing(Means::Pause, &name, &waits), Standing::Unstoppable(_)));
        assert!(needs_asking(Means::Delete, &name, &waits));
    }

    #[test]
    fn a_schedule_pauses_its_children_itself() {
        let schedule = Kind::Later(SCHEDULE);
        let spec = json!({ "schedule": "@every 1h" });
        let running = object(schedule, &json!({}), &spec, &Value::Null);
        assert!(needs_asking(Means::Pause, &named(schedule), &running));
        let stopped = object(schedule, &paused(), &spec, &Value::Null);
        assert_eq!(standing(Means::Pause, &named(schedule), &stopped), Standing::Ended);
        let owner = json!({ "ownerReferences": [
            { "apiVersion": API_VERSION, "kind": SCHEDULE, "name": "s", "uid": "o" },
        ] });
        assert!(!found(&owner, &Value::Null).0);
    }

    #[test]
    fn what_is_deleted_has_ended_when_it_is_gone() {
        let name = named(Kind::Network);
        let metadata = json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" });
        let going = object(Kind::Network, &metadata, &delay(), &status("Stop", &["Injected/Wait"]));
        assert!(!needs_asking(Means::Delete, &name, &going));
        let ending = Standing::Ending("1 of 1 targets not recovered".to_owned());
        assert_eq!(standing(Means::Delete, &name, &going), ending);
    }
}
