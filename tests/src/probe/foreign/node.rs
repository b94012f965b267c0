//! Node's http, as a client.

use anyhow::Result;

use super::{Asked, Told};
use crate::ns::Ns;

const CLIENT: &str = include_str!("programs/ask.js");

/// Sends requests.
pub fn ask(ns: &Ns, asked: &Asked<'_>, bases: &[String]) -> Result<Vec<Told>> {
    let mut command = ns.command("node");
    // What follows is the program's, whatever it looks like.
    command.args(["-e", CLIENT, "--"]);
    super::ask(command, asked, bases)
}
