use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::DnsChaos;
use crate::api::finding::Findings;
use crate::fault::fixture::read_spec;
use crate::fault::{Experiment, Lowered, Options, lower, parse_object};
use crate::plan::{Direction, Reply};
use crate::select::Workload;

fn read(more: &Value) -> (Option<DnsChaos>, Findings) {
    read_spec(more, DnsChaos::read)
}

fn fine(more: &Value) -> DnsChaos {
    let (spec, findings) = read(more);
    assert_eq!(findings, Findings::default(), "{more}");
    spec.unwrap()
}

#[test]
fn what_is_read_is_written_back() {
    for more in [
        json!({ "action": "error" }),
        json!({ "action": "error", "patterns": ["google.com", "a?b.c", "web.*"] }),
        json!({ "action": "random", "duration": "30s", "containerNames": ["a"] }),
        json!({ "action": "error", "kfault": { "answer": "timeout", "follow": true } }),
        json!({ "action": "random", "kfault": { "ttl": 0 } }),
    ] {
        let first = fine(&more);
        let (second, _) = read(&first.json());
        assert_eq!(second, Some(first));
    }
}

#[test]
fn the_answer_defaults_to_what_the_kind_means_elsewhere() {
    let answer = |more: Value| fine(&more).answer();
    let error = answer(json!({ "action": "error" }));
    assert!(error.names.is_every());
    assert_eq!((error.reply, error.ttl), (Reply::Servfail, 0));
    let random = answer(json!({ "action": "random" }));
    assert_eq!((random.reply, random.ttl), (Reply::Random, 10));
    for (word, reply) in [
        ("nxdomain", Reply::Nxdomain),
        ("servfail", Reply::Servfail),
        ("refused", Reply::Refused),
        ("timeout", Reply::Timeout),
    ] {
        let more = json!({ "action": "error", "kfault": { "answer": word } });
        assert_eq!(answer(more).reply, reply);
    }
}

#[test]
fn what_cannot_be_is_refused_by_its_field() {
    let many: Vec<String> = (0..1025).map(|i| format!("a{i}.example")).collect();
    let wild: Vec<String> = (0..17).map(|i| format!("a?{i}.example")).collect();
    let long = "x".repeat(254);
    for (more, field) in [
        (json!({}), "spec.action"),
        (json!({ "action": "delay" }), "spec.action"),
        (json!({ "action": "error", "patterns": many }), "spec.patterns"),
        (json!({ "action": "error", "patterns": wild }), "spec.patterns"),
        (json!({ "action": "error", "patterns": [long] }), "spec.patterns"),
        (json!({ "action": "error", "kfault": { "answer": "noerror" } }), "spec.kfault.answer"),
        (json!({ "action": "random", "kfault": { "ttl": -1 } }), "spec.kfault.ttl"),
        (json!({ "action": "error", "remoteCluster": "b" }), "spec.remoteCluster"),
    ] {
        let (_, findings) = read(&more);
        let errors: Vec<_> = findings.errors.iter().map(|error| error.field()).collect();
        assert_eq!(errors, [field], "{findings:?}");
    }
}

#[test]
fn what_does_not_do_what_it_seems_to_is_said() {
    for (more, field, words) in [
        (json!({ "patterns": ["*.google.com"] }), "spec.patterns[0]", "matches nothing"),
        (json!({ "patterns": ["a.b", "a*b"] }), "spec.patterns[1]", "last character"),
        (json!({ "patterns": ["web"] }), "spec.patterns[0]", "web.*"),
        (json!({ "patterns": ["web.shop.svc"] }), "spec.patterns[0]", "web.shop.svc.*"),
        (json!({ "patterns": [""] }), "spec.patterns[0]", "root"),
        (json!({ "patterns": ["a.b", "bücher.example"] }), "spec.patterns[1]", "xn--"),
        (json!({ "kfault": { "ttl": 5 } }), "spec.kfault.ttl", "no effect"),
    ] {
        let mut more = more;
        more["action"] = json!("error");
        let (spec, findings) = read(&more);
        assert!(spec.is_some() && findings.errors.is_empty(), "{more}: {findings:?}");
        let [warning] = findings.warnings.as_slice() else { panic!("{more}: {findings:?}") };
        assert_eq!(warning.field, field);
        assert!(warning.message.contains(words), "{}", warning.message);
    }
    let (_, findings) = read(&json!({ "action": "random", "kfault": { "answer": "refused" } }));
    assert_eq!(findings.warnings[0].field, "spec.kfault.answer");
}

fn experiment(more: &Value) -> Experiment {
    let mut spec = json!({ "selector": {}, "mode": "all", "action": "error" });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let object = json!({
        "apiVersion": "chaos-mesh.org/v1alpha1", "kind": "DNSChaos",
        "metadata": { "name": "a" }, "spec": spec,
    });
    parse_object("test", object).experiment.unwrap()
}

fn workload(name: &str, devices: &[&str]) -> Workload {
    Workload {
        netns: format!("/run/netns/{name}"),
        inode: 7,
        devices: devices.iter().map(|device| (*device).to_owned()).collect(),
        default_device: Some("eth0".to_owned()),
        ..Workload::unbound(name)
    }
}

fn lowered(more: &Value, sources: &[Workload]) -> Lowered {
    lower(&experiment(more), sources, None, &Options::default()).unwrap()
}

#[test]
fn queries_are_answered_on_every_device_loopback_first() {
    let found = lowered(&json!({}), &[workload("netns:web", &["lo", "net1", "eth0"])]);
    let ids: Vec<&str> = found.rules.iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(
        ids,
        [
            "DNSChaos/default/a/netns:web/dns/eth0",
            "DNSChaos/default/a/netns:web/dns/lo",
            "DNSChaos/default/a/netns:web/dns/net1",
        ]
    );
    assert!(found.warnings.is_empty());
    assert!(found.rules.iter().all(|rule| rule.hook.direction == Direction::Egress));
    let seeds: BTreeSet<u64> = found.rules.iter().map(|rule| rule.seed).collect();
    assert_eq!(seeds.len(), 3, "each rule has dice of its own");
}

#[test]
fn a_host_with_very_many_devices_is_served_on_the_first_of_them() {
    let names: Vec<String> = (0..40).map(|i| format!("veth{i}")).collect();
    let mut devices: Vec<&str> = names.iter().map(String::as_str).collect();
    devices.extend(["eth0", "lo"]);
    let found = lowered(&json!({}), &[workload("unit:web.service", &devices)]);
    assert_eq!(found.rules.len(), 32);
    for device in ["lo", "eth0", "veth0"] {
        assert!(found.rules.iter().any(|rule| rule.hook.device.name == device), "{device}");
    }
    assert!(found.warnings[0].message.contains("42 devices"), "{:?}", found.warnings);
}

#[test]
fn a_workload_with_two_names_counts_once_and_one_of_another_node_not_at_all() {
    let twice = [workload("a", &["lo"]), workload("b", &["lo"])];
    let same = Workload { netns: twice[0].netns.clone(), ..twice[1].clone() };
    let elsewhere = Workload::elsewhere("c", Vec::new());
    let found = lowered(&json!({}), &[twice[0].clone(), same, elsewhere]);
    assert_eq!(found.rules.len(), 1);
    assert!(found.warnings[0].message.contains("counts once"), "{:?}", found.warnings);
    assert_eq!(lowered(&json!({}), &[]).warnings.len(), 1, "the random share chose none");
}

#[test]
fn a_rule_says_what_it_does() {
    let patterns = json!({ "patterns": ["e", "d.x", "c.x", "b.*", "a.x"], "duration": "5s" });
    let found = lowered(&patterns, &[workload("netns:web", &["eth0"])]);
    let rule = &found.rules[0];
    assert_eq!(
        rule.describes,
        "answer DNS queries for a.x, b.*, c.x and 2 more with SERVFAIL at egress of netns:web (eth0)"
    );
    assert_eq!((rule.declared, rule.duration), (None, Some(Duration::from_secs(5))));
}
