//! `kfault explain`: what a manifest means, and what `kfault run` would do with it. Touches
//! nothing, needs no root.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::args::{self, Output};
use super::compose::inputs;
use super::exit::Exit;
use super::say;
use crate::api::duration::GoDuration;
use crate::api::finding::Warning;
use crate::fault::{
    Choice, Experiment, LoadError, LowerError, Lowered, Options, Parsed, Refusal, load, lower,
    parse,
};
use crate::plan::{Plan, Rule};
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
    ends: Vec<(&'static str, String)>,
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

fn explain_one(parsed: Parsed) -> Explained {
    let Parsed { place, kind, namespace, name, experiment, errors, warnings } = parsed;
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
    let Some(experiment) = experiment else { return explained };
    explained.ends = ends(&experiment);
    explained.object = Some(experiment.object());
    match without_host(&experiment) {
        Ok(Lowered { rules, warnings }) => {
            explained.accepted = true;
            explained.warnings.extend(warnings);
            explained.plan = Some(Plan { rules });
        }
        Err(error) => explained.errors.push(Problem::from(&error)),
    }
    explained
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
    out.push((
        "lasts",
        match experiment.duration() {
            None => "until it is recovered".to_owned(),
            Some(duration) => GoDuration::from(duration).to_string(),
        },
    ));
    out
}

/// How the command ends: refused when anything is, unable when something is right but not
/// supported by this version.
#[must_use]
pub fn exit(explained: &[Explained]) -> Exit {
    let mut errors = explained.iter().flat_map(|one| &one.errors).peekable();
    if errors.peek().is_none() {
        Exit::Done
    } else if errors.all(|error| error.unsupported) {
        Exit::Unable
    } else {
        Exit::Refused
    }
}

/// One document as text for people.
#[must_use]
pub fn text(explained: &Explained) -> String {
    let Explained {
        file,
        index,
        kind,
        namespace,
        name,
        accepted,
        errors,
        warnings,
        object,
        plan,
        ends,
    } = explained;
    let mut out = String::new();
    let what = [kind, namespace, name].into_iter().flatten().map(String::as_str);
    let what = what.collect::<Vec<_>>().join("/");
    let verdict = match (accepted, errors.iter().all(|error| error.unsupported)) {
        (true, _) => "accepted",
        (false, true) => "not supported by this version",
        (false, false) => "refused",
    };
    let what = if what.is_empty() { String::new() } else { format!("{what}: ") };
    let _ = writeln!(out, "{what}{verdict}   ({file}, document {index})");
    for Problem { message, .. } in errors {
        row(&mut out, "error", message);
    }
    for warning in warnings {
        row(&mut out, "warning", &warning.to_string());
    }
    for (label, end) in ends {
        row(&mut out, label, end);
    }
    if let Some(Plan { rules }) = plan {
        if rules.is_empty() {
            row(&mut out, "plan", "nothing happens");
        }
        for Rule { describes, .. } in rules {
            row(&mut out, "plan", describes);
        }
    }
    if let Some(yaml) = object.as_ref().and_then(|object| serde_norway::to_string(object).ok()) {
        let _ = writeln!(out, "  object, with its defaults:");
        for line in yaml.lines() {
            let _ = writeln!(out, "    {line}");
        }
    }
    out
}

fn row(out: &mut String, label: &str, text: &str) {
    let _ = writeln!(out, "  {label:<9}{text}");
}

/// Runs the command.
pub(super) fn run(args: &args::Explain) -> Exit {
    let args::Explain { files, output } = args;
    let (inputs, unread) = inputs(files);
    // A file that cannot be read does not hide what is wrong with the others.
    let all_read = unread.is_empty();
    if !all_read {
        complain(&Refusal { load: unread, ..Refusal::default() });
    }
    let all = explain(&inputs);
    if all.is_empty() && !inputs.is_empty() {
        return load(&inputs).map_or_else(|refusal| complain(&refusal), |_| Exit::Done);
    }
    for (i, one) in all.iter().enumerate() {
        match output {
            Output::Json => match serde_json::to_string(one) {
                Ok(line) => say(&line),
                Err(error) => {
                    super::complain(&format!("cannot write JSON: {error}"));
                    return Exit::Failed;
                }
            },
            Output::Text => {
                if i > 0 {
                    say("");
                }
                say(text(one).trim_end());
            }
        }
    }
    if all_read { exit(&all) } else { Exit::Refused }
}

/// Says why nothing is explained.
fn complain(refusal: &Refusal) -> Exit {
    for message in refusal.messages() {
        super::complain(&message);
    }
    if refusal.exit_code() == 3 { Exit::Unable } else { Exit::Refused }
}
