//! What a person sees while a long step runs: a spinner on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, stdout};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The steps that have ended.
static ENDED: Mutex<Vec<(String, Instant, Duration)>> = Mutex::new(Vec::new());

/// What is shorter is not worth a line of [`times`].
const WORTH: Duration = Duration::from_secs(1);

/// One step with its duration.
pub struct Step {
    title: String,
    start: Instant,
    bar: Option<ProgressBar>,
}

impl Step {
    /// Says that a step starts.
    pub fn start(title: impl Into<String>) -> Self {
        let title = title.into();
        let bar = stdout().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(title.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            println!("… {title}");
        }
        Self { title, start: Instant::now(), bar }
    }

    /// Shows what the step is at, on a terminal only.
    pub fn note(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.trim().to_owned());
        }
    }

    /// Prints a line that stays.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| println!("{text}")),
            None => println!("{text}"),
        }
    }

    /// Ends the step well.
    pub fn done(self, result: &str) {
        self.end("✓", result);
    }

    /// Ends the step badly. The reason is printed by whoever returns it.
    pub fn failed(self, result: &str) {
        self.end("✗", result);
    }

    /// Time since the step started.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn end(&self, sign: &str, result: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let space = if result.is_empty() { "" } else { ": " };
        let took = self.elapsed();
        println!("{sign} {}{space}{result} ({})", self.title, duration(took));
        let mut ended = ENDED.lock().unwrap_or_else(PoisonError::into_inner);
        ended.push((self.title.clone(), self.start, took));
    }
}

/// Runs `work` as a step.
pub fn step<T>(
    title: impl Into<String>,
    work: impl FnOnce(&Step) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let step = Step::start(title);
    let result = work(&step);
    match &result {
        Ok(_) => step.done(""),
        Err(_) => step.failed("failed"),
    }
    result
}

/// When every step of this process started, and how long it took; those that ran side by side
/// show it by their starts.
pub fn times() -> String {
    let mut ended = ENDED.lock().unwrap_or_else(PoisonError::into_inner).clone();
    ended.sort_by_key(|(_, start, _)| *start);
    let Some(first) = ended.first().map(|(_, start, _)| *start) else { return String::new() };
    let mut text = String::from("     from        for\n");
    for (title, start, took) in ended.iter().filter(|(.., took)| *took >= WORTH) {
        let (from, took) = (duration(start.duration_since(first)), duration(*took));
        text.push_str(&format!("{from:>9}  {took:>9}  {title}\n"));
    }
    text
}

/// A duration as people read it.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 60.0 { format!("{seconds:.1} s") } else { format!("{:.1} min", seconds / 60.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_long_is_in_the_table_and_what_did_not_is_not() {
        let now = Instant::now();
        let mut ended = ENDED.lock().unwrap();
        ended.push(("the tests".into(), now, Duration::from_secs(90)));
        ended.push(("a glance".into(), now, Duration::from_millis(90)));
        drop(ended);
        let table = times();
        assert!(table.contains("1.5 min  the tests\n"), "{table}");
        assert!(!table.contains("a glance"), "{table}");
    }
}
