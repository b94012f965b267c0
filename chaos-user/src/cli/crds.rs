//! `kfault crds`: what a cluster has to know before it takes experiments.

use super::args::Crds;
use super::exit::Exit;
use super::{complain, say};
use crate::kube::{crds, webhooks};

/// Runs the command.
pub fn crds(args: &Crds) -> Exit {
    let Crds { webhooks: wants_webhooks } = args;
    let all = if *wants_webhooks { webhooks::configurations().to_vec() } else { crds::all() };
    for object in all {
        match serde_norway::to_string(&object) {
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
