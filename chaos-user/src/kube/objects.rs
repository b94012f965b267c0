//! Resources that have no type of their own in the client's library.

use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::{GroupVersionKind, ObjectMeta};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::api::kind::{Kind, SCHEDULE, VERSION};
use crate::api::{nodefault, peerset};

/// The resource of an experiment's kind, whose plural is its singular, or of schedules.
#[must_use]
pub fn experiments(kind: Kind) -> ApiResource {
    let name = kind.name();
    let plural = if name == SCHEDULE { "schedules".to_owned() } else { name.to_lowercase() };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(kind.group(), VERSION, name), &plural)
}

/// The resource of NodeFaults.
#[must_use]
pub fn node_faults() -> ApiResource {
    let gvk = GroupVersionKind::gvk(nodefault::GROUP, nodefault::VERSION, nodefault::KIND);
    ApiResource::from_gvk_with_plural(&gvk, nodefault::PLURAL)
}

/// The resource of PeerSets.
#[must_use]
pub fn peer_sets() -> ApiResource {
    let gvk = GroupVersionKind::gvk(nodefault::GROUP, nodefault::VERSION, peerset::KIND);
    ApiResource::from_gvk_with_plural(&gvk, peerset::PLURAL)
}

/// Objects of a resource in a namespace.
#[must_use]
pub fn of(client: &Client, resource: &ApiResource, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, resource)
}

/// Objects of a resource in every namespace, or in the one that we are limited to.
#[must_use]
pub fn all(client: &Client, resource: &ApiResource, only: Option<&str>) -> Api<DynamicObject> {
    match only {
        Some(namespace) => of(client, resource, namespace),
        None => Api::all_with(client.clone(), resource),
    }
}

/// `namespace/name`.
#[must_use]
pub fn key(metadata: &ObjectMeta) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", part(&metadata.namespace), part(&metadata.name))
}

/// Namespace and name of a key.
#[must_use]
pub fn split(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or(("", key))
}

/// The whole object, as a manifest.
#[must_use]
pub fn whole(kind: &str, object: &DynamicObject) -> Value {
    json!({
        "apiVersion": Kind::api_version_of(kind),
        "kind": kind,
        "metadata": {
            "name": object.name_any(),
            "namespace": object.namespace().unwrap_or_default(),
            "labels": object.labels(),
        },
        "spec": object.data["spec"],
    })
}
