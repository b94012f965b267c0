//! The engine over a modelled kernel: what it does, what it undoes, and that it ends clean.
#![allow(missing_docs, reason = "a test program")]

use std::collections::BTreeMap;
use std::net::IpAddr;

use chaos_user::engine::fake::{Fake, State};
use chaos_user::engine::kernel::Kernel;
use chaos_user::engine::{Engine, Options};
use chaos_user::plan::action::Action;
use chaos_user::plan::diff::{Installed, diff};
use chaos_user::plan::{
    Cgroup, Chance, Delay, Device, Direction, Effects, Hook, Name, Partition, Peers, Plan, Prefix,
    Rule,
};
use proptest::prelude::*;

fn device(name: &str) -> Device {
    Device { netns: format!("/run/netns/{name}"), inode: 7, name: "eth0".into() }
}

fn rule(id: &str, hook: Hook, effects: Effects) -> Rule {
    Rule {
        id: id.into(),
        experiment: "NetworkChaos/default/test".into(),
        target: "netns:test".into(),
        hook,
        peers: Peers::default(),
        effects,
        describes: String::new(),
        declared: None,
        seed: 1,
        duration: None,
        dry_run: false,
    }
}

fn egress(namespace: &str) -> Hook {
    Hook { device: device(namespace), direction: Direction::Egress, cgroup: None }
}

fn delay() -> Effects {
    let delay = Delay { latency_ns: 1_000_000, jitter_ns: 0, correlation: 0.0, reorder: None };
    Effects { delay: Some(delay), ..Effects::default() }
}

fn loss() -> Effects {
    Effects { loss: Some(Chance { share: 0.1, correlation: 0.0 }), ..Effects::default() }
}

fn plan(rules: Vec<Rule>) -> Plan {
    let mut rules = rules;
    rules.sort_by(|a, b| a.id.cmp(&b.id));
    Plan { rules, ..Plan::default() }
}

fn cgroup(path: &str, level: u32) -> Cgroup {
    Cgroup { path: path.into(), id: u64::from(level) + 100, level }
}

fn names(address: &str) -> BTreeMap<String, Vec<IpAddr>> {
    BTreeMap::from([("db.test".to_owned(), address.parse().into_iter().collect())])
}

/// A plan that uses every action.
fn rich() -> Plan {
    let mut named = rule("b", egress("web"), loss());
    named.peers.names = vec![Name { host: "db.test".into(), port: Some(80) }];
    let mut inside = rule("c", egress("host"), delay());
    inside.hook.cgroup = Some(cgroup("/a/b", 2));
    let mut refused = rule("d", egress("host"), Effects::default());
    refused.effects.partition = Some(Partition::Drop);
    refused.hook.cgroup = Some(cgroup("/a", 1));
    plan(vec![rule("a", egress("web"), delay()), named, inside, refused])
}

#[test]
fn every_failure_leaves_the_kernel_as_it_was() {
    let resolved = names("10.0.0.1");
    let mut engine = Engine::over(Fake::default(), &Options::default());
    engine.apply(&rich(), &resolved).expect("a whole plan applies");
    let steps = engine.kernel().log.len();
    assert!(steps > 8, "the plan uses {steps} actions");
    drop(engine);
    for fail_at in 0..steps {
        let fake = Fake { fail_at: Some(fail_at), ..Fake::default() };
        let mut engine = Engine::over(fake, &Options::default());
        engine.apply(&rich(), &resolved).expect_err("told to fail");
        assert_eq!(engine.kernel().state, State::default(), "failing action {fail_at}");
        assert_eq!(*engine.installed(), Installed::default());
    }
}

#[test]
fn recovery_leaves_nothing() {
    let mut engine = Engine::over(Fake::default(), &Options::default());
    engine.apply(&rich(), &names("10.0.0.1")).expect("applies");
    engine.recover(&|| false).expect("recovers");
    assert_eq!(engine.kernel().state, State::default());
    assert_eq!(*engine.installed(), Installed::default());
}

#[test]
fn a_queue_goes_when_its_packets_have_left_and_nobody_waits_for_it() {
    let first = || plan(vec![rule("a", egress("web"), delay())]);
    let queues = |engine: &Engine<Fake>| engine.kernel().state.queues.len();
    let mut engine = Engine::over(Fake::default(), &Options::default());
    engine.apply(&first(), &names("10.0.0.1")).expect("applies");
    engine.kernel().held.set(3);
    engine.apply(&Plan::default(), &names("10.0.0.1")).expect("ends");
    engine.beat().expect("beats");
    assert_eq!((queues(&engine), engine.kernel().state.hooks.len()), (1, 0));
    // A new fault takes the queue over.
    engine.apply(&first(), &names("10.0.0.1")).expect("applies again");
    engine.kernel().held.set(0);
    engine.beat().expect("beats");
    assert_eq!(queues(&engine), 1);
    // Empty, or late: it goes.
    for (held, clock) in [(0, 0), (3, 1_000_000_000)] {
        engine.kernel().held.set(3);
        engine.apply(&first(), &names("10.0.0.1")).expect("applies");
        engine.apply(&Plan::default(), &names("10.0.0.1")).expect("ends");
        assert_eq!(queues(&engine), 1);
        engine.kernel().held.set(held);
        engine.kernel().clock.set(engine.kernel().clock.get() + clock);
        engine.beat().expect("beats");
        assert_eq!(engine.kernel().state, State::default());
        assert_eq!(*engine.installed(), Installed::default());
    }
}

#[test]
fn an_unchanged_plan_changes_nothing() {
    let mut engine = Engine::over(Fake::default(), &Options::default());
    engine.apply(&rich(), &names("10.0.0.1")).expect("applies");
    let before = engine.kernel().log.len();
    engine.apply(&rich(), &names("10.0.0.1")).expect("applies again");
    assert_eq!(engine.kernel().log.len(), before);
}

#[test]
fn a_new_address_of_a_name_changes_peers_only() {
    let mut engine = Engine::over(Fake::default(), &Options::default());
    engine.apply(&rich(), &names("10.0.0.1")).expect("applies");
    let before = engine.kernel().log.len();
    engine.apply(&rich(), &names("10.0.0.2")).expect("applies again");
    assert_eq!(engine.kernel().log[before..], ["change-peers"]);
}

#[test]
fn a_target_that_vanishes_is_disarmed_and_stays_so() {
    let fake = Fake { vanished: [device("web")].into(), ..Fake::default() };
    let mut engine = Engine::over(fake, &Options::default());
    engine.apply(&rich(), &names("10.0.0.1")).expect("applies");
    let all = engine.kernel().state.arms.len();
    engine.beat().expect("beats");
    let left = engine.kernel().state.arms.clone();
    // One hook of the target has gone, those of the other one act.
    assert_eq!((left.len(), all > 1), (all - 1, true));
    engine.apply(&rich(), &names("10.0.0.2")).expect("applies again");
    assert_eq!(engine.kernel().state.arms, left);
    engine.recover(&|| false).expect("recovers");
    assert_eq!(engine.kernel().state, State::default());
}

#[test]
fn nothing_is_armed_before_its_rule_and_hook_stand() {
    // The fake refuses an arm that names an unwritten rule or an absent hook; see its terms.
    let mut engine = Engine::over(Fake::default(), &Options::default());
    engine.apply(&rich(), &names("10.0.0.1")).expect("applies");
    let armed = engine.kernel().log.iter().position(|name| *name == "arm").expect("arms");
    let last_rule = engine.kernel().log.iter().rposition(|name| *name == "write-rule");
    assert!(last_rule < Some(armed));
}

#[test]
fn identical_peer_sets_are_stored_once() {
    let mut rules = Vec::new();
    for number in 0..100 {
        let mut rule = rule(&format!("r{number:03}"), egress(&format!("n{number}")), loss());
        rule.peers.prefixes =
            vec![Prefix { net: "10.0.0.0/8".parse().expect("a prefix"), port: None }];
        rules.push(rule);
    }
    let mut engine = Engine::over(Fake::default(), &Options::default());
    engine.apply(&plan(rules), &BTreeMap::new()).expect("applies");
    assert_eq!(engine.kernel().state.sets.len(), 1);
}

#[test]
fn a_member_carries_the_rules_of_its_device_and_its_ancestors() {
    let mut outer = rule("a", egress("host"), loss());
    outer.hook.cgroup = Some(cgroup("/a", 1));
    let mut inner = rule("b", egress("host"), delay());
    inner.hook.cgroup = Some(cgroup("/a/b", 2));
    let mut engine = Engine::over(Fake::default(), &Options::default());
    engine.apply(&plan(vec![outer, inner]), &BTreeMap::new()).expect("applies");
    let mut rules: Vec<usize> =
        engine.kernel().state.arms.values().map(|arms| arms.rules.len()).collect();
    rules.sort_unstable();
    // The device itself names none, the outer cgroup its own, the inner one both.
    assert_eq!(rules, [0, 1, 2]);
}

#[test]
fn too_many_rules_at_one_place_are_refused_whole() {
    let rules = (0..17).map(|n| rule(&format!("r{n:02}"), egress("web"), loss())).collect();
    let mut engine = Engine::over(Fake::default(), &Options::default());
    let error = engine.apply(&plan(rules), &BTreeMap::new()).expect_err("17 of 16");
    assert!(error.to_string().contains("17"), "{error}");
    assert_eq!(engine.kernel().state, State::default());
}

fn any_rule() -> impl Strategy<Value = Rule> {
    (0..6u8, 0..4u8, 0..3u8, any::<bool>(), any::<bool>()).prop_map(
        |(id, namespace, kind, inside, ingress)| {
            let mut hook = egress(&format!("n{namespace}"));
            if inside {
                hook.cgroup = Some(cgroup("/a", 1));
            }
            if ingress {
                hook.direction = Direction::Ingress;
            }
            let effects = match kind {
                0 => loss(),
                1 if !ingress => delay(),
                _ => Effects { partition: Some(Partition::Drop), ..Effects::default() },
            };
            rule(&format!("r{id}"), hook, effects)
        },
    )
}

fn any_plan() -> impl Strategy<Value = Plan> {
    prop::collection::btree_map(0..6u8, any_rule(), 0..6).prop_map(|rules| {
        plan(
            rules
                .into_iter()
                .map(|(id, mut rule)| {
                    rule.id = format!("r{id}");
                    rule
                })
                .collect(),
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_sequence_of_plans_applies_and_ends_clean(plans in prop::collection::vec(any_plan(), 1..5)) {
        let mut engine = Engine::over(Fake::default(), &Options::default());
        for plan in &plans {
            engine.apply(plan, &BTreeMap::new()).expect("any plan applies over any other");
            let (again, _) = diff(plan, &BTreeMap::new(), engine.installed()).expect("fits");
            prop_assert!(again.is_empty(), "a second diff is not empty: {again:?}");
        }
        engine.recover(&|| false).expect("recovers");
        prop_assert_eq!(&engine.kernel().state, &State::default());
    }

    #[test]
    fn undoing_in_reverse_restores_the_kernel(first in any_plan(), second in any_plan()) {
        let mut fake = Fake::default();
        let (actions, installed) = diff(&first, &BTreeMap::new(), &Installed::default()).expect("fits");
        for action in &actions {
            fake.perform(action).expect("applies");
        }
        let before = fake.state.clone();
        let (actions, _) = diff(&second, &BTreeMap::new(), &installed).expect("fits");
        for action in &actions {
            fake.perform(action).expect("applies");
        }
        for action in actions.iter().rev().map(Action::undo) {
            fake.perform(&action).expect("undoes");
        }
        prop_assert_eq!(fake.state, before);
    }
}
