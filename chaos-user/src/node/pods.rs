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
        let name = name.to_owned();
        let scope = Scope { name, netns, inode, cgroup: None, home: None, leader: 0 };
        let workload = host.workload(scope).map_err(|error| error.to_string())?;
        let sockets = host.sockets(path).map_err(|error| error.to_string())?;
        return Ok(Workload { sockets, ..workload });
    }
    Err("no process of the pod runs in a network namespace of its own".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::container::containers;
    use super::super::fixture::Fixture;
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

    const ID: &str = "3e1f6a0cb7d24589a6c1e0f2d3b4a5968778695a4b3c2d1e0f9e8d7c6b5a4032";

    /// `kubepods…` of a pod and of its container, as kubelets and runtimes make them.
    fn layouts() -> Vec<(String, String)> {
        let slice = UID.replace('-', "_");
        let mut all = Vec::new();
        for (class, dash) in [("", ""), ("burstable", "-burstable"), ("besteffort", "-besteffort")]
        {
            let folder = if class.is_empty() { String::new() } else { format!("/{class}") };
            // cgroupfs driver: containerd and Docker, then CRI-O; also below a kubelet's own root.
            for root in ["", "/kubelet", "/system.slice/docker-1f.scope/kubelet"] {
                let pod = format!("{root}/kubepods{folder}/pod{UID}");
                all.push((pod.clone(), format!("{pod}/{ID}")));
                all.push((pod.clone(), format!("{pod}/crio-{ID}")));
            }
            // systemd driver; with a root, every slice carries the name of the one above.
            for (root, name) in [
                ("", "kubepods"),
                ("/kubelet.slice", "kubelet-kubepods"),
                ("/system.slice/docker-1f.scope/kubelet.slice", "kubelet-kubepods"),
            ] {
                let class = match class {
                    "" => String::new(),
                    class => format!("/{name}-{class}.slice"),
                };
                let pod = format!("{root}/{name}.slice{class}/{name}{dash}-pod{slice}.slice");
                for scope in ["cri-containerd", "crio", "docker"] {
                    all.push((pod.clone(), format!("{pod}/{scope}-{ID}.scope")));
                }
                // crun puts processes one level further down.
                all.push((pod.clone(), format!("{pod}/crio-{ID}.scope/container")));
            }
        }
        all
    }

    fn pod(host_network: bool) -> Pod {
        Pod {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            uid: UID.to_owned(),
            node: "n".to_owned(),
            host_network,
        }
    }

    fn found(fixture: &Fixture, pod: &Pod) -> Result<Workload, String> {
        let mut host = fixture.host();
        let pods = Pods::among(&host.all_cgroups().unwrap());
        workload(&mut host, &pods, pod, "pod:shop/web")
    }

    #[test]
    fn a_pod_is_found_whatever_kubelet_and_runtime_call_its_cgroups() {
        for (pod_path, container) in layouts() {
            let fixture = Fixture::new();
            fixture.process(1, "init", "/init.scope", "host");
            // CRI-O's monitor may live in the pod's cgroup, in the node's namespace.
            fixture.process(20, "conmon", &format!("{pod_path}/crio-conmon-{ID}.scope"), "host");
            fixture.process(21, "app", &container, "pod");
            fixture.process(
                22,
                "other",
                "/kubepods/poddeadbeefdeadbeefdeadbeefdeadbeef/x",
                "other",
            );
            let found = found(&fixture, &pod(false)).unwrap();
            assert!(found.netns.ends_with("proc/21/ns/net"), "{container}: {}", found.netns);
            assert_eq!(found.cgroup, None, "{container}");
            assert_eq!(found.sockets.unwrap().path, pod_path);
        }
    }

    #[test]
    fn a_pod_on_the_nodes_network_is_its_cgroup() {
        for (pod_path, container) in layouts() {
            let fixture = Fixture::new();
            fixture.process(1, "init", "/init.scope", "host");
            fixture.process(21, "app", &container, "host");
            let found = found(&fixture, &pod(true)).unwrap();
            assert_eq!(found.cgroup.unwrap().path, pod_path);
        }
    }

    #[test]
    fn containers_are_told_from_monitors_in_every_layout() {
        for (pod_path, container) in layouts() {
            let monitor = format!("{pod_path}/crio-conmon-{ID}.scope");
            let own = container.trim_end_matches("/container").to_owned();
            let paths = [pod_path, monitor, own.clone(), container];
            assert_eq!(containers(&paths), [(ID, own.as_str())]);
        }
    }

    #[test]
    fn a_pod_that_is_not_here_is_said_by_its_uid() {
        let fixture = Fixture::new();
        fixture.process(1, "init", "/init.scope", "host");
        assert!(found(&fixture, &pod(false)).unwrap_err().contains(UID));
        fixture.cgroup(&format!("/kubepods/pod{UID}"));
        assert!(found(&fixture, &pod(false)).unwrap_err().contains("no process"));
    }

    #[test]
    fn the_outermost_cgroup_is_the_pods() {
        let pod = format!("/kubepods/burstable/pod{UID}");
        let paths = [pod.clone(), format!("{pod}/0123")];
        assert_eq!(Pods::among(&paths).cgroup(UID), Some(pod.as_str()));
        assert_eq!(Pods::among(&paths).cgroup("other"), None);
    }
}
