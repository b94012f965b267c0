//! Containers, from the names that runtimes give their cgroups. Never through a runtime socket.

use std::fs;
use std::path::Path;

use super::cgroup::base;

/// Shortest id prefix that is taken for one; anything shorter is a name.
const SHORTEST_ID: usize = 4;
/// Length of a container id.
const ID_LEN: usize = 64;

/// The container id that a cgroup directory stands for, by the name that the runtime gave it:
/// a plain id or `crio-ID` (cgroupfs driver), or `docker-ID.scope`, `cri-containerd-ID.scope`,
/// `crio-ID.scope`, `libpod-ID.scope` (systemd driver). A monitor's own scope
/// (`crio-conmon-…`, `libpod-conmon-…`) is no container.
#[must_use]
pub fn id_of(directory: &str) -> Option<&str> {
    const PREFIXES: [&str; 4] = ["docker-", "cri-containerd-", "crio-", "libpod-"];
    let scope = directory.strip_suffix(".scope");
    let name = scope.unwrap_or(directory);
    let id = match PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) {
        Some(id) => id,
        None if scope.is_none() => name,
        None => return None,
    };
    (id.len() == ID_LEN && is_hex(id)).then_some(id)
}

/// True when the text can be the beginning of a container id.
#[must_use]
pub fn may_be_id(text: &str) -> bool {
    (SHORTEST_ID..=ID_LEN).contains(&text.len()) && is_hex(text)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Containers among these cgroup paths: (id, path), the outermost path of each id.
#[must_use]
pub fn containers(paths: &[String]) -> Vec<(&str, &str)> {
    let mut found: Vec<(&str, &str)> = Vec::new();
    for path in paths {
        if let Some(id) = id_of(base(path))
            && !found.iter().any(|(known, _)| *known == id)
        {
            found.push((id, path));
        }
    }
    found
}

/// Ids of containers with this name, from Docker's own files under `docker` (usually
/// `/var/lib/docker/containers`). Empty where they cannot be read.
#[must_use]
pub fn ids_by_name(docker: &Path, name: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(docker) else {
        return Vec::new();
    };
    let mut ids: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let text = fs::read(entry.path().join("config.v2.json")).ok()?;
            let config: serde_json::Value = serde_json::from_slice(&text).ok()?;
            let found = config.get("Name")?.as_str()?.trim_start_matches('/');
            (found == name).then(|| entry.file_name().to_string_lossy().into_owned())
        })
        .collect();
    ids.sort_unstable();
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn ids_are_read_from_every_runtimes_cgroup_name() {
        for name in [
            ID.to_owned(),
            format!("docker-{ID}.scope"),
            format!("cri-containerd-{ID}.scope"),
            format!("crio-{ID}.scope"),
            format!("libpod-{ID}.scope"),
            format!("libpod-{ID}"),
            format!("crio-{ID}"),
        ] {
            assert_eq!(id_of(&name), Some(ID), "{name}");
        }
        for name in [
            "system.slice".to_owned(),
            format!("crio-conmon-{ID}.scope"),
            format!("crio-conmon-{ID}"),
            format!("{ID}.scope"),
            ID[..63].into(),
            ID.to_uppercase(),
        ] {
            assert_eq!(id_of(&name), None, "{name}");
        }
    }

    #[test]
    fn a_name_is_looked_up_in_dockers_files() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(ID)).unwrap();
        fs::write(dir.path().join(ID).join("config.v2.json"), r#"{"Name":"/web","ID":"x"}"#)
            .unwrap();
        fs::create_dir(dir.path().join("broken")).unwrap();
        fs::write(dir.path().join("broken/config.v2.json"), "{").unwrap();
        assert_eq!(ids_by_name(dir.path(), "web"), [ID]);
        assert!(ids_by_name(dir.path(), "we").is_empty());
        assert!(ids_by_name(&dir.path().join("none"), "web").is_empty());
    }
}
