//! What a namespace looks like: devices, queues, filters, hooks, rules of the firewall.

use std::fmt::Write as _;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};

use crate::bpf;
use crate::cgroup::Cgroup;
use crate::net::Net;
use crate::ns::Ns;

/// A picture of some namespaces and cgroups, one fact per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(Vec<String>);

impl Snapshot {
    /// Looks at all namespaces of a net and at the one that the caller is in.
    pub fn of(net: &Net) -> Result<Self> {
        let here = Ns::here()?;
        Self::of_all(&[&here, &net.router, &net.client.ns, &net.server.ns, &net.near.ns])
    }

    /// Looks at these namespaces.
    pub fn of_all(namespaces: &[&Ns]) -> Result<Self> {
        let mut lines = Vec::new();
        for ns in namespaces {
            let mut add = |what: &str, text: &str| {
                lines.extend(
                    text.lines()
                        .filter(|l| !l.trim().is_empty())
                        .map(|l| format!("{} {what}: {}", ns.name(), l.trim())),
                );
            };
            add("link", &ns.output("ip", &["-d", "-o", "link", "show"])?);
            add("address", &ns.output("ip", &["-o", "addr", "show"])?);
            let mut lines_of_tc = vec!["qdisc show".to_owned()];
            for (index, device) in devices(ns)? {
                for hook in ["root", "ingress", "egress"] {
                    // A device without clsact has none of the last two, and nothing is printed.
                    lines_of_tc.push(format!("filter show dev {device} {hook}"));
                }
                lines_of_tc.push(format!("class show dev {device}"));
                let (ingress, egress) = ns.run(|| Ok(bpf::tcx(index)))?;
                add(&format!("tcx of {device}"), &format!("{ingress:?} {egress:?}"));
            }
            let lines_of_tc: Vec<&str> = lines_of_tc.iter().map(String::as_str).collect();
            add("tc", &ns.tc_batch(&lines_of_tc)?);
            for save in ["iptables-save", "ip6tables-save"] {
                // Only where there is a firewall tool, and without its time stamps.
                let rules = ns.output(save, &[]).unwrap_or_default();
                let rules: Vec<&str> = rules.lines().filter(|l| !l.starts_with('#')).collect();
                add(save, &rules.join("\n"));
            }
        }
        Ok(Self(lines))
    }

    /// With the hooks of a cgroup.
    pub fn and(mut self, cgroup: &Cgroup) -> Result<Self> {
        let directory = std::fs::File::open(cgroup.directory()).context("open a cgroup")?;
        let (ingress, egress) = bpf::cgroup(directory.as_raw_fd());
        self.0.push(format!("{}: {ingress:?} {egress:?}", cgroup.path()));
        Ok(self)
    }

    /// Fails with the difference unless `later` is the same.
    pub fn ensure_same(&self, later: &Self, when: &str) -> Result<()> {
        let difference = self.difference(later);
        ensure!(difference.is_empty(), "{when} the host is not as it was:\n{difference}");
        Ok(())
    }

    /// What has gone (`-`) and what has come (`+`).
    #[must_use]
    pub fn difference(&self, later: &Self) -> String {
        let mut text = String::new();
        for line in self.0.iter().filter(|l| !later.0.contains(l)) {
            let _ = writeln!(text, "- {line}");
        }
        for line in later.0.iter().filter(|l| !self.0.contains(l)) {
            let _ = writeln!(text, "+ {line}");
        }
        text
    }

    /// Whether a line holds all of these words.
    #[must_use]
    pub fn has(&self, words: &[&str]) -> bool {
        self.0.iter().any(|line| words.iter().all(|word| line.contains(word)))
    }
}

/// Index and name of every device.
fn devices(ns: &Ns) -> Result<Vec<(u32, String)>> {
    let text = ns.output("ip", &["-o", "link", "show"])?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let mut words = line.split(": ");
            let index = words.next()?.trim().parse().ok()?;
            let name = words.next()?.split('@').next()?;
            Some((index, name.to_owned()))
        })
        .collect())
}
