//! What every parser promises, on inputs that nobody thought of: no panic, what is shown reads
//! back, and what is out of range is refused with field, what is allowed and what to do.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use chaos_user::api::bytes::Bytes;
use chaos_user::api::document::documents;
use chaos_user::api::duration::GoDuration;
use chaos_user::api::latency::Latency;
use chaos_user::api::percent::Percent;
use chaos_user::api::rate::Rate;
use chaos_user::cli::explain::{Explained, explain, text};
use chaos_user::fault::network::External;
use chaos_user::fault::parse;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A text that nearly is a number with a unit.
fn likely() -> impl Strategy<Value = String> {
    "[ +-]?[0-9]{0,21}[.,]?[0-9]{0,21}(e[0-9]{1,3})? ?[kKmMgGtTpnuµ]?(bit|bps|b|s|h|m|B|iB|%)?[0-9]{0,3}[smh]?"
}

/// What parses is shown as a text that parses to the same. Nothing panics.
fn round<T>(text: &str)
where
    T: FromStr + Display + Debug + PartialEq,
    T::Err: Display,
{
    match text.parse::<T>() {
        Ok(value) => {
            let shown = value.to_string();
            match shown.parse::<T>() {
                Ok(again) => assert_eq!(again, value, "{text:?} is shown as {shown:?}"),
                Err(error) => panic!("{text:?} is shown as {shown:?}: {error}"),
            }
        }
        Err(error) => assert!(!error.to_string().is_empty(), "{text:?}"),
    }
}

fn round_all(text: &str) {
    round::<GoDuration>(text);
    round::<Latency>(text);
    round::<Rate>(text);
    round::<Percent>(text);
    round::<Bytes>(text);
    // That bits behind a prefix were dropped is not shown.
    if let Ok(target) = text.parse::<External>() {
        let shown = match target {
            External::Prefix { prefix, .. } => External::Prefix { prefix, masked: false },
            name => name,
        };
        assert_eq!(shown.to_string().parse::<External>(), Ok(shown), "{text:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        round_all(&text);
    }

    #[test]
    fn any_likely_text_is_read_or_refused(text in likely()) {
        round_all(&text);
    }

    #[test]
    fn any_likely_target_is_read_or_refused(text in "[\\[]?([0-9]{1,3}\\.){0,4}[0-9a-f:.]{0,20}[\\]]?(/[0-9]{1,4})?(:[0-9]{0,6})?") {
        round_all(&text);
    }

    #[test]
    fn every_value_reads_back(nanos: i64, unsigned: u64, rate: u64, bytes: u64, written in -3.4e38f64..3.4e38) {
        let duration = GoDuration { nanos };
        prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        let latency = Latency { nanos: unsigned >> 1 };
        prop_assert_eq!(latency.to_string().parse(), Ok(latency));
        let rate = Rate { bytes: rate };
        prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        let bytes = Bytes::Count(bytes);
        prop_assert_eq!(bytes.to_string().parse(), Ok(bytes));
        let percent = Percent { written };
        prop_assert_eq!(percent.to_string().parse(), Ok(percent));
    }

    #[test]
    fn any_text_is_a_manifest_or_refused(text in any::<String>()) {
        explained_well(&text);
    }

    #[test]
    fn any_yaml_like_text_is_a_manifest_or_refused(text in "([a-z]{1,4}|[-:\\[\\]{}&*!|>'\"%@`#,?] ?|\n *|---\n|\t|[0-9.]{1,4}|<<: |\u{feff}|\u{0}){0,40}") {
        explained_well(&text);
    }

    /// A good manifest with one value replaced by anything.
    #[test]
    fn any_value_at_any_place_is_read_or_refused(place in any::<prop::sample::Index>(), value in any_json()) {
        let mut manifest = full();
        let all = places(&manifest);
        let place: &String = place.get(&all);
        *manifest.pointer_mut(place).unwrap() = value;
        explained_well(&manifest.to_string());
    }

    /// A good manifest with any of its fields left out.
    #[test]
    fn any_field_may_be_left_out(places_left_out in prop::collection::vec(any::<prop::sample::Index>(), 1..6)) {
        let mut manifest = full();
        for place in places_left_out {
            let all = places(&manifest);
            if all.is_empty() {
                break;
            }
            let pointer = place.get(&all).clone();
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            if let Some(Value::Object(map)) = manifest.pointer_mut(parent) {
                map.remove(&field.replace("~1", "/"));
            }
        }
        explained_well(&manifest.to_string());
    }

    #[test]
    fn any_share_that_reads_is_a_probability(text in likely()) {
        let block = json!({"loss": text});
        for one in explain_spec("loss", "loss", &block) {
            let rules = one.plan.map(|plan| plan.rules).unwrap_or_default();
            for rule in rules {
                let share = rule.effects.loss.unwrap().share;
                prop_assert!(share > 0.0 && share <= 1.0, "{} of {}", share, text);
            }
        }
    }

    #[test]
    fn a_latency_out_of_range_is_refused_with_the_range(seconds in 121u64..4_000_000) {
        let block = json!({"latency": format!("{seconds}s")});
        refuses(&explain_spec("delay", "delay", &block), "spec.delay.latency", &["2m0s", "write"]);
    }

    #[test]
    fn a_percentage_out_of_range_means_its_end_and_says_so(percent in prop_oneof![-1e6f64..-0.001, 100.001..1e6]) {
        let all = explain_spec("loss", "loss", &json!({"loss": percent.to_string()}));
        let said = all[0].warnings.iter().any(|w| w.field == "spec.loss.loss" && w.message.contains("0 to 100"));
        prop_assert!(all[0].accepted && said, "{all:?}");
    }

    #[test]
    fn a_bucket_out_of_range_is_refused_with_the_range(bytes in prop_oneof![Just(0i64), i64::MIN..0, 4_294_967_296..i64::MAX]) {
        let block = json!({"rate": "1mbps", "limit": bytes, "buffer": bytes});
        let all = explain_spec("bandwidth", "bandwidth", &block);
        for field in ["spec.bandwidth.limit", "spec.bandwidth.buffer"] {
            refuses(&all, field, &["1 to 4294967295", "write"]);
        }
    }

    #[test]
    fn a_port_out_of_range_is_refused_with_the_range(port in prop_oneof![Just(0u32), 65_536u32..]) {
        let mut manifest = minimal("partition");
        manifest["spec"]["externalTargets"] = json!([format!("192.0.2.1:{port}")]);
        let all = explain(&[("f".to_owned(), manifest.to_string())]);
        refuses(&all, "spec.externalTargets[0]", &["1 to 65535", "write"]);
    }

    #[test]
    fn a_share_of_pods_out_of_range_is_refused_with_the_range(value in prop_oneof![i64::MIN..=0, 101i64..]) {
        let mut manifest = minimal("partition");
        manifest["spec"]["mode"] = json!("fixed-percent");
        manifest["spec"]["value"] = json!(value.to_string());
        let all = explain(&[("f".to_owned(), manifest.to_string())]);
        refuses(&all, "spec.value", &["1 to 100", "write"]);
    }
}

fn minimal(action: &str) -> Value {
    json!({
        "apiVersion": "chaos-mesh.org/v1alpha1",
        "kind": "NetworkChaos",
        "metadata": {"name": "a"},
        "spec": {"action": action, "mode": "all", "selector": {}},
    })
}

fn explain_spec(action: &str, name: &str, block: &Value) -> Vec<Explained> {
    let mut manifest = minimal(action);
    manifest["spec"][name] = block.clone();
    explain(&[("f".to_owned(), manifest.to_string())])
}

/// Every field of the kind, each with a value that is accepted.
fn full() -> Value {
    json!({
        "apiVersion": "chaos-mesh.org/v1alpha1",
        "kind": "NetworkChaos",
        "metadata": {"name": "a", "namespace": "b", "labels": {"c": "d"}, "annotations": {"e/f": "g"}},
        "spec": {
            "action": "netem",
            "mode": "fixed",
            "value": "2",
            "selector": {
                "namespaces": ["a"],
                "labelSelectors": {"b": "c"},
                "expressionSelectors": [{"key": "d", "operator": "In", "values": ["e"]}],
                "annotationSelectors": {"f": "g"},
                "fieldSelectors": {"metadata.name": "h"},
                "podPhaseSelectors": ["!Failed"],
                "nodes": ["i"],
                "nodeSelectors": {"j": "k"},
            },
            "direction": "to",
            "target": {"mode": "all", "selector": {"pods": {"l": ["m"]}}},
            "partitionBehavior": "drop",
            "externalTargets": ["192.0.2.1:80", "2001:db8::/32", "example.com"],
            "device": "eth0",
            "targetDevice": "eth1",
            "delay": {"latency": "5ms", "jitter": "1ms", "correlation": "5", "reorder": {"reorder": "5", "correlation": "5", "gap": 2}},
            "loss": {"loss": "5", "correlation": "5"},
            "duplicate": {"duplicate": "5", "correlation": "5"},
            "corrupt": {"corrupt": "5", "correlation": "5"},
            "rate": {"rate": "1mbit"},
            "bandwidth": {"rate": "1mbps", "limit": 1_000_000, "buffer": 100_000, "peakrate": 2_000_000, "minburst": 1_514},
            "duration": "30s",
            "kfault": {"ingress": false, "corrupt": "wire", "perPacket": false, "follow": false},
        },
    })
}

#[test]
fn the_full_manifest_is_accepted() {
    let all = explain(&[("f".to_owned(), full().to_string())]);
    assert!(all[0].accepted, "{all:?}");
    assert!(places(&full()).len() > 60);
}

/// JSON pointers of all values below the root.
fn places(value: &Value) -> Vec<String> {
    fn walk(value: &Value, at: &str, out: &mut Vec<String>) {
        let below: Vec<(String, &Value)> = match value {
            Value::Object(map) => map.iter().map(|(k, v)| (k.replace('/', "~1"), v)).collect(),
            Value::Array(all) => all.iter().enumerate().map(|(i, v)| (i.to_string(), v)).collect(),
            _ => Vec::new(),
        };
        for (key, value) in below {
            let place = format!("{at}/{key}");
            walk(value, &place, out);
            out.push(place);
        }
    }
    let mut out = Vec::new();
    walk(value, "", &mut out);
    out
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        likely().prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-zA-Z./]{0,12}", inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Explaining holds together: a refusal has a message, what is accepted has a plan, and its
/// object reads back to the same object and plan.
fn explained_well(manifest: &str) {
    let _ = documents("f", manifest);
    let inputs = [("f".to_owned(), manifest.to_owned())];
    for error in parse(&inputs).iter().flat_map(|one| &one.errors) {
        assert!(error.to_string().starts_with("f, document "), "{error}: {manifest}");
    }
    for one in explain(&inputs) {
        assert!(!text(&one).is_empty());
        assert_eq!(one.accepted, one.errors.is_empty(), "{one:?}");
        assert_eq!(one.accepted, one.plan.is_some(), "{one:?}");
        let Some(object) = one.object.filter(|_| one.accepted) else { continue };
        let again = explain(&[("f".to_owned(), object.to_string())]);
        assert_eq!(again[0].object.as_ref(), Some(&object), "{manifest}");
        assert_eq!(again[0].plan, one.plan, "{manifest}");
    }
}

/// The first document is refused at `field`, in these words.
fn refuses(all: &[Explained], field: &str, words: &[&str]) {
    assert!(!all[0].accepted, "{all:?}");
    let error = all[0].errors.iter().find(|error| error.field == field);
    let error = error.unwrap_or_else(|| panic!("no error of {field}: {all:?}"));
    for word in words {
        assert!(error.message.contains(word), "no {word:?} in {error:?}");
    }
}
