//! What a person sees while a long step runs: a spinner on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, stdout};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

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
        println!("{sign} {}{space}{result} ({})", self.title, duration(self.elapsed()));
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

/// A duration as people read it.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 60.0 { format!("{seconds:.1} s") } else { format!("{:.1} min", seconds / 60.0) }
}
