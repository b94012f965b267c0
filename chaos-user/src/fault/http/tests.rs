use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::api::finding::Findings;
use crate::fault::fixture::read_spec;
use crate::fault::{Lowered, Options, parse_object};
use crate::plan::Marked;
use crate::plan::exchange::{Edit, Matcher, Message, Role};
use crate::select::Workload;

/// Reads a spec for port 80 with these fields more.
fn read(target: &str, more: &Value) -> (Option<HttpChaos>, Findings) {
    let mut spec = json!({ "target": target, "port": 80 });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    read_spec(&spec, HttpChaos::read)
}

fn edit(target: &str, more: &Value) -> Edit {
    let (read, findings) = read(target, more);
    assert_eq!(findings, Findings::default(), "{more}");
    read.unwrap().edit
}

fn lowered(more: &Value, options: &Options) -> Lowered {
    let mut spec = json!({
        "selector": {}, "mode": "all", "target": "Response", "port": 80, "abort": true,
    });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let object = json!({
        "apiVersion": "chaos-mesh.org/v1alpha1", "kind": "HTTPChaos",
        "metadata": { "name": "web" }, "spec": spec,
    });
    let experiment = parse_object("test", object).experiment.unwrap();
    let web = Workload {
        netns: "/run/netns/web".into(),
        inode: 7,
        devices: vec!["lo".into(), "eth0".into()],
        ..Workload::unbound("netns:web")
    };
    let same = Workload { name: "pid:9".into(), ..web.clone() };
    let far = Workload::elsewhere("pod:far", Vec::new());
    lower(&experiment, spec_of(&experiment), &[web, same, far], options)
}

fn spec_of(experiment: &crate::fault::Experiment) -> &HttpChaos {
    let crate::fault::Fault::Http(spec) = &experiment.fault else { panic!("another kind") };
    spec
}

#[test]
fn what_is_read_is_written_back() {
    for (target, more) in [
        ("Response", json!({ "abort": true })),
        ("Request", json!({ "path": "/a*", "method": "GET", "delay": "1.5s", "duration": "30s" })),
        (
            "Response",
            json!({
                "code": 404, "request_headers": { "X-A": "1" }, "response_headers": { "Server": "n" },
                "replace": { "code": 503, "body": "e30=", "headers": { "X-B": "2" } },
                "patch": {
                    "body": { "type": "JSON", "value": "{\"a\": null}" }, "headers": [["Set-Cookie", "a=b"]],
                },
                "kfault": { "role": "server", "follow": true },
            }),
        ),
        (
            "Request",
            json!({
                "replace": { "path": "/new", "method": "PUT", "queries": { "a": "b c" } },
                "patch": { "queries": [["a", "1"], ["a", "2"]] },
            }),
        ),
    ] {
        let (first, findings) = read(target, &more);
        assert_eq!(findings, Findings::default(), "{more}");
        let first = first.unwrap();
        let (second, _) = read(target, &first.json());
        assert_eq!(second, Some(first));
    }
}

#[test]
fn fields_come_to_a_matcher_and_an_edit() {
    let more = json!({
        "path": "/api/*", "method": "GET", "code": 200,
        "request_headers": { "X-User": "me" }, "response_headers": { "Server": "nginx" },
        "delay": "100ms", "replace": { "code": 503, "body": "aGVsbG8=\n" },
        "patch": { "body": { "type": "JSON", "value": "{\"n\": 9}" } },
    });
    let (spec, findings) = read("Response", &more);
    // "hello" is no JSON, so that there is nothing to merge into.
    assert_eq!(findings.warnings[0].field, "spec.patch.body");
    let spec = spec.unwrap();
    let pair = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
    let want = Matcher {
        path: Some("/api/*".into()),
        method: Some("GET".into()),
        code: Some(200),
        request_headers: pair("x-user", "me"),
        response_headers: pair("server", "nginx"),
    };
    assert_eq!(spec.matcher, want);
    assert_eq!(spec.edit.delay, Some(Duration::from_millis(100)));
    assert_eq!(spec.edit.replace.code, Some(503));
    assert_eq!(spec.edit.replace.body.as_deref(), Some(b"hello".as_slice()));
    assert_eq!(spec.edit.patch.body, None);
    let patch = json!({ "patch": { "body": { "type": "JSON", "value": "null" } } });
    assert_eq!(edit("Response", &patch).patch.body, Some(Value::Null));
    assert_eq!(
        edit("Request", &json!({ "replace": { "path": "" } })).replace.path,
        Some("/".into())
    );
}

#[test]
fn what_upstream_refuses_is_refused_by_its_field() {
    for (target, more, field) in [
        ("request", json!({ "abort": true }), "spec.target"),
        ("", json!({ "abort": true }), "spec.target"),
        ("Request", json!({ "port": 0 }), "spec.port"),
        ("Request", json!({ "port": -1 }), "spec.port"),
        ("Request", json!({ "port": 65536 }), "spec.port"),
        ("Request", json!({ "method": "get" }), "spec.method"),
        ("Request", json!({ "method": "PROPFIND" }), "spec.method"),
        ("Response", json!({ "delay": "1" }), "spec.delay"),
        ("Response", json!({ "delay": "1S" }), "spec.delay"),
        ("Response", json!({ "code": 99 }), "spec.code"),
        ("Response", json!({ "replace": { "body": "%" } }), "spec.replace.body"),
        ("Response", json!({ "replace": { "code": 1000 } }), "spec.replace.code"),
        ("Response", json!({ "replace": { "code": 101 } }), "spec.replace.code"),
        ("Request", json!({ "replace": { "path": "/a b" } }), "spec.replace.path"),
        ("Request", json!({ "replace": { "method": "A B" } }), "spec.replace.method"),
        ("Request", json!({ "replace": { "method": "HEAD" } }), "spec.replace.method"),
        ("Request", json!({ "method": "HEAD", "replace": { "method": "GET" } }), "spec.method"),
        (
            "Request",
            json!({ "replace": { "headers": { "a b": "" } } }),
            "spec.replace.headers[a b]",
        ),
        ("Request", json!({ "request_headers": { "a": "b\nc" } }), "spec.request_headers[a]"),
        ("Request", json!({ "patch": { "headers": [["a"]] } }), "spec.patch.headers[0]"),
        ("Request", json!({ "patch": { "headers": [["a:", "b"]] } }), "spec.patch.headers[0]"),
        ("Request", json!({ "patch": { "queries": ["a"] } }), "spec.patch.queries[0]"),
        (
            "Request",
            json!({ "patch": { "body": { "type": "XML", "value": "1" } } }),
            "spec.patch.body.type",
        ),
        (
            "Request",
            json!({ "patch": { "body": { "type": "JSON", "value": "{" } } }),
            "spec.patch.body.value",
        ),
        (
            "Request",
            json!({ "tls": { "secretName": "a", "secretNamespace": "b", "keyName": "c" } }),
            "spec.tls.certName",
        ),
        ("Request", json!({ "kfault": { "role": "both" } }), "spec.kfault.role"),
        ("Request", json!({ "remoteCluster": "east" }), "spec.remoteCluster"),
    ] {
        let (_, findings) = read(target, &more);
        let errors: Vec<_> = findings.errors.iter().map(|error| error.field()).collect();
        assert_eq!(errors, [field], "{target} {more}: {findings:?}");
    }
    let (_, findings) = read_spec(&json!({ "abort": true }), HttpChaos::read);
    let errors: Vec<_> = findings.errors.iter().map(|error| error.field()).collect();
    assert_eq!(errors, ["spec.target", "spec.port"]);
    let (_, findings) = read("Request", &json!({ "method": "get" }));
    let text = findings.errors[0].to_string();
    let want = "Spec.Method: Invalid value: \"get\": method get is not supported";
    assert!(text.starts_with(want), "{text}");
}

#[test]
fn any_method_may_be_asked_for_where_responses_are_acted_on() {
    assert!(edit("Response", &json!({ "method": "PROPFIND", "abort": true })).abort);
}

#[test]
fn what_has_no_effect_is_said_and_left_out() {
    let abort = |mut more: Value| {
        more["abort"] = json!(true);
        more
    };
    for (target, more, field) in [
        ("Response", json!({}), "spec"),
        ("Response", json!({ "abort": false }), "spec"),
        ("Request", abort(json!({ "code": 200 })), "spec.code"),
        ("Request", abort(json!({ "response_headers": { "a": "b" } })), "spec.response_headers"),
        ("Response", abort(json!({ "code": 100 })), "spec.code"),
        ("Response", abort(json!({ "method": "get" })), "spec.method"),
        ("Response", abort(json!({ "path": "/a?b=c" })), "spec.path"),
        ("Response", abort(json!({ "path": "api/*" })), "spec.path"),
        ("Response", abort(json!({ "request_headers": { "a": " b" } })), "spec.request_headers[a]"),
        ("Response", abort(json!({ "delay": "1s" })), "spec.abort"),
        ("Response", abort(json!({ "delay": "0s" })), "spec.delay"),
        ("Response", abort(json!({ "replace": {} })), "spec.replace"),
        ("Response", abort(json!({ "patch": {} })), "spec.patch"),
        ("Response", abort(json!({ "replace": { "path": "/" } })), "spec.replace.path"),
        ("Response", abort(json!({ "replace": { "method": "PUT" } })), "spec.replace.method"),
        (
            "Response",
            abort(json!({ "replace": { "queries": { "a": "b" } } })),
            "spec.replace.queries",
        ),
        ("Response", abort(json!({ "patch": { "queries": [["a", "b"]] } })), "spec.patch.queries"),
        ("Response", json!({ "replace": { "code": 500, "body": "" } }), "spec.replace.body"),
        ("Request", abort(json!({ "replace": { "code": 200 } })), "spec.replace.code"),
        (
            "Response",
            abort(json!({ "replace": { "headers": { "content-length": "1" } } })),
            "spec.replace.headers[content-length]",
        ),
        (
            "Response",
            abort(json!({ "patch": { "headers": [["Transfer-Encoding", "chunked"]] } })),
            "spec.patch.headers[0]",
        ),
        (
            "Response",
            abort(json!({ "method": "HEAD", "replace": { "body": "e30=" } })),
            "spec.replace.body",
        ),
        ("Response", json!({ "replace": { "code": 204, "body": "e30=" } }), "spec.replace.body"),
        (
            "Request",
            json!({ "method": "GET", "patch": { "body": { "type": "JSON", "value": "{}" } } }),
            "spec.patch.body",
        ),
        (
            "Response",
            abort(json!({ "tls": {
                "secretName": "a", "secretNamespace": "b", "certName": "c", "keyName": "d",
            } })),
            "spec.tls",
        ),
    ] {
        let (_, findings) = read(target, &more);
        assert_eq!(findings.errors, [], "{target} {more}");
        let warnings: Vec<_> = findings.warnings.iter().map(|one| one.field.as_str()).collect();
        assert_eq!(warnings, [field], "{target} {more}: {findings:?}");
    }
}

#[test]
fn one_exchange_for_each_workload_of_this_host() {
    let Lowered { exchanges, warnings, rules, strains } =
        lowered(&json!({ "kfault": { "role": "server" } }), &Options::default());
    assert!(rules.is_empty() && strains.is_empty());
    let [exchange] = exchanges.as_slice() else { panic!("{exchanges:?}") };
    assert_eq!(exchange.id, "HTTPChaos/default/web/netns:web");
    assert_eq!(exchange.message, Message::Response);
    assert_eq!((exchange.role, exchange.port), (Role::Server, 80));
    assert_eq!(exchange.sockets.devices, ["eth0", "lo"]);
    assert_eq!(
        exchange.describes,
        "cut the connection of responses, on port 80 served by netns:web"
    );
    // The other name of the same namespace.
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert_eq!(warning.field, "spec.selector");
}

#[test]
fn what_is_late_or_cut_is_carried_out_at_the_devices() {
    let of = |more: Value| lowered(&more, &Options::default()).rules;
    let late = of(json!({ "abort": false, "delay": "2s" }));
    let [rule] = late.as_slice() else { panic!("{late:?}") };
    assert_eq!(rule.id, "HTTPChaos/default/web/netns:web/egress/eth0");
    assert_eq!(rule.effects.marked, Some(Marked::Late(2_000_000_000)));
    assert!(rule.effects.takes_time() && rule.peers.is_everyone());
    let cut = of(json!({ "target": "Request" }));
    let [rule] = cut.as_slice() else { panic!("{cut:?}") };
    assert_eq!(rule.id, "HTTPChaos/default/web/netns:web/ingress/eth0");
    assert_eq!(rule.effects.marked, Some(Marked::Cut));
    assert!(!rule.effects.takes_time());
    // A response is cut where it is sent; what is refused has no rule either.
    let more = json!({ "abort": false, "delay": "2s", "kfault": { "role": "client" } });
    assert_eq!((of(json!({})), of(more)), (vec![], vec![]));
}

#[test]
fn a_shared_network_is_late_on_loopback_and_its_default_device_only() {
    let object = json!({
        "apiVersion": "chaos-mesh.org/v1alpha1", "kind": "HTTPChaos", "metadata": { "name": "web" },
        "spec": {
            "selector": {}, "mode": "all", "target": "Response", "port": 80, "delay": "1s",
            "kfault": { "role": "server" },
        },
    });
    let experiment = parse_object("test", object).experiment.unwrap();
    let unit = Workload {
        netns: "/proc/1/ns/net".into(),
        inode: 7,
        devices: vec!["br0".into(), "eth0".into(), "lo".into()],
        default_device: Some("eth0".into()),
        cgroup: Some(crate::plan::Cgroup { path: "/web".into(), id: 5, level: 1 }),
        ..Workload::unbound("unit:web.service")
    };
    let lowered = lower(&experiment, spec_of(&experiment), &[unit], &Options::default());
    let devices: Vec<&str> =
        lowered.rules.iter().map(|rule| rule.hook.device.name.as_str()).collect();
    assert_eq!(devices, ["eth0", "lo"]);
    let [warning] = lowered.warnings.as_slice() else { panic!("{:?}", lowered.warnings) };
    assert_eq!(warning.field, "spec.delay");
    assert!(warning.message.contains("eth0 and lo is late"), "{warning}");
}

#[test]
fn nothing_to_do_is_no_exchange() {
    let nothing = json!({ "abort": false });
    assert_eq!(lowered(&nothing, &Options::default()).exchanges, []);
}

#[test]
fn a_sentence_says_all_of_it() {
    let more = json!({
        "abort": false, "path": "/api/*", "method": "GET", "code": 200, "delay": "100ms",
        "replace": { "code": 503, "body": "e30=", "headers": { "X-A": "b" } },
        "patch": { "body": { "type": "JSON", "value": "{\"n\": 9}" }, "headers": [["Vary", "*"]] },
        "kfault": { "role": "server" },
    });
    let lowered = lowered(&more, &Options::default());
    assert_eq!(
        lowered.exchanges[0].describes,
        "delay responses by 100ms, replace of them the status by 503, the body by 2 bytes, the \
         header X-A by \"b\", add to them the JSON {\"n\":9}, the header Vary \"*\", where the \
         method is GET and the path matches /api/* and the status is 200, on port 80 served by \
         netns:web"
    );
}
