//! `kfault sweep`: removes what a killed run has left behind.

use serde_json::json;

use super::args::{Output, Sweep};
use super::exit::Exit;
use super::{complain, engine_exit, say};
use crate::engine::chain;

/// Runs the command.
pub fn sweep(args: &Sweep) -> Exit {
    let Sweep { output } = args;
    let removed = match crate::engine::sweep() {
        Ok(removed) => removed,
        Err(error) => {
            complain(&format!("sweep: {}", chain(&error)));
            return match error.errno() {
                Some(libc::EPERM | libc::EACCES) => Exit::Unable,
                _ => engine_exit(&error),
            };
        }
    };
    match output {
        Output::Json => say(&json!({"removed": removed}).to_string()),
        Output::Text if removed.is_empty() => say("Nothing to remove: this host is clean."),
        Output::Text => removed.iter().for_each(|what| say(&format!("removed {what}"))),
    }
    Exit::Done
}
