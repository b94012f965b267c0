//! What the controller does to pods itself, through the API server: deleting them, and making
//! them fail.
//!
//! A pod that is to fail gets kfault's own image in all of its containers: that image is on every
//! node, because the agent runs from it, and does nothing. What the images were is kept in an
//! annotation that is written with them in one request, so that there is no moment at which one
//! is changed and the other is not known.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use serde::{Deserialize, Serialize};

use super::objects;
use crate::api::status::DesiredPhase;
use crate::fault::lifecycle::Report;
use crate::fault::pod::{Action, PodChaos};
use crate::fault::{Experiment, Fault};

/// Annotation of a pod that fails on purpose.
const FAILED: &str = "kfault.dev/pod-failure";
/// Somebody else writes pods, too.
const ATTEMPTS: u32 = 5;

/// How an experiment gets to its targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The agents of the nodes carry it out.
    Nodes,
    /// The API server does.
    Server,
}

impl Way {
    /// That of this experiment.
    #[must_use]
    pub fn of(experiment: &Experiment) -> Self {
        match &experiment.fault {
            Fault::Pod(spec) if spec.action != Action::ContainerKill => Self::Server,
            Fault::Network(_)
            | Fault::Pod(_)
            | Fault::Stress(_)
            | Fault::Throttle(_)
            | Fault::Dns(_)
            | Fault::Http(_) => Self::Nodes,
        }
    }
}

/// The value of [`FAILED`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Failure {
    /// Experiments that want it, as `namespace/name`.
    by: BTreeSet<String>,
    /// The image of each container before.
    images: BTreeMap<String, String>,
}

/// One target and what is to become of it.
pub struct Deed<'a> {
    /// `namespace/name` of the pod.
    pub pod: &'a str,
    /// Its uid when it was chosen.
    pub uid: &'a str,
    /// The experiment's `spec`.
    pub spec: &'a PodChaos,
    /// `namespace/name` of the experiment.
    pub by: &'a str,
    /// What shall be the case.
    pub desired: DesiredPhase,
    /// kfault's own image.
    pub image: Option<&'a str>,
}

impl Deed<'_> {
    /// Does it, unless it is done.
    pub async fn act(&self, client: &Client) -> Report {
        let (namespace, name) = objects::split(self.pod);
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let done = match (self.spec.action, self.desired) {
            (Action::PodKill, DesiredPhase::Run) => self.kill(&api, name).await,
            (Action::PodFailure, _) => self.fail(&api, name).await,
            // Dead is dead, and the nodes kill containers.
            (Action::PodKill, DesiredPhase::Stop) | (Action::ContainerKill, _) => {
                Ok(Report::Recovered)
            }
        };
        done.unwrap_or_else(|error| Report::Failed(error.to_string()))
    }

    async fn kill(&self, api: &Api<Pod>, name: &str) -> kube::Result<Report> {
        let grace = u32::try_from(self.spec.grace_period).unwrap_or(u32::MAX);
        let parameters = DeleteParams {
            grace_period_seconds: Some(grace),
            preconditions: Some(Preconditions {
                uid: Some(self.uid.to_owned()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match api.delete(name, &parameters).await {
            Ok(_) => Ok(Report::Injected),
            // It has gone, or another one has its name: either way the chosen one is dead.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                Ok(Report::Injected)
            }
            Err(error) => Err(error),
        }
    }

    async fn fail(&self, api: &Api<Pod>, name: &str) -> kube::Result<Report> {
        let is_running = self.desired == DesiredPhase::Run;
        let Some(image) = self.image else {
            let reason = "the controller does not know its own image, which pods that are to fail \
                          get; start it with --image";
            return Ok(Report::Failed(reason.to_owned()));
        };
        let mut attempt = 0;
        loop {
            let Some(mut pod) = api.get_opt(name).await? else { return Ok(Report::Gone) };
            if pod.uid().as_deref() != Some(self.uid) || pod.metadata.deletion_timestamp.is_some() {
                return Ok(Report::Gone);
            }
            let is_changed = if is_running {
                fail(&mut pod, self.by, image)
            } else {
                restore(&mut pod, self.by, image)
            };
            let report = if is_running { Report::Injected } else { Report::Recovered };
            if !is_changed {
                return Ok(report);
            }
            attempt += 1;
            match api.replace(name, &PostParams::default(), &pod).await {
                Ok(_) => return Ok(report),
                Err(kube::Error::Api(status)) if status.code == 409 && attempt < ATTEMPTS => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// True when a pod fails at the wish of `by`, as far as its annotations say.
#[must_use]
pub fn fails_by(annotations: &BTreeMap<String, String>, by: &str) -> bool {
    read(annotations).by.contains(by)
}

fn read(annotations: &BTreeMap<String, String>) -> Failure {
    let text = annotations.get(FAILED).map(String::as_str).unwrap_or_default();
    serde_json::from_str(text).unwrap_or_default()
}

/// Makes a pod fail; false when it does already.
fn fail(pod: &mut Pod, by: &str, image: &str) -> bool {
    let mut failure = read(pod.annotations());
    let is_new = failure.by.insert(by.to_owned());
    let mut is_changed = is_new;
    for container in pod.spec.iter_mut().flat_map(|spec| &mut spec.containers) {
        let old = container.image.replace(image.to_owned()).unwrap_or_default();
        if old != image {
            failure.images.insert(container.name.clone(), old);
            is_changed = true;
        }
    }
    if let (true, Ok(text)) = (is_changed, serde_json::to_string(&failure)) {
        pod.annotations_mut().insert(FAILED.to_owned(), text);
    }
    is_changed
}

/// Takes one wish back, and puts the images back with the last one. An image that somebody else
/// has changed meanwhile stays.
fn restore(pod: &mut Pod, by: &str, image: &str) -> bool {
    let mut failure = read(pod.annotations());
    if !failure.by.remove(by) {
        return false;
    }
    if !failure.by.is_empty() {
        if let Ok(text) = serde_json::to_string(&failure) {
            pod.annotations_mut().insert(FAILED.to_owned(), text);
        }
        return true;
    }
    pod.annotations_mut().remove(FAILED);
    for container in pod.spec.iter_mut().flat_map(|spec| &mut spec.containers) {
        if container.image.as_deref() == Some(image)
            && let Some(old) = failure.images.get(&container.name)
        {
            container.image = Some(old.clone());
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const OURS: &str = "kfault:1";

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "a", "annotations": { "other": "stays" } },
            "spec": { "containers": [
                { "name": "web", "image": "nginx:1" }, { "name": "log", "image": "log:2" },
            ] },
        }))
        .unwrap()
    }

    fn images(pod: &Pod) -> Vec<String> {
        let all = pod.spec.iter().flat_map(|spec| &spec.containers);
        all.map(|container| container.image.clone().unwrap_or_default()).collect()
    }

    #[test]
    fn a_pod_that_failed_is_put_back_exactly() {
        let mut failed = pod();
        assert!(fail(&mut failed, "n/a", OURS));
        assert_eq!(images(&failed), [OURS, OURS]);
        assert!(fails_by(failed.annotations(), "n/a"));
        assert!(!fail(&mut failed, "n/a", OURS), "it fails already");
        assert!(restore(&mut failed, "n/a", OURS));
        assert_eq!(failed, pod());
        assert!(!restore(&mut failed, "n/a", OURS));
    }

    #[test]
    fn the_last_of_two_experiments_puts_it_back() {
        let mut failed = pod();
        fail(&mut failed, "n/a", OURS);
        assert!(fail(&mut failed, "n/b", OURS));
        restore(&mut failed, "n/a", OURS);
        assert_eq!(images(&failed), [OURS, OURS]);
        restore(&mut failed, "n/b", OURS);
        assert_eq!(failed, pod());
    }

    #[test]
    fn an_image_that_somebody_else_has_set_stays() {
        let mut failed = pod();
        fail(&mut failed, "n/a", OURS);
        if let Some(spec) = &mut failed.spec {
            spec.containers[0].image = Some("nginx:2".to_owned());
        }
        restore(&mut failed, "n/a", OURS);
        assert_eq!(images(&failed), ["nginx:2", "log:2"]);
    }
}
