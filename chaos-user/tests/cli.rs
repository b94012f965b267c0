//! The built binary as a person or a script runs it. Nothing here needs root or a kernel
//! feature: what touches the kernel is tested in `tests/kernel`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

const DELAY: &str = "\
apiVersion: chaos-mesh.org/v1alpha1
kind: NetworkChaos
metadata: {name: web-delay, namespace: default}
spec:
  action: delay
  mode: all
  selector: {namespaces: [default]}
  delay: {latency: 500ms}
  duration: 30s
";

fn kfault(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kfault"))
        .args(args)
        .env_remove("KFAULT_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("kfault was killed by a signal")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Every line of stdout as JSON.
fn events(output: &Output) -> Vec<Value> {
    out(output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

/// A folder with manifests.
struct Manifests(TempDir);

impl Manifests {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        path.to_str().unwrap().to_owned()
    }
}

/// Runs `kfault run` and expects a refusal that says all of this.
fn refused(args: &[&str], says: &[&str]) {
    let output = kfault(&[&["run"], args].concat());
    let text = err(&output);
    assert_eq!(code(&output), 2, "{args:?}: {text}");
    assert_eq!(out(&output), "", "{args:?}");
    for word in says {
        assert!(text.contains(word), "{args:?} does not say {word:?}: {text}");
    }
}

#[test]
fn help_lists_every_command_and_the_exit_codes() {
    let output = kfault(&["--help"]);
    let text = out(&output);
    assert_eq!(code(&output), 0);
    for word in
        ["run", "explain", "doctor", "sweep", "agent", "controller", "stop", "crds", "completion"]
    {
        assert!(text.contains(&format!("\n  {word} ")), "{word} is not listed: {text}");
    }
    for word in ["Examples:", "Exit codes"] {
        assert!(text.contains(word), "{word} is missing: {text}");
    }
    let text = out(&kfault(&["run", "--help"]));
    for word in ["--target", "--peer", "--seed", "--dry-run", "netns:NAME", "process:COMM"] {
        assert!(text.contains(word), "{word} is missing: {text}");
    }
}

#[test]
fn the_version_is_one_line() {
    let output = kfault(&["--version"]);
    assert_eq!(code(&output), 0);
    assert_eq!(out(&output), format!("kfault {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_is_exit_2() {
    for args in [
        &[][..],
        &["agent"],
        &["run"],
        &["run", "x.yaml", "--no-such-flag"],
        &["run", "x.yaml", "--duration", "5"],
        &["run", "x.yaml", "--duration", "-1s"],
        &["run", "x.yaml", "--duration", "0s"],
        &["run", "x.yaml", "--seed", "x"],
        &["doctor", "--output", "xml"],
        &["completion", "cmd.exe"],
    ] {
        let output = kfault(args);
        assert_eq!(code(&output), 2, "{args:?}: {}", err(&output));
        assert_eq!(out(&output), "", "{args:?}");
        assert!(!err(&output).is_empty(), "{args:?}");
    }
}

#[test]
fn every_shell_gets_a_completion_script() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = kfault(&["completion", shell]);
        assert_eq!(code(&output), 0, "{shell}");
        assert!(out(&output).contains("dry-run"), "{shell}");
    }
}

#[test]
fn doctor_answers_as_the_contract_says() {
    let output = kfault(&["doctor", "--output", "json"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let all = events(&output);
    assert_eq!(all.len(), 1);
    assert!(all[0]["kernel"].is_string());
    let mechanisms = all[0]["mechanisms"].as_array().unwrap();
    assert!(!mechanisms.is_empty());
    for mechanism in mechanisms {
        assert!(mechanism["name"].is_string(), "{mechanism}");
        assert!(mechanism["serves"].as_array().is_some_and(|s| !s.is_empty()), "{mechanism}");
        let reason = mechanism["reason"].as_str().unwrap();
        match mechanism["state"].as_str().unwrap() {
            "works" => {}
            "missing" | "refused" => assert!(!reason.is_empty(), "{mechanism}"),
            other => panic!("{other}: {mechanism}"),
        }
    }
    let text = out(&kfault(&["doctor"]));
    for mechanism in mechanisms {
        assert!(text.contains(mechanism["name"].as_str().unwrap()), "{text}");
    }
}

#[test]
fn a_run_needs_a_target() {
    let files = Manifests::new(&[("a.yaml", DELAY)]);
    refused(&[&files.path("a.yaml")], &["--target", "netns:NAME", "process:COMM"]);
}

#[test]
fn a_bad_workload_is_refused_with_the_allowed_forms() {
    let files = Manifests::new(&[("a.yaml", DELAY)]);
    let file = files.path("a.yaml");
    refused(&[&file, "--target", "pod:web"], &["pod:web", "container:ID-OR-NAME"]);
    refused(&[&file, "--target", "netns:x", "--peer", "db"], &["--peer", "db"]);
}

#[test]
fn a_target_that_is_not_there_is_refused_by_name() {
    let files = Manifests::new(&[("a.yaml", DELAY)]);
    let file = files.path("a.yaml");
    let word = "netns:no-such-namespace-here";
    refused(&[&file, "--target", word], &[word]);
    refused(&[&file, "--target", "pid:4194304"], &["pid:4194304"]);
}

#[test]
fn kfaults_own_cgroup_is_refused() {
    // This process and the kfault that it starts share a cgroup: the root, or one that holds
    // kfault itself. On a host without cgroup v2 the refusal says so.
    let files = Manifests::new(&[("a.yaml", DELAY)]);
    let me = format!("pid:{}", std::process::id());
    refused(&[&files.path("a.yaml"), "--target", &me], &[&me]);
}

#[test]
fn what_is_refused_is_refused_whole_with_every_problem() {
    let bad = DELAY.replace("mode: all", "mode: some");
    let files = Manifests::new(&[("good.yaml", DELAY), ("bad.yaml", &bad)]);
    let (good, bad) = (files.path("good.yaml"), files.path("bad.yaml"));
    let missing = files.path("missing.yaml");
    refused(
        &[&good, &bad, &missing, "--target", "pod:web"],
        &["bad.yaml", "Spec.Mode", "fixed-percent", "missing.yaml", "pod:web"],
    );
}

#[test]
fn a_refused_run_ends_with_a_json_summary_too() {
    let files = Manifests::new(&[("a.yaml", DELAY)]);
    let file = files.path("a.yaml");
    let output = kfault(&["run", &file, "--target", "netns:none-such", "--output", "json"]);
    assert_eq!(code(&output), 2, "{}", err(&output));
    let events = events(&output);
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!((&events[0]["event"], &events[0]["exit"]), (&json!("failed"), &json!(2)));
    assert!(events[0]["error"].as_str().unwrap().contains("netns:none-such"));
    let summary = &events[1];
    assert_eq!((&summary["event"], &summary["exit"]), (&json!("summary"), &json!(2)));
    assert_eq!((&summary["targets"], &summary["rules"]), (&json!([]), &json!([])));
    assert!(summary["time"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn a_manifest_with_a_target_needs_a_peer() {
    let with_peer = DELAY.replace(
        "  duration: 30s\n",
        "  duration: 30s\n  target: {mode: all, selector: {namespaces: [default]}}\n",
    );
    let files = Manifests::new(&[("a.yaml", &with_peer)]);
    refused(&[&files.path("a.yaml"), "--target", "netns:none-such"], &["spec.target", "--peer"]);
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    for args in [&["--help"][..], &["completion", "bash"], &["doctor"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kfault"))
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), 0, "{args:?}: {}", err(&output));
        assert!(!err(&output).contains("panicked"), "{args:?}: {}", err(&output));
    }
}

#[test]
fn a_bad_log_filter_is_said_and_passed_over() {
    let output = Command::new(env!("CARGO_BIN_EXE_kfault"))
        .args(["completion", "bash"])
        .env("KFAULT_LOG", "kfault=loud=very")
        .output()
        .unwrap();
    assert_eq!(code(&output), 0);
    assert!(err(&output).contains("KFAULT_LOG"), "{}", err(&output));
}

#[test]
fn stop_asks_nothing_before_it_knows_what_is_meant_and_who_is_asked() {
    for wrong in [
        &["stop"][..],
        &["stop", "--all", "networkchaos/default/a"],
        &["stop", "web-delay"],
        &["stop", "pod/default/a"],
        &["stop", "networkchaos/default/a", "--namespace", "default"],
        &["stop", "--all", "--timeout", "0s"],
    ] {
        let output = kfault(wrong);
        assert_eq!(code(&output), 2, "{wrong:?}: {}", err(&output));
    }
    let folder = Manifests::new(&[]);
    let config = folder.0.path().join("kubeconfig");
    fs::write(
        &config,
        "{apiVersion: v1, kind: Config, current-context: a, \
         clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}], users: [{name: a}], \
         contexts: [{name: a, context: {cluster: a, user: a}}]}",
    )
    .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_kfault"))
        .args(["stop", "--all", "--output", "json"])
        .env("KUBECONFIG", &config)
        .output()
        .unwrap();
    assert_eq!(code(&output), 3, "{}", err(&output));
    let events = events(&output);
    assert_eq!(events[0]["event"], "failed");
    assert_eq!(events[1]["event"], "summary");
    assert_eq!((events.len(), &events[1]["exit"]), (2, &json!(3)));
}
