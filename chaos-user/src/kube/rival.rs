//! Whether another Chaos Mesh serves this cluster: two controllers would answer the same objects.
//!
//! It is known by the labels of its controller's pods and by its leader's lease. The name of its
//! Deployment says nothing: ours has the same one, for those who look for it.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use thiserror::Error;

use super::KubeError;

/// What its controller's pods are labelled with.
const LABELS: &str =
    "app.kubernetes.io/name=chaos-mesh,app.kubernetes.io/component=controller-manager";
/// The lease of its leader, in whichever namespace it runs.
const LEASE: &str = "chaos-mesh";
/// A lease counts for as long as it says, and for this long more: clocks differ.
const TOLERANCE: Duration = Duration::from_secs(15);
/// What a lease without a duration is good for.
const DURATION: i32 = 15;

/// Something that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// One of its controller's pods.
    Pod {
        /// `namespace/name`.
        pod: String,
        /// `Running`, `Pending` or `Unknown`.
        phase: String,
    },
    /// Its leader's lease, in force.
    Lease {
        /// `namespace/name`.
        lease: String,
        /// Who leads.
        holder: String,
        /// Seconds since it was renewed.
        age: i64,
    },
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { pod, phase } => write!(f, "pod {pod} ({phase}, labelled {LABELS})"),
            Self::Lease { lease, holder, age } => {
                write!(f, "lease {lease} (held by {holder}, renewed {age} s ago)")
            }
        }
    }
}

/// Another Chaos Mesh serves this cluster.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "another Chaos Mesh serves this cluster, and two controllers would answer the same objects. Found: {}. End it first (helm uninstall, or scale its controller's Deployment to 0); its lease runs out by itself within a minute, and kfault starts when nothing of it is left",
    list(.0)
)]
pub struct Rival(
    /// By what it was known; not empty.
    pub Vec<Sign>,
);

fn list(signs: &[Sign]) -> String {
    signs.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What of these pods and leases says that another one is at work. The pods have its labels and
/// the leases its name.
///
/// # Errors
/// [`Rival`], when something does.
pub fn judge(pods: &[Pod], leases: &[Lease], now: Timestamp) -> Result<(), Rival> {
    let mut signs: Vec<Sign> = pods.iter().filter_map(pod).collect();
    signs.extend(leases.iter().filter_map(|it| lease(it, now)));
    if signs.is_empty() { Ok(()) } else { Err(Rival(signs)) }
}

/// One that is only about to run, or fails to, is there to be run: it counts.
fn pod(pod: &Pod) -> Option<Sign> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
    let phase = phase.unwrap_or_else(|| "Pending".to_owned());
    let has_ended = matches!(phase.as_str(), "Succeeded" | "Failed");
    (!has_ended).then(|| Sign::Pod { pod: super::objects::key(&pod.metadata), phase })
}

fn lease(lease: &Lease, now: Timestamp) -> Option<Sign> {
    let spec = lease.spec.as_ref()?;
    let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty())?;
    let renewed = spec.renew_time.as_ref().or(spec.acquire_time.as_ref())?.0;
    let seconds = spec.lease_duration_seconds.unwrap_or(DURATION).max(0);
    let good = Duration::from_secs(u64::from(seconds.unsigned_abs())) + TOLERANCE;
    let age = now.duration_since(renewed);
    // A clock that is ahead of ours makes it younger than nothing.
    let is_in_force = Duration::try_from(age).is_ok_and(|age| age <= good) || age.is_negative();
    is_in_force.then(|| Sign::Lease {
        lease: super::objects::key(&lease.metadata),
        holder,
        age: age.as_secs(),
    })
}

/// Looks for another one, as far as this installation may look: everywhere, or in the namespace
/// that it runs in and the one that it serves.
///
/// # Errors
/// [`KubeError`] when the API server cannot be asked.
pub async fn look(
    client: &Client,
    own: &str,
    only: Option<&str>,
) -> Result<Result<(), Rival>, KubeError> {
    let places: BTreeSet<Option<&str>> = match only {
        None => [None].into(),
        Some(only) => [Some(own), Some(only)].into(),
    };
    let (by_labels, by_name) = (
        ListParams::default().labels(LABELS),
        ListParams::default().fields(&format!("metadata.name={LEASE}")),
    );
    let (mut pods, mut leases) = (Vec::new(), Vec::new());
    for place in places {
        let (of_pods, of_leases): (Api<Pod>, Api<Lease>) = match place {
            None => (Api::all(client.clone()), Api::all(client.clone())),
            Some(name) => {
                (Api::namespaced(client.clone(), name), Api::namespaced(client.clone(), name))
            }
        };
        let doing = |what: &str| format!("look for another Chaos Mesh's {what}");
        let found = of_pods.list(&by_labels).await.map_err(KubeError::api(doing("pods")))?;
        pods.extend(found.items);
        let found = of_leases.list(&by_name).await.map_err(KubeError::api(doing("lease")))?;
        leases.extend(found.items.into_iter().filter(|lease| lease.name_any() == LEASE));
    }
    Ok(judge(&pods, &leases, Timestamp::now()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: &str = "2026-01-01T00:01:00Z";

    fn pods(phase: &str) -> Vec<Pod> {
        let pod = json!({
            "metadata": { "name": "chaos-controller-manager-x", "namespace": "chaos-testing" },
            "status": { "phase": phase },
        });
        vec![serde_json::from_value(pod).unwrap()]
    }

    fn leases(holder: &str, renewed: &str) -> Vec<Lease> {
        let lease = json!({
            "metadata": { "name": LEASE, "namespace": "chaos-testing" },
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": 15,
                "renewTime": renewed,
            },
        });
        vec![serde_json::from_value(lease).unwrap()]
    }

    fn found(pods: &[Pod], leases: &[Lease]) -> Option<String> {
        judge(pods, leases, NOW.parse().unwrap()).err().map(|rival| rival.to_string())
    }

    #[test]
    fn a_pod_that_runs_or_is_to_run_is_named() {
        for phase in ["Running", "Pending", "Unknown"] {
            let said = found(&pods(phase), &[]).unwrap();
            assert!(said.contains("pod chaos-testing/chaos-controller-manager-x"), "{said}");
            assert!(said.contains(phase) && said.contains("helm uninstall"), "{said}");
        }
        for phase in ["Succeeded", "Failed"] {
            assert_eq!(found(&pods(phase), &[]), None);
        }
    }

    #[test]
    fn a_lease_counts_while_it_is_renewed() {
        let said = found(&[], &leases("a_1", "2026-01-01T00:00:57.000000Z")).unwrap();
        assert!(said.contains("lease chaos-testing/chaos-mesh (held by a_1, renewed 3 s ago)"));
        // It says 15 s, and clocks differ by as much.
        assert!(found(&[], &leases("a_1", "2026-01-01T00:00:30.000000Z")).is_some());
        assert!(found(&[], &leases("a_1", "2026-01-01T00:05:00.000000Z")).is_some());
        assert_eq!(found(&[], &leases("a_1", "2026-01-01T00:00:29.000000Z")), None);
        assert_eq!(found(&[], &leases("", "2026-01-01T00:00:57.000000Z")), None);
    }

    #[test]
    fn a_cluster_without_another_one_is_free() {
        assert_eq!(found(&[], &[]), None);
    }
}
