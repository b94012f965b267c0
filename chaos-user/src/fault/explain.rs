//! What a manifest means: errors, warnings, the object with its defaults and its plan. The one
//! function behind `kfault explain` and the cluster's admission.

use serde::Serialize;
use serde_json::Value;

use super::schedule::Schedule;
use super::{
    Choice, Experiment, Fault, LoadError, LowerError, Lowered, Options, Parsed, lower, parse,
    parse_object,
};
use crate::api::duration::GoDuration;
use crate::api::finding::Warning;
use crate::plan::Plan;
use crate::select::Workload;

/// Names of the unbound workloads of a plan that was made without a host.
const SOURCE: &str = "spec.selector";
const TARGET: &str = "spec.target.selector";

/// What there is to say about one document.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explained {
    /// The file, as the user named it.
    pub file: String,
    /// Number of the document in its file, from 0.
    pub index: usize,
    /// Its kind, where it names one.
    pub kind: Option<String>,
    /// Its namespace, where it could be read.
    pub namespace: Option<String>,
    /// Its name, where it could be read.
    pub name: Option<String>,
    /// True when `kfault run` would take it.
    pub accepted: bool,
    /// Why it would not.
    pub errors: Vec<Problem>,
    /// What of it does not do what it seems to.
    pub warnings: Vec<Warning>,
    /// The object with its defaults; `null` when it is refused.
    pub object: Option<Value>,
    /// What would act; `null` when it is refused.
    pub plan: Option<Plan>,
    /// For people: who is hit, and the other end.
    #[serde(skip)]
    pub ends: Vec<(&'static str, String)>,
}

/// An error of one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Path of the field, as in the manifest. Empty: the whole document.
    pub field: String,
    /// What is wrong, what is allowed, what to do.
    pub message: String,
    /// True when the manifest is right and only this version cannot do it.
    pub unsupported: bool,
}

impl From<&LoadError> for Problem {
    fn from(error: &LoadError) -> Self {
        let message = match error {
            // The place and the object stand beside it.
            LoadError::Field { error, .. } => error.to_string(),
            error => error.to_string(),
        };
        let (field, unsupported) = (error.field().to_owned(), error.is_unsupported());
        Self { field, message, unsupported }
    }
}

impl From<&LowerError> for Problem {
    fn from(error: &LowerError) -> Self {
        let (message, unsupported) = (error.to_string(), error.is_unsupported());
        Self { field: String::new(), message, unsupported }
    }
}

/// Explains every document of every input (file name, text).
#[must_use]
pub fn explain(inputs: &[(String, String)]) -> Vec<Explained> {
    parse(inputs).into_iter().map(explain_one).collect()
}

/// Explains one object that came from elsewhere than a file; `origin` says where from.
#[must_use]
pub fn explain_object(origin: &str, value: Value) -> Explained {
    explain_one(parse_object(origin, value))
}

fn explain_one(parsed: Parsed) -> Explained {
    let Parsed { place, kind, namespace, name, experiment, schedule, errors, warnings } = parsed;
    let mut explained = Explained {
        file: place.file,
        index: place.index,
        kind,
        namespace,
        name,
        accepted: false,
        errors: errors.iter().map(Problem::from).collect(),
        warnings,
        object: None,
        plan: None,
        ends: Vec::new(),
    };
    if let Some(experiment) = experiment {
        explained.object = Some(experiment.object());
        explained.take(&experiment, |warning| warning);
    }
    if let Some(schedule) = schedule {
        explained.object = Some(schedule.object());
        explained.ends.push(("starts", schedule.describe()));
        if let Some(experiment) = &schedule.experiment {
            explained.take(experiment, |warning| within(&schedule, warning));
        }
    }
    explained
}

impl Explained {
    /// What an experiment does, as far as no host is needed to say so.
    fn take(&mut self, experiment: &Experiment, place: impl Fn(Warning) -> Warning) {
        self.ends.extend(ends(experiment));
        match without_host(experiment) {
            Ok(Lowered { rules, strains, exchanges, warnings }) => {
                self.accepted = true;
                self.warnings.extend(warnings.into_iter().map(place));
                // What pods do in a cluster is no rule on a host.
                let plan = Plan { rules, strains, exchanges };
                self.plan = (!matches!(experiment.fault, Fault::Pod(_))).then_some(plan);
            }
            Err(error) => self.errors.push(Problem::from(&error)),
        }
    }
}

/// A warning of what a schedule starts, at its place in the schedule.
fn within(schedule: &Schedule, warning: Warning) -> Warning {
    let Warning { field, message } = warning;
    let field = match field.strip_prefix("spec") {
        Some(rest) => format!("spec.{}{rest}", schedule.field),
        None => field,
    };
    Warning { field, message }
}

/// Lowers an experiment on unbound workloads, with seed 0.
fn without_host(experiment: &Experiment) -> Result<Lowered, LowerError> {
    let source = [Workload::unbound(SOURCE)];
    let target = [Workload::unbound(TARGET)];
    let peers = experiment.target().map(|_| &target[..]);
    lower(experiment, &source, peers, &Options::default())
}

fn ends(experiment: &Experiment) -> Vec<(&'static str, String)> {
    let choice = |choice: &Choice, flag: &str| {
        let fields = choice.mode.fields();
        let value = fields.value.map_or(String::new(), |value| format!(" {value}"));
        format!(
            "{}{value} of the {} ({flag} on a host without a cluster)",
            fields.mode, choice.selector
        )
    };
    let mut out = vec![("sources", choice(experiment.source(), "--target"))];
    if let Some(target) = experiment.target() {
        out.push(("target", choice(target, "--peer")));
    }
    if let Fault::Pod(spec) = &experiment.fault {
        out.push(("does", format!("{} (in a cluster only)", spec.describe())));
    }
    if let Fault::Stress(spec) = &experiment.fault
        && spec.load.memory.is_some()
    {
        let what = "where it runs out, the kernel kills: on cgroup v2 with memory.oom.group, as \
                    kubelets set it, the whole container; else one process, which is most likely a \
                    worker (it is started again)";
        out.push(("memory", what.to_owned()));
    }
    out.push((
        "lasts",
        match experiment.duration() {
            None => "until it is recovered".to_owned(),
            Some(duration) => GoDuration::from(duration).to_string(),
        },
    ));
    out
}
