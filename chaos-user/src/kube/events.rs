//! What the controller tells people, as the API's own events: one object per occurrence.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event as ApiEvent, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::ObjectMeta;
use kube::{Client, ResourceExt};

use super::cache::Name;
use super::metrics::Metrics;
use crate::api::kind::Kind;
use crate::fault::lifecycle::Event;

/// An event that is not written soon is not worth waiting for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who writes events, and counts them.
#[derive(Clone)]
pub struct Teller {
    /// The cluster.
    pub client: Client,
    /// Where they are counted.
    pub metrics: Arc<Metrics>,
}

impl Teller {
    /// Writes events in the background; one that is lost is logged.
    pub fn tell(&self, name: &Name, object: &DynamicObject, events: Vec<Event>) {
        for (index, event) in events.into_iter().enumerate() {
            self.metrics.told(name.kind, event.reason(), event.is_warning());
            let (reason, message) = (event.reason(), event.message());
            tracing::info!(kind = name.kind, object = name.key, reason, "{message}");
            let (client, written) = (self.client.clone(), written(name, object, &event, index));
            tokio::spawn(async move {
                let namespace = written.metadata.namespace.clone().unwrap_or_default();
                let api: Api<ApiEvent> = Api::namespaced(client, &namespace);
                let parameters = PostParams::default();
                match tokio::time::timeout(PATIENCE, api.create(&parameters, &written)).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => tracing::warn!(%error, "an event was not written"),
                    Err(_) => tracing::warn!("an event was not written in time"),
                }
            });
        }
    }
}

fn written(name: &Name, object: &DynamicObject, event: &Event, index: usize) -> ApiEvent {
    let now = Timestamp::now();
    let (own, namespace) = (object.name_any(), object.namespace());
    // Several at one moment need names of their own.
    let moment = now.as_nanosecond() + index as i128;
    ApiEvent {
        metadata: ObjectMeta {
            name: Some(format!("{own}.{moment:x}")),
            namespace: namespace.clone(),
            annotations: Some(event.annotations().into_iter().collect()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(Kind::api_version_of(name.kind).to_owned()),
            kind: Some(name.kind.to_owned()),
            name: Some(own),
            namespace,
            uid: object.uid(),
            resource_version: object.resource_version(),
            ..ObjectReference::default()
        },
        reason: Some(event.reason().to_owned()),
        message: Some(event.message()),
        type_: Some(if event.is_warning() { "Warning" } else { "Normal" }.to_owned()),
        source: Some(EventSource { component: Some(event.component.to_owned()), host: None }),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        ..ApiEvent::default()
    }
}
