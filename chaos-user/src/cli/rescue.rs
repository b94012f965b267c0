//! `kfault rescue`: the process that a kfault starts for itself before HTTP responses are edited.

use super::args::Rescue;
use super::exit::Exit;
use super::{complain, engine_exit};
use crate::engine::chain;
use crate::engine::http;

/// Runs the command.
pub fn rescue(args: &Rescue) -> Exit {
    let &Rescue { sockets, handed, homes, streams, diverted } = args;
    match http::watch(http::Maps { sockets, handed, homes, streams, diverted }) {
        Ok(_) => Exit::Done,
        Err(error) => {
            complain(&format!("rescue: {}", chain(&error)));
            engine_exit(&error)
        }
    }
}
