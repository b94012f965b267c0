//! Who is never harmed.
//!
//! A process name protects every *cgroup* that holds such a process, since a cgroup fault would
//! cut the host off from its operator. Inside another network namespace (a container with an
//! sshd of its own, say) only the names of `--protect` count.

use std::collections::BTreeSet;

use super::NodeError;
use super::local::Host;
use super::process;
use super::word::as_comm;
use crate::plan::strain::Strain;
use crate::plan::{Cgroup, Plan};
use crate::select::Workload;

/// Processes without which a host or its operator is lost. `--protect NAME` adds to the list.
pub const PROTECTED: [&str; 10] = [
    "sshd",
    "sshd-session",
    "systemd-journald",
    "kubelet",
    "k3s-server",
    "k3s-agent",
    "containerd",
    "dockerd",
    "crio",
    "kfault",
];

const WAY_OUT: &str =
    "choose a smaller target (a cgroup or namespace of its own for the workload alone)";

/// The list in force.
#[derive(Clone, Debug)]
pub struct Protection {
    always: Vec<String>,
    extra: Vec<String>,
}

impl Protection {
    /// The built-in list and these names.
    #[must_use]
    pub fn with(extra: &[String]) -> Self {
        Self { always: PROTECTED.map(str::to_owned).to_vec(), extra: extra.to_vec() }
    }

    /// Refuses a workload that must not be a target.
    pub fn check(&self, host: &Host, workload: &Workload) -> Result<(), NodeError> {
        self.check_scope(host, &workload.name, workload.inode, workload.cgroup.as_ref())
    }

    /// Refuses a plan that acts on something protected: what `check` would have said of every
    /// workload that a rule came from, peers included.
    pub fn check_plan(&self, host: &Host, plan: &Plan) -> Result<(), NodeError> {
        let mut seen = BTreeSet::new();
        // What an exchange marks is of its own target.
        for rule in plan.rules.iter().filter(|rule| rule.effects.marked.is_none()) {
            let hook = &rule.hook;
            if seen.insert((hook.device.inode, &hook.cgroup, &rule.target)) {
                self.check_scope(host, &rule.target, hook.device.inode, hook.cgroup.as_ref())?;
            }
        }
        for exchange in &plan.exchanges {
            let sockets = &exchange.sockets;
            self.check_scope(host, &exchange.target, sockets.inode, sockets.cgroup.as_ref())?;
        }
        for strain in &plan.strains {
            self.check_strain(host, strain)?;
        }
        Ok(())
    }

    /// A cgroup whose processes live on other networks than the host's is a container: there only
    /// the names of `--protect` count.
    fn check_strain(&self, host: &Host, strain: &Strain) -> Result<(), NodeError> {
        let path = &strain.place.cgroup.path;
        let pids = host.pids_in_cgroup(path)?;
        let is_of_host = |pid: &u32| {
            process::netns(host.proc(), *pid).ok().flatten().is_some_and(|it| host.is_own_netns(it))
        };
        let own: Vec<u32> = pids.iter().copied().filter(is_of_host).collect();
        let found = self.find(host, &own, &self.always);
        match found.or_else(|| self.find(host, &pids, &self.extra)) {
            Some(who) => Err(NodeError::Protected {
                target: strain.target.clone(),
                reason: format!("its cgroup {path} holds {who}"),
                way_out: WAY_OUT,
            }),
            None => Ok(()),
        }
    }

    fn check_scope(
        &self,
        host: &Host,
        target: &str,
        inode: u64,
        cgroup: Option<&Cgroup>,
    ) -> Result<(), NodeError> {
        let refuse = |reason: String, way_out: &'static str| {
            Err(NodeError::Protected { target: target.into(), reason, way_out })
        };
        let Some(cgroup) = cgroup else {
            if host.is_own_netns(inode) {
                return refuse(
                    "it is the host's own network namespace, everything on this host would be hit"
                        .into(),
                    "target one workload of it: unit:, cgroup:, container:, pid: or process:",
                );
            }
            if self.extra.is_empty() {
                return Ok(());
            }
            return match self.find(host, &host.pids_in_netns(inode)?, &self.extra) {
                Some(who) => refuse(format!("{who} runs in its network namespace"), WAY_OUT),
                None => Ok(()),
            };
        };
        if cgroup.path == "/" {
            return refuse(
                "its cgroup is the root, which holds every process".into(),
                "put the workload into a cgroup of its own (systemd-run --scope, or mkdir below \
                 the mount of cgroups and write its pid to cgroup.procs)",
            );
        }
        let pids = host.pids_in_cgroup(&cgroup.path)?;
        let names: Vec<String> = self.always.iter().chain(&self.extra).cloned().collect();
        match self.find(host, &pids, &names) {
            Some(who) => refuse(format!("its cgroup {} holds {who}", cgroup.path), WAY_OUT),
            None => Ok(()),
        }
    }

    /// The first protected process among these: "sshd (pid 17)".
    fn find(&self, host: &Host, pids: &[u32], names: &[String]) -> Option<String> {
        pids.iter().find_map(|pid| {
            let name = process::process(host.proc(), *pid)?.comm;
            let is_protected = *pid == 1
                || *pid == std::process::id()
                || names.iter().any(|n| as_comm(n) == as_comm(&name));
            is_protected.then(|| format!("{name} (pid {pid})"))
        })
    }
}
