//! What `kfault explain --output json` says, whole, as text.
//!
//! Every experiment of `deploy/examples` and every manifest of `tests/golden/cases` has a file in
//! `tests/golden/expected`. `KFAULT_BLESS=1 cargo test -p kfault-tests --test golden` writes them
//! anew; read the difference before it is committed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use chaos_user::api::document::documents;
use chaos_user::cli::explain::{exit, explain};
use chaos_user::fault::{load, parse};

const BLESS: &str = "KFAULT_BLESS";

/// Among the examples, what the others do harm to.
const APP: &str = "deploy/examples/app.yaml";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Manifests of a folder of the repository, sorted: the path in the repository and the text.
fn manifests(folder: &str) -> Vec<(String, String)> {
    let mut all: Vec<_> = fs::read_dir(root().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml"))
        .map(|name| format!("{folder}/{name}"))
        .map(|path| (path.clone(), fs::read_to_string(root().join(&path)).unwrap()))
        .filter(|(path, _)| path != APP)
        .collect();
    all.sort();
    assert!(!all.is_empty(), "{folder} holds no manifest");
    all
}

/// The golden's text: the exit code, then one pretty-printed object per document.
fn golden(input: &(String, String)) -> String {
    let all = explain(std::slice::from_ref(input));
    let mut out = format!("exit {}\n", exit(&all).code());
    for one in &all {
        out.push_str(&serde_json::to_string_pretty(one).unwrap());
        out.push('\n');
    }
    out
}

/// File of the golden of a manifest.
fn expected(path: &str) -> PathBuf {
    let stem = Path::new(path).file_stem().unwrap().to_str().unwrap();
    root().join("tests/golden/expected").join(format!("{stem}.txt"))
}

/// Lines that differ, each with its number in its own text; what both end with is cut off.
fn difference(want: &str, got: &str) -> String {
    let (want, got): (Vec<_>, Vec<_>) = (want.lines().collect(), got.lines().collect());
    let front = want.iter().zip(&got).take_while(|(a, b)| a == b).count();
    let tail = want[front..]
        .iter()
        .rev()
        .zip(got[front..].iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let lines = |sign: char, all: &[&str]| {
        let middle = all.iter().enumerate().take(all.len() - tail).skip(front);
        middle.map(|(i, line)| format!("{sign}{:>4} {line}\n", i + 1)).collect::<String>()
    };
    lines('-', &want) + &lines('+', &got)
}

fn compare(folder: &str) {
    let bless = std::env::var_os(BLESS).is_some_and(|value| value == "1");
    let mut drift = String::new();
    for input in manifests(folder) {
        let (file, got) = (expected(&input.0), golden(&input));
        let want = fs::read_to_string(&file).unwrap_or_default();
        if want == got {
            continue;
        }
        if bless {
            fs::write(&file, &got).unwrap();
            continue;
        }
        drift.push_str(&format!("{} ({}):\n", input.0, file.display()));
        drift.push_str(&difference(&want, &got));
    }
    assert!(
        drift.is_empty(),
        "the plans differ from the goldens (- expected, + now):\n{drift}\nIf this is meant: \
         {BLESS}=1 cargo test -p kfault-tests --test golden"
    );
}

#[test]
fn every_example_is_explained_as_its_golden_says() {
    compare("deploy/examples");
}

#[test]
fn every_case_is_explained_as_its_golden_says() {
    compare("tests/golden/cases");
}

/// Whether a host without a cluster can do what an example does.
fn is_for_hosts(example: &(String, String)) -> bool {
    let all = explain(std::slice::from_ref(example));
    let on_hosts = ["NetworkChaos", "StressChaos", "ThrottleChaos", "DNSChaos", "HTTPChaos"];
    all.iter().all(|one| one.kind.as_deref().is_some_and(|kind| on_hosts.contains(&kind)))
}

#[test]
fn every_example_is_accepted_without_a_warning() {
    for input in manifests("deploy/examples") {
        for one in explain(std::slice::from_ref(&input)) {
            assert!(one.accepted, "{}: {:?}", input.0, one.errors);
            assert!(one.warnings.is_empty(), "{}: {:?}", input.0, one.warnings);
            let acts = one.plan.is_some_and(|plan| !plan.is_empty());
            assert_eq!(acts, is_for_hosts(&input), "{}", input.0);
        }
    }
}

#[test]
fn every_example_says_how_to_run_it() {
    for example in manifests("deploy/examples") {
        let is_for_hosts = is_for_hosts(&example);
        let (path, text) = example;
        let comment: Vec<_> = text.lines().take_while(|line| line.starts_with('#')).collect();
        assert!((1..=3).contains(&comment.len()), "{path}: {} lines of comment", comment.len());
        let name = Path::new(&path).file_name().unwrap().to_str().unwrap();
        let run = if is_for_hosts {
            format!("kfault run {name} --target ")
        } else {
            format!("kubectl apply -f {name}")
        };
        assert!(comment.iter().any(|line| line.contains(&run)), "{path}: no \"{run}\"");
    }
}

/// The kernel tests carry the examples with them, by name; what needs a cluster is applied there.
#[test]
fn every_example_is_run_by_a_kernel_test_or_on_the_cluster() {
    let on_hosts = include_str!("../kernel/examples.rs");
    let on_clusters = include_str!("../../xtask/src/cluster/e2e/scenarios/examples.rs");
    for example in manifests("deploy/examples") {
        let name = Path::new(&example.0).file_name().unwrap().to_str().unwrap();
        let is_for_hosts = is_for_hosts(&example);
        let list = if is_for_hosts { on_hosts } else { on_clusters };
        let is_listed = list.contains(&format!("\"{name}\""));
        assert!(is_listed, "{name} is run by no test (for hosts: {is_for_hosts})");
    }
}

/// The defaulted object means what the manifest means.
#[test]
fn what_is_explained_reads_back_to_the_same_plan_without_a_warning_more() {
    for input in manifests("deploy/examples").into_iter().chain(manifests("tests/golden/cases")) {
        for one in explain(std::slice::from_ref(&input)) {
            let (Some(object), Some(plan)) = (one.object, one.plan) else { continue };
            let again = explain(&[(input.0.clone(), object.to_string())]);
            assert_eq!(again[0].object.as_ref(), Some(&object), "{}", input.0);
            assert_eq!(again[0].plan.as_ref(), Some(&plan), "{}", input.0);
            assert!(again[0].warnings.len() <= one.warnings.len(), "{}: {:?}", input.0, again[0]);
        }
    }
}

/// Every refusal names file, document and field.
#[test]
fn every_refusal_names_its_place() {
    for input in manifests("tests/golden/cases") {
        for one in parse(std::slice::from_ref(&input)) {
            for error in &one.errors {
                let text = error.to_string();
                let place = format!("{}, document {}", input.0, one.place.index);
                assert!(text.contains(&place), "{text} does not name {place}");
            }
        }
        if let Err(refusal) = load(std::slice::from_ref(&input)) {
            assert!(matches!(refusal.exit_code(), 2 | 3), "{}", input.0);
        }
    }
}

#[test]
fn no_golden_is_left_over() {
    let folders = ["deploy/examples", "tests/golden/cases"];
    let all: Vec<_> = folders.iter().flat_map(|folder| manifests(folder)).collect();
    let wanted: BTreeSet<_> = all.iter().map(|(path, _)| expected(path)).collect();
    assert_eq!(wanted.len(), all.len(), "two manifests have one name");
    for entry in fs::read_dir(root().join("tests/golden/expected")).unwrap() {
        let file = entry.unwrap().path();
        assert!(wanted.contains(&file), "{} belongs to no manifest; remove it", file.display());
    }
}

/// No experiment hides in the one file that the other tests pass over.
#[test]
fn the_example_application_is_all_of_kubernetes_own_kinds() {
    let text = fs::read_to_string(root().join(APP)).unwrap();
    let all: Vec<_> = documents(APP, &text).into_iter().map(|one| one.unwrap().value).collect();
    let kinds: Vec<_> = all.iter().map(|one| (&one["kind"], &one["metadata"]["name"])).collect();
    assert_eq!(
        serde_json::json!(kinds),
        serde_json::json!([
            ["Deployment", "myapp1"],
            ["Service", "myapp1"],
            ["Deployment", "myapp2"]
        ])
    );
    for deployment in all.iter().filter(|one| one["kind"] == "Deployment") {
        let pod = &deployment["spec"]["template"];
        assert_eq!(deployment["spec"]["replicas"], 2);
        assert_eq!(pod["metadata"]["labels"]["app"], deployment["metadata"]["name"]);
        let limits = &pod["spec"]["containers"][0]["resources"]["limits"];
        assert_eq!(*limits, serde_json::json!({ "memory": "64Mi", "cpu": "250m" }));
    }
}
