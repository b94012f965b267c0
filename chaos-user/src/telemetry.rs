//! Logs: tracing to stderr, filtered by `KFAULT_LOG`.
//!
//! Logs are for whoever debugs kfault. What a user must read is not a log line: `cli` says it.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// The variable that holds the filter: `debug`, `kfault=debug,aya=info`, …
pub const FILTER: &str = "KFAULT_LOG";
/// What is shown without it.
const DEFAULT: &str = "warn";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line: `timestamp`, `level`, `target`, `fields`.
    Json,
}

/// Starts logging. Does nothing when somebody has done so already.
pub fn init(format: Format) {
    let (filter, problem) = match std::env::var(FILTER) {
        Ok(text) => match text.parse::<EnvFilter>() {
            Ok(filter) => (filter, None),
            Err(error) => (EnvFilter::new(DEFAULT), Some((text, error))),
        },
        Err(_) => (EnvFilter::new(DEFAULT), None),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match format {
        Format::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        Format::Json => builder.json().try_init(),
    };
    if let (Ok(()), Some((text, error))) = (started, problem) {
        tracing::warn!("{FILTER}={text:?} is no log filter ({error}); {DEFAULT:?} is in force");
    }
}
