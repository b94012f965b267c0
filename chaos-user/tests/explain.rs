//! `kfault explain` as a person or a script runs it: exit codes and JSON, a contract. What it
//! says of each manifest is compared whole in `tests/golden`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

const LOSS: &str = "\
apiVersion: chaos-mesh.org/v1alpha1
kind: NetworkChaos
metadata: {name: web-loss}
spec:
  action: loss
  mode: all
  selector: {}
  loss: {loss: '10'}
";

/// What the manifest may say and this version cannot do, and its field.
const LATER: [(&str, &str); 9] = [
    ("kfault: {perPacket: true}", "spec.kfault.perPacket"),
    ("kfault: {gilbertElliott: {p: '1', r: '10'}}", "spec.kfault.gilbertElliott"),
    ("remoteCluster: east", "spec.remoteCluster"),
    ("direction: from\n  kfault: {ingress: true}\n  delay: {latency: 5ms}", "spec.delay"),
    ("direction: both\n  kfault: {ingress: true}\n  delay: {latency: 5ms}", "spec.delay"),
    ("direction: from\n  kfault: {ingress: true}\n  duplicate: {duplicate: '5'}", "spec.duplicate"),
    ("direction: from\n  kfault: {ingress: true}\n  rate: {rate: 1mbit}", "spec.rate"),
    (
        "direction: from\n  kfault: {ingress: true}\n  bandwidth: {rate: 1mbps, limit: 100000, buffer: 10000}",
        "spec.bandwidth",
    ),
    (
        "direction: both\n  target: {mode: all, selector: {}}\n  kfault: {ingress: true}\n  delay: {latency: 5ms}",
        "spec.delay",
    ),
];

fn kfault(args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kfault"))
        .args(args)
        .env_remove("KFAULT_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read it closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

/// Exit code, lines of stdout as JSON, stderr of `kfault explain - --output json`.
fn explain(manifest: &str) -> (i32, Vec<Value>, String) {
    let output = kfault(&["explain", "-", "--output", "json"], manifest);
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.code().unwrap(), lines, String::from_utf8(output.stderr).unwrap())
}

fn dir(files: &[(&str, &str)]) -> (TempDir, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let paths = files.iter().map(|(name, text)| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let paths = paths.collect();
    (dir, paths)
}

#[test]
fn what_is_accepted_is_exit_0_with_object_and_plan() {
    let (code, lines, err) = explain(LOSS);
    assert_eq!((code, lines.len(), err.as_str()), (0, 1, ""));
    let one = &lines[0];
    let keys: Vec<_> = one.as_object().unwrap().keys().map(String::as_str).collect();
    for key in ["file", "index", "kind", "name", "accepted", "errors", "warnings", "object", "plan"]
    {
        assert!(keys.contains(&key), "{key} is missing: {keys:?}");
    }
    assert_eq!(
        (&one["file"], &one["index"], &one["kind"], &one["name"], &one["accepted"]),
        (&json!("-"), &json!(0), &json!("NetworkChaos"), &json!("web-loss"), &json!(true))
    );
    assert_eq!((&one["errors"], &one["warnings"]), (&json!([]), &json!([])));
    assert_eq!(one["object"]["spec"]["direction"], "to");
    assert_eq!(one["object"]["spec"]["loss"], json!({"loss": "10", "correlation": "0"}));
    assert_eq!(one["object"]["spec"]["selector"], json!({"namespaces": ["default"]}));
    assert_eq!(one["plan"]["rules"][0]["effects"], json!({"loss": {"share": 0.1}}));
}

#[test]
fn what_is_accepted_with_a_warning_is_exit_0_and_says_it() {
    let (code, lines, _) = explain(&LOSS.replace("'10'", "'150'"));
    assert_eq!(code, 0);
    assert_eq!(lines[0]["accepted"], true);
    assert_eq!(lines[0]["warnings"][0]["field"], "spec.loss.loss");
    assert!(lines[0]["warnings"][0]["message"].as_str().unwrap().contains("0 to 100"));
}

#[test]
fn what_is_refused_is_exit_2_with_every_field() {
    let bad = LOSS.replace("mode: all", "mode: some").replace("'10'", "50");
    let (code, lines, _) = explain(&bad);
    assert_eq!(code, 2);
    let one = &lines[0];
    assert_eq!(
        (&one["accepted"], &one["object"], &one["plan"]),
        (&json!(false), &json!(null), &json!(null))
    );
    let fields: Vec<_> =
        one["errors"].as_array().unwrap().iter().map(|error| &error["field"]).collect();
    assert_eq!(fields, ["spec.mode", "spec.loss.loss"]);
    assert_eq!(
        one["errors"][1]["message"],
        "Spec.Loss.Loss: Invalid value: 50: must be a text, is a number; put it in quotes: \"50\""
    );
}

#[test]
fn what_comes_later_is_exit_3_in_these_words() {
    for (field, path) in LATER {
        let (code, lines, _) = explain(&format!("{LOSS}  {field}\n"));
        assert_eq!(code, 3, "{field}: {lines:?}");
        let errors = lines[0]["errors"].as_array().unwrap();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(errors[0]["field"], path);
        assert_eq!(errors[0]["unsupported"], true);
        let message = errors[0]["message"].as_str().unwrap();
        assert!(message.contains("not supported by this version"), "{message}");
    }
}

#[test]
fn a_kind_that_comes_later_is_exit_3_whatever_its_spec_says() {
    for kind in ["TimeChaos", "IOChaos", "JVMChaos", "Workflow"] {
        let (code, lines, _) = explain(&LOSS.replace("NetworkChaos", kind));
        assert_eq!(code, 3, "{kind}: {lines:?}");
        assert_eq!(lines[0]["errors"][0]["field"], "kind");
        let message = lines[0]["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains("not supported by this version"), "{message}");
    }
}

#[test]
fn what_another_manifest_would_cure_comes_before_what_no_manifest_can() {
    let later = format!("{LOSS}  remoteCluster: east\n");
    let wrong = LOSS.replace("web-loss", "other").replace("action: loss", "action: lose");
    let (code, lines, _) = explain(&format!("{later}---\n{wrong}"));
    assert_eq!((code, lines.len()), (2, 2), "{lines:?}");
    let (code, lines, _) = explain(&format!("{later}  direction: sideways\n"));
    assert_eq!((code, lines.len()), (2, 1), "{lines:?}");
}

/// A run says so too, before it touches anything.
#[test]
fn a_run_refuses_what_comes_later_by_file_document_and_field() {
    for (field, path) in LATER {
        let (_dir, files) = dir(&[("a.yaml", &format!("---\n---\n{LOSS}  {field}\n"))]);
        let output = kfault(&["run", &files[0], "--target", "netns:none-such-here"], "");
        let text = String::from_utf8(output.stderr).unwrap();
        let last = path.rsplit('.').next().unwrap();
        assert!(matches!(output.status.code(), Some(2 | 3)), "{text}");
        for word in
            ["a.yaml, document 1", "NetworkChaos/default/web-loss", "not supported by this version"]
        {
            assert!(text.contains(word), "no {word:?} in {text}");
        }
        assert!(text.to_lowercase().contains(&last.to_lowercase()), "no {last:?} in {text}");
    }
}

#[test]
fn every_document_of_every_file_gets_a_line() {
    let two = format!("{LOSS}---\n# empty\n---\n{}", LOSS.replace("web-loss", "second"));
    let (_dir, files) = dir(&[("a.yaml", &two), ("b.yaml", &LOSS.replace("web-loss", "third"))]);
    let output = kfault(&["explain", &files[0], &files[1], "--output", "json"], "");
    let lines: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let places: Vec<_> = lines.iter().map(|l| (l["file"].as_str().unwrap(), &l["index"])).collect();
    let (a, b) = (files[0].as_str(), files[1].as_str());
    assert_eq!(places, [(a, &json!(0)), (a, &json!(2)), (b, &json!(0))]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_file_that_cannot_be_read_is_named_and_hides_no_other() {
    let (dir, files) = dir(&[("a.yaml", LOSS)]);
    let missing = dir.path().join("missing.yaml");
    let missing = missing.to_str().unwrap();
    let output = kfault(&["explain", missing, &files[0], "--output", "json"], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("missing.yaml: cannot be read"));
    assert!(String::from_utf8(output.stdout).unwrap().contains("web-loss"));
}

#[test]
fn nothing_at_all_is_refused() {
    for text in ["", "# only a comment\n", "---\n---\n"] {
        let (code, lines, err) = explain(text);
        assert_eq!((code, lines.len()), (2, 0), "{text:?}");
        assert!(err.contains("holds no experiment"), "{err}");
    }
}

#[test]
fn people_get_verdict_warnings_plan_and_object() {
    let output = kfault(&["explain", "-"], &LOSS.replace("'10'", "'150'"));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    for word in [
        "NetworkChaos/default/web-loss: accepted",
        "(-, document 0)",
        "spec.loss.loss: lies outside 0 to 100",
        "lose 100% of the packets",
        "--target",
        "correlation: '0'",
    ] {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    let output = kfault(&["explain", "-"], &format!("{LOSS}  remoteCluster: east\n"));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(
        text.contains("NetworkChaos/default/web-loss: not supported by this version"),
        "{text}"
    );
}

/// Every example is a promise of the documentation.
#[test]
fn every_example_is_exit_0_without_a_warning() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples");
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        // What the others do harm to.
        if file.ends_with("app.yaml") {
            continue;
        }
        let output = kfault(&["explain", file.to_str().unwrap()], "");
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(!text.contains("  warning"), "{text}");
        seen += 1;
    }
    assert!(seen >= 13, "{seen}");
}
