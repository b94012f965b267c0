//! The controller's loop: news from watches, looks at experiments, timers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;
use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use kube::{Client, ResourceExt};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::cache::{Cache, Name, News, watch};
use super::choice::Reach;
use super::events::Teller;
use super::metrics::Metrics;
use super::names::Names;
use super::reconcile::{self, Outcome};
use super::schedule;
use super::{KubeError, objects};
use crate::api::kind::{Kind, SCHEDULE};
use crate::api::nodefault::Counted;

/// How a controller works.
#[derive(Clone)]
pub struct Options {
    /// The namespace that it runs in.
    pub namespace: String,
    /// Who may be chosen.
    pub reach: Reach,
    /// Who knows names.
    pub names: Names,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// How many experiments are looked at at once.
const AT_ONCE: usize = 16;
/// A look that failed is repeated after this time at first, and then less often.
const RETRY: Duration = Duration::from_millis(50);
/// At the latest after this time.
const RETRY_MOST: Duration = Duration::from_secs(30);
/// Even where nothing happens, nodes are checked for silence.
const CHECK: Duration = Duration::from_secs(10);

/// What a look has led to, and how long it took.
type Done = (Name, Duration, Result<Outcome, KubeError>);

struct Controller {
    teller: Teller,
    options: Options,
    cache: Cache,
    watches: usize,
    dirty: BTreeSet<Name>,
    at: BTreeMap<Name, Instant>,
    busy: BTreeSet<Name>,
    failures: BTreeMap<Name, u32>,
    /// What keeps schedules from starting something.
    complaints: BTreeMap<Name, String>,
    /// What the agents have counted so far, by NodeFault.
    counts: BTreeMap<String, Counted>,
    looks: JoinSet<Done>,
}

/// The NodeFault that a piece of news brings, and whether a list does.
fn counted_by(news: &News) -> Option<(String, bool)> {
    let (object, is_listed) = match news {
        News::Fault(Event::Apply(object)) => (object, false),
        News::Fault(Event::InitApply(object)) => (object, true),
        _ => return None,
    };
    Some((objects::key(&object.metadata), is_listed))
}

/// A look at an experiment, at what is left of one, or at a schedule.
enum Look {
    Experiment(Box<reconcile::Look>),
    Orphans(reconcile::Orphans),
    Schedule(Box<schedule::Look>),
}

impl Look {
    async fn act(self, teller: &Teller, names: &Names) -> Result<Outcome, KubeError> {
        match self {
            Self::Experiment(look) => look.act(teller, names).await,
            Self::Orphans(orphans) => orphans.act(teller).await,
            Self::Schedule(look) => look.act(teller).await,
        }
    }
}

/// Serves until `stop` is done.
///
/// # Errors
/// [`KubeError`] when the watches end.
pub async fn serve(
    client: Client,
    options: Options,
    stop: impl Future<Output = ()>,
) -> Result<(), KubeError> {
    let kinds: Vec<Kind> = Kind::experiments().chain([Kind::Later(SCHEDULE)]).collect();
    let mut watches = watch(&client, &kinds, &options.namespace, options.reach.only.as_deref());
    let count = watches.len();
    let mut controller = Controller {
        teller: Teller { client, metrics: options.metrics.clone() },
        options,
        cache: Cache::default(),
        watches: count,
        dirty: BTreeSet::new(),
        at: BTreeMap::new(),
        busy: BTreeSet::new(),
        failures: BTreeMap::new(),
        complaints: BTreeMap::new(),
        counts: BTreeMap::new(),
        looks: JoinSet::new(),
    };
    let mut check = tokio::time::interval(CHECK);
    tokio::pin!(stop);
    loop {
        controller.start_looks();
        let next = controller.at.values().min().copied();
        tokio::select! {
            () = &mut stop => return Ok(()),
            news = watches.next() => match news {
                Some(Ok(news)) => {
                    let counted = counted_by(&news);
                    let concern = controller.cache.take(news);
                    if let Some((key, is_listed)) = counted {
                        controller.count(key, is_listed);
                    }
                    controller.dirty.extend(controller.cache.concerned(&concern));
                }
                // The watch comes back by itself.
                Some(Err(error)) => tracing::warn!(%error, "a watch was interrupted"),
                None => return Ok(()),
            },
            Some(done) = controller.looks.join_next() => match done {
                Ok(done) => controller.done(done),
                Err(error) => tracing::error!(%error, "a look at an experiment has panicked"),
            },
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                let now = Instant::now();
                let due: Vec<Name> =
                    controller.at.iter().filter(|(_, at)| **at <= now).map(|(n, _)| n.clone()).collect();
                for name in due {
                    controller.at.remove(&name);
                    controller.dirty.insert(name);
                }
            }
            _ = check.tick() => controller.check_nodes(),
        }
    }
}

impl Controller {
    fn start_looks(&mut self) {
        // Before everything has been seen, a pod that is missing is no pod that is gone.
        if !self.cache.is_complete(self.watches) {
            return;
        }
        while self.busy.len() < AT_ONCE {
            let Some(name) = self.dirty.iter().find(|name| !self.busy.contains(*name)).cloned()
            else {
                return;
            };
            self.dirty.remove(&name);
            self.at.remove(&name);
            let Some(look) = self.look(&name) else {
                self.complaints.remove(&name);
                continue;
            };
            self.busy.insert(name.clone());
            let (teller, names) = (self.teller.clone(), self.options.names.clone());
            let start = Instant::now();
            self.looks.spawn(async move {
                let done = look.act(&teller, &names).await;
                (name, start.elapsed(), done)
            });
        }
    }

    fn look(&self, name: &Name) -> Option<Look> {
        let now = Timestamp::now();
        if name.kind == SCHEDULE {
            let complaint = self.complaints.get(name).cloned();
            let look = schedule::Look::new(&self.cache, name, complaint, now)?;
            return Some(Look::Schedule(Box::new(look)));
        }
        match reconcile::Look::new(&self.cache, name, &self.options.reach, now) {
            Some(look) => Some(Look::Experiment(Box::new(look))),
            None => reconcile::Orphans::new(&self.cache, name, now).map(Look::Orphans),
        }
    }

    fn done(&mut self, (name, took, result): Done) {
        self.busy.remove(&name);
        self.options.metrics.looked(took, result.is_ok());
        match result {
            Ok(Outcome { again, written, complaint }) => {
                self.failures.remove(&name);
                match complaint {
                    Some(complaint) => self.complaints.insert(name.clone(), complaint),
                    None => self.complaints.remove(&name),
                };
                if let Some(object) = written {
                    self.remember(&name, object);
                }
                if let Some(again) = again {
                    self.at.insert(name, Instant::now() + again);
                }
            }
            Err(error) => {
                let count = self.failures.entry(name.clone()).or_default();
                // Somebody else has written meanwhile: the watch brings it.
                if error.code() != Some(409) {
                    tracing::warn!(kind = name.kind, object = name.key, %error, "will try again");
                }
                let wait = RETRY.saturating_mul(1 << (*count).min(10)).min(RETRY_MOST);
                *count += 1;
                self.at.insert(name, Instant::now() + wait);
            }
        }
    }

    /// The next look shall not have to wait for the watch to bring our own write.
    fn remember(&mut self, name: &Name, object: DynamicObject) {
        let is_gone =
            object.metadata.deletion_timestamp.is_some() && object.finalizers().is_empty();
        // Versions count upwards (Kubernetes 1.35 promises it, all servers do it): the watch may
        // have brought a later one.
        let version = |object: &DynamicObject| -> u64 {
            object.resource_version().and_then(|text| text.parse().ok()).unwrap_or_default()
        };
        if let Some(known) = self.cache.experiments.get_mut(name).filter(|_| !is_gone)
            && version(known) < version(&object)
        {
            *known = object;
        }
    }

    /// Experiments on nodes whose agents are silent or gone.
    fn check_nodes(&mut self) {
        let owners = self.cache.faults.values().filter_map(|fault| fault.owner.clone());
        let owners: BTreeSet<Name> = owners.collect();
        self.dirty.extend(owners);
        self.counts.retain(|key, _| self.cache.faults.contains_key(key));
        self.options.metrics.known(&self.cache, Timestamp::now());
    }

    /// Counts what an agent has counted since it was last heard. What a list shows for the first
    /// time is where counting begins: another controller may have counted it.
    fn count(&mut self, key: String, is_listed: bool) {
        let Some(fault) = self.cache.faults.get(&key) else { return };
        let Some(owner) = &fault.owner else { return };
        let now = Counted::of(&fault.status.rules);
        let before = self.counts.insert(key, now.clone());
        if before.is_none() && is_listed {
            return;
        }
        // An agent that was started anew counts from zero.
        self.options.metrics.counted(owner.kind, &now.since(&before.unwrap_or_default()));
    }
}
