//! What the API's events tell people about an experiment or a schedule: reason, sentence, and the
//! same once more as fields, for programs.

use jiff::Timestamp;

/// Annotations of events start like this.
const PREFIX: &str = "chaos-mesh.org/";

/// One thing that has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which part of the controller speaks, as the API names it.
    pub component: &'static str,
    /// What has happened.
    pub what: What,
}

/// What has happened, as far as experiments and schedules go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The object got its finalizer.
    FinalizerInited,
    /// The object lost its finalizer.
    FinalizerRemoved,
    /// The experiment is to act.
    Started,
    /// The experiment is not to act while it is paused.
    Paused,
    /// The experiment has acted for as long as it was to.
    TimeUp,
    /// The experiment is being deleted.
    Deleted,
    /// A part of the object was written.
    Updated(&'static str),
    /// The fault acts on the target with this id.
    Applied(String),
    /// The fault acts no more on the target with this id.
    Recovered(String),
    /// Something was tried in vain.
    Failed {
        /// What, beginning with a verb.
        activity: String,
        /// Why.
        err: String,
    },
    /// Something cannot be had from this version.
    NotSupported(String),
    /// A schedule has started the object of this name.
    Spawned(String),
    /// A start is forbidden while the object of this name acts.
    Forbid(String),
    /// A start was missed for good.
    Missed(Timestamp),
    /// The object of this name is kept although the history is full: it still acts.
    Skip(String),
}

impl Event {
    /// That `component` has written a part of the object.
    #[must_use]
    pub fn updated(component: &'static str, field: &'static str) -> Self {
        Self { component, what: What::Updated(field) }
    }

    /// That something was tried in vain.
    #[must_use]
    pub fn failed(
        component: &'static str,
        activity: impl Into<String>,
        err: impl Into<String>,
    ) -> Self {
        let what = What::Failed { activity: activity.into(), err: err.into() };
        Self { component, what }
    }

    /// The API's word for it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self.what {
            // One reason for both, as the API has it.
            What::FinalizerInited | What::FinalizerRemoved => "FinalizerInited",
            What::Started => "Started",
            What::Paused => "Paused",
            What::TimeUp => "TimeUp",
            What::Deleted => "Deleted",
            What::Updated(_) => "Updated",
            What::Applied(_) => "Applied",
            What::Recovered(_) => "Recovered",
            What::Failed { .. } => "Failed",
            What::NotSupported(_) => "NotSupported",
            What::Spawned(_) => "Spawned",
            What::Forbid(_) => "Forbid",
            What::Missed(_) => "MissSchedule",
            What::Skip(_) => "Skip",
        }
    }

    /// It asks for somebody's attention.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        matches!(
            self.what,
            What::Failed { .. }
                | What::NotSupported(_)
                | What::Forbid(_)
                | What::Missed(_)
                | What::Skip(_)
        )
    }

    /// One sentence.
    #[must_use]
    pub fn message(&self) -> String {
        match &self.what {
            What::FinalizerInited => "Finalizer has been inited".to_owned(),
            What::FinalizerRemoved => "Finalizer has been removed".to_owned(),
            What::Started => "Experiment has started".to_owned(),
            What::Paused => "Experiment has been paused".to_owned(),
            What::TimeUp => "Time up according to the duration".to_owned(),
            What::Deleted => "Experiment has been deleted".to_owned(),
            What::Updated(field) => format!("Successfully update {field} of resource"),
            What::Applied(id) => format!("Successfully apply chaos for {id}"),
            What::Recovered(id) => format!("Successfully recover chaos for {id}"),
            What::Failed { activity, err } => format!("Failed to {activity}: {err}"),
            What::NotSupported(activity) => format!("{activity} is not supported"),
            What::Spawned(name) => format!("Create new object: {name}"),
            What::Forbid(name) => {
                format!("Forbid spawning new job because: {name} is still running")
            }
            What::Missed(due) => {
                let due = due.strftime("%a, %d %b %Y %H:%M:%S +0000");
                format!("Missed scheduled time to start a job: {due}")
            }
            What::Skip(name) => format!("Skip removing history: {name} is still running"),
        }
    }

    /// Its type and its fields, as annotations.
    #[must_use]
    pub fn annotations(&self) -> Vec<(String, String)> {
        let (kind, fields): (_, Vec<(&str, String)>) = match &self.what {
            What::FinalizerInited => ("finalizer-inited", vec![]),
            What::FinalizerRemoved => ("finalizer-removed", vec![]),
            What::Started => ("started", vec![]),
            What::Paused => ("paused", vec![]),
            What::TimeUp => ("time-up", vec![]),
            What::Deleted => ("deleted", vec![]),
            What::Updated(field) => ("updated", vec![("field", (*field).to_owned())]),
            What::Applied(id) => ("applied", vec![("id", id.clone())]),
            What::Recovered(id) => ("recovered", vec![("id", id.clone())]),
            What::Failed { activity, err } => {
                ("failed", vec![("activity", activity.clone()), ("err", err.clone())])
            }
            What::NotSupported(activity) => ("not-supported", vec![("activity", activity.clone())]),
            What::Spawned(name) => ("schedule-spawn", vec![("name", name.clone())]),
            What::Forbid(name) => ("schedule-forbid", vec![("running-name", name.clone())]),
            What::Missed(due) => ("missed-schedule", vec![("missed-run", due.to_string())]),
            What::Skip(name) => {
                ("schedule-skip-remove-history", vec![("running-name", name.clone())])
            }
        };
        std::iter::once(("type", kind.to_owned()))
            .chain(fields)
            .map(|(key, value)| (format!("{PREFIX}{key}"), value))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(what: What) -> Event {
        Event { component: "records", what }
    }

    #[test]
    fn an_event_says_the_same_in_words_and_in_fields() {
        let due: Timestamp = "2026-05-19T18:36:06Z".parse().unwrap();
        for (what, reason, message, fields) in [
            (
                What::Updated("records"),
                "Updated",
                "Successfully update records of resource",
                &[("type", "updated"), ("field", "records")][..],
            ),
            (
                What::Applied("n/p".to_owned()),
                "Applied",
                "Successfully apply chaos for n/p",
                &[("type", "applied"), ("id", "n/p")],
            ),
            (
                What::Missed(due),
                "MissSchedule",
                "Missed scheduled time to start a job: Tue, 19 May 2026 18:36:06 +0000",
                &[("type", "missed-schedule"), ("missed-run", "2026-05-19T18:36:06Z")],
            ),
            (
                What::FinalizerRemoved,
                "FinalizerInited",
                "Finalizer has been removed",
                &[("type", "finalizer-removed")],
            ),
        ] {
            let event = event(what);
            assert_eq!((event.reason(), event.message().as_str()), (reason, message));
            let wanted: Vec<(String, String)> = fields
                .iter()
                .map(|(key, value)| (format!("chaos-mesh.org/{key}"), (*value).to_owned()))
                .collect();
            assert_eq!(event.annotations(), wanted);
        }
    }

    #[test]
    fn what_went_wrong_is_a_warning() {
        let failed = Event::failed("records", "select targets", "no pod is selected");
        assert!(failed.is_warning());
        assert_eq!(failed.message(), "Failed to select targets: no pod is selected");
        assert!(event(What::Skip("a".to_owned())).is_warning());
        assert!(!event(What::Started).is_warning() && !event(What::TimeUp).is_warning());
    }
}
