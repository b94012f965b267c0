//! From manifests and the workloads of a host to one plan: who is hit where, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::net::IpAddr;

use chaos_user::fault::{Composed, Options, Refusal, compose, load};
use chaos_user::plan::{Cgroup, Direction, Partition};
use chaos_user::select::Workload;
use serde_json::{Value, json};

/// A network namespace with eth0 and one address, 10.0.0.`n`.
fn netns(name: &str, n: u8) -> Workload {
    Workload {
        name: format!("netns:{name}"),
        netns: format!("/run/netns/{name}"),
        inode: 1000 + u64::from(n),
        cgroup: None,
        sockets: None,
        place: None,
        devices: vec!["lo".to_owned(), "eth0".to_owned()],
        default_device: Some("eth0".to_owned()),
        addresses: vec![IpAddr::from([10, 0, 0, n])],
        is_elsewhere: false,
    }
}

/// A unit on the host's own devices.
fn unit(name: &str, id: u64) -> Workload {
    let cgroup = Cgroup { path: format!("/system.slice/{name}"), id, level: 2 };
    let host = netns("host", 1);
    Workload { name: format!("unit:{name}"), cgroup: Some(cgroup), ..host }
}

fn manifest(spec: &Value) -> Vec<(String, String)> {
    let mut object = json!({
        "apiVersion": "chaos-mesh.org/v1alpha1",
        "kind": "NetworkChaos",
        "metadata": {"name": "a"},
        "spec": {"mode": "all", "selector": {}},
    });
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    vec![("f".to_owned(), object.to_string())]
}

fn composed(spec: &Value, targets: &[Workload], peers: &[Workload]) -> Result<Composed, Refusal> {
    compose(&load(&manifest(spec)).unwrap(), targets, peers, &Options::default())
}

/// `workload direction peers`, one for each rule.
fn rules(composed: &Composed) -> Vec<String> {
    let rules = composed.plan.rules.iter().map(|rule| {
        let way = match rule.hook.direction {
            Direction::Egress => "egress",
            Direction::Ingress => "ingress",
        };
        let peers: Vec<_> = rule.peers.prefixes.iter().map(|p| p.net.to_string()).collect();
        format!("{} {way} {}", rule.target, peers.join(" "))
    });
    rules.collect()
}

fn with_target(action: Value, direction: &str) -> Value {
    let mut spec = action;
    spec["direction"] = json!(direction);
    spec["target"] = json!({"mode": "all", "selector": {}});
    spec
}

fn delay() -> Value {
    json!({"action": "delay", "delay": {"latency": "5ms"}})
}

fn partition() -> Value {
    json!({"action": "partition"})
}

/// The one problem of a refusal, and its exit code.
fn problem(result: Result<Composed, Refusal>) -> (String, u8) {
    let refusal = result.unwrap_err();
    let messages = refusal.messages();
    assert_eq!(messages.len(), 1, "{messages:?}");
    (messages[0].clone(), refusal.exit_code())
}

#[test]
fn each_direction_acts_where_its_packets_are_sent() {
    let (web, db) = ([netns("web", 2)], [netns("db", 3)]);
    let (there, back) = ("netns:web egress 10.0.0.3/32", "netns:db egress 10.0.0.2/32");
    for action in [delay(), partition()] {
        for (direction, want) in
            [("to", vec![there]), ("from", vec![back]), ("both", vec![back, there])]
        {
            let composed = composed(&with_target(action.clone(), direction), &web, &db).unwrap();
            assert_eq!(rules(&composed), want, "{action} {direction}");
            assert_eq!(composed.warnings, Vec::<String>::new());
        }
    }
}

/// Upstream forgets the first rule of such a pod.
#[test]
fn a_workload_in_both_sets_is_hit_towards_both_and_once() {
    let (web, db) = (netns("web", 2), netns("db", 3));
    let composed =
        composed(&with_target(delay(), "both"), &[web.clone(), db.clone()], &[db, web]).unwrap();
    assert_eq!(
        rules(&composed),
        ["netns:db egress 10.0.0.2/32 10.0.0.3/32", "netns:web egress 10.0.0.2/32 10.0.0.3/32"]
    );
}

#[test]
fn a_partition_tells_the_sender_in_a_cgroup_and_is_silent_elsewhere() {
    let composed = composed(&partition(), &[unit("a.service", 7), netns("web", 2)], &[]).unwrap();
    let said: Vec<_> = composed.plan.rules.iter().map(|rule| rule.describes.as_str()).collect();
    assert_eq!(
        said,
        [
            "silently drop every packet at egress of netns:web (eth0) towards everyone",
            "drop every packet (its sender gets EPERM) at egress of the sockets of unit:a.service \
             (eth0) towards everyone",
        ]
    );
}

#[test]
fn the_sockets_of_a_pod_are_told_and_the_rest_is_dropped_at_its_device() {
    let cgroup = Cgroup { path: "/kubepods/pod1".to_owned(), id: 7, level: 2 };
    let pod = Workload { sockets: Some(cgroup.clone()), ..netns("pod", 3) };
    let rules = |spec: &Value| composed(spec, std::slice::from_ref(&pod), &[]).unwrap().plan.rules;
    let both = rules(&partition());
    let hooks: Vec<_> = both.iter().map(|rule| rule.hook.cgroup.clone()).collect();
    assert_eq!(hooks, [None, Some(cgroup)]);
    assert!(both[1].describes.contains("EPERM"), "{}", both[1].describes);
    // A reset tells its sender by itself, and nobody is told of a delay.
    let reject = json!({"action": "partition", "partitionBehavior": "reject"});
    assert_eq!(rules(&reject).len(), 1);
    assert_eq!(rules(&delay()).len(), 1);
}

#[test]
fn what_arrives_for_a_cgroup_can_only_be_dropped() {
    let at = [unit("a.service", 7)];
    let reject = json!({"action": "partition", "direction": "from", "partitionBehavior": "reject"});
    let payload = json!({
        "action": "corrupt", "corrupt": {"corrupt": "5"}, "direction": "from",
        "kfault": {"ingress": true, "corrupt": "payload"},
    });
    for (spec, field) in [(&reject, "spec.partitionBehavior"), (&payload, "spec.kfault.corrupt")] {
        let (text, exit) = problem(composed(spec, &at, &[]));
        assert_eq!(exit, 3, "{text}");
        for word in
            ["NetworkChaos/default/a", field, "unit:a.service", "not supported by this version"]
        {
            assert!(text.contains(word), "no {word:?} in {text}");
        }
        // A workload with a namespace of its own can.
        assert!(composed(spec, &[netns("web", 2)], &[]).is_ok());
    }
    let drop = composed(&json!({"action": "partition", "direction": "from"}), &at, &[]).unwrap();
    assert_eq!(drop.plan.rules[0].effects.partition, Some(Partition::Drop));
}

#[test]
fn a_random_share_of_none_is_said() {
    let spec = json!({
        "action": "partition", "mode": "random-max-percent", "value": "1",
    });
    let experiments = load(&manifest(&spec)).unwrap();
    let at = [netns("web", 2)];
    // Half of the seeds draw 0 %, half 1 %.
    let (mut none, mut one) = (0, 0);
    for seed in 0..64 {
        let options = Options { seed, ..Options::default() };
        let composed = compose(&experiments, &at, &[], &options).unwrap();
        match composed.plan.rules.len() {
            0 => {
                none += 1;
                let text = composed.warnings.join("\n");
                assert!(
                    text.contains("spec.selector: the random share chose no workload"),
                    "{text}"
                );
            }
            rules => {
                one += 1;
                assert_eq!((rules, composed.warnings.len()), (1, 0));
            }
        }
    }
    assert!(none > 8 && one > 8, "{none} {one}");
}

#[test]
fn a_device_that_is_not_there_is_refused_with_those_that_are() {
    let mut spec = delay();
    spec["device"] = json!("eth7");
    let (text, exit) = problem(composed(&spec, &[netns("web", 2)], &[]));
    assert_eq!(exit, 2);
    for word in ["spec.device", "netns:web", "eth7", "lo, eth0"] {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    let bare = Workload { default_device: None, ..netns("web", 2) };
    let (text, _) = problem(composed(&delay(), &[bare], &[]));
    assert!(text.contains("spec.device") && text.contains("must be named"), "{text}");
}

#[test]
fn an_other_end_without_an_address_is_refused_and_does_not_mean_everyone() {
    let mute = Workload { addresses: Vec::new(), ..netns("db", 3) };
    let (text, exit) = problem(composed(&with_target(delay(), "to"), &[netns("web", 2)], &[mute]));
    assert_eq!(exit, 2);
    assert!(text.contains("netns:db has no address"), "{text}");
}

#[test]
fn two_names_of_one_workload_count_once() {
    let again = Workload { name: "container:web".to_owned(), ..netns("web", 2) };
    let composed = composed(&delay(), &[netns("web", 2), again], &[]).unwrap();
    assert_eq!(composed.plan.rules.len(), 1);
    assert!(composed.warnings[0].contains("once more; it counts once"), "{:?}", composed.warnings);
}

#[test]
fn a_seed_gives_a_plan_and_another_seed_other_dice() {
    let experiments = load(&manifest(&delay())).unwrap();
    let plan = |seed| {
        let options = Options { seed, ..Options::default() };
        compose(&experiments, &[netns("web", 2)], &[], &options).unwrap().plan
    };
    assert_eq!(plan(1), plan(1));
    assert_ne!(plan(1).rules[0].seed, plan(2).rules[0].seed);
}

#[test]
fn a_plan_is_written_and_read_alike() {
    let spec = json!({
        "action": "netem", "duration": "90s", "externalTargets": ["10.0.0.0/8:80", "example.com"],
        "delay": {"latency": "5ms", "jitter": "1ms", "correlation": "10", "reorder": {"reorder": "5", "gap": 3}},
        "loss": {"loss": "5"}, "corrupt": {"corrupt": "5"}, "duplicate": {"duplicate": "5"},
        "rate": {"rate": "1mbit"},
        "bandwidth": {"rate": "1mbps", "limit": 100_000, "buffer": 10_000, "peakrate": 2_000_000, "minburst": 1514},
    });
    let plan = composed(&spec, &[netns("web", 2), unit("a.service", 7)], &[]).unwrap().plan;
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<chaos_user::plan::Plan>(&text).unwrap(), plan);
}
