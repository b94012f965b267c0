//! Experiments that come again and again: what to start, to remove and to wait for, as a function
//! of the schedule, its children and the clock.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Experiment;
use super::load::experiment;
use crate::api::cron::Cron;
use crate::api::fields::Fields;
use crate::api::finding::Findings;
use crate::api::kind::{API_VERSION, GROUP, Kind, SCHEDULE};
use crate::api::metadata::Metadata;
use crate::select::seed_for;

/// A schedule that was parsed and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Its name, namespace, labels and annotations.
    pub metadata: Metadata,
    /// When.
    pub cron: Cron,
    /// The kind of what is started.
    pub kind: Kind,
    /// What is started, under the schedule's own name; `None` when this version cannot serve it.
    pub experiment: Option<Box<Experiment>>,
    /// A start waits until everything that was started before has ended.
    pub is_exclusive: bool,
    /// A start that was missed by more than this is given up.
    pub deadline: Option<Duration>,
    /// How many finished children are kept.
    pub history: usize,
    /// `spec`, as it was written.
    spec: Value,
    /// The field of `spec` that holds what is started.
    pub(super) field: String,
}

/// `concurrencyPolicy`: a start waits.
const POLICIES: [(&str, bool); 2] = [("Forbid", true), ("Allow", false)];

/// Something that a schedule has started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its name.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
    /// It has ended.
    pub is_finished: bool,
}

/// What follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Start one for this moment.
    pub start: Option<Timestamp>,
    /// A moment has passed for good: told, and not looked at again.
    pub missed: Option<Timestamp>,
    /// A moment is due and this child keeps it from starting.
    pub waits_for: Option<String>,
    /// Finished children to remove, oldest first.
    pub remove: Vec<String>,
    /// The history is full and this child, which still acts, is older than all that is kept.
    pub kept: Option<String>,
    /// Look again after this time.
    pub again: Option<Duration>,
}

/// The API's list of what a schedule starts is its own: our kinds are not in it.
fn can_start(kind: Kind) -> bool {
    kind.is_experiment() && kind.group() == GROUP
}

impl Schedule {
    /// Reads `spec`. What is started is checked as if it were an object of its own.
    pub fn read(
        mut fields: Fields<'_>,
        spec: &Value,
        metadata: &Metadata,
        findings: &mut Findings,
    ) -> Option<Self> {
        const WHEN: &str =
            "write five or six fields, for example \"*/5 * * * *\", or \"@every 30s\"";
        fields.require("schedule", WHEN, findings);
        let cron = fields.parsed::<Cron>("schedule", WHEN, findings).map(|written| written.value);
        fields.require("type", "the kind of what is started", findings);
        let written = fields.text("type", findings);
        let kind = written.and_then(Kind::find);
        match (written, kind) {
            (Some(written), None) => {
                let reason = format!("no such kind; this version starts {}", Kind::served());
                findings.invalid("spec.type", &written, reason);
            }
            (Some(written), Some(kind)) if !can_start(kind) => {
                let all = Kind::SERVED.into_iter().filter(|kind| can_start(*kind));
                let all: Vec<&str> = all.map(Kind::name).collect();
                findings.unsupported(
                    "spec.type",
                    &written,
                    format!("it starts {}", all.join(", ")),
                );
            }
            _ => {}
        }
        let is_exclusive = fields.word("concurrencyPolicy", &POLICIES, findings).unwrap_or(true);
        let most = i64::MAX.unsigned_abs();
        let seconds = fields.number("startingDeadlineSeconds", 1, most, findings);
        let history = fields.number("historyLimit", 1, most, findings).unwrap_or_default();
        let kind = kind.filter(|kind| can_start(*kind))?;
        // A block is named after its kind, with capitals of its own.
        let block = spec
            .as_object()
            .into_iter()
            .flatten()
            .find(|(key, value)| !value.is_null() && key.eq_ignore_ascii_case(kind.name()));
        let Some((block, inner)) = block else {
            let reason = format!("the block of {}, which spec.type names", kind.name());
            findings.missing("spec", reason);
            return None;
        };
        for name in fields.unread().filter(|name| name != block) {
            let message = format!("has no effect: a schedule of {} has no such field", kind.name());
            findings.warn(&fields.path(name), message);
        }
        let mut own = Findings::default();
        let experiment = experiment(kind, inner, metadata, &mut own);
        findings.adopt(own, "spec", &format!("spec.{block}"));
        Some(Self {
            metadata: metadata.clone(),
            cron: cron?,
            kind,
            experiment: experiment.map(Box::new),
            is_exclusive,
            deadline: seconds.map(Duration::from_secs),
            history: usize::try_from(history).unwrap_or(usize::MAX),
            spec: spec.clone(),
            field: block.clone(),
        })
    }

    /// `spec` of what is started, as it was written.
    #[must_use]
    pub fn block(&self) -> &Value {
        &self.spec[&self.field]
    }

    /// The object with its defaults.
    #[must_use]
    pub fn object(&self) -> Value {
        let mut spec = self.spec.clone();
        let policy = POLICIES.iter().find(|(_, value)| *value == self.is_exclusive);
        spec["concurrencyPolicy"] = json!(policy.map(|(word, _)| word));
        if let Some(experiment) = &self.experiment {
            spec[&self.field] = experiment.object()["spec"].take();
        }
        json!({
            "apiVersion": API_VERSION,
            "kind": SCHEDULE,
            "metadata": self.metadata,
            "spec": spec,
        })
    }

    /// When something is started, and what keeps it from that, as a sentence.
    #[must_use]
    pub fn describe(&self) -> String {
        let cron = self.spec["schedule"].as_str().unwrap_or_default();
        let mut out = format!("{} by \"{cron}\"", self.kind.name());
        out.push_str(if self.is_exclusive {
            ", one at a time"
        } else {
            ", whether or not an earlier one still acts"
        });
        if let Some(deadline) = self.deadline {
            out.push_str(&format!(", {} s late at most", deadline.as_secs()));
        }
        out
    }

    /// What is to be done at `now`. `last` is the moment that was last started or given up, or
    /// when the schedule was created. However long nobody looked, one start is made at most.
    #[must_use]
    pub fn turn(
        &self,
        last: Timestamp,
        children: &[Child],
        is_paused: bool,
        now: Timestamp,
    ) -> Turn {
        let mut turn =
            Turn { remove: self.outdated(children), kept: self.kept(children), ..Turn::default() };
        if is_paused {
            return turn;
        }
        let next = |after| {
            let next = self.cron.next(after)?;
            Some(Duration::try_from(next.duration_since(now)).unwrap_or_default())
        };
        let Some((due, _)) = self.cron.last(last, now) else {
            // Nothing is due: also when the clock was set back behind the last start. The next one
            // counts from the last, not from now.
            turn.again = next(last);
            return turn;
        };
        turn.again = next(now);
        let late = Duration::try_from(now.duration_since(due)).unwrap_or_default();
        let running = children.iter().find(|child| !child.is_finished);
        match running.filter(|_| self.is_exclusive) {
            _ if self.deadline.is_some_and(|most| late > most) => turn.missed = Some(due),
            Some(child) => turn.waits_for = Some(child.name.clone()),
            None => turn.start = Some(due),
        }
        turn
    }

    /// A limit that was written, and children beyond it of which the oldest cannot be removed.
    fn kept(&self, children: &[Child]) -> Option<String> {
        let surplus = children.len().checked_sub(self.history).filter(|_| self.history > 0)?;
        let mut all: Vec<&Child> = children.iter().collect();
        all.sort_by_key(|child| (child.created, child.name.clone()));
        let acting = all[..surplus].iter().find(|child| !child.is_finished)?;
        Some(acting.name.clone())
    }

    fn outdated(&self, children: &[Child]) -> Vec<String> {
        let mut finished: Vec<&Child> = children.iter().filter(|child| child.is_finished).collect();
        finished.sort_by_key(|child| (child.created, child.name.clone()));
        let surplus = finished.len().saturating_sub(self.history);
        finished[..surplus].iter().map(|child| child.name.clone()).collect()
    }
}

/// The name of the child of a moment. The same moment has the same name, so that a controller
/// that dies between starting it and noting so does not start it twice.
#[must_use]
pub fn child_name(schedule: &str, uid: &str, due: Timestamp) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let hash = seed_for(due.as_second().unsigned_abs(), uid);
    let suffix = (0..5).map(|at| char::from(LETTERS[(hash >> (at * 5) & 31) as usize]));
    // A name ends at 253 characters, and a label at 63.
    let start: String = schedule.chars().take(240).collect();
    format!("{start}-{}", suffix.collect::<String>())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn read(more: &Value) -> Result<Schedule, Vec<String>> {
        let mut spec = json!({
            "schedule": "@every 60s",
            "type": Kind::Pod.name(),
            "podChaos": { "action": "pod-kill", "mode": "one", "selector": {} },
        });
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let (mut findings, metadata) = (Findings::default(), Metadata::default());
        let fields = Fields::of(&spec, "spec", &mut findings).unwrap();
        let schedule = Schedule::read(fields, &spec, &metadata, &mut findings);
        let errors: Vec<String> = findings.errors.iter().map(ToString::to_string).collect();
        schedule.filter(|_| errors.is_empty()).ok_or(errors)
    }

    fn child(name: &str, created: i64, is_finished: bool) -> Child {
        Child { name: name.to_owned(), created: at(created), is_finished }
    }

    #[test]
    fn a_moment_that_is_due_starts_once() {
        let schedule = read(&json!({})).unwrap();
        let early = schedule.turn(at(0), &[], false, at(59));
        assert_eq!((early.start, early.again), (None, Some(Duration::from_secs(1))));
        let due = schedule.turn(at(0), &[], false, at(60));
        assert_eq!(due.start, Some(at(60)));
        let noted = schedule.turn(at(60), &[], false, at(60));
        assert_eq!((noted.start, noted.again), (None, Some(Duration::from_secs(60))));
    }

    #[test]
    fn thousands_of_missed_moments_are_one_start() {
        let schedule = read(&json!({ "schedule": "* * * * * *" })).unwrap();
        let turn = schedule.turn(at(0), &[], false, at(1_000_000));
        assert_eq!(turn.start, Some(at(1_000_000)));
    }

    #[test]
    fn a_clock_that_is_set_back_starts_nothing_twice() {
        let schedule = read(&json!({})).unwrap();
        let turn = schedule.turn(at(3600), &[], false, at(1800));
        assert_eq!((turn.start, turn.missed), (None, None));
        assert!(turn.again.is_some());
    }

    #[test]
    fn a_child_that_still_acts_keeps_the_next_one_waiting() {
        let running = [child("a", 0, false)];
        let turn = read(&json!({})).unwrap().turn(at(0), &running, false, at(61));
        assert_eq!((turn.start, turn.waits_for.as_deref()), (None, Some("a")));
        let allow = read(&json!({ "concurrencyPolicy": "Allow" })).unwrap();
        assert_eq!(allow.turn(at(0), &running, false, at(61)).start, Some(at(60)));
    }

    #[test]
    fn what_is_too_late_is_given_up() {
        let schedule = read(&json!({ "startingDeadlineSeconds": 10 })).unwrap();
        assert_eq!(schedule.turn(at(0), &[], false, at(70)).start, Some(at(60)));
        let late = schedule.turn(at(0), &[], false, at(71));
        assert_eq!((late.start, late.missed), (None, Some(at(60))));
    }

    #[test]
    fn finished_children_beyond_the_limit_go_oldest_first() {
        let children = [
            child("new", 3, true),
            child("old", 1, true),
            child("acts", 0, false),
            child("middle", 2, true),
        ];
        let keep = |limit: &Value| {
            let schedule = read(limit).unwrap();
            schedule.turn(at(0), &children, true, at(9)).remove
        };
        assert_eq!(keep(&json!({ "historyLimit": 1 })), ["old", "middle"]);
        assert_eq!(keep(&json!({})), ["old", "middle", "new"]);
    }

    #[test]
    fn a_child_that_outlives_the_history_is_told_of_and_stays() {
        let schedule = read(&json!({ "historyLimit": 1, "concurrencyPolicy": "Allow" })).unwrap();
        let children = [child("acts", 0, false), child("old", 1, true), child("new", 2, true)];
        let turn = schedule.turn(at(2), &children, false, at(9));
        assert_eq!((turn.kept.as_deref(), turn.remove), (Some("acts"), vec!["old".to_owned()]));
        let few = schedule.turn(at(2), &children[..1], false, at(9));
        assert_eq!(few.kept, None);
        let without = read(&json!({})).unwrap().turn(at(2), &children, false, at(9));
        assert_eq!(without.kept, None, "no limit was written");
    }

    #[test]
    fn a_schedule_that_is_not_right_says_what() {
        for (more, field) in [
            (json!({ "schedule": "* *" }), "Spec.Schedule: Invalid"),
            (json!({ "type": "Nothing" }), "Spec.Type: Invalid"),
            (json!({ "podChaos": null }), "Spec: Required"),
            (json!({ "startingDeadlineSeconds": 0 }), "Spec.StartingDeadlineSeconds: Invalid"),
            (json!({ "concurrencyPolicy": "Replace" }), "Spec.ConcurrencyPolicy: Invalid"),
            (json!({ "podChaos": { "action": "x" } }), "Spec.PodChaos."),
        ] {
            let errors = read(&more).unwrap_err();
            assert!(errors[0].starts_with(field), "{errors:?}");
        }
    }

    #[test]
    fn a_moments_child_has_one_name() {
        assert_eq!(child_name("s", "u", at(1)), child_name("s", "u", at(1)));
        assert_ne!(child_name("s", "u", at(1)), child_name("s", "u", at(2)));
        assert!(child_name(&"x".repeat(253), "u", at(1)).len() <= 253);
    }
}
