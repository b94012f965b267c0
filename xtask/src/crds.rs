//! `crds`: what is generated below `deploy`: the definitions of the API, one file per kind, and the
//! configurations of the webhooks, both as `kfault crds` prints them, and the chart's templates.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup::{self, Group};
use crate::{build, chart, exec};

/// Where the definitions lie in the repository.
const FOLDER: &str = "deploy/crds";
/// Where the configurations do, from there, and the chart's templates.
const WEBHOOKS: &str = "../webhooks.yaml";
const TEMPLATES: &str = "../helm/kfault/templates";

#[derive(clap::Args)]
pub struct Args {
    /// Writes nothing; fails with the names of the files that would change
    #[arg(long)]
    check: bool,
}

/// The command.
pub fn main(args: Args) -> Result<()> {
    let Args { check: only_check } = args;
    setup::need(&[Group::Build])?;
    if only_check { check() } else { write() }
}

/// Fails with the names of the files that are not what `kfault crds` prints.
pub fn check() -> Result<()> {
    let differing = differing(&current()?, &committed()?);
    if differing.is_empty() {
        return Ok(());
    }
    bail!(
        "below {FOLDER}, not what `kfault crds` prints and the plain manifests say: run `cargo xtask \
         crds`\n{}",
        differing.join("\n")
    )
}

fn write() -> Result<()> {
    let (current, committed) = (current()?, committed()?);
    let folder = crate::root().join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| FOLDER.to_owned())?;
    let differing = differing(&current, &committed);
    for name in &differing {
        let file = folder.join(name);
        match current.get(name) {
            Some(text) => fs::write(file, text),
            None => fs::remove_file(file),
        }
        .with_context(|| format!("{FOLDER}/{name}"))?;
    }
    println!("{FOLDER}: {} files, {} of them written or removed", current.len(), differing.len());
    Ok(())
}

/// What the program prints and the manifests say: text by file name.
fn current() -> Result<BTreeMap<String, String>> {
    // The tests need the same program: nothing is built for this alone.
    let program = build::kfault()?;
    let mut all = files(&exec::read(Command::new(&program).arg("crds"))?)?;
    all.insert("kustomization.yaml".to_owned(), kustomization(all.keys()));
    let webhooks = exec::read(Command::new(&program).args(["crds", "--webhooks"]))?;
    for (name, text) in chart::templates(&webhooks)? {
        all.insert(format!("{TEMPLATES}/{name}"), text);
    }
    all.insert(WEBHOOKS.to_owned(), webhooks);
    Ok(all)
}

/// What lies in the repository: text by file name.
fn committed() -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    let templates = chart::written().map(|name| format!("{TEMPLATES}/{name}"));
    for name in templates.chain([WEBHOOKS.to_owned()]) {
        if let Ok(text) = fs::read_to_string(crate::root().join(FOLDER).join(&name)) {
            all.insert(name, text);
        }
    }
    let entries = match fs::read_dir(crate::root().join(FOLDER)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(all),
        entries => entries.with_context(|| FOLDER.to_owned())?,
    };
    for entry in entries {
        let entry = entry.with_context(|| FOLDER.to_owned())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let text = fs::read_to_string(entry.path()).with_context(|| format!("{FOLDER}/{name}"))?;
        all.insert(name, text);
    }
    Ok(all)
}

/// The documents of a stream of definitions, each named like its object.
fn files(stream: &str) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for text in stream.split("---\n").filter(|text| !text.is_empty()) {
        let mut lines = text.lines().skip_while(|line| *line != "metadata:").skip(1);
        let name = lines.next().and_then(|line| line.strip_prefix("  name: "));
        let name = name.context("a definition without a name in what `kfault crds` prints")?;
        all.insert(format!("{name}.yaml"), text.to_owned());
    }
    if all.is_empty() {
        bail!("`kfault crds` printed nothing");
    }
    Ok(all)
}

/// The list of the files, as `kubectl apply -k` wants one.
fn kustomization<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let head = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n";
    names.fold(head.to_owned(), |text, name| format!("{text}  - {name}\n"))
}

fn differing(
    current: &BTreeMap<String, String>,
    committed: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut names: Vec<_> = current.keys().chain(committed.keys()).cloned().collect();
    names.sort();
    names.dedup();
    names.retain(|name| current.get(name) != committed.get(name));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_is_a_file_of_its_name() {
        let stream = "---\na: 1\nmetadata:\n  name: x.y\n---\nmetadata:\n  name: z.y\nb: 2\n";
        let files = files(stream).unwrap();
        assert_eq!(files.keys().collect::<Vec<_>>(), ["x.y.yaml", "z.y.yaml"]);
        assert_eq!(files["z.y.yaml"], "metadata:\n  name: z.y\nb: 2\n");
        assert!(super::files("---\na: 1\n").is_err());
        assert!(super::files("").is_err());
    }

    #[test]
    fn what_is_missing_changed_or_left_over_differs() {
        let map = |all: &[(&str, &str)]| {
            all.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
        };
        let current = map(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let committed = map(&[("a", "1"), ("b", "0"), ("d", "4")]);
        assert_eq!(differing(&current, &committed), ["b", "c", "d"]);
    }
}
