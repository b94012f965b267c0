//! Where the words of a run go: events or a live view, and messages for people.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use super::args::Output;
use super::events::Events;
use super::exit::{Exit, Stop};
use super::lines::Lines;
use super::live;
use super::state::{RuleState, State};

/// How often a log that is no terminal gets the counters.
const LOG_EVERY: Duration = Duration::from_secs(5);
/// Rules that such a log shows.
const LOG_RULES: usize = 10;
/// How long the output of an interrupted run may take to be written.
const PATIENCE: Duration = Duration::from_secs(2);

/// The voices of one run.
pub struct Reporter {
    output: Output,
    events: Events,
    out: Lines,
    err: Lines,
    is_terminal: bool,
    logged_at: Option<Instant>,
    /// The run's only experiment.
    about: Option<String>,
}

impl Reporter {
    /// Starts the threads that write.
    pub fn start(output: Output, events: Events) -> io::Result<Self> {
        Ok(Self {
            output,
            events,
            out: Lines::to(io::stdout())?,
            err: Lines::to(io::stderr())?,
            is_terminal: io::stderr().is_terminal(),
            logged_at: None,
            about: None,
        })
    }

    /// From now on failures are about these rules.
    pub fn is_about(&mut self, state: &State) {
        let mut names = state.experiments().into_keys();
        self.about = match (names.next(), names.next()) {
            (Some(one), None) => Some(one.to_owned()),
            _ => None,
        };
    }

    /// A message for people.
    pub fn note(&self, text: &str) {
        self.err.line(format!("kfault: {text}"));
    }

    /// The plan is true.
    pub fn applied(&mut self, state: &State, took: Duration) {
        self.logged_at = Some(Instant::now());
        if self.output == Output::Json {
            for (experiment, rules) in state.experiments() {
                self.out.line(self.events.applied(experiment, &rules).to_string());
            }
        }
        let harm = if self.events.dry_run { " (dry run: no packet is harmed)" } else { "" };
        let rules = match state.rules.len() {
            1 => "1 rule".to_owned(),
            n => format!("{n} rules"),
        };
        self.note(&format!("applied {rules} in {} ms{harm}; Ctrl-C recovers", took.as_millis()));
    }

    /// Once a second.
    pub fn progress(&mut self, state: &State, now: Instant) {
        if self.output == Output::Json {
            for (experiment, rules) in state.experiments() {
                let rules: Vec<(&RuleState, Option<f64>)> = rules
                    .into_iter()
                    .map(|rule| (rule, state.left(rule, now).map(|left| left.as_secs_f64())))
                    .collect();
                self.out.latest(experiment, self.events.counters(experiment, &rules).to_string());
            }
            return;
        }
        if self.is_terminal {
            self.err.frame(live::frame(&with_left(state, now), live::terminal_size()));
            return;
        }
        if self.logged_at.is_none_or(|at| now.duration_since(at) >= LOG_EVERY) {
            self.logged_at = Some(now);
            for (rule, left) in with_left(state, now).into_iter().take(LOG_RULES) {
                self.err.latest(&rule.rule.id, live::line(rule, left));
            }
            if state.rules.len() > LOG_RULES {
                let more = state.rules.len() - LOG_RULES;
                self.err.latest("", format!("… and {more} more rules"));
            }
        }
    }

    /// Nothing is left of any experiment.
    pub fn recovered(&self, state: &State, reason: &str, after: Duration) {
        if self.output == Output::Json {
            for experiment in state.experiments().into_keys() {
                self.out.line(self.events.recovered(experiment, reason).to_string());
            }
        }
        let after = super::clock::for_people(after);
        self.note(&format!("recovered after {after} ({reason})"));
    }

    /// Something went wrong.
    pub fn failed(&self, stop: &Stop) {
        if self.output == Output::Json {
            self.out.line(Events::failed(self.about.as_deref(), stop).to_string());
        }
        for message in &stop.messages {
            self.note(message);
        }
    }

    /// The last words; waits until they are written.
    pub fn finish(self, state: Option<&State>, exit: Exit) {
        if self.output == Output::Json {
            let seed = Some(self.events.seed);
            self.out.line(Events::summary(seed, state, exit).to_string());
        }
        let give_up = |waited: Duration| exit == Exit::Interrupted && waited > PATIENCE;
        self.err.finish(&give_up);
        if self.output == Output::Text {
            let applied = state.filter(|state| state.is_applied());
            for rule in applied.iter().flat_map(|state| &state.rules) {
                self.out.line(live::outcome(rule));
            }
        }
        self.out.finish(&give_up);
    }
}

fn with_left(state: &State, now: Instant) -> Vec<(&RuleState, Option<Duration>)> {
    state.rules.iter().map(|rule| (rule, state.left(rule, now))).collect()
}
