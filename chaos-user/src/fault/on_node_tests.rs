use serde_json::{Value, json};

use super::*;
use crate::fault::parse_object;
use crate::plan::Direction;

const NODE: &str = "n1";

fn pod(name: &str, node: &str) -> Pod {
    Pod {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        node: node.to_owned(),
        host_network: false,
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn set(side: &str, peers: &[(&str, &[&str])]) -> peerset::Spec {
    let peer = |(name, addresses): &(&str, &[&str])| Peer {
        name: (*name).to_owned(),
        addresses: addresses.iter().map(|text| ip(text)).collect(),
    };
    peerset::Spec { side: side.to_owned(), peers: peers.iter().map(peer).collect() }
}

/// A partition of pod `a` on this node from a target, in a direction.
fn experiment(direction: &str) -> Value {
    json!({
        "apiVersion": "chaos-mesh.org/v1alpha1", "kind": "NetworkChaos",
        "metadata": { "name": "cut", "namespace": "default" },
        "spec": {
            "action": "partition", "mode": "all", "direction": direction,
            "selector": { "labelSelectors": { "app": "a" } },
            "target": { "mode": "all", "selector": { "labelSelectors": { "app": "b" } } },
        },
    })
}

fn spec(direction: &str, sources: Vec<Pod>, targets: Vec<Pod>, peers: &[&str]) -> Spec {
    Spec {
        node: NODE.to_owned(),
        run: true,
        until: None,
        experiment: experiment(direction),
        seed: 1,
        sources,
        targets: Some(targets),
        peers: peers.iter().map(|name| (*name).to_owned()).collect(),
        containers: Vec::new(),
        names: BTreeMap::new(),
    }
}

fn workload(id: &str, inode: u64, addresses: &[&str]) -> Workload {
    Workload {
        netns: format!("/proc/{inode}/ns/net"),
        inode,
        devices: vec!["eth0".to_owned(), "lo".to_owned()],
        default_device: Some("eth0".to_owned()),
        addresses: addresses.iter().map(|text| ip(text)).collect(),
        ..Workload::unbound(&name(id))
    }
}

/// Lowers where `found` are the pods of this node: id and what it sees of its addresses.
fn lowered(spec: &Spec, sets: &[(&str, peerset::Spec)], found: &[(&str, &[&str])]) -> OnNode {
    let experiment = parse_object("test", spec.experiment.clone()).experiment.unwrap();
    let sets: Sets = sets.iter().map(|(name, set)| ((*name).to_owned(), set.clone())).collect();
    let found = found.iter().enumerate().map(|(i, (id, addresses))| {
        ((*id).to_owned(), Ok(workload(id, 100 + i as u64, addresses)))
    });
    let options = Options { in_cluster: true, ..Options::default() };
    on_node(spec, &sets, &experiment, &found.collect(), &options)
}

/// Rule by id, with the addresses that it looks at.
fn peers(out: &OnNode) -> Vec<(String, Vec<String>)> {
    let one = |rule: &Rule| {
        let prefixes = rule.peers.prefixes.iter().map(|prefix| prefix.net.addr().to_string());
        (rule.id.clone(), prefixes.collect())
    };
    out.rules.iter().map(one).collect()
}

const B_DUAL: &[(&str, &[&str])] =
    &[("default/b", &["10.244.2.7", "fd00:10:244:2::7"]), ("service:default/b", &["10.96.0.9"])];

#[test]
fn a_pod_of_two_families_is_cut_off_from_every_address_of_the_other_end() {
    let spec = spec("to", vec![pod("a", NODE)], Vec::new(), &["t"]);
    let out = lowered(&spec, &[("t", set(".Target", B_DUAL))], &[("default/a", &["10.244.1.5"])]);
    let expected = ["10.96.0.9", "10.244.2.7", "fd00:10:244:2::7"].map(str::to_owned).to_vec();
    let id = "NetworkChaos/default/cut/pod:default/a/egress".to_owned();
    assert_eq!(peers(&out), [(id, expected)]);
    assert_eq!(out.records.len(), 1);
    assert_eq!(out.records[0].state, NodeState::Injected);
}

#[test]
fn pods_with_ipv6_alone_are_matched_in_both_directions() {
    let both = spec("both", vec![pod("a", NODE)], vec![pod("b", NODE)], &["s", "t"]);
    let sets = [
        ("s", set(".", &[("default/a", &["fd00::a"])])),
        ("t", set(".Target", &[("default/b", &["fd00::b"])])),
    ];
    let out = lowered(&both, &sets, &[("default/a", &["fd00::a"]), ("default/b", &["fd00::b"])]);
    let rule = |pod: &str| format!("NetworkChaos/default/cut/pod:default/{pod}/egress");
    let expected =
        [(rule("a"), vec!["fd00::b".to_owned()]), (rule("b"), vec!["fd00::a".to_owned()])];
    assert_eq!(peers(&out), expected);
    assert!(out.rules.iter().all(|rule| rule.hook.direction == Direction::Egress));
    assert!(out.rules.iter().all(|rule| rule.peers.prefixes[0].net.prefix_len() == 128));
}

#[test]
fn what_the_api_says_of_addresses_comes_before_what_the_node_sees() {
    let from = spec("from", Vec::new(), vec![pod("b", NODE)], &["s", "t"]);
    let sets = [("s", set(".", &[("default/a", &["10.244.9.9"])])), ("t", set(".Target", B_DUAL))];
    let out = lowered(&from, &sets, &[("default/b", &["192.0.2.1"])]);
    assert_eq!(peers(&out)[0].1, ["10.244.9.9"]);
}

#[test]
fn without_one_of_its_peer_sets_nothing_is_injected() {
    let spec = spec("both", vec![pod("a", NODE)], Vec::new(), &["s", "t"]);
    let out = lowered(&spec, &[("t", set(".Target", B_DUAL))], &[("default/a", &["10.244.1.5"])]);
    assert!(out.waits && out.rules.is_empty());
    assert_eq!(out.records[0].state, NodeState::Failed);
    assert!(out.records[0].message.contains("PeerSet s"), "{}", out.records[0].message);
}

#[test]
fn an_empty_peer_set_never_means_everyone() {
    let spec = spec("to", vec![pod("a", NODE)], Vec::new(), &["t"]);
    let found: [(&str, &[&str]); 1] = [("default/a", &["10.244.1.5"])];
    assert_eq!(lowered(&spec, &[("t", set(".Target", &[]))], &found).rules, []);
    let pending = lowered(&spec, &[("t", set(".Target", &[("default/b", &[])]))], &found);
    assert_eq!(pending.rules, []);
    assert!(pending.records[0].message.contains("has no address"), "{:?}", pending.records);
}

#[test]
fn a_target_beside_a_source_on_one_node_needs_no_address_of_the_node() {
    let from = spec("from", vec![pod("a", NODE)], vec![pod("b", NODE)], &["s", "t"]);
    let sets = [("s", set(".", &[("default/a", &["10.244.1.5"])])), ("t", set(".Target", B_DUAL))];
    let out = lowered(&from, &sets, &[("default/a", &[]), ("default/b", &[])]);
    assert!(out.records.iter().all(|one| one.state == NodeState::Injected), "{:?}", out.records);
    assert_eq!(out.rules.len(), 1);
}

#[test]
fn without_a_target_no_address_matters() {
    let mut alone = spec("to", vec![pod("a", NODE), pod("c", NODE)], Vec::new(), &[]);
    alone.targets = None;
    alone.experiment["spec"].as_object_mut().unwrap().remove("target");
    let out = lowered(&alone, &[], &[("default/a", &[]), ("default/c", &[])]);
    assert_eq!(out.rules.len(), 2);
    assert!(out.rules.iter().all(|rule| rule.peers.is_everyone()));
}
