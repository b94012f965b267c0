//! `kfault explain`: what a manifest means, and what `kfault run` would do with it. Touches
//! nothing, needs no root.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use crate::api::finding::Warning;
use crate::fault::{
    Experiment, LoadError, LowerError, Lowered, Options, Parsed, Refusal, load, lower, parse,
};
use crate::plan::{Plan, Rule};
use crate::select::Workload;

/// Names of the placeholders in a plan that was made without a host.
const SOURCE: &str = "spec.selector";
const TARGET: &str = "spec.target.selector";

/// `kfault explain`
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// Manifests, each with one or more experiments; `-` is stdin
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// For whom the output is
    #[arg(long, value_enum, default_value_t)]
    pub output: ExplainOutput,
}

/// For whom the output is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ExplainOutput {
    /// For people
    #[default]
    Text,
    /// One JSON object per line and document
    Json,
}

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

/// Lowers an experiment on placeholders, with seed 0.
fn without_host(experiment: &Experiment) -> Result<Lowered, LowerError> {
    let source = [Workload::placeholder(SOURCE)];
    let target = [Workload::placeholder(TARGET)];
    let peers = experiment.target().map(|_| &target[..]);
    lower(experiment, &source, peers, &Options::default())
}

fn ends(experiment: &Experiment) -> Vec<(&'static str, String)> {
    let choice = |choice: &crate::fault::Choice, flag: &str| {
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
            Some(duration) => crate::api::duration::GoDuration::from(duration).to_string(),
        },
    ));
    out
}

/// The exit code: 0 all accepted, 2 something refused, 3 nothing refused but something not
/// supported by this version. No document at all is refused.
#[must_use]
pub fn exit_code(explained: &[Explained]) -> u8 {
    let mut errors = explained.iter().flat_map(|one| &one.errors).peekable();
    if explained.is_empty() {
        2
    } else if errors.peek().is_none() {
        0
    } else if errors.all(|error| error.unsupported) {
        3
    } else {
        2
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

/// Reads the files that a command line names; `-` is standard input.
///
/// # Errors
/// [`Refusal`] with every file that cannot be read.
pub fn read_inputs(files: &[PathBuf]) -> Result<Vec<(String, String)>, Refusal> {
    let (mut inputs, mut load) = (Vec::new(), Vec::new());
    for path in files {
        let file = path.display().to_string();
        let text = if file == "-" {
            let mut text = String::new();
            std::io::stdin().lock().read_to_string(&mut text).map(|_| text)
        } else {
            std::fs::read_to_string(path)
        };
        match text {
            Ok(text) => inputs.push((file, text)),
            Err(error) => load.push(LoadError::File { file, reason: error.to_string() }),
        }
    }
    if load.is_empty() { Ok(inputs) } else { Err(Refusal { load, compose: Vec::new() }) }
}

/// The experiments of the files that a command line names, or every reason why there are none.
///
/// # Errors
/// [`Refusal`]: nothing may be applied then.
pub fn load_experiments(files: &[PathBuf]) -> Result<Vec<Experiment>, Refusal> {
    load(&read_inputs(files)?)
}

/// Runs the command.
///
/// # Errors
/// When standard output cannot be written.
pub fn main(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let ExplainArgs { files, output } = args;
    let inputs = match read_inputs(files) {
        Ok(inputs) => inputs,
        Err(refusal) => return Ok(complain(&refusal)),
    };
    let all = explain(&inputs);
    if all.is_empty() {
        if let Err(refusal) = load(&inputs) {
            return Ok(complain(&refusal));
        }
    }
    let mut stdout = std::io::stdout().lock();
    for (i, one) in all.iter().enumerate() {
        match output {
            ExplainOutput::Json => writeln!(stdout, "{}", serde_json::to_string(one)?)?,
            ExplainOutput::Text if i == 0 => write!(stdout, "{}", text(one))?,
            ExplainOutput::Text => write!(stdout, "\n{}", text(one))?,
        }
    }
    Ok(ExitCode::from(exit_code(&all)))
}

/// Says why nothing is explained.
fn complain(refusal: &Refusal) -> ExitCode {
    for message in refusal.messages() {
        // A reader that has gone away is no error.
        let _ = writeln!(std::io::stderr().lock(), "kfault: {message}");
    }
    ExitCode::from(refusal.exit_code())
}
