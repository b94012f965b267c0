//! Experiments that come again and again: what to start, to remove and to wait for, as a function
//! of the schedule, its children and the clock.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::api::cron::Cron;
use crate::api::kind::Kind;
use crate::select::seed_for;

/// `spec` of a schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// When.
    pub cron: Cron,
    /// The kind of what is started.
    pub kind: Kind,
    /// Its `spec`, as it was written.
    pub block: Value,
    /// A start waits until everything that was started before has ended.
    pub is_exclusive: bool,
    /// A start that was missed by more than this is given up.
    pub deadline: Option<Duration>,
    /// How many finished children are kept.
    pub history: usize,
}

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
    /// Look again after this time.
    pub again: Option<Duration>,
}

impl Schedule {
    /// Reads `spec`.
    ///
    /// # Errors
    /// One sentence per field that is not right.
    pub fn read(spec: &Value) -> Result<Self, Vec<String>> {
        let mut errors = Vec::new();
        let text = |name: &str| spec[name].as_str().unwrap_or_default();
        let cron = text("schedule").parse::<Cron>();
        if let Err(error) = &cron {
            let written = text("schedule");
            errors.push(format!("spec.schedule: Invalid value: \"{written}\": {error}"));
        }
        let kind = Kind::find(text("type")).filter(|kind| kind.is_experiment());
        if kind.is_none() {
            let allowed = Kind::served();
            let reason = format!("this version starts {allowed}");
            errors.push(format!("spec.type: Invalid value: \"{}\": {reason}", text("type")));
        }
        // A block is named after its kind, with capitals of its own.
        let block = spec.as_object().into_iter().flatten().find(|(key, value)| {
            !value.is_null() && kind.is_some_and(|kind| key.eq_ignore_ascii_case(kind.name()))
        });
        if let (Some(kind), None) = (kind, block) {
            let name = kind.name();
            errors
                .push(format!("spec: Required value: the block of {name}, which spec.type names"));
        }
        let seconds = match spec["startingDeadlineSeconds"].as_i64() {
            Some(seconds) if seconds <= 0 => {
                errors.push(format!(
                    "spec.startingDeadlineSeconds: Invalid value: {seconds}: must be above zero"
                ));
                None
            }
            seconds => seconds.and_then(|seconds| u64::try_from(seconds).ok()),
        };
        match (cron, kind, block) {
            (Ok(cron), Some(kind), Some((_, block))) if errors.is_empty() => Ok(Self {
                cron,
                kind,
                block: block.clone(),
                is_exclusive: text("concurrencyPolicy") != "Allow",
                deadline: seconds.map(Duration::from_secs),
                history: spec["historyLimit"].as_u64().map_or(0, |n| n as usize),
            }),
            _ => Err(errors),
        }
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
        let mut turn = Turn { remove: self.outdated(children), ..Turn::default() };
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
            "schedule": "@every 60s", "type": Kind::Pod.name(), "podChaos": { "action": "pod-kill" },
        });
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        Schedule::read(&spec)
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
    fn a_schedule_that_is_not_right_says_what() {
        for (more, field) in [
            (json!({ "schedule": "* *" }), "spec.schedule"),
            (json!({ "type": "Nothing" }), "spec.type"),
            (json!({ "podChaos": null }), "spec: Required"),
            (json!({ "startingDeadlineSeconds": 0 }), "spec.startingDeadlineSeconds"),
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
