//! The life of an experiment in a cluster, as a function: status × world → status, and what is to
//! be said and done about it. No clock and no client: time and reports are arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

pub use super::event::{Event, What};
use super::http;
use crate::api::nodefault::{Counted, NodeState};
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
    /// New and replaced pods become targets while it runs.
    pub follows: bool,
    /// How long it acts.
    pub duration: Option<Duration>,
    /// The targets, chosen now; asked for by [`needs_choice`]. With `follows`, those that there
    /// shall be from now on.
    pub chosen: Option<Result<Vec<RecordKey>, String>>,
    /// What `chosen` are, by the id of their records: uids of pods, ids of containers.
    pub identities: BTreeMap<String, String>,
    /// What is known of each record. One that is missing has not been heard of.
    pub reports: BTreeMap<RecordKey, Report>,
    /// What was counted, all rules together: packets, messages, kills.
    pub counted: Counted,
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

/// What is known of a record whose fault a node carries out.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The target exists, and is the one that was chosen.
    pub lives: bool,
    /// What its node was asked and has answered; `None`: no node was asked.
    pub asked: Option<Asked<'a>>,
}

/// What a node was asked about a record, and its answer.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The node.
    pub node: &'a str,
    /// `Some`: its agent has been silent for more than so many seconds, and has ended its faults.
    pub silent: Option<u64>,
    /// Its answer to what it was asked last, with the reason where it failed.
    pub answer: Option<(NodeState, &'a str)>,
}

/// What that says of the record. `None`: the node may or may not do what it is asked.
#[must_use]
pub fn heard(known: &Known<'_>, desired: DesiredPhase) -> Option<Report> {
    if !known.lives {
        return Some(Report::Gone);
    }
    let Some(asked) = known.asked else {
        // The fault cannot act.
        return Some(Report::Recovered).filter(|_| desired == DesiredPhase::Stop);
    };
    match (desired, asked.silent) {
        (DesiredPhase::Stop, Some(_)) => return Some(Report::Recovered),
        (DesiredPhase::Run, Some(seconds)) => {
            return Some(Report::Failed(format!(
                "the agent of node {} has been silent for more than {seconds} s, so its faults \
                 have ended",
                asked.node
            )));
        }
        (_, None) => {}
    }
    match asked.answer? {
        (NodeState::Injected, _) => Some(Report::Injected),
        (NodeState::Recovered, _) => Some(Report::Recovered),
        (NodeState::Failed, reason) => match desired {
            DesiredPhase::Run => Some(Report::Failed(reason.to_owned())),
            // An answer from before the end was asked for: it may have succeeded since.
            DesiredPhase::Stop => None,
        },
    }
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
    let is_due = world.follows || status.experiment.container_records.is_none();
    is_due && desired(world) == DesiredPhase::Run
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
    let known = before.kfault.as_ref().map(|summary| &summary.passed);
    let is_new = |reason: &&String| known.is_none_or(|known| !known.contains_key(*reason));
    for reason in world.counted.passed.keys().filter(is_new) {
        events.extend(http::protocol(reason).map(unspoken).into_iter().flatten());
    }
    let mut is_empty = false;
    let mut chosen =
        before.kfault.as_ref().map(|summary| summary.chosen.clone()).unwrap_or_default();
    match (&world.chosen, &mut status.experiment.container_records) {
        (Some(Ok(keys)), records @ None) => {
            let record = |(key, id): &RecordKey| Record::new(id, key);
            *records = Some(keys.iter().map(record).collect());
            chosen.clone_from(&world.identities);
        }
        (Some(Ok(keys)), Some(records)) if world.follows => {
            follow(records, &chosen, keys, world, &mut events);
            chosen.clone_from(&world.identities);
        }
        (Some(Err(reason)), _) => {
            is_empty = true;
            events.push(unselected(reason));
        }
        _ => {}
    }
    let mut has_failed = false;
    for record in status.experiment.container_records.iter_mut().flatten() {
        let report = world.reports.get(&(record.selector_key.clone(), record.id.clone()));
        // What is done once cannot fail afterwards.
        let is_done = world.is_one_shot && record.phase.is_injected();
        let report = report.filter(|one| !(is_done && matches!(one, Report::Failed(_))));
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
    status.kfault = Some(Summary { chosen, ..summary(&status, world) });
    let until_end = until(world).filter(|until| *until > world.now);
    let left = until_end.and_then(|until| Duration::try_from(until.duration_since(world.now)).ok());
    let retry = (is_empty || has_failed).then(|| retry(world));
    Step { status, holds, events, again: left.into_iter().chain(retry).min() }
}

/// Makes the records those of `keys`. What has gone is recovered and leaves; what was replaced
/// under the same name is recovered and goes on as another one; what is new is added.
fn follow(
    records: &mut Vec<Record>,
    before: &BTreeMap<String, String>,
    keys: &[RecordKey],
    world: &World,
    events: &mut Vec<Event>,
) {
    let wanted: BTreeSet<(&str, &str)> =
        keys.iter().map(|(key, id)| (key.as_str(), id.as_str())).collect();
    let was_empty = records.is_empty();
    for record in records.iter_mut() {
        let is_wanted = wanted.contains(&(record.selector_key.as_str(), record.id.as_str()));
        // Who was chosen is not known where another version wrote the status.
        let is_same = before
            .get(&record.id)
            .is_none_or(|identity| Some(identity) == world.identities.get(&record.id));
        if !(is_wanted && is_same) {
            advance(record, DesiredPhase::Run, Some(&Report::Gone), world, events);
        }
    }
    let mut known: BTreeMap<RecordKey, Record> = std::mem::take(records)
        .into_iter()
        .map(|record| ((record.selector_key.clone(), record.id.clone()), record))
        .collect();
    for key in keys {
        let record = known.remove(key).unwrap_or_else(|| Record::new(&key.1, &key.0));
        records.push(record);
    }
    if records.is_empty() && !was_empty {
        events.push(unselected("every target has gone, and no other pod is selected yet"));
    }
}

fn unselected(reason: &str) -> Event {
    Event::failed("records", "select targets", reason)
}

/// Told once, when the first connection is met that speaks this.
fn unspoken(protocol: &str) -> [Event; 2] {
    let activity = format!("act on what speaks {protocol}");
    let failed = Event::failed("records", activity, http::unspoken(protocol));
    [failed, told(What::NotSupported(protocol.to_owned()))]
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
        // Its node has not answered what it was asked last; to end may have been asked before.
        (true, DesiredPhase::Run)
            if world.is_for_nodes && !world.is_one_shot && report.is_none() =>
        {
            RecordPhase::InjectedWait
        }
        (true, DesiredPhase::Run) => RecordPhase::Injected,
        (true, DesiredPhase::Stop) if world.is_for_nodes => RecordPhase::InjectedWait,
        (true, DesiredPhase::Stop) => RecordPhase::Injected,
        (false, DesiredPhase::Run) if world.is_for_nodes && report != Some(&Report::Gone) => {
            RecordPhase::NotInjectedWait
        }
        // The node was asked to begin and has not answered yet that it has ended.
        (false, DesiredPhase::Stop)
            if world.is_for_nodes && !world.is_one_shot && report.is_none() =>
        {
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
    if operation == Operation::Apply {
        // What cannot be applied any more does not act.
        record.recovered_count += i64::from(record.phase.is_injected());
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
    let Counted { matched, injected, passed } = &world.counted;
    let spoken = passed.keys().filter_map(|reason| http::protocol(reason)).map(http::unspoken);
    Summary {
        phase: phase.to_owned(),
        targets: status.experiment.container_records.as_ref().map_or(0, |all| all.len() as i64),
        injected: count(*injected),
        matched: count(*matched),
        passed: passed.iter().map(|(reason, n)| (reason.clone(), count(*n))).collect(),
        warnings: world.warnings.iter().cloned().chain(spoken).collect(),
        ..Summary::default()
    }
}

#[cfg(test)]
#[path = "lifecycle_model_tests.rs"]
mod model;
#[cfg(test)]
#[path = "lifecycle_table_tests.rs"]
mod table;
#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
