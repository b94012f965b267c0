//! From containers of pods to their cgroups and workloads.

use super::cgroup::base;
use super::container::id_of;
use super::local::Host;
use super::pods::{self, Pods};
use super::process;
use crate::api::nodefault::{Container, Pod};
use crate::plan::strain::Place;
use crate::select::Workload;

/// Path of a container's cgroup among all of this host; `None` while it does not run.
#[must_use]
pub fn cgroup<'a>(pods: &Pods, cgroups: &'a [String], container: &Container) -> Option<&'a str> {
    let pod = pods.cgroup(&container.uid)?;
    let inside = cgroups.iter().filter(|path| {
        path.strip_prefix(pod).is_some_and(|rest| rest.starts_with('/'))
            && is_of(base(path), &container.id)
    });
    // Containers may make cgroups of their own below; the shortest path is the container's.
    inside.min_by_key(|path| path.len()).map(String::as_str)
}

/// True for the cgroup directory of a container, by whatever runtime. Its monitor's is none.
fn is_of(directory: &str, id: &str) -> bool {
    id_of(directory) == Some(id)
}

/// The workload of a container of `pod`, called `name`: its sockets on the pod's network, and its
/// processes.
///
/// # Errors
/// A sentence for the container's record.
pub fn workload(
    host: &mut Host,
    pods: &Pods,
    cgroups: &[String],
    (pod, container): (&Pod, &Container),
    name: &str,
) -> Result<Workload, String> {
    let whole = pods::workload(host, pods, pod, name)?;
    let path = cgroup(pods, cgroups, container)
        .ok_or_else(|| format!("container {} does not run", container.container))?;
    let failed = |error: super::NodeError| error.to_string();
    let own = host.cgroup(path).map_err(failed)?;
    let own = own.ok_or_else(|| format!("cgroup {path} went away while we looked"))?;
    let pids = host.pids_in_cgroup(path).map_err(failed)?;
    let leader = process::first(host.proc(), &pids)
        .ok_or_else(|| format!("container {} holds no process", container.container))?;
    let place = Some(Place { cgroup: own.clone(), leader });
    Ok(Workload { cgroup: Some(own), place, sockets: None, ..whole })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    const UID: &str = "0f6f2b0e-5f1c-4c8e-9a5e-3f1d2c4b5a69";

    fn id(digit: &str) -> String {
        digit.repeat(64)
    }

    fn container(id: String) -> Container {
        Container {
            pod: "shop/web".to_owned(),
            uid: UID.to_owned(),
            node: "n".to_owned(),
            container: "app".to_owned(),
            id,
        }
    }

    #[test]
    fn directories_of_containers_are_known() {
        let id = "0123456789abcdef".repeat(4);
        let id = id.as_str();
        assert!(is_of(id, id));
        assert!(is_of(&format!("cri-containerd-{id}.scope"), id));
        assert!(is_of(&format!("crio-{id}.scope"), id));
        assert!(!is_of(&format!("crio-conmon-{id}.scope"), id));
        assert!(!is_of(&id[1..], id));
        assert!(!is_of(&format!("x{id}"), id));
        assert!(!is_of(id, ""));
    }

    #[test]
    fn a_container_is_its_cgroup_and_its_first_process() {
        let fixture = Fixture::new();
        fixture.process(1, "init", "/init.scope", "host");
        let pod_path = format!("/kubepods/pod{UID}");
        fixture.process(20, "pause", &format!("{pod_path}/{}", id("a")), "pod");
        fixture.process(21, "app", &format!("{pod_path}/{}", id("b")), "pod");
        let mut host = fixture.host();
        let cgroups = host.all_cgroups().unwrap();
        let pods = Pods::among(&cgroups);
        let pod = Pod {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            uid: UID.to_owned(),
            node: "n".to_owned(),
            host_network: false,
        };
        // A worker of a load is in the container's cgroup and on the node's network.
        fixture.process(3, "kfault-worker", &format!("{pod_path}/{}", id("b")), "host");
        std::fs::write(fixture.path("proc/3/cmdline"), b"kfault\0worker\0cpu\0").unwrap();
        let mut found = |id| workload(&mut host, &pods, &cgroups, (&pod, &container(id)), "c");
        let app = found(id("b")).unwrap();
        let place = app.place.unwrap();
        assert_eq!((place.cgroup.path, place.leader), (format!("{pod_path}/{}", id("b")), 21));
        assert!(app.netns.ends_with("proc/20/ns/net"), "the pod's network");
        assert!(found(id("c")).unwrap_err().contains("container app does not run"));
        assert!(found(String::new()).unwrap_err().contains("does not run"));
    }
}
