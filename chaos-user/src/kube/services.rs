//! Which Services stand in front of a set of pods.
//!
//! A pod sends to a Service's ClusterIP, and only its node's proxy, outside of the pod, turns that
//! into the address of an endpoint: a rule in the pod sees the ClusterIP alone. So the ClusterIP
//! belongs to the pods behind it when all of them are meant, and cannot be matched otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;

/// Label of an EndpointSlice with the name of its Service.
const SERVICE: &str = "kubernetes.io/service-name";

/// What is known of Services.
#[derive(Clone, Debug, Default)]
pub struct Services {
    /// ClusterIPs of those that have some, by `namespace/name`.
    pub addresses: BTreeMap<String, Vec<IpAddr>>,
    /// EndpointSlices by `namespace/name`.
    pub slices: BTreeMap<String, Slice>,
}

/// An EndpointSlice, as far as we look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// `namespace/name` of its Service.
    pub service: String,
    /// Uid of the pod of each endpoint, empty where it is none; true when new connections go to
    /// it, false when they do only for want of others.
    pub endpoints: Vec<(String, bool)>,
}

/// Services in front of some pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Front {
    /// ClusterIPs of Services with no other endpoints.
    pub whole: BTreeMap<String, Vec<IpAddr>>,
    /// Services that have others, too: how many endpoints are among the pods, and how many in all.
    pub partly: BTreeMap<String, (usize, usize)>,
}

impl Services {
    /// The Services in front of pods with these uids.
    #[must_use]
    pub fn in_front_of(&self, uids: &BTreeSet<&str>) -> Front {
        let mut endpoints: BTreeMap<&str, BTreeSet<(&str, bool)>> = BTreeMap::new();
        let mut others: BTreeMap<&str, usize> = BTreeMap::new();
        for slice in self.slices.values() {
            let of_service = endpoints.entry(&slice.service).or_default();
            for (uid, is_ready) in &slice.endpoints {
                if uid.is_empty() {
                    // Nobody knows whether the slice of another family means the same one.
                    *others.entry(&slice.service).or_default() += 1;
                }
                of_service.insert((uid, *is_ready));
            }
        }
        let mut front = Front::default();
        for (service, all) in endpoints {
            let Some(addresses) = self.addresses.get(service) else { continue };
            let ready = |is_ready: bool| -> BTreeSet<&str> {
                let chosen = all.iter().filter(|(_, is)| *is == is_ready);
                chosen.map(|(uid, _)| *uid).filter(|uid| !uid.is_empty()).collect()
            };
            let others = others.get(service).copied().unwrap_or_default();
            let ready_ones = ready(true);
            let pods = if ready_ones.is_empty() { ready(false) } else { ready_ones };
            let meant = pods.iter().filter(|uid| uids.contains(*uid)).count();
            if meant == 0 {
                continue;
            }
            if meant == pods.len() && others == 0 {
                front.whole.insert(service.to_owned(), addresses.clone());
            } else {
                front.partly.insert(service.to_owned(), (meant, pods.len() + others));
            }
        }
        front
    }
}

/// The ClusterIPs of a Service; none for one without.
#[must_use]
pub fn addresses(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let all = spec.cluster_ips.clone().unwrap_or_default();
    let all = if all.is_empty() { spec.cluster_ip.clone().into_iter().collect() } else { all };
    // A headless one says "None".
    let mut all: Vec<IpAddr> = all.iter().filter_map(|text| text.parse().ok()).collect();
    all.sort_unstable();
    all
}

/// An EndpointSlice, reduced; `None` when it belongs to no Service.
#[must_use]
pub fn slice(object: &EndpointSlice) -> Option<Slice> {
    let namespace = object.namespace().unwrap_or_default();
    let service = format!("{namespace}/{}", object.labels().get(SERVICE)?);
    let endpoints = object.endpoints.iter().flatten().filter_map(|endpoint| {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        let is_ready = conditions.ready != Some(false);
        if !is_ready && conditions.serving != Some(true) {
            return None;
        }
        let pod = endpoint.target_ref.as_ref().filter(|one| one.kind.as_deref() == Some("Pod"));
        Some((pod.and_then(|pod| pod.uid.clone()).unwrap_or_default(), is_ready))
    });
    Some(Slice { service, endpoints: endpoints.collect() })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: &Value) -> Vec<IpAddr> {
        addresses(&serde_json::from_value(json!({ "spec": spec })).unwrap())
    }

    fn known(endpoints: &[(&str, bool)]) -> Services {
        let endpoints = endpoints.iter().map(|(uid, ready)| ((*uid).to_owned(), *ready)).collect();
        let slice = Slice { service: "default/web".to_owned(), endpoints };
        Services {
            addresses: [("default/web".to_owned(), vec!["10.96.0.9".parse().unwrap()])].into(),
            slices: [("default/web-x".to_owned(), slice)].into(),
        }
    }

    fn front(services: &Services, uids: &[&str]) -> (usize, Vec<(usize, usize)>) {
        let front = services.in_front_of(&uids.iter().copied().collect());
        (front.whole.len(), front.partly.into_values().collect())
    }

    #[test]
    fn both_families_of_a_service_are_its_addresses_and_a_headless_one_has_none() {
        let dual = service(&json!({
            "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00:96::9"],
        }));
        assert_eq!(dual, ["10.96.0.9", "fd00:96::9"].map(|text| text.parse::<IpAddr>().unwrap()));
        assert_eq!(service(&json!({ "clusterIP": "10.96.0.9" })).len(), 1);
        assert!(service(&json!({ "clusterIP": "None", "clusterIPs": ["None"] })).is_empty());
        assert!(service(&json!({ "type": "ExternalName", "externalName": "x" })).is_empty());
    }

    #[test]
    fn a_service_belongs_to_the_pods_when_all_of_its_endpoints_are_among_them() {
        let two = known(&[("a", true), ("b", true)]);
        assert_eq!(front(&two, &["a", "b", "c"]), (1, vec![]));
        assert_eq!(front(&two, &["a"]), (0, vec![(1, 2)]));
        assert_eq!(front(&two, &["c"]), (0, vec![]));
    }

    #[test]
    fn endpoints_that_get_no_connections_do_not_count() {
        // A pod on its way out serves on while others are ready.
        assert_eq!(front(&known(&[("a", true), ("old", false)]), &["a"]), (1, vec![]));
        assert_eq!(front(&known(&[("old", false)]), &["old"]), (1, vec![]));
        assert_eq!(front(&known(&[]), &["a"]), (0, vec![]));
    }

    #[test]
    fn an_endpoint_that_is_no_pod_is_never_a_target() {
        assert_eq!(front(&known(&[("a", true), ("", true)]), &["a", ""]), (0, vec![(1, 2)]));
    }

    #[test]
    fn a_slice_names_its_service_and_the_pods_that_serve() {
        let object = json!({
            "metadata": {
                "name": "web-x", "namespace": "default", "labels": { SERVICE: "web" },
            },
            "addressType": "IPv4",
            "endpoints": [
                { "addresses": ["10.244.1.5"], "targetRef": { "kind": "Pod", "uid": "a" } },
                {
                    "addresses": ["10.244.1.6"], "targetRef": { "kind": "Pod", "uid": "b" },
                    "conditions": { "ready": false, "serving": false },
                },
                { "addresses": ["192.0.2.7"] },
            ],
        });
        let slice = slice(&serde_json::from_value(object).unwrap()).unwrap();
        assert_eq!(slice.service, "default/web");
        assert_eq!(slice.endpoints, [("a".to_owned(), true), (String::new(), true)]);
    }
}
