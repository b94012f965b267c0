//! `kfault run`: manifests and workloads in, a recovered host out.

use std::hash::{BuildHasher, Hasher, RandomState};

use super::args::{Output, Run};
use super::compose::{self, Composed};
use super::events::Events;
use super::exit::{Exit, Stop};
use super::report::Reporter;
use super::session::{release_signals, session};
use super::state::State;

/// Runs the command.
pub fn run(args: &Run) -> Exit {
    let seed = args.seed.unwrap_or_else(random_seed);
    let events = Events { seed, dry_run: args.dry_run };
    let mut reporter = match Reporter::start(args.output, events) {
        Ok(reporter) => reporter,
        Err(error) => {
            super::complain(&format!("cannot start a thread: {error}"));
            return Exit::Failed;
        }
    };
    let mut state = None;
    let exit = match prepare_and_run(args, seed, &mut state, &mut reporter) {
        Ok(exit) => exit,
        Err(stop) => {
            reporter.failed(&stop);
            stop.exit
        }
    };
    // Everything is recovered; whoever interrupts now wants the process to be gone.
    release_signals();
    reporter.finish(state.as_ref(), exit);
    exit
}

fn prepare_and_run(
    args: &Run,
    seed: u64,
    state: &mut Option<State>,
    reporter: &mut Reporter,
) -> Result<Exit, Stop> {
    let Composed { plan, warnings } = compose::compose(args, seed)?;
    for warning in &warnings {
        reporter.note(&format!("warning: {warning}"));
    }
    reporter.note(&format!("seed {seed} (--seed {seed} replays this run)"));
    if plan.is_empty() {
        reporter.note("nothing to do: no workload was chosen (random-max-percent may choose none)");
        return Ok(Exit::Done);
    }
    if args.output == Output::Text {
        for describes in plan.sentences() {
            reporter.note(describes);
        }
    }
    let state = state.insert(State::new(&plan));
    reporter.is_about(state);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Stop::one(Exit::Failed, format!("cannot start the run: {e}")))?;
    let result = runtime.block_on(session(&plan, state, reporter));
    // A name server that does not answer must not hold up the end.
    runtime.shutdown_background();
    result
}

/// Short enough to be typed again.
fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish() & 0xffff_ffff
}
