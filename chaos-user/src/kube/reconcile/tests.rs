use serde_json::{Value, json};

use super::fixture::Cluster;
use crate::api::kind::Kind;

fn spec(more: &Value) -> Value {
    let mut spec = json!({
        "action": "delay", "mode": "all", "delay": { "latency": "10ms" },
        "selector": { "labelSelectors": { "app": "web" } },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    spec
}

fn target() -> Value {
    json!({ "mode": "all", "selector": { "labelSelectors": { "app": "db" } } })
}

fn following(more: &Value) -> Value {
    let mut more = more.clone();
    more["kfault"] = json!({ "follow": true });
    spec(&more)
}

/// Two web pods on two nodes, injected.
fn running(spec: &Value) -> Cluster {
    let mut cluster = Cluster::new(spec, 3);
    cluster.pod("w0", "web", 0, "10.244.0.1");
    cluster.pod("w1", "web", 1, "10.244.1.1");
    cluster.pod("d0", "db", 0, "10.244.0.9");
    cluster.settle();
    assert!(cluster.is("AllInjected"), "{:?}", cluster.records());
    cluster
}

#[test]
fn a_change_of_an_unrelated_pod_is_no_write() {
    for spec in [spec(&json!({ "target": target() })), following(&json!({ "target": target() }))] {
        let mut cluster = running(&spec);
        let other = |cluster: &mut Cluster, address: &str| {
            cluster.pod_with_uid("other", "cache", 2, address, "uid-other")
        };
        let come = other(&mut cluster, "10.244.2.1");
        let changed = other(&mut cluster, "10.244.2.2");
        let gone = cluster.pod_goes("other");
        let service = cluster.service("unrelated", &[]);
        for concern in [come, changed, gone] {
            let looked = cluster.cache.concerned(&concern);
            // One that follows is looked at, since the pod might have been meant.
            assert_eq!(looked.len(), usize::from(spec["kfault"]["follow"] == true));
        }
        assert_eq!(cluster.cache.concerned(&service).len(), 1);
        assert_eq!(cluster.look(), [""; 0]);
        other(&mut cluster, "10.244.2.3");
        assert_eq!(cluster.look(), [""; 0]);
    }
}

#[test]
fn one_pods_new_address_is_one_write_whatever_the_number_of_nodes() {
    let mut cluster = Cluster::new(&spec(&json!({ "target": target() })), 40);
    for node in 0..40 {
        cluster.pod(&format!("w{node}"), "web", node, &format!("10.244.{node}.1"));
        for n in 2..18 {
            cluster.pod(&format!("d{node}-{n}"), "db", node, &format!("10.244.{node}.{n}"));
        }
    }
    cluster.settle();
    assert!(cluster.is("AllInjected"));
    assert_eq!(cluster.asked().len(), 40);
    let uid = cluster.cache.pods["default/d7-3"].uid.clone();
    cluster.pod_with_uid("d7-3", "db", 7, "10.244.7.99", &uid);
    let writes = cluster.look();
    assert_eq!(writes.len(), 1, "{writes:?}");
    assert!(writes[0].starts_with("PATCH") && writes[0].contains("/peersets/"), "{writes:?}");
    assert_eq!(cluster.look(), [""; 0]);
}

#[test]
fn nodes_hear_of_their_own_pods_and_of_the_peer_sets() {
    let cluster = running(&spec(&json!({ "target": target() })));
    let asked = cluster.asked();
    let names = |pods: &[crate::api::nodefault::Pod]| -> Vec<String> {
        pods.iter().map(|pod| pod.name.clone()).collect()
    };
    assert_eq!(names(&asked["n0"].sources), ["w0"]);
    assert_eq!(names(&asked["n1"].sources), ["w1"]);
    assert_eq!(names(asked["n0"].targets.as_deref().unwrap()), ["d0"]);
    assert_eq!(asked["n1"].targets, Some(Vec::new()));
    assert_eq!(asked["n0"].peers, asked["n1"].peers);
    assert_eq!(asked["n0"].peers.len(), 1);
    assert_eq!(cluster.peers(".Target"), ["default/d0".to_owned()].into());
    assert_eq!(running(&spec(&json!({}))).asked()["n0"].peers, [""; 0]);
}

#[test]
fn the_choice_is_frozen_where_nobody_asked_to_follow() {
    let mut cluster = running(&spec(&json!({})));
    cluster.pod("w2", "web", 2, "10.244.2.1");
    cluster.pod("w1", "web", 1, "10.244.1.2");
    cluster.settle();
    assert_eq!(cluster.records(), ["default/w0 Injected 1", "default/w1 Not Injected 1"]);
    assert!(!cluster.is("AllInjected"));
    // Nothing of ours is left on the node of the pod that went.
    assert_eq!(cluster.asked().keys().collect::<Vec<_>>(), ["n0"]);
}

#[test]
fn what_follows_takes_new_and_replaced_pods_and_leaves_what_has_gone() {
    let mut cluster = running(&following(&json!({})));
    // Another one comes, one is replaced under another name, on another node.
    cluster.pod("w2", "web", 2, "10.244.2.1");
    cluster.pod_goes("w1");
    cluster.look();
    assert!(!cluster.is("AllInjected"));
    assert_eq!(cluster.records(), ["default/w0 Injected 1", "default/w2 Not Injected/Wait 0"]);
    cluster.settle();
    assert!(cluster.is("AllInjected"));
    assert_eq!(cluster.asked().keys().collect::<Vec<_>>(), ["n0", "n2"]);
    // One is replaced under its own name, on another node, as a StatefulSet does.
    cluster.pod("w0", "web", 1, "10.244.1.7");
    cluster.look();
    assert_eq!(cluster.records()[0], "default/w0 Not Injected/Wait 1");
    cluster.settle();
    assert_eq!(cluster.records(), ["default/w0 Injected 2", "default/w2 Injected 1"]);
    assert_eq!(cluster.asked().keys().collect::<Vec<_>>(), ["n1", "n2"]);
    // A pause recovers all of them, and what comes meanwhile has to wait.
    cluster.pause(true);
    cluster.pod("w3", "web", 0, "10.244.0.3");
    cluster.settle();
    assert!(cluster.is("AllRecovered") && cluster.asked().is_empty());
    assert_eq!(cluster.records().len(), 2);
    cluster.pause(false);
    cluster.settle();
    assert!(cluster.is("AllInjected"));
    assert_eq!(cluster.records().len(), 3);
}

#[test]
fn what_follows_keeps_the_number_that_the_mode_declares() {
    let mut cluster = Cluster::new(&following(&json!({ "mode": "fixed", "value": "2" })), 3);
    for n in 0..4 {
        cluster.pod(&format!("w{n}"), "web", n % 3, &format!("10.244.0.{n}"));
    }
    cluster.settle();
    let chosen = cluster.records();
    assert_eq!(chosen.len(), 2);
    cluster.pod("w9", "web", 0, "10.244.0.10");
    assert_eq!(cluster.look(), [""; 0]);
    let first = chosen[0].split_once(' ').unwrap().0.to_owned();
    cluster.pod_goes(first.strip_prefix("default/").unwrap());
    cluster.settle();
    let now = cluster.records();
    assert_eq!(now.len(), 2);
    assert!(now.contains(&chosen[1]) && !now.iter().any(|one| one.starts_with(&first)), "{now:?}");
    assert!(cluster.is("AllInjected"));
}

#[test]
fn when_every_target_has_gone_what_follows_waits_for_new_ones() {
    let mut cluster = running(&following(&json!({})));
    cluster.pod_goes("w0");
    cluster.pod_goes("w1");
    cluster.settle();
    assert!(cluster.records().is_empty() && cluster.asked().is_empty());
    assert!(!cluster.is("AllInjected"));
    cluster.pod("w5", "web", 1, "10.244.1.5");
    cluster.settle();
    assert_eq!(cluster.records(), ["default/w5 Injected 1"]);
}

#[test]
fn a_service_whose_endpoints_are_all_targets_is_at_the_other_end_too() {
    let mut cluster = running(&spec(&json!({ "target": target() })));
    cluster.service("db", &["d0"]);
    let writes = cluster.look();
    assert_eq!(writes.len(), 1, "{writes:?}");
    let both = ["default/d0".to_owned(), "service:default/db".to_owned()];
    assert_eq!(cluster.peers(".Target"), both.clone().into());
    // Somebody else joins the Service: its address is not the targets' any more.
    cluster.service("db", &["d0", "w0"]);
    cluster.settle();
    assert_eq!(cluster.peers(".Target"), ["default/d0".to_owned()].into());
    let warnings = cluster.status()["kfault"]["warnings"].to_string();
    assert!(warnings.contains("1 of the 2 endpoints of the Service default/db"), "{warnings}");
    cluster.service("db", &["d0"]);
    cluster.settle();
    assert_eq!(cluster.peers(".Target"), both.into());
    assert_eq!(cluster.status()["kfault"]["warnings"], Value::Null);
}

#[test]
fn what_is_left_on_a_node_that_is_gone_is_let_go_even_without_its_experiment() {
    let mut cluster = running(&spec(&json!({})));
    let writes = cluster.drop_without(1);
    assert_eq!(writes.len(), 1, "{writes:?}");
    assert!(writes[0].starts_with("PATCH") && writes[0].contains("/nodefaults/"), "{writes:?}");
}

/// One of two web pods is loaded.
fn loaded(more: &Value) -> Cluster {
    let mut spec = json!({
        "mode": "all", "selector": { "labelSelectors": { "app": "web" } },
        "stressors": { "cpu": { "workers": 1 }, "memory": { "workers": 1, "size": "1MB" } },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    let mut cluster = Cluster::of(Kind::Stress, &spec, 2);
    cluster.pod_with_uid("w0", "web", 0, "10.244.0.1", "uid-w0");
    cluster.settle();
    assert!(cluster.is("AllInjected"), "{:?}", cluster.records());
    cluster
}

#[test]
fn a_load_is_asked_for_the_container_that_runs_now() {
    let mut cluster = loaded(&json!({}));
    assert_eq!(cluster.records(), ["default/w0/web Injected 1"]);
    let first = cluster.asked()["n0"].containers.clone();
    assert_eq!((first.len(), first[0].record().as_str()), (1, "default/w0/web"));
    // Its container starts again.
    cluster.pod_with_uid("w0", "web", 0, "10.244.0.1", "uid-w0");
    cluster.settle();
    let now = cluster.asked()["n0"].containers.clone();
    assert_eq!(now.len(), 1);
    assert_ne!((now[0].id.as_str(), ""), (first[0].id.as_str(), now[0].id.as_str()));
    assert!(cluster.is("AllInjected"));
    // Another pod of that name is another pod.
    cluster.pod("w0", "web", 1, "10.244.1.1");
    cluster.settle();
    assert!(cluster.asked().is_empty() && !cluster.is("AllInjected"));
}

#[test]
fn the_status_of_a_load_says_who_works_since_when_and_what_they_say() {
    let mut cluster = loaded(&json!({}));
    let instance = &cluster.status()["instances"]["default/w0/web"];
    assert_eq!(instance["startTime"], "2026-01-01T00:00:00Z");
    assert_eq!(instance["memoryStartTime"], "2026-01-01T00:00:00Z");
    assert!(instance["uid"].is_string() && instance["memoryUid"].is_string());
    assert_ne!(instance["uid"], instance["memoryUid"]);
    let warnings = cluster.status()["kfault"]["warnings"].clone();
    assert_eq!(warnings, json!(["default/w0/web: it hurts"]));
    cluster.pause(true);
    cluster.settle();
    assert!(cluster.status()["instances"].is_null() && cluster.is("AllRecovered"));
}

#[test]
fn a_load_that_follows_takes_new_pods() {
    let mut cluster = loaded(&json!({ "kfault": { "follow": true } }));
    cluster.pod("w1", "web", 1, "10.244.1.1");
    cluster.settle();
    assert_eq!(cluster.records(), ["default/w0/web Injected 1", "default/w1/web Injected 1"]);
}

#[test]
fn a_throttle_is_a_kind_of_another_group() {
    let spec = json!({
        "mode": "all", "selector": { "labelSelectors": { "app": "web" } }, "freeze": true,
        "containerNames": ["web", "none"],
    });
    let mut cluster = Cluster::of(Kind::Throttle, &spec, 1);
    cluster.pod("w0", "web", 0, "10.244.0.1");
    cluster.settle();
    assert!(cluster.is("AllInjected"), "{:?}", cluster.records());
    assert_eq!(cluster.records(), ["default/w0/web Injected 1"]);
    assert!(cluster.status()["instances"].is_null());
}

#[test]
fn why_messages_passed_on_all_nodes_is_in_the_status() {
    let spec = json!({
        "mode": "all", "selector": { "labelSelectors": { "app": "web" } },
        "target": "Response", "port": 443, "abort": true,
    });
    let mut cluster = Cluster::of(Kind::Http, &spec, 2);
    cluster.pod("w0", "web", 0, "10.244.0.1");
    cluster.pod("w1", "web", 1, "10.244.1.1");
    cluster.settle();
    assert!(cluster.is("AllInjected"), "{:?}", cluster.records());
    let told = cluster.status()["kfault"].clone();
    assert_eq!((&told["matched"], &told["passed"]), (&json!(4), &json!({ "tls": 6 })));
    let warnings = told["warnings"].to_string();
    assert!(warnings.contains("TLS is spoken there, which is not supported by this version"));
}
