//! `kfault crds`: what a cluster has to know before it takes experiments.

use super::exit::Exit;
use super::{complain, say};
use crate::kube::crds;

/// Runs the command.
pub fn crds() -> Exit {
    for definition in crds::all() {
        match serde_norway::to_string(&definition) {
            Ok(yaml) => {
                say("---");
                say(yaml.trim_end());
            }
            Err(error) => {
                complain(&format!("cannot write YAML: {error}"));
                return Exit::Failed;
            }
        }
    }
    Exit::Done
}
