//! A firewall rule that belongs to somebody else.

use anyhow::Result;

use crate::ns::Ns;

/// A port that no test sends to, so that the rule harms nobody.
const PORT: &str = "7998";

/// Adds a rule that drops one port.
pub fn add(ns: &Ns) -> Result<()> {
    let words = ["-A", "OUTPUT", "-p", "udp", "--dport", PORT, "-j", "DROP"];
    ns.output("iptables", &words).map(drop)
}

/// How many rules there are.
pub fn dump(ns: &Ns) -> Result<usize> {
    let rules = ns.output("iptables", &["-S", "OUTPUT"])?;
    Ok(rules.lines().filter(|line| line.starts_with("-A")).count())
}
