//! From the files and flags of `kfault run` to one plan: everything is read and checked before
//! anything is refused, and everything is refused before anything is touched.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::args::Run;
use super::exit::{Exit, Stop};
use super::workloads::Workloads;
use crate::fault::{self, Experiment, LoadError, LowerError, Options, Refusal};
use crate::plan::Plan;

/// A plan that may be applied.
pub struct Composed {
    /// The plan.
    pub plan: Plan,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Makes the plan of a run.
pub fn compose(args: &Run, seed: u64) -> Result<Composed, Stop> {
    let mut problems = Vec::new();
    let experiments = experiments(args, &mut problems);
    let workloads = match Workloads::find(args) {
        Ok(workloads) => Some(workloads),
        Err(stop) => {
            problems.push(stop);
            None
        }
    };
    let Some(workloads) = workloads.filter(|_| problems.is_empty()) else {
        return Err(Stop::all(problems));
    };
    // The flag can only shorten: it is applied to the plan below.
    let options = Options { seed, dry_run: args.dry_run, ..Options::default() };
    let fault::Composed { mut plan, warnings } =
        fault::compose(&experiments, &workloads.targets, &workloads.peers, &options)
            .map_err(|refusal| refused(&refusal))?;
    if let Some(most) = args.duration {
        plan.shorten(most);
    }
    workloads.check(&plan)?;
    Ok(Composed { plan, warnings: [warnings, workloads.warnings].concat() })
}

fn experiments(args: &Run, problems: &mut Vec<Stop>) -> Vec<Experiment> {
    let (inputs, unread) = inputs(&args.files);
    if !unread.is_empty() {
        problems.push(refused(&Refusal { load: unread, ..Refusal::default() }));
    }
    if inputs.is_empty() {
        return Vec::new();
    }
    let experiments = match fault::load(&inputs) {
        Ok(experiments) => experiments,
        Err(refusal) => {
            problems.push(refused(&refusal));
            return Vec::new();
        }
    };
    // Lowering would say so too, but only after every other problem is gone.
    if args.peers.is_empty() {
        for experiment in experiments.iter().filter(|experiment| experiment.target().is_some()) {
            let error = LowerError::NoPeers { experiment: experiment.id() };
            problems.push(Stop::one(Exit::Refused, error.to_string()));
        }
    }
    experiments
}

fn refused(refusal: &Refusal) -> Stop {
    let exit = if refusal.exit_code() == 3 { Exit::Unable } else { Exit::Refused };
    Stop { exit, messages: refusal.messages() }
}

/// The texts of all files, by name, and the files that cannot be read.
pub(super) fn inputs(files: &[PathBuf]) -> (Vec<(String, String)>, Vec<LoadError>) {
    let (mut texts, mut unread) = (Vec::new(), Vec::new());
    for file in files {
        let name = file.display().to_string();
        match text(file) {
            Ok(text) => texts.push((name, text)),
            Err(error) => unread.push(LoadError::File { file: name, reason: error.to_string() }),
        }
    }
    (texts, unread)
}

fn text(file: &Path) -> std::io::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(file)
}
