//! `kfault guard`: the process that a kfault starts for itself before it sets limits.

use super::args::Guard;
use super::exit::Exit;
use super::{complain, engine_exit};
use crate::engine::chain;
use crate::engine::strain::limits;

/// Runs the command.
pub fn guard(args: &Guard) -> Exit {
    let Guard { engine } = args;
    match limits::watch(engine) {
        Ok(()) => Exit::Done,
        Err(error) => {
            complain(&format!("guard: {}", chain(&error)));
            engine_exit(&error)
        }
    }
}
