//! What the cluster runs, built from published Go modules: Kubernetes and etcd as one program,
//! CoreDNS, and Helm. Kept in `target/cluster-bin` for as long as the modules stay as they are.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::exec;
use crate::progress::step;
use crate::setup;

/// The modules: their folders below `xtask/cluster`, and their files.
const MODULES: [(&str, &[&str]); 3] = [
    ("", &["go.mod", "go.sum", "main.go", "etcd.go"]),
    ("coredns", &["go.mod", "go.sum", "main.go"]),
    ("helm", &["go.mod", "go.sum"]),
];

/// What is built: module, program, package, and what to say meanwhile.
const PROGRAMS: [(&str, &str, &str, &str); 3] = [
    ("", "hyperkube", ".", "build Kubernetes (once; several minutes)"),
    ("coredns", "coredns", ".", "build CoreDNS (once)"),
    // Its own program, at the version that the module names.
    ("helm", "helm", "helm.sh/helm/v3/cmd/helm", "build Helm (once)"),
];

/// The version of `k8s.io/kubernetes` in `go.mod`.
const KUBERNETES: (&str, &str, &str) = ("1", "34", "4");

/// The built programs.
pub struct Binaries {
    /// Has `hyperkube`, `coredns`, `helm`, and `kubectl` as a link to the first.
    pub folder: PathBuf,
}

impl Binaries {
    /// Those of the modules as they are now, built if that has not been done.
    pub fn built() -> Result<Self> {
        let binaries = Self::place()?;
        if !binaries.is_there() {
            build(&binaries.folder)?;
        }
        Ok(binaries)
    }

    /// Those of the modules as they are now, which must have been built.
    pub fn cached() -> Result<Self> {
        let binaries = Self::place()?;
        if binaries.is_there() {
            return Ok(binaries);
        }
        // The modules were changed while the cluster was up: its own programs are still there.
        let newest = fs::read_dir(store()).ok().and_then(|entries| {
            let built = entries.flatten().map(|entry| Self { folder: entry.path() });
            built
                .filter(Self::is_there)
                .max_by_key(|it| fs::metadata(it.hyperkube()).and_then(|m| m.modified()).ok())
        });
        newest.context("the cluster's programs are gone: run `cargo xtask cluster up`")
    }

    /// Every part of Kubernetes, and etcd; the first argument says which.
    pub fn hyperkube(&self) -> PathBuf {
        self.folder.join("hyperkube")
    }

    fn place() -> Result<Self> {
        Ok(Self { folder: store().join(key(&modules())?) })
    }

    fn is_there(&self) -> bool {
        ["hyperkube", "coredns", "helm", "kubectl"]
            .iter()
            .all(|name| self.folder.join(name).is_file())
    }
}

/// The static program CoreDNS, built if that has not been done.
pub fn coredns() -> Result<PathBuf> {
    Ok(Binaries::built()?.folder.join("coredns"))
}

fn modules() -> PathBuf {
    crate::root().join("xtask/cluster")
}

fn store() -> PathBuf {
    crate::target_dir().join("cluster-bin")
}

/// A name for these sources. Another compiler makes no other cluster.
fn key(modules: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    for (folder, files) in MODULES {
        for file in files {
            let path = modules.join(folder).join(file);
            let content = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            hash.update((content.len() as u64).to_le_bytes());
            hash.update(&content);
        }
    }
    Ok(hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

fn build(folder: &Path) -> Result<()> {
    let go = setup::go().context("Go is not installed: run `cargo xtask setup`")?;
    // Built aside: a build that was stopped must not pass for one that was done.
    let aside = folder.with_extension("new");
    let _ = fs::remove_dir_all(&aside);
    fs::create_dir_all(&aside).with_context(|| aside.display().to_string())?;
    let (major, minor, patch) = KUBERNETES;
    // A program that does not know its version says v0.0.0 to clients that read it.
    let version: String = [
        ("gitVersion", format!("v{major}.{minor}.{patch}")),
        ("gitMajor", major.to_owned()),
        ("gitMinor", minor.to_owned()),
        ("gitTreeState", "clean".to_owned()),
    ]
    .iter()
    .map(|(name, value)| format!(" -X k8s.io/component-base/version.{name}={value}"))
    .collect();
    for (module, program, package, title) in PROGRAMS {
        let more = if module.is_empty() { version.as_str() } else { "" };
        step(title, |step| {
            let mut command = Command::new(&go);
            command
                .current_dir(modules().join(module))
                .env("CGO_ENABLED", "0")
                .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false"])
                .arg(format!("-ldflags=-s -w{more}"))
                .arg("-o")
                .arg(aside.join(program))
                .arg(package);
            exec::until_we_end(&mut command);
            exec::quiet(step, &mut command).map(|_| ())
        })?;
    }
    symlink("hyperkube", aside.join("kubectl")).context("link kubectl")?;
    fs::rename(&aside, folder).context("put the cluster's programs in place")?;
    // Each is 200 MB; nobody goes back to an older one often.
    for entry in fs::read_dir(store())?.flatten().filter(|entry| entry.path() != folder) {
        let _ = fs::remove_dir_all(entry.path());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_in_the_module() {
        let (major, minor, patch) = KUBERNETES;
        let text = fs::read_to_string(modules().join("go.mod")).unwrap();
        assert!(text.contains(&format!("k8s.io/kubernetes v{major}.{minor}.{patch}\n")));
    }

    #[test]
    fn the_key_covers_every_file_of_the_modules() {
        for (folder, files) in MODULES {
            let mut there: Vec<String> = fs::read_dir(modules().join(folder))
                .unwrap()
                .map(|entry| entry.unwrap())
                .filter(|entry| entry.path().is_file())
                .map(|entry| entry.file_name().into_string().unwrap())
                .collect();
            let mut named = files.to_vec();
            named.sort_unstable();
            there.sort_unstable();
            assert_eq!(there, named, "xtask/cluster/{folder}");
        }
    }
}
