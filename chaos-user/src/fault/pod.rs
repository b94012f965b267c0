//! Faults of pods as a whole: deleted, made unavailable, or with a container killed.
//!
//! Owns: the kind's fields, what is refused and warned of. Refuses: doing it. The API server
//! deletes and changes pods for the controller; the agent of the node kills containers.

use serde_json::{Value, json};

use super::{Choice, read_duration};
use crate::api::duration::GoDuration;
use crate::api::fields::Fields;
use crate::api::finding::Findings;
use crate::api::written::Written;

/// `spec` of the kind, defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct PodChaos {
    /// Who is hit.
    pub source: Choice,
    /// What happens to them.
    pub action: Action,
    /// Seconds that a deleted pod has to end itself.
    pub grace_period: u64,
    /// Which containers; a name that a pod does not have is passed over.
    pub container_names: Vec<String>,
    /// How long a failure lasts; `None`: until recovered.
    pub duration: Option<Written<GoDuration>>,
    /// Name of another cluster.
    pub remote_cluster: Option<String>,
    /// `kfault.follow`: pods that appear later fail, too.
    pub follow: bool,
}

/// `action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The pod is deleted.
    PodKill,
    /// Its containers do not run for a while.
    PodFailure,
    /// The first process of a container is killed.
    ContainerKill,
}

const ACTIONS: [(&str, Action); 3] = [
    ("pod-kill", Action::PodKill),
    ("pod-failure", Action::PodFailure),
    ("container-kill", Action::ContainerKill),
];

impl Action {
    /// The word, as in `action:`.
    #[must_use]
    pub fn word(self) -> &'static str {
        ACTIONS.iter().find(|(_, action)| *action == self).map_or("", |(word, _)| word)
    }

    /// It is over when it is done: nothing to recover.
    #[must_use]
    pub fn is_one_shot(self) -> bool {
        self != Self::PodFailure
    }
}

impl PodChaos {
    /// Reads `spec`; `namespace` is the object's own.
    pub fn read(mut fields: Fields<'_>, namespace: &str, findings: &mut Findings) -> Option<Self> {
        let source = Choice::read(&mut fields, namespace, findings);
        fields.require("action", "allowed: pod-kill, pod-failure, container-kill", findings);
        let action = fields.word("action", &ACTIONS, findings);
        let had_grace = fields.has("gracePeriod");
        let grace_period = fields.number("gracePeriod", 0, i64::MAX.unsigned_abs(), findings);
        let container_names = fields.texts("containerNames", findings);
        let had_duration = fields.has("duration");
        let duration = read_duration(&mut fields, findings);
        let remote_cluster = fields.text("remoteCluster", findings).filter(|text| !text.is_empty());
        if let Some(name) = remote_cluster {
            let way_out = "apply the experiment in that cluster itself";
            findings.unsupported("spec.remoteCluster", &name, way_out);
        }
        let kfault = fields.object("kfault", findings);
        let follow = kfault.and_then(|mut fields| {
            let follow = fields.switch("follow", findings);
            fields.finish(findings);
            follow
        });
        fields.finish(findings);
        let action = action?;
        if action.is_one_shot() && follow == Some(true) {
            let message = format!("has no effect: {} is over when it is done", action.word());
            findings.warn("spec.kfault.follow", message);
        }
        if action == Action::ContainerKill && container_names.is_empty() {
            let reason = "the names of the containers to kill, for action \"container-kill\"";
            findings.missing("spec.containerNames", reason);
        }
        if action != Action::ContainerKill && !container_names.is_empty() {
            let message = format!("has no effect: {} acts on the whole pod", action.word());
            findings.warn("spec.containerNames", message);
        }
        if action != Action::PodKill && had_grace {
            let message = "has no effect: only action \"pod-kill\" gives a grace period";
            findings.warn("spec.gracePeriod", message);
        }
        if action.is_one_shot() && had_duration {
            let message = format!("has no effect: {} is over when it is done", action.word());
            findings.warn("spec.duration", message);
        }
        Some(Self {
            source: source?,
            action,
            grace_period: grace_period.unwrap_or_default(),
            container_names,
            duration,
            remote_cluster: remote_cluster.map(str::to_owned),
            follow: follow.unwrap_or_default(),
        })
    }

    /// `spec` with its defaults, as a manifest writes it. Reads back to an equal value.
    #[must_use]
    pub fn json(&self) -> Value {
        let Self {
            source,
            action,
            grace_period,
            container_names,
            duration,
            remote_cluster,
            follow,
        } = self;
        let mut value = json!(source);
        value["action"] = json!(action.word());
        if *action == Action::PodKill || *grace_period > 0 {
            value["gracePeriod"] = json!(grace_period);
        }
        if !container_names.is_empty() {
            value["containerNames"] = json!(container_names);
        }
        if let Some(duration) = duration {
            value["duration"] = json!(duration);
        }
        if let Some(name) = remote_cluster {
            value["remoteCluster"] = json!(name);
        }
        if *follow {
            value["kfault"] = json!({ "follow": true });
        }
        value
    }

    /// What happens, as a sentence.
    #[must_use]
    pub fn describe(&self) -> String {
        match self.action {
            Action::PodKill => {
                format!("each chosen pod is deleted with a grace period of {} s", self.grace_period)
            }
            Action::PodFailure => {
                "the containers of each chosen pod are replaced by one that does \
                 nothing, and put back afterwards"
                    .to_owned()
            }
            Action::ContainerKill => format!(
                "the first process of each chosen pod's {} gets SIGKILL",
                self.container_names.join(", ")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::read_spec;
    use super::*;

    fn read(more: &Value) -> (Option<PodChaos>, Findings) {
        read_spec(more, PodChaos::read)
    }

    #[test]
    fn what_is_read_is_written_back() {
        for more in [
            json!({ "action": "pod-kill", "gracePeriod": 3 }),
            json!({ "action": "pod-failure", "duration": "30s" }),
            json!({ "action": "pod-failure", "kfault": { "follow": true } }),
            json!({ "action": "container-kill", "containerNames": ["a", "b"] }),
        ] {
            let (first, findings) = read(&more);
            assert_eq!(findings, Findings::default(), "{more}");
            let first = first.unwrap();
            let (second, _) = read(&first.json());
            assert_eq!(second, Some(first));
        }
    }

    #[test]
    fn what_has_no_effect_is_said() {
        for (more, field) in [
            (json!({ "action": "pod-kill", "duration": "1s" }), "spec.duration"),
            (json!({ "action": "pod-kill", "kfault": { "follow": true } }), "spec.kfault.follow"),
            (json!({ "action": "pod-kill", "containerNames": ["a"] }), "spec.containerNames"),
            (json!({ "action": "pod-failure", "gracePeriod": 1 }), "spec.gracePeriod"),
        ] {
            let (_, findings) = read(&more);
            assert_eq!(findings.warnings.len(), 1, "{more}");
            assert_eq!(findings.warnings[0].field, field);
        }
    }

    #[test]
    fn killing_containers_needs_their_names() {
        let (_, findings) = read(&json!({ "action": "container-kill" }));
        assert_eq!(findings.errors[0].field(), "spec.containerNames");
        let (_, findings) = read(&json!({ "action": "pod-kill", "gracePeriod": -1 }));
        assert_eq!(findings.errors[0].field(), "spec.gracePeriod");
    }
}
