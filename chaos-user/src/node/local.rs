//! From words to workloads.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::cgroup::{self, Tree};
use super::network::{self, Network};
use super::word::{Word, as_comm, glob};
use super::{NodeError, process, some_of};
use crate::engine::cgroup::Hierarchy;
use crate::plan::Cgroup;
use crate::plan::strain::Place;
use crate::select::Workload;

/// How many names a message lists.
pub(super) const LISTED: usize = 12;

/// Where a host keeps what we read.
#[derive(Clone, Debug)]
pub struct Roots {
    /// procfs.
    pub proc: PathBuf,
    /// Named network namespaces.
    pub netns: PathBuf,
    /// Docker's containers.
    pub docker: PathBuf,
    /// The hierarchy of cgroups; `None` = find it in `proc`.
    pub cgroup: Option<Hierarchy>,
}

impl Default for Roots {
    fn default() -> Self {
        Self {
            proc: "/proc".into(),
            netns: "/run/netns".into(),
            docker: "/var/lib/docker/containers".into(),
            cgroup: None,
        }
    }
}

/// How the kernel is asked about namespaces.
#[derive(Clone, Copy, Debug)]
pub struct Eyes {
    /// What a namespace has; `None` is our own.
    pub look: fn(Option<&Path>) -> Result<Network, NodeError>,
    /// Whether a file is a namespace.
    pub is_namespace: fn(&Path) -> bool,
}

/// This host, as far as workloads go.
pub struct Host {
    pub(super) roots: Roots,
    tree: Option<Tree>,
    own: u64,
    init: Option<u64>,
    eyes: Eyes,
    networks: BTreeMap<u64, Network>,
}

/// What a list of words came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// In the order of the words, each once.
    pub workloads: Vec<Workload>,
    /// What the user should know, one sentence each.
    pub warnings: Vec<String>,
}

/// A workload before its namespace was asked.
pub(super) struct Scope {
    pub(super) name: String,
    pub(super) netns: PathBuf,
    pub(super) inode: u64,
    pub(super) cgroup: Option<String>,
    /// The cgroup of its processes, whatever its scope is on the network; `None`: unknown, or the
    /// root, which nothing acts on.
    pub(super) home: Option<String>,
    /// The process with which it ends; 0: none.
    pub(super) leader: u32,
}

impl Host {
    /// The host that we run on.
    pub fn here() -> Result<Self, NodeError> {
        Self::at(
            Roots::default(),
            Eyes { look: network::look, is_namespace: network::is_namespace },
        )
    }

    /// A host with these roots.
    pub fn at(roots: Roots, eyes: Eyes) -> Result<Self, NodeError> {
        let tree = match &roots.cgroup {
            Some(hierarchy) => Some(Tree::of(hierarchy.clone())),
            None => Tree::find(&roots.proc)?,
        };
        let own_file = roots.proc.join("self/ns/net");
        let own =
            fs::metadata(&own_file).map_err(|e| NodeError::unreadable("read", own_file, e))?.ino();
        // Init's namespace is the host's even where kfault was started inside another one.
        let init = process::netns(&roots.proc, 1).ok().flatten();
        Ok(Self { roots, tree, own, init, eyes, networks: BTreeMap::new() })
    }

    /// Its procfs.
    #[must_use]
    pub fn proc(&self) -> &Path {
        &self.roots.proc
    }

    /// True for the namespace that kfault itself or init runs in.
    #[must_use]
    pub fn is_own_netns(&self, inode: u64) -> bool {
        inode == self.own || Some(inode) == self.init
    }

    /// Every cgroup of the hierarchy, parents before children.
    pub fn all_cgroups(&self) -> Result<Vec<String>, NodeError> {
        self.tree.as_ref().map_or(Ok(Vec::new()), |tree| tree.below("/"))
    }

    /// Processes of a cgroup and below, ascending. Workers of a load are none of them: they are
    /// in the target's cgroup and in the host's namespaces.
    pub fn pids_in_cgroup(&self, path: &str) -> Result<Vec<u32>, NodeError> {
        let mut pids = self.tree.as_ref().map_or(Ok(Vec::new()), |tree| tree.pids(path))?;
        pids.retain(|pid| !process::is_worker(&self.roots.proc, *pid));
        Ok(pids)
    }

    /// Processes of a network namespace, ascending, as far as we may look.
    pub fn pids_in_netns(&self, inode: u64) -> Result<Vec<u32>, NodeError> {
        let mut pids = process::pids(&self.roots.proc)?;
        pids.retain(|pid| process::netns(&self.roots.proc, *pid).ok().flatten() == Some(inode));
        Ok(pids)
    }

    /// Resolves a word and adds what it came to. A workload that several words name counts
    /// once.
    pub fn resolve_into(&mut self, word: &Word, found: &mut Found) -> Result<(), NodeError> {
        for scope in self.scopes(word)? {
            let workload = self.workload(scope)?;
            let home = |w: &Workload| w.place.as_ref().map(|place| place.cgroup.clone());
            let same = |w: &Workload| {
                (w.inode, &w.cgroup, home(w)) == (workload.inode, &workload.cgroup, home(&workload))
            };
            if found.workloads.iter().any(same) {
                continue;
            }
            if let Some(warning) = self.who_is_hit(word, &workload)? {
                found.warnings.push(warning);
            }
            found.workloads.push(workload);
        }
        Ok(())
    }

    fn scopes(&self, word: &Word) -> Result<Vec<Scope>, NodeError> {
        match word {
            Word::Netns(pattern) => self.named(word, pattern),
            Word::Unit(name) => {
                let all = self.cgroups(word)?;
                let paths = all.iter().filter(|path| cgroup::base(path) == name);
                let scopes = self.of_cgroups(word, paths.map(String::as_str))?;
                non_empty(word, scopes, || {
                    let suffix = name.rsplit('.').next().unwrap_or_default();
                    let units = all.iter().map(|path| cgroup::base(path));
                    there_is("units", units.filter(|unit| unit.rsplit('.').next() == Some(suffix)))
                })
            }
            Word::Cgroup(path) => self.of_path(word, path).map(|scope| vec![scope]),
            Word::Container(name) => self.container(word, name).map(|scope| vec![scope]),
            Word::Pid(pid) => match self.of_process(word, *pid)? {
                Some(scope) => Ok(vec![scope]),
                None => Err(NodeError::Nothing {
                    word: word.to_string(),
                    there_is: "no such process is alive in this pid namespace".into(),
                }),
            },
            Word::Process(comm) => self.of_comm(word, comm),
        }
    }

    /// Named namespaces. Files that are no namespace (left over after a reboot or an unmount)
    /// are passed over.
    fn named(&self, word: &Word, pattern: &str) -> Result<Vec<Scope>, NodeError> {
        let mut names: Vec<String> = match fs::read_dir(&self.roots.netns) {
            Ok(entries) => {
                entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
            }
            // The folder appears with the first `ip netns add`.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(NodeError::unreadable("read", &self.roots.netns, e)),
        };
        names.retain(|name| (self.eyes.is_namespace)(&self.roots.netns.join(name)));
        names.sort_unstable();
        let scopes: Vec<Scope> = names
            .iter()
            .filter(|name| glob(pattern, name))
            .filter_map(|name| {
                let netns = self.roots.netns.join(name);
                let inode = fs::metadata(&netns).ok()?.ino();
                let name = format!("netns:{name}");
                Some(Scope { name, netns, inode, cgroup: None, home: None, leader: 0 })
            })
            .collect();
        non_empty(word, scopes, || there_is("network namespaces", names.iter().map(String::as_str)))
    }

    pub(super) fn tree(&self, word: &Word) -> Result<&Tree, NodeError> {
        self.tree.as_ref().ok_or_else(|| NodeError::Unfit {
            target: word.to_string(),
            reason: "this host has no cgroup hierarchy; mount one (mount -t cgroup2 none \
                     /sys/fs/cgroup/unified) or target a network namespace"
                .into(),
        })
    }

    pub(super) fn cgroups(&self, word: &Word) -> Result<Vec<String>, NodeError> {
        self.tree(word)?.below("/")
    }

    fn of_path(&self, word: &Word, path: &str) -> Result<Scope, NodeError> {
        let tree = self.tree(word)?;
        // A path as a person copies it from the file system is welcome too.
        let mount = tree.mount().to_string_lossy().into_owned();
        let path = match path.strip_prefix(&mount) {
            Some("") => "/",
            Some(rest) if rest.starts_with('/') => rest,
            _ => path,
        };
        if tree.cgroup(path)?.is_none() {
            let parent = path.rsplit_once('/').map_or("/", |(parent, _)| parent);
            let children = tree.below(parent)?;
            return Err(NodeError::Nothing {
                word: word.to_string(),
                there_is: there_is("cgroups", children.iter().map(String::as_str)),
            });
        }
        self.of_cgroup(format!("cgroup:{path}"), path)
    }

    fn of_cgroups<'a>(
        &self,
        word: &Word,
        paths: impl Iterator<Item = &'a str>,
    ) -> Result<Vec<Scope>, NodeError> {
        let paths: Vec<&str> = paths.collect();
        let several = paths.len() > 1;
        paths
            .into_iter()
            .map(|path| {
                let name = if several { format!("{word}[{path}]") } else { word.to_string() };
                self.of_cgroup(name, path)
            })
            .collect()
    }

    /// The scope rule: processes in another namespace than ours → that namespace's devices;
    /// in ours → the cgroup's sockets on devices that are shared with others.
    pub(super) fn of_cgroup(&self, name: String, path: &str) -> Result<Scope, NodeError> {
        if path == "/" {
            // Whatever its processes are: it is refused by name.
            return Ok(self.in_cgroup(name, path));
        }
        let mut spaces: BTreeMap<u64, u32> = BTreeMap::new();
        for pid in self.pids_in_cgroup(path)? {
            if let Some(inode) = process::netns(&self.roots.proc, pid)? {
                spaces.entry(inode).or_insert(pid);
            }
        }
        let mut spaces = spaces.into_iter();
        match (spaces.next(), spaces.next()) {
            (None, _) => Ok(self.in_cgroup(name, path)),
            (Some((inode, pid)), None) => Ok(self.scope(name, inode, pid, path)),
            (Some((_, a)), Some((_, b))) => Err(NodeError::Unfit {
                target: name,
                reason: format!(
                    "the processes of cgroup {path} live in several network namespaces (pids {a} \
                     and {b}, for example); choose a cgroup further down or target each namespace"
                ),
            }),
        }
    }

    fn scope(&self, name: String, inode: u64, pid: u32, path: &str) -> Scope {
        if inode == self.own {
            return self.in_cgroup(name, path);
        }
        let netns = process::netns_file(&self.roots.proc, pid);
        Scope { name, netns, inode, cgroup: None, home: home(path), leader: 0 }
    }

    /// The cgroup at a path, unless it lies too deep to be told from its ancestors.
    pub(super) fn cgroup(&self, path: &str) -> Result<Option<Cgroup>, NodeError> {
        let found = self.tree.as_ref().map(|tree| tree.cgroup(path)).transpose()?.flatten();
        Ok(found.filter(|found| found.level < chaos_abi::limit::CGROUP_LEVELS))
    }

    /// The cgroup at a path as the kernel knows its sockets, which it does in v2 only.
    pub(super) fn sockets(&self, path: &str) -> Result<Option<Cgroup>, NodeError> {
        let is_v2 = self.tree.as_ref().is_some_and(|tree| tree.hierarchy().v1.is_none());
        if is_v2 { self.cgroup(path) } else { Ok(None) }
    }

    /// The path of a process's cgroup; `None` when it has ended, or there is no hierarchy.
    pub(super) fn cgroup_of(&self, pid: u32) -> Result<Option<String>, NodeError> {
        let path = |tree: &Tree| process::cgroup(&self.roots.proc, pid, tree.hierarchy());
        Ok(self.tree.as_ref().map(path).transpose()?.flatten())
    }

    pub(super) fn in_cgroup(&self, name: String, path: &str) -> Scope {
        let netns = self.roots.proc.join("self/ns/net");
        let cgroup = Some(path.into());
        Scope { name, netns, inode: self.own, cgroup, home: home(path), leader: 0 }
    }

    fn of_process(&self, word: &Word, pid: u32) -> Result<Option<Scope>, NodeError> {
        if pid == 1 {
            return Err(NodeError::Protected {
                target: word.to_string(),
                reason: "pid 1 is init".into(),
                way_out: "choose the workload's own process",
            });
        }
        let Some(inode) = process::netns(&self.roots.proc, pid)? else {
            return Ok(None);
        };
        let path = self.cgroup_of(pid)?;
        if inode != self.own {
            let path = path.filter(|path| !path.starts_with("/..")).unwrap_or_default();
            let scope = self.scope(word.to_string(), inode, pid, &path);
            return Ok(Some(Scope { leader: pid, ..scope }));
        }
        self.tree(word)?;
        let Some(path) = path else {
            return Ok(None);
        };
        if path.starts_with("/..") {
            return Err(NodeError::Unfit {
                target: word.to_string(),
                reason: format!("its cgroup {path} lies outside kfault's own cgroup namespace"),
            });
        }
        Ok(Some(Scope { leader: pid, ..self.in_cgroup(word.to_string(), &path) }))
    }

    fn of_comm(&self, word: &Word, comm: &str) -> Result<Vec<Scope>, NodeError> {
        let me = std::process::id();
        let mut all = Vec::new();
        let mut scopes: Vec<(u32, Scope)> = Vec::new();
        for pid in process::pids(&self.roots.proc)? {
            let Some(found) = process::process(&self.roots.proc, pid) else {
                continue;
            };
            if pid == me || as_comm(&found.comm) != as_comm(comm) {
                all.push(found.comm);
                continue;
            }
            let Some(scope) = self.of_process(word, pid)? else {
                continue;
            };
            let same = |s: &Scope| {
                (s.inode, &s.cgroup, &s.home) == (scope.inode, &scope.cgroup, &scope.home)
            };
            if !scopes.iter().any(|(_, s)| same(s)) {
                scopes.push((pid, scope));
            }
        }
        if scopes.len() > 1 {
            for (pid, scope) in &mut scopes {
                scope.name = format!("{word}[{pid}]");
            }
        }
        let scopes = scopes.into_iter().map(|(_, scope)| scope).collect();
        non_empty(word, scopes, || {
            all.sort_unstable();
            all.dedup();
            there_is("processes", all.iter().map(String::as_str))
        })
    }

    pub(super) fn workload(&mut self, scope: Scope) -> Result<Workload, NodeError> {
        let Scope { name, netns, inode, cgroup, home, leader } = scope;
        let cgroup = match cgroup {
            None => None,
            Some(path) => {
                let found = match &self.tree {
                    Some(tree) => tree.cgroup(&path)?,
                    None => None,
                };
                let Some(found) = found else {
                    return Err(NodeError::Unfit {
                        target: name,
                        reason: format!("its cgroup {path} went away while we looked"),
                    });
                };
                if found.level >= chaos_abi::limit::CGROUP_LEVELS {
                    return Err(NodeError::Unfit {
                        target: name,
                        reason: format!(
                            "its cgroup {path} lies {} levels deep, at most {} can be a target; \
                             choose a cgroup further up",
                            found.level,
                            chaos_abi::limit::CGROUP_LEVELS - 1
                        ),
                    });
                }
                Some(found)
            }
        };
        let home = home.map(|path| self.cgroup(&path)).transpose()?.flatten();
        let place = home.map(|cgroup| Place { cgroup, leader });
        let network = match self.networks.get(&inode) {
            Some(known) => known.clone(),
            None => {
                let file = (inode != self.own).then_some(netns.as_path());
                let network = (self.eyes.look)(file)?;
                self.networks.insert(inode, network.clone());
                network
            }
        };
        let Network { devices, default_device, addresses } = network;
        let netns = netns.to_string_lossy().into_owned();
        Ok(Workload {
            name,
            netns,
            inode,
            cgroup,
            sockets: None,
            place,
            devices,
            default_device,
            addresses,
            is_elsewhere: false,
        })
    }

    /// Who is hit beyond what the word says, where that may surprise.
    fn who_is_hit(&self, word: &Word, workload: &Workload) -> Result<Option<String>, NodeError> {
        let name = &workload.name;
        if let Some(cgroup) = &workload.cgroup {
            let path = &cgroup.path;
            return Ok(match self.pids_in_cgroup(path)?.len() {
                0 => Some(format!("{name}: cgroup {path} holds no process yet")),
                1 => None,
                n => {
                    Some(format!("{name}: cgroup {path} holds {n} processes, all of them are hit"))
                }
            });
        }
        if matches!(word, Word::Netns(_)) {
            return Ok(None);
        }
        Ok(Some(format!(
            "{name} lives in a network namespace of its own: everything in that namespace is \
             hit ({})",
            match self.pids_in_netns(workload.inode)?.len() {
                1 => "1 process".to_owned(),
                n => format!("{n} processes"),
            }
        )))
    }
}

fn non_empty(
    word: &Word,
    scopes: Vec<Scope>,
    there_is: impl FnOnce() -> String,
) -> Result<Vec<Scope>, NodeError> {
    if scopes.is_empty() {
        return Err(NodeError::Nothing { word: word.to_string(), there_is: there_is() });
    }
    Ok(scopes)
}

/// Nothing acts on the root cgroup, which holds every process.
fn home(path: &str) -> Option<String> {
    (!matches!(path, "" | "/")).then(|| path.to_owned())
}

pub(super) fn there_is<S: Into<String>>(what: &str, names: impl Iterator<Item = S>) -> String {
    let names: Vec<String> = names.map(Into::into).collect();
    if names.is_empty() {
        return format!("there are no {what}");
    }
    format!("there are these {what}: {}", some_of(&names, LISTED))
}

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;
