//! `--target`, `--peer` and `--protect`: from words to workloads that may be acted on.

use super::args::Run;
use super::exit::{Exit, Stop};
use crate::engine::chain;
use crate::node::NodeError;
use crate::node::local::{Found, Host};
use crate::node::protect::Protection;
use crate::node::word::{FORMS, Word};
use crate::plan::Plan;
use crate::select::Workload;

/// What this host offers to the experiments of a run.
pub struct Workloads {
    host: Host,
    protection: Protection,
    /// What `--target` came to.
    pub targets: Vec<Workload>,
    /// What `--peer` came to.
    pub peers: Vec<Workload>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Workloads {
    /// Resolves the words of a run. Every problem is reported, not only the first.
    pub fn find(args: &Run) -> Result<Self, Stop> {
        let mut problems = Vec::new();
        if args.targets.is_empty() {
            problems.push(Stop::one(
                Exit::Refused,
                format!(
                    "--target is missing: without a cluster spec.selector chooses among workloads \
                     of this host; give one or more of {FORMS}"
                ),
            ));
        }
        let targets = words("--target", &args.targets, &mut problems);
        let peers = words("--peer", &args.peers, &mut problems);
        let mut host = match Host::here() {
            Ok(host) => host,
            Err(error) => {
                problems.push(unable_or_refused("--target", &error));
                return Err(Stop::all(problems));
            }
        };
        let protection = Protection::with(&args.protect);
        let mut resolve = |option: &str, words: &[Word]| -> Found {
            // One by one, so that one bad word does not hide another.
            let mut found = Found::default();
            for word in words {
                match host.resolve_into(word, &mut found) {
                    Ok(()) => {}
                    // A peer has to live on this host: that is no mistake of the command line.
                    Err(error @ NodeError::Nothing { .. }) if option == "--peer" => {
                        problems.push(Stop::one(
                            Exit::Unable,
                            format!(
                                "{option} {error}; kfault acts at both ends only where both are on \
                                 this host, use spec.externalTargets for the others"
                            ),
                        ));
                    }
                    Err(error) => problems.push(unable_or_refused(option, &error)),
                }
            }
            found
        };
        let Found { workloads: targets, warnings } = resolve("--target", &targets);
        // Who is hit beyond a peer's name matters only where the peer is acted on.
        let peers = resolve("--peer", &peers).workloads;
        for workload in &targets {
            if let Err(error) = protection.check(&host, workload) {
                problems.push(unable_or_refused("--target", &error));
            }
        }
        if !problems.is_empty() {
            return Err(Stop::all(problems));
        }
        Ok(Self { host, protection, targets, peers, warnings })
    }

    /// Refuses a plan that acts where it must not or cannot.
    pub fn check(&self, plan: &Plan) -> Result<(), Stop> {
        self.protection
            .check_plan(&self.host, plan)
            .map_err(|error| unable_or_refused("the plan", &error))?;
        let of = |name: &str| self.targets.iter().chain(&self.peers).find(|w| w.name == name);
        for rule in &plan.rules {
            if rule.hook.device.name.is_empty() {
                let devices = of(&rule.target).map(|w| w.devices.join(", ")).unwrap_or_default();
                return Err(Stop::one(
                    Exit::Refused,
                    format!(
                        "{}: {} has no default route and not exactly one device; name the device \
                         in spec.device (there are: {devices})",
                        rule.experiment, rule.target
                    ),
                ));
            }
        }
        Ok(())
    }
}

fn words(option: &str, texts: &[String], problems: &mut Vec<Stop>) -> Vec<Word> {
    let mut words = Vec::new();
    for text in texts {
        match text.parse() {
            Ok(word) => words.push(word),
            Err(error) => problems.push(unable_or_refused(option, &error)),
        }
    }
    words
}

fn unable_or_refused(what: &str, error: &NodeError) -> Stop {
    let exit = if error.is_refusal() { Exit::Refused } else { Exit::Unable };
    Stop::one(exit, format!("{what}: {}", chain(error)))
}
