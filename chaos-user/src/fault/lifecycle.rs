//! The life of an experiment in a cluster, as a function: status × world → status, and what is to
//! be said and done about it. No clock and no client: time and reports are arguments.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

pub use super::event::{Event, What};
use crate::api::status::{
    Answer, Condition, ConditionKind, DesiredPhase, Operation, Outcome, Record, RecordEvent,
    RecordPhase, Status, Summary,
};

/// Selector key and id of a record: its identity within an experiment.
pub type RecordKey = (String, String);

/// An experiment and what is known about it at one moment.
#[derive(Clone, Debug)]
pub struct World {
    /// This moment.
    pub now: Timestamp,
    /// When the experiment was created: durations count from here.
    pub created: Timestamp,
    /// It is being deleted.
    pub is_deleted: bool,
    /// Its annotation says so.
    pub is_paused: bool,
    /// It cannot be recovered: killing is over when it is done.
    pub is_one_shot: bool,
    /// Its records say that they wait for the nodes, which answer in their own time.
    pub is_for_nodes: bool,
    /// How long it acts.
    pub duration: Option<Duration>,
    /// The targets, chosen now; asked for by [`needs_choice`].
    pub chosen: Option<Result<Vec<RecordKey>, String>>,
    /// What `chosen` are, by the id of their records: uids of pods, ids of containers.
    pub identities: BTreeMap<String, String>,
    /// What is known of each record. One that is missing has not been heard of.
    pub reports: BTreeMap<RecordKey, Report>,
    /// Packets (or kills) matched and injected, all rules together.
    pub matched_injected: (u64, u64),
    /// What of the experiment does not do what it seems to.
    pub warnings: Vec<String>,
}

/// What is known of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The fault acts.
    Injected,
    /// It does not.
    Recovered,
    /// The last attempt failed.
    Failed(String),
    /// The target exists no more.
    Gone,
}

/// What follows.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The new status.
    pub status: Status,
    /// Whether the object must keep the finalizer.
    pub holds: bool,
    /// What to tell.
    pub events: Vec<Event>,
    /// Look again after this time, even if nothing happens.
    pub again: Option<Duration>,
}

/// True when targets must be chosen before [`step`].
#[must_use]
pub fn needs_choice(status: &Status, world: &World) -> bool {
    status.experiment.container_records.is_none() && desired(world) == DesiredPhase::Run
}

/// What shall be the case; the first reason that holds decides.
#[must_use]
pub fn desired(world: &World) -> DesiredPhase {
    let stops = world.is_deleted || (!world.is_one_shot && (is_over(world) || world.is_paused));
    if stops { DesiredPhase::Stop } else { DesiredPhase::Run }
}

/// When the fault is over, if it ever is.
#[must_use]
pub fn until(world: &World) -> Option<Timestamp> {
    let duration = world.duration.filter(|_| !world.is_one_shot)?;
    world.created.checked_add(jiff::SignedDuration::try_from(duration).ok()?).ok()
}

fn is_over(world: &World) -> bool {
    until(world).is_some_and(|until| until <= world.now)
}

/// The next status of an experiment.
#[must_use]
pub fn step(before: &Status, world: &World) -> Step {
    let mut status = before.clone();
    let mut events = Vec::new();
    let desired = desired(world);
    if before.experiment.desired_phase != Some(desired) {
        status.experiment.desired_phase = Some(desired);
        events.push(turned(world, desired));
        events.push(Event::updated("desiredphase", "desiredPhase"));
    }
    let mut is_empty = false;
    match &world.chosen {
        Some(Ok(keys)) if status.experiment.container_records.is_none() => {
            let record = |(key, id): &RecordKey| Record::new(id, key);
            status.experiment.container_records = Some(keys.iter().map(record).collect());
        }
        Some(Err(reason)) => {
            is_empty = true;
            events.push(Event::failed("records", "select targets", reason));
        }
        _ => {}
    }
    let mut has_failed = false;
    for record in status.experiment.container_records.iter_mut().flatten() {
        let report = world.reports.get(&(record.selector_key.clone(), record.id.clone()));
        has_failed |= matches!(report, Some(Report::Failed(_)));
        advance(record, desired, report, world, &mut events);
    }
    if status.experiment.container_records != before.experiment.container_records {
        events.push(Event::updated("records", "records"));
    }
    status.conditions = conditions(&status, world.is_paused);
    if status.conditions != before.conditions {
        events.push(Event::updated("condition", "conditions"));
    }
    let mut records = status.experiment.container_records.iter().flatten();
    let is_left = !world.is_one_shot && records.any(|r| r.phase != RecordPhase::NotInjected);
    let holds = !world.is_deleted || is_left;
    let is_chosen_now = before.experiment.container_records.is_none()
        && status.experiment.container_records.is_some();
    let chosen = if is_chosen_now {
        world.identities.clone()
    } else {
        before.kfault.as_ref().map(|summary| summary.chosen.clone()).unwrap_or_default()
    };
    status.kfault = Some(Summary { chosen, ..summary(&status, world) });
    let until_end = until(world).filter(|until| *until > world.now);
    let left = until_end.and_then(|until| Duration::try_from(until.duration_since(world.now)).ok());
    let retry = (is_empty || has_failed).then(|| retry(world));
    Step { status, holds, events, again: left.into_iter().chain(retry).min() }
}

/// Nothing to choose from, or a failed attempt: soon at first, and then less often.
fn retry(world: &World) -> Duration {
    let age = Duration::try_from(world.now.duration_since(world.created)).unwrap_or_default();
    (age / 4).clamp(Duration::from_secs(1), Duration::from_secs(60))
}

fn turned(world: &World, desired: DesiredPhase) -> Event {
    let what = match desired {
        DesiredPhase::Run => What::Started,
        DesiredPhase::Stop if world.is_deleted => What::Deleted,
        DesiredPhase::Stop if is_over(world) => What::TimeUp,
        DesiredPhase::Stop => What::Paused,
    };
    Event { component: "desiredphase", what }
}

fn advance(
    record: &mut Record,
    desired: DesiredPhase,
    report: Option<&Report>,
    world: &World,
    events: &mut Vec<Event>,
) {
    let was_injected = record.phase.is_injected();
    let operation = match desired {
        DesiredPhase::Run => Operation::Apply,
        DesiredPhase::Stop => Operation::Recover,
    };
    if let Some(Report::Failed(reason)) = report {
        failed(record, operation, reason, world, events);
        return;
    }
    let is_injected = match (report, desired) {
        (Some(Report::Injected), _) => true,
        (Some(Report::Recovered | Report::Gone), _) => false,
        // Nobody has been asked yet, or nobody has answered.
        (_, DesiredPhase::Run) => was_injected,
        (_, DesiredPhase::Stop) => was_injected && !world.is_one_shot,
    };
    record.phase = match (is_injected, desired) {
        (true, DesiredPhase::Run) => RecordPhase::Injected,
        (true, DesiredPhase::Stop) if world.is_for_nodes => RecordPhase::InjectedWait,
        (true, DesiredPhase::Stop) => RecordPhase::Injected,
        (false, DesiredPhase::Run) if world.is_for_nodes && report != Some(&Report::Gone) => {
            RecordPhase::NotInjectedWait
        }
        (false, _) => RecordPhase::NotInjected,
    };
    let (outcome, message) = (Outcome::Succeeded, String::new());
    let timestamp = world.now;
    if is_injected && !was_injected {
        record.injected_count += 1;
        record.note(RecordEvent { outcome, operation: Operation::Apply, message, timestamp });
        events.push(told(What::Applied(record.id.clone())));
    } else if was_injected && !is_injected {
        record.recovered_count += 1;
        record.note(RecordEvent { outcome, operation: Operation::Recover, message, timestamp });
        events.push(told(What::Recovered(record.id.clone())));
    }
}

fn told(what: What) -> Event {
    Event { component: "records", what }
}

/// A failure is told once, not on every look.
fn failed(
    record: &mut Record,
    operation: Operation,
    reason: &str,
    world: &World,
    events: &mut Vec<Event>,
) {
    if operation == Operation::Apply && !record.phase.is_injected() {
        record.phase = RecordPhase::NotInjected;
    }
    let is_known = record.events.last().is_some_and(|last| {
        last.outcome == Outcome::Failed && last.operation == operation && last.message == reason
    });
    if is_known {
        return;
    }
    let message = reason.to_owned();
    let timestamp = world.now;
    record.note(RecordEvent { outcome: Outcome::Failed, operation, message, timestamp });
    let verb = match operation {
        Operation::Apply => "apply",
        Operation::Recover => "recover",
    };
    events.push(Event::failed("records", format!("{verb} chaos for {}", record.id), reason));
}

fn conditions(status: &Status, is_paused: bool) -> Vec<Condition> {
    let records = status.experiment.container_records.as_deref();
    let all = |wanted: fn(RecordPhase) -> bool| {
        records.is_some_and(|all| !all.is_empty() && all.iter().all(|record| wanted(record.phase)))
    };
    [
        (ConditionKind::Selected, records.is_some()),
        (ConditionKind::AllInjected, all(|phase| phase == RecordPhase::Injected)),
        (ConditionKind::AllRecovered, all(|phase| phase == RecordPhase::NotInjected)),
        (ConditionKind::Paused, is_paused),
    ]
    .map(|(kind, is)| Condition { kind, status: Answer::from(is), reason: String::new() })
    .to_vec()
}

fn summary(status: &Status, world: &World) -> Summary {
    let is =
        |kind| status.conditions.iter().any(|one| one.kind == kind && one.status == Answer::True);
    let records = status.experiment.container_records.as_deref();
    // Also where nobody was chosen: a random share may be none, and a schedule waits for the end.
    let all = |is: fn(RecordPhase) -> bool| records.unwrap_or_default().iter().all(|r| is(r.phase));
    let is_finished = if world.is_one_shot {
        records.is_some() && all(|phase| phase == RecordPhase::Injected)
    } else {
        is_over(world) && all(|phase| phase == RecordPhase::NotInjected)
    };
    let phase = if world.is_deleted {
        "Deleting"
    } else if world.is_paused && !world.is_one_shot {
        "Paused"
    } else if is_finished {
        "Finished"
    } else if is(ConditionKind::AllInjected) {
        "Running"
    } else {
        "Injecting"
    };
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let (matched, injected) = world.matched_injected;
    Summary {
        phase: phase.to_owned(),
        targets: status.experiment.container_records.as_ref().map_or(0, |all| all.len() as i64),
        injected: count(injected),
        matched: count(matched),
        warnings: world.warnings.clone(),
        ..Summary::default()
    }
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
