//! A made-up host in a folder, for tests: plain files stand in for procfs and cgroupfs.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::NodeError;
use super::local::{Eyes, Host, Roots};
use super::network::Network;
use crate::engine::cgroup::Hierarchy;

/// The folder and what is in it.
pub struct Fixture {
    dir: TempDir,
    /// The hierarchy of v1 that it has in place of v2.
    pub v1: Option<String>,
}

impl Fixture {
    /// A host with an own namespace and an empty cgroup tree.
    pub fn new() -> Self {
        let fixture = Self { dir: tempfile::tempdir().unwrap(), v1: None };
        for folder in ["proc/self/ns", "netns", "cgroup", "docker", "spaces"] {
            fs::create_dir_all(fixture.path(folder)).unwrap();
        }
        fixture.space("host");
        fs::hard_link(fixture.path("spaces/host"), fixture.path("proc/self/ns/net")).unwrap();
        fs::write(fixture.path("cgroup/cgroup.procs"), "").unwrap();
        fixture
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// A network namespace: a file whose inode is its identity.
    pub fn space(&self, name: &str) {
        let file = self.path("spaces").join(name);
        if !file.exists() {
            fs::write(file, name).unwrap();
        }
    }

    /// A name for it in `/run/netns`.
    pub fn named(&self, name: &str) {
        self.space(name);
        fs::hard_link(self.path("spaces").join(name), self.path("netns").join(name)).unwrap();
    }

    pub fn cgroup(&self, path: &str) {
        let directory = self.path("cgroup").join(path.trim_start_matches('/'));
        fs::create_dir_all(&directory).unwrap();
        for folder in directory.ancestors().take_while(|f| *f != self.path("cgroup")) {
            let file = folder.join("cgroup.procs");
            if !file.exists() {
                fs::write(file, "").unwrap();
            }
        }
    }

    /// A process with its name, cgroup and namespace.
    pub fn process(&self, pid: u32, comm: &str, cgroup: &str, space: &str) {
        self.space(space);
        self.cgroup(cgroup);
        let folder = self.path("proc").join(pid.to_string());
        fs::create_dir_all(folder.join("ns")).unwrap();
        fs::write(folder.join("comm"), format!("{comm}\n")).unwrap();
        let paths = match &self.v1 {
            Some(name) => format!("2:{name}:{cgroup}\n1:cpu:/other\n0::/\n"),
            None => format!("1:cpu:/other\n0::{cgroup}\n"),
        };
        fs::write(folder.join("cgroup"), paths).unwrap();
        fs::hard_link(self.path("spaces").join(space), folder.join("ns/net")).unwrap();
        let file = self.path("cgroup").join(cgroup.trim_start_matches('/')).join("cgroup.procs");
        let mut pids = fs::read_to_string(&file).unwrap();
        pids.push_str(&format!("{pid}\n"));
        fs::write(file, pids).unwrap();
    }

    pub fn host(&self) -> Host {
        let roots = Roots {
            proc: self.path("proc"),
            netns: self.path("netns"),
            docker: self.path("docker"),
            cgroup: Some(Hierarchy { mount: self.path("cgroup"), v1: self.v1.clone() }),
        };
        Host::at(roots, Eyes { look: network, is_namespace }).unwrap()
    }
}

fn network(netns: Option<&Path>) -> Result<Network, NodeError> {
    let device = if netns.is_some() { "eth0" } else { "ens3" };
    Ok(Network {
        devices: vec!["lo".into(), device.into()],
        default_device: Some(device.into()),
        addresses: vec!["10.0.0.2".parse().unwrap()],
    })
}

fn is_namespace(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|meta| meta.len() > 0)
}
