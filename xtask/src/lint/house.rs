//! The rules of the house. ARCHITECTURE.md and CONTRIBUTING.md say what they are for.

use anyhow::{Context, Result};

use super::source::{Source, Tree};
use crate::exec;

/// A file that is longer holds more than one thing.
const LINES: usize = 500;

/// Who may import whom within `chaos-user`.
const IMPORTS: [(&str, &[&str]); 8] = [
    ("api", &[]),
    ("plan", &["api"]),
    ("select", &["api", "plan"]),
    ("fault", &["api", "plan", "select"]),
    ("engine", &["api", "plan"]),
    ("node", &["api", "plan", "select", "fault", "engine"]),
    ("kube", &["api", "plan", "select", "fault"]),
    ("telemetry", &[]),
];

/// The pure part, and what would make it impure.
const PURE: [&str; 4] = ["api", "plan", "select", "fault"];
const IMPURE: [&str; 7] = [
    "std::fs",
    "std::net::TcpStream",
    "std::process",
    "SystemTime",
    "Instant",
    "tokio::",
    "async ",
];

/// Crates that one part alone may name.
const ALONE: [(&str, &str); 10] = [
    ("aya::", "engine"),
    ("kube::", "kube"),
    ("k8s_openapi::", "kube"),
    ("axum::", "kube"),
    ("rcgen::", "kube"),
    ("rustls::", "kube"),
    ("prometheus_client::", "kube"),
    ("clap::", "cli"),
    ("clap_complete::", "cli"),
    ("anyhow::", "cli"),
];

/// Names that say nothing about what is in a file.
const EMPTY_NAMES: [&str; 5] = ["utils", "common", "helpers", "types", "manager"];

/// Every rule that is broken, as `path:line: what`.
pub fn findings(tree: &Tree) -> Result<Vec<String>> {
    let mut all = Vec::new();
    length(tree, &mut all);
    names(tree, &mut all);
    imports(tree, &mut all);
    purity(tree, &mut all);
    alone(tree, &mut all);
    panics(tree, &mut all);
    sizes(tree, &mut all);
    kinds(tree, &mut all);
    ignored(tree, &mut all);
    dependencies(tree, &mut all);
    bpf_alone(&mut all)?;
    Ok(all)
}

fn length(tree: &Tree, all: &mut Vec<String>) {
    for file in tree.rust("") {
        let lines = file.text.lines().count();
        if lines > LINES {
            all.push(format!("{}: {lines} lines, {LINES} are allowed: split it", file.path));
        }
    }
}

fn names(tree: &Tree, all: &mut Vec<String>) {
    for file in tree.rust("") {
        let parts = file.path.trim_end_matches(".rs").split('/');
        for name in parts.filter(|part| EMPTY_NAMES.contains(part)) {
            all.push(format!("{}: the name `{name}` says nothing", file.path));
        }
    }
}

/// `api` of `chaos-user/src/api/x.rs`.
fn part(file: &Source) -> &str {
    let rest = file.path.strip_prefix("chaos-user/src/").unwrap_or_default();
    rest.split('/').next().unwrap_or_default().trim_end_matches(".rs")
}

fn imports(tree: &Tree, all: &mut Vec<String>) {
    for file in tree.rust("chaos-user/src/") {
        let own = part(file);
        let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == own) else { continue };
        for (at, line) in file.code() {
            for rest in line.split("crate::").skip(1) {
                let to: String =
                    rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if to != own && !to.is_empty() && !allowed.contains(&to.as_str()) {
                    all.push(format!("{}:{at}: {own} must not import {to}", file.path));
                }
            }
        }
    }
}

fn purity(tree: &Tree, all: &mut Vec<String>) {
    for file in tree.rust("chaos-user/src/").filter(|file| PURE.contains(&part(file))) {
        for (at, line) in file.code() {
            for word in IMPURE.iter().filter(|word| line.contains(*word)) {
                all.push(format!("{}:{at}: `{}` in the pure part", file.path, word.trim()));
            }
        }
    }
}

fn alone(tree: &Tree, all: &mut Vec<String>) {
    for file in tree.rust("chaos-user/src/") {
        for (at, line) in file.code() {
            for (word, owner) in ALONE
                .iter()
                .filter(|(word, owner)| part(file) != *owner && starts_a_path(line, word))
            {
                all.push(format!("{}:{at}: {owner} alone names `{word}`", file.path));
            }
        }
    }
}

/// Whether `word` stands in `line` and is not the end of a longer name.
fn starts_a_path(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
}

fn panics(tree: &Tree, all: &mut Vec<String>) {
    for file in tree.rust("").filter(|file| !file.is_test()) {
        for (at, line) in file.code() {
            if [".unwrap()", ".expect(", "todo!(", "unimplemented!("]
                .iter()
                .any(|w| line.contains(w))
            {
                // A macro's own text, such as this list, stands in quotes.
                if !line.contains('"') || line.contains(".expect(") && !line.contains("\".expect(")
                {
                    all.push(format!("{}:{at}: panics; return an error", file.path));
                }
            }
        }
    }
}

fn sizes(tree: &Tree, all: &mut Vec<String>) {
    let asserted: String = tree.rust("chaos-ebpf/abi/").map(|file| file.text.as_str()).collect();
    for file in tree.rust("chaos-ebpf/abi/") {
        let mut is_shared = false;
        for (at, line) in file.code() {
            if line.starts_with("#[repr(C") {
                is_shared = true;
            } else if let Some(rest) = line.strip_prefix("pub struct ") {
                let name: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
                if is_shared && !asserted.contains(&format!("assert!(size_of::<{name}>()")) {
                    all.push(format!("{}:{at}: the size of {name} is not asserted", file.path));
                }
                is_shared = false;
            }
            if is_shared || line.trim_start().starts_with("pub ") && line.contains(':') {
                for word in ["bool", "usize", "Option<"] {
                    if line.trim_end().trim_end_matches(',').ends_with(&format!(": {word}"))
                        || line.contains(&format!(": {word}<"))
                    {
                        all.push(format!("{}:{at}: `{word}` in shared memory", file.path));
                    }
                }
            }
        }
    }
}

fn kinds(tree: &Tree, all: &mut Vec<String>) {
    let place = "chaos-user/src/api/kind.rs";
    for file in tree.rust("chaos-user/src/").filter(|file| file.path != place && !file.is_test()) {
        for (at, line) in file.code() {
            let quoted = line.split('"').skip(1).step_by(2);
            for text in quoted.filter(|text| text.ends_with("Chaos") && !text.contains(' ')) {
                all.push(format!("{}:{at}: the kind {text} is spelled in {place} only", file.path));
            }
        }
    }
}

fn ignored(tree: &Tree, all: &mut Vec<String>) {
    for file in tree.rust("") {
        for (at, line) in file.code().filter(|(_, line)| line.trim().starts_with("#[ignore")) {
            all.push(format!("{}:{at}: {}: a skip must prove itself", file.path, line.trim()));
        }
    }
}

fn dependencies(tree: &Tree, all: &mut Vec<String>) {
    for manifest in tree.files.iter().filter(|file| file.path.ends_with("/Cargo.toml")) {
        let folder = manifest.path.trim_end_matches("Cargo.toml");
        let mut is_dependency = false;
        for (at, line) in manifest.text.lines().enumerate() {
            if line.starts_with('[') {
                is_dependency = line.contains("dependencies]");
            } else if let (true, Some((name, _))) = (is_dependency, line.split_once('=')) {
                let crate_name = match name.trim() {
                    // Its library has a name of its own.
                    "chaos-ebpf" => "chaos_abi".to_owned(),
                    name => name.replace('-', "_"),
                };
                let is_used = tree.rust(folder).any(|file| {
                    file.code().any(|(_, line)| starts_a_path(line, &crate_name))
                        || file.text.contains(&format!("use {crate_name}"))
                        || file.text.contains(&format!("{crate_name}::"))
                });
                if !is_used {
                    all.push(format!("{}:{}: nothing uses {}", manifest.path, at + 1, name.trim()));
                }
            }
        }
    }
}

/// On a host the BPF package has no foreign code: `aya-ebpf` would define `memcpy` there.
fn bpf_alone(all: &mut Vec<String>) -> Result<()> {
    let tree = exec::read(exec::cargo().args([
        "tree",
        "--package",
        "chaos-ebpf",
        "--edges",
        "normal",
        "--prefix",
        "none",
    ]))
    .context("the dependencies of chaos-ebpf")?;
    for line in
        tree.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("chaos-ebpf "))
    {
        all.push(format!("chaos-ebpf: built for a host it depends on {line}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &str, text: &str) -> Tree {
        Tree { files: vec![Source { path: path.to_owned(), text: text.to_owned() }] }
    }

    fn broken(rule: fn(&Tree, &mut Vec<String>), path: &str, text: &str) -> usize {
        let mut all = Vec::new();
        rule(&tree(path, text), &mut all);
        all.len()
    }

    #[test]
    fn imports_point_one_way() {
        let path = "chaos-user/src/plan/diff.rs";
        assert_eq!(broken(imports, path, "use crate::engine::Engine;\n"), 1);
        assert_eq!(broken(imports, path, "use crate::api::Mode;\n// crate::engine\n"), 0);
        assert_eq!(broken(alone, path, "use aya::Ebpf;\n"), 1);
        assert_eq!(broken(alone, "chaos-user/src/engine/bpf.rs", "use aya::Ebpf;\n"), 0);
    }

    #[test]
    fn the_pure_part_has_no_clock() {
        assert_eq!(broken(purity, "chaos-user/src/api/x.rs", "let now = Instant::now();\n"), 1);
        assert_eq!(broken(purity, "chaos-user/src/cli/x.rs", "let now = Instant::now();\n"), 0);
    }

    #[test]
    fn panics_are_for_tests() {
        let text = "let a = b.unwrap();\n#[cfg(test)]\nmod tests { fn x() { b.unwrap(); } }\n";
        assert_eq!(broken(panics, "xtask/src/x.rs", text), 1);
        assert_eq!(broken(panics, "tests/src/x.rs", text), 0);
    }

    #[test]
    fn shared_structures_have_asserted_sizes() {
        let text = "#[repr(C)]\npub struct Rule {\n    pub is_on: bool,\n}\n";
        assert_eq!(broken(sizes, "chaos-ebpf/abi/rule.rs", text), 2);
        let text = "#[repr(C)]\npub struct Rule {\n    pub is_on: u32,\n}\nconst _: () = assert!(size_of::<Rule>() == 4);\n";
        assert_eq!(broken(sizes, "chaos-ebpf/abi/rule.rs", text), 0);
    }

    #[test]
    fn kinds_are_spelled_once() {
        assert_eq!(broken(kinds, "chaos-user/src/cli/x.rs", "if kind == \"NetworkChaos\" {\n"), 1);
        assert_eq!(broken(kinds, "chaos-user/src/api/kind.rs", "\"NetworkChaos\"\n"), 0);
    }

    #[test]
    fn long_files_and_empty_names_are_found() {
        assert_eq!(broken(length, "a/b.rs", &"\n".repeat(LINES + 1)), 1);
        assert_eq!(broken(names, "chaos-user/src/utils/x.rs", ""), 1);
    }
}
