//! From pods to workloads: by the cgroup that carries the pod's uid, never through a runtime's
//! socket.

use std::collections::BTreeMap;

use super::cgroup::base;
use super::local::{Host, Scope};
use super::process;
use crate::api::nodefault::Pod;
use crate::select::Workload;

/// The cgroup of each pod of this host, by uid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    by_uid: BTreeMap<String, String>,
}

/// The uid that a cgroup directory stands for: `podUID` (cgroupfs driver), or
/// `kubepods-burstable-podUID.slice` with `_` for `-` (systemd driver).
#[must_use]
pub fn uid_of(directory: &str) -> Option<String> {
    let uid = match directory.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod")?.1.replace('_', "-"),
        None => directory.strip_prefix("pod")?.to_owned(),
    };
    // A mirror pod's uid is a hash without dashes.
    let is_uid = uid.len() >= 32 && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    is_uid.then_some(uid)
}

impl Pods {
    /// Pods among these cgroup paths, the outermost path of each.
    #[must_use]
    pub fn among(paths: &[String]) -> Self {
        let mut by_uid = BTreeMap::new();
        for path in paths {
            if let Some(uid) = uid_of(base(path)) {
                by_uid.entry(uid).or_insert_with(|| path.clone());
            }
        }
        Self { by_uid }
    }

    /// Path of the pod's cgroup.
    #[must_use]
    pub fn cgroup(&self, uid: &str) -> Option<&str> {
        self.by_uid.get(uid).map(String::as_str)
    }
}

/// The workload of a pod of this host, called `name`.
///
/// # Errors
/// A sentence for the pod's record: it has no cgroup, no process, or no network of its own.
pub fn workload(host: &mut Host, pods: &Pods, pod: &Pod, name: &str) -> Result<Workload, String> {
    let Some(path) = pods.cgroup(&pod.uid) else {
        return Err(format!(
            "no cgroup of this node carries the pod's uid {}: it has not started here, or has \
             ended",
            pod.uid
        ));
    };
    if pod.host_network {
        let scope = host.in_cgroup(name.to_owned(), path);
        return host.workload(scope).map_err(|error| error.to_string());
    }
    // The sandbox's process is the oldest, and lives as long as the pod's network.
    let pids = host.pids_in_cgroup(path).map_err(|error| error.to_string())?;
    for pid in pids {
        let netns = process::netns(host.proc(), pid).map_err(|error| error.to_string())?;
        let Some(inode) = netns.filter(|inode| !host.is_own_netns(*inode)) else { continue };
        let netns = process::netns_file(host.proc(), pid);
        let scope = Scope { name: name.to_owned(), netns, inode, cgroup: None };
        let workload = host.workload(scope).map_err(|error| error.to_string())?;
        let sockets = host.cgroup(path).map_err(|error| error.to_string())?;
        return Ok(Workload { sockets, ..workload });
    }
    Err("no process of the pod runs in a network namespace of its own".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f6f2b0e-5f1c-4c8e-9a5e-3f1d2c4b5a69";

    #[test]
    fn uids_are_read_from_both_cgroup_drivers() {
        let systemd = format!("kubepods-besteffort-pod{}.slice", UID.replace('-', "_"));
        let guaranteed = format!("kubepods-pod{}.slice", UID.replace('-', "_"));
        for name in [format!("pod{UID}"), systemd, guaranteed] {
            assert_eq!(uid_of(&name).as_deref(), Some(UID), "{name}");
        }
        let mirror = "d8175de1e1e4bd1bfd7a2ee5c9ab3d5e";
        assert_eq!(uid_of(&format!("pod{mirror}")).as_deref(), Some(mirror));
        for name in ["podman", "pod", "kubepods-besteffort.slice", "system.slice"] {
            assert_eq!(uid_of(name), None, "{name}");
        }
    }

    #[test]
    fn the_outermost_cgroup_is_the_pods() {
        let pod = format!("/kubepods/burstable/pod{UID}");
        let paths = [pod.clone(), format!("{pod}/0123")];
        assert_eq!(Pods::among(&paths).cgroup(UID), Some(pod.as_str()));
        assert_eq!(Pods::among(&paths).cgroup("other"), None);
    }
}
