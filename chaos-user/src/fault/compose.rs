//! Several experiments on the workloads of one host: one plan.

use thiserror::Error;

use super::{Experiment, LowerError, Lowered, Options, Refusal, lower};
use crate::plan::Plan;
use crate::select::{SelectError, Workload, seed_for, select};

/// A plan and what is to be said about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Composed {
    /// The plan.
    pub plan: Plan,
    /// Warnings of all experiments, each with its experiment's name in front.
    pub warnings: Vec<String>,
}

/// Why an experiment cannot act on the workloads that were bound to it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ComposeError {
    /// Nothing to choose the sources or the other end from.
    #[error(
        "{experiment}: {field}: {error}; bind one that exists with {flag}, for example {flag} netns:NAME"
    )]
    Select {
        /// The experiment.
        experiment: String,
        /// The selector.
        field: &'static str,
        /// The flag that binds it.
        flag: &'static str,
        /// What is wrong.
        error: SelectError,
    },
    /// What was chosen cannot be acted on.
    #[error(transparent)]
    Lower(#[from] LowerError),
}

impl ComposeError {
    /// True when the manifest is right and this host or version cannot do it.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        match self {
            Self::Select { .. } => false,
            Self::Lower(error) => error.is_unsupported(),
        }
    }
}

/// Chooses among `targets` (and `peers`, for experiments with a `target`) for each experiment and
/// lowers it. Workloads are chosen for each experiment on its own.
///
/// # Errors
/// [`Refusal`] with every problem of every experiment.
pub fn compose(
    experiments: &[Experiment],
    targets: &[Workload],
    peers: &[Workload],
    options: &Options,
) -> Result<Composed, Refusal> {
    let mut composed = Composed::default();
    let mut refusal = Refusal::default();
    for experiment in experiments {
        let id = experiment.id();
        let mut warnings = experiment.warnings.clone();
        match choose_and_lower(experiment, targets, peers, options) {
            Ok(Lowered { rules, strains, exchanges, warnings: more }) => {
                composed.plan.rules.extend(rules);
                composed.plan.strains.extend(strains);
                composed.plan.exchanges.extend(exchanges);
                warnings.extend(more);
            }
            Err(error) => refusal.compose.push(error),
        }
        composed.warnings.extend(warnings.iter().map(|warning| format!("{id}: {warning}")));
    }
    if !peers.is_empty() && experiments.iter().all(|experiment| experiment.target().is_none()) {
        let message = "--peer has no effect: no experiment has a spec.target";
        composed.warnings.push(message.to_owned());
    }
    composed.plan.sort();
    if refusal == Refusal::default() { Ok(composed) } else { Err(refusal) }
}

fn choose_and_lower(
    experiment: &Experiment,
    targets: &[Workload],
    peers: &[Workload],
    options: &Options,
) -> Result<Lowered, ComposeError> {
    let id = experiment.id();
    let seed = |key: &str| seed_for(options.seed, &format!("{id}{key}"));
    let failed = |field, flag| {
        let experiment = id.clone();
        move |error| ComposeError::Select { experiment, field, flag, error }
    };
    // The keys are those of the API's records: `.` for sources, `.Target` for the other end.
    let sources = select(experiment.source().mode, targets, seed("."))
        .map_err(failed("spec.selector", "--target"))?;
    let peers = match experiment.target() {
        Some(_) if peers.is_empty() => None,
        Some(choice) => Some(
            select(choice.mode, peers, seed(".Target"))
                .map_err(failed("spec.target.selector", "--peer"))?,
        ),
        None => None,
    };
    Ok(lower(experiment, &sources, peers.as_deref(), options)?)
}
