use serde_json::{Value, json};

use super::*;
use crate::api::finding::Findings;
use crate::fault::fixture::read_spec;
use crate::plan::Reply;

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
