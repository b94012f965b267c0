//! Workloads that are one and the same.

use super::Lowered;
use crate::select::Workload;

/// Two names for one thing are one target: it would be hit twice.
pub fn distinct<'a>(all: &'a [Workload], field: &str, lowered: &mut Lowered) -> Vec<&'a Workload> {
    let mut out: Vec<&Workload> = Vec::new();
    for workload in all {
        let same = |other: &&&Workload| {
            !workload.is_elsewhere
                && other.inode == workload.inode
                && other.netns == workload.netns
                && other.cgroup == workload.cgroup
        };
        let known = out
            .iter()
            .find(|other| other.name == workload.name || (!workload.is_unbound() && same(other)));
        match known {
            Some(known) => {
                lowered.warn(
                    field,
                    format!("{} is {} once more; it counts once", workload.name, known.name),
                );
            }
            None => out.push(workload),
        }
    }
    out
}
