//! `kfault explain`: what a manifest means, and what `kfault run` would do with it. Touches
//! nothing, needs no root.

use std::fmt::Write as _;

use super::args::{self, Output};
use super::compose::inputs;
use super::exit::Exit;
use super::say;
use crate::fault::explain::Problem;
pub use crate::fault::explain::{Explained, explain};
use crate::fault::{Refusal, load};

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
    if let Some(plan) = plan {
        if plan.is_empty() {
            row(&mut out, "plan", "nothing happens");
        }
        for describes in plan.sentences() {
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
