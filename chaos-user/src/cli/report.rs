//! Where the words of a run go: events or a live view, and messages for people.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use super::args::Output;
use super::events::Events;
use super::exit::{Exit, Stop};
use super::lines::Lines;
use super::live;
use super::plot::{self, Course};
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
    /// How targets of strains fare.
    courses: Vec<Course>,
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
            courses: Vec::new(),
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

    /// Whether people watch, so that a plot is worth the time before and after.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.output == Output::Text && self.is_terminal
    }

    /// How targets of strains fare.
    pub fn courses(&mut self) -> &mut Vec<Course> {
        &mut self.courses
    }

    /// A message for people.
    pub fn note(&self, text: &str) {
        self.err.line(format!("kfault: {text}"));
    }

    /// The plan is true.
    pub fn applied(&mut self, state: &State, took: Duration) {
        self.logged_at = Some(Instant::now());
        if self.output == Output::Json {
            for (experiment, share) in state.experiments() {
                self.out.line(self.events.applied(experiment, &share).to_string());
            }
        }
        let harm = if self.events.dry_run { " (dry run: nothing is harmed)" } else { "" };
        let counted = |n: usize, what: &str| match n {
            0 => None,
            1 => Some(format!("1 {what}")),
            n => Some(format!("{n} {what}s")),
        };
        let all = [
            counted(state.rules.len(), "rule"),
            counted(state.strains.len(), "strain"),
            counted(state.exchanges.len(), "exchange"),
        ];
        let all: Vec<String> = all.into_iter().flatten().collect();
        let (all, took) = (all.join(" and "), took.as_millis());
        self.note(&format!("applied {all} in {took} ms{harm}; Ctrl-C recovers"));
    }

    /// Once a second.
    pub fn progress(&mut self, state: &State, now: Instant) {
        if self.output == Output::Json {
            for (experiment, share) in state.experiments() {
                let counters = self.events.counters(experiment, &share, state, now);
                self.out.latest(experiment, counters.to_string());
            }
            return;
        }
        if self.is_terminal {
            let size = live::terminal_size();
            let mut frame = Vec::new();
            if !state.rules.is_empty() {
                frame = live::frame(&with_left(state, now), size);
            }
            frame.extend(state.exchanges.iter().map(live::exchange_line));
            frame.extend(plot::frame(&self.courses, size));
            self.err.frame(frame);
            return;
        }
        if self.logged_at.is_none_or(|at| now.duration_since(at) >= LOG_EVERY) {
            self.logged_at = Some(now);
            for (rule, left) in with_left(state, now).into_iter().take(LOG_RULES) {
                self.err.latest(&rule.rule.id, live::line(rule, left));
            }
            for strain in state.strains.iter().take(LOG_RULES) {
                self.err.latest(&strain.strain.id, live::strain_line(strain));
            }
            for exchange in state.exchanges.iter().take(LOG_RULES) {
                self.err.latest(&exchange.exchange.id, live::exchange_line(exchange));
            }
            let all = state.rules.len().max(state.strains.len()).max(state.exchanges.len());
            if all > LOG_RULES {
                self.err.latest("", format!("… and {} more", all - LOG_RULES));
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
            for strain in applied.iter().flat_map(|state| &state.strains) {
                self.out.line(live::strain_line(strain));
            }
            for exchange in applied.iter().flat_map(|state| &state.exchanges) {
                self.out.line(live::exchange_line(exchange));
            }
            for line in plot::outcome(&self.courses) {
                self.out.line(line);
            }
        }
        self.out.finish(&give_up);
    }
}

fn with_left(state: &State, now: Instant) -> Vec<(&RuleState, Option<Duration>)> {
    state.rules.iter().map(|rule| (rule, state.left(rule, now))).collect()
}
