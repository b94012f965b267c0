//! One look at one schedule: what it starts, removes and pauses.

use jiff::Timestamp;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::cache::{Cache, Name};
use super::events::Teller;
use super::reconcile::Outcome;
use super::{KubeError, objects};
use crate::api::kind::{API_VERSION, Kind, SCHEDULE};
use crate::api::metadata::PAUSE;
use crate::fault;
use crate::fault::event::{Event, What};
use crate::fault::schedule::{Child, Schedule, Turn, child_name};

/// Who speaks of starts, as the API names it.
const CRON: &str = "schedule-cron";
/// Who speaks of the history.
const GC: &str = "schedule-gc";
/// Label of children, with the schedule's name.
const MANAGED: &str = "managed-by";
/// Annotation of children that were paused because the schedule was.
const PAUSED: &str = "kfault.dev/paused-by-schedule";
/// A label's value ends at this length.
const LONGEST_LABEL: usize = 63;
/// What experiments are in when nothing of them acts any more.
const OVER: [&str; 2] = ["Finished", "Failed"];

/// Everything that a look needs, copied out of the cache.
pub struct Look {
    name: Name,
    object: DynamicObject,
    children: Vec<(Name, DynamicObject)>,
    now: Timestamp,
    /// What was told before and need not be told again.
    complaint: Option<String>,
}

impl Look {
    /// Prepares a look; `None` when the schedule exists no more.
    #[must_use]
    pub fn new(
        cache: &Cache,
        name: &Name,
        complaint: Option<String>,
        now: Timestamp,
    ) -> Option<Self> {
        let object = cache.experiments.get(name)?.clone();
        let is_own = |child: &DynamicObject| {
            let uid = object.uid().unwrap_or_default();
            child.owner_references().iter().any(|owner| owner.uid == uid)
        };
        let all = cache.experiments.iter().filter(|(_, child)| is_own(child));
        let children = all.map(|(name, child)| (name.clone(), child.clone())).collect();
        Some(Self { name: name.clone(), object, children, now, complaint })
    }

    /// Starts, pauses and removes children, and notes when it did.
    ///
    /// # Errors
    /// [`KubeError`]; the look is to be repeated.
    pub async fn act(mut self, teller: &Teller) -> Result<Outcome, KubeError> {
        let client = &teller.client;
        if self.object.metadata.deletion_timestamp.is_some() {
            // Children go with their owner.
            return Ok(Outcome::default());
        }
        let schedule = match read_schedule(&self.name, &self.object) {
            Ok(schedule) => schedule,
            Err((complaint, is_unsupported)) => {
                let mut events = vec![Event::failed(CRON, "read the schedule", complaint.clone())];
                if is_unsupported {
                    let what = What::NotSupported(complaint.clone());
                    events.push(Event { component: CRON, what });
                }
                self.complain(teller, &complaint, events);
                return Ok(Outcome { complaint: Some(complaint), ..Outcome::default() });
            }
        };
        let is_paused = self.object.annotations().get(PAUSE).is_some_and(|value| value == "true");
        self.pause(client, is_paused).await?;
        let children: Vec<Child> = self.children.iter().map(|(_, child)| read(child)).collect();
        let turn = schedule.turn(self.last(), &children, is_paused, self.now);
        let Turn { start, missed, waits_for, remove, kept, again } = turn;
        for name in &remove {
            self.remove(client, name).await?;
        }
        let mut outcome = Outcome { again, ..Outcome::default() };
        let mut active: Vec<Value> = self.active();
        if let Some(due) = start {
            let child = self.start(teller, &schedule, due).await?;
            active.push(child);
        }
        if let Some(due) = missed {
            let event = Event { component: CRON, what: What::Missed(due) };
            teller.tell(&self.name, &self.object, vec![event]);
        }
        let forbid = waits_for.map(|name| Event { component: CRON, what: What::Forbid(name) });
        let skip = kept.map(|name| Event { component: GC, what: What::Skip(name) });
        for event in [forbid, skip].into_iter().flatten() {
            let complaint = event.message();
            self.complain(teller, &complaint, vec![event]);
            outcome.complaint = Some(outcome.complaint.unwrap_or_default() + &complaint);
        }
        outcome.written = self.note(client, start.or(missed), active).await?;
        Ok(outcome)
    }

    /// The moment that was last started or given up, or when the schedule was created.
    fn last(&self) -> Timestamp {
        let noted = self.object.data["status"]["time"].as_str().and_then(|text| text.parse().ok());
        noted.or_else(|| self.object.creation_timestamp().map(|time| time.0)).unwrap_or(self.now)
    }

    /// Tells what was not told the last time.
    fn complain(&self, teller: &Teller, complaint: &str, events: Vec<Event>) {
        if !self.complaint.as_deref().is_some_and(|told| told.contains(complaint)) {
            teller.tell(&self.name, &self.object, events);
        }
    }

    /// Children that have not ended, as the status lists them.
    fn active(&self) -> Vec<Value> {
        let acting = self.children.iter().filter(|(_, child)| !read(child).is_finished);
        acting.map(|(name, child)| reference(name.kind, child)).collect()
    }

    async fn start(
        &self,
        teller: &Teller,
        schedule: &Schedule,
        due: Timestamp,
    ) -> Result<Value, KubeError> {
        let own = self.object.name_any();
        let uid = self.object.uid().unwrap_or_default();
        let name = child_name(&own, &uid, due);
        let mut metadata = json!({
            "name": name,
            "namespace": self.object.namespace().unwrap_or_default(),
            "ownerReferences": [{
                "apiVersion": API_VERSION,
                "kind": SCHEDULE,
                "name": own,
                "uid": uid,
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        });
        if own.len() <= LONGEST_LABEL {
            metadata["labels"] = json!({ MANAGED: own });
        }
        let child = json!({
            "apiVersion": schedule.kind.api_version(),
            "kind": schedule.kind.name(),
            "metadata": metadata,
            "spec": schedule.block(),
        });
        let child: DynamicObject = serde_json::from_value(child).map_err(|error| {
            KubeError::Object { object: self.name.key.clone(), reason: error.to_string() }
        })?;
        let api = self.api(&teller.client, schedule.kind);
        match api.create(&PostParams::default(), &child).await {
            Ok(child) => {
                let event = Event { component: CRON, what: What::Spawned(name) };
                teller.tell(&self.name, &self.object, vec![event]);
                Ok(reference(schedule.kind.name(), &child))
            }
            // Started by a controller that died before it could note so.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Ok(reference(schedule.kind.name(), &child))
            }
            Err(error) => Err(KubeError::api(format!("start {name}"))(error)),
        }
    }

    /// A paused schedule pauses what it has started, and lets it go on afterwards.
    async fn pause(&self, client: &Client, is_paused: bool) -> Result<(), KubeError> {
        let parameters = PatchParams::default();
        for (name, child) in &self.children {
            let is_by_us = child.annotations().contains_key(PAUSED);
            let value = match (is_paused, is_by_us) {
                (true, false) if !child.annotations().contains_key(PAUSE) => json!("true"),
                (false, true) => Value::Null,
                _ => continue,
            };
            let patch = json!({ "metadata": { "annotations": { PAUSE: value, PAUSED: value } } });
            let kind = Kind::find(name.kind).unwrap_or(Kind::Later(name.kind));
            let own = child.name_any();
            match self.api(client, kind).patch(&own, &parameters, &Patch::Merge(&patch)).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(KubeError::api(format!("pause {own}"))(error)),
            }
        }
        Ok(())
    }

    async fn remove(&self, client: &Client, own: &str) -> Result<(), KubeError> {
        let child = self.children.iter().find(|(_, child)| child.name_any() == own);
        let Some((name, _)) = child else { return Ok(()) };
        let kind = Kind::find(name.kind).unwrap_or(Kind::Later(name.kind));
        match self.api(client, kind).delete(own, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(KubeError::api(format!("remove {own}"))(error)),
        }
    }

    /// Writes the status where it has changed.
    async fn note(
        &mut self,
        client: &Client,
        time: Option<Timestamp>,
        active: Vec<Value>,
    ) -> Result<Option<DynamicObject>, KubeError> {
        let before = self.object.data["status"].clone();
        let mut status = if before.is_object() { before.clone() } else { json!({}) };
        if let Some(time) = time {
            // The API's times have whole seconds.
            status["time"] = json!(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        }
        status["active"] = json!(active);
        if active.is_empty() && before.get("active").is_none() {
            status["active"].take();
        }
        if let Some(fields) = status.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        if status == before || (before.is_null() && status == json!({})) {
            return Ok(None);
        }
        self.object.data["status"] = status;
        let kind = Kind::Later(SCHEDULE);
        let own = self.object.name_any();
        let api = self.api(client, kind);
        let written = api.replace(&own, &PostParams::default(), &self.object).await;
        written.map(Some).map_err(KubeError::api(format!("write the status of {own}")))
    }

    fn api(&self, client: &Client, kind: Kind) -> Api<DynamicObject> {
        let (namespace, _) = objects::split(&self.name.key);
        objects::of(client, &objects::experiments(kind), namespace)
    }
}

/// The schedule, or why it cannot be followed, and whether only this version cannot. What it starts may be something that this version
/// cannot serve: that is the experiment's own answer.
fn read_schedule(name: &Name, object: &DynamicObject) -> Result<Schedule, (String, bool)> {
    let parsed = fault::parse_object(&name.key, objects::whole(name.kind, object));
    match parsed.schedule {
        Some(schedule) => Ok(schedule),
        None => {
            let errors: Vec<String> = parsed.errors.iter().map(ToString::to_string).collect();
            let is_unsupported = parsed.errors.iter().all(fault::LoadError::is_unsupported);
            Err((errors.join("; "), is_unsupported))
        }
    }
}

fn read(child: &DynamicObject) -> Child {
    let phase = child.data["status"]["kfault"]["phase"].as_str();
    Child {
        name: child.name_any(),
        created: child.creation_timestamp().map_or(Timestamp::MIN, |time| time.0),
        is_finished: phase.is_some_and(|phase| OVER.contains(&phase))
            || child.metadata.deletion_timestamp.is_some(),
    }
}

fn reference(kind: &str, child: &DynamicObject) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": kind,
        "name": child.name_any(),
        "namespace": child.namespace().unwrap_or_default(),
        "uid": child.uid().unwrap_or_default(),
    })
}
