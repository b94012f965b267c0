//! The hierarchy whose paths name cgroups.

use std::fs;
use std::path::PathBuf;

use super::error::EngineError;

/// The hierarchy in which targets have their paths and inodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// One of v1: what the line of it in `/proc/PID/cgroup` names. `None`: the one of v2.
    pub v1: Option<String>,
}

impl Hierarchy {
    /// That of v2, wherever it is mounted: `/sys/fs/cgroup` on most hosts, `/sys/fs/cgroup/unified`
    /// where v1 is in use as well. Where there is none, one of v1 in which runtimes and systemd give
    /// each workload a cgroup. `mounts` is the text of `/proc/mounts`.
    #[must_use]
    pub fn among(mounts: &str) -> Option<Self> {
        let all: Vec<Vec<&str>> = mounts.lines().map(|line| line.split(' ').collect()).collect();
        let find = |of: &str, has: &dyn Fn(&str) -> bool| {
            all.iter().find_map(|words| match words[..] {
                [_, point, kind, options, ..] if kind == of && options.split(',').any(has) => {
                    Some(PathBuf::from(unescape(point)))
                }
                _ => None,
            })
        };
        let v2 = find("cgroup2", &|_| true).map(|mount| Self { mount, v1: None });
        let stand_in = |name: &&str| {
            let mount = find("cgroup", &|option| option == *name)?;
            Some(Self { mount, v1: Some((*name).to_owned()) })
        };
        v2.or_else(|| STAND_INS.iter().find_map(stand_in))
    }

    /// Its path of a process, from the text of `/proc/PID/cgroup`.
    #[must_use]
    pub fn path_in<'a>(&self, text: &'a str) -> Option<&'a str> {
        text.lines().find_map(|line| {
            let (number, rest) = line.split_once(':')?;
            // A path may hold colons; names of controllers hold none.
            let (names, path) = rest.split_once(':')?;
            let is_it = match &self.v1 {
                None => number == "0" && names.is_empty(),
                Some(name) => names.split(',').any(|one| one == name),
            };
            is_it.then_some(path)
        })
    }
}

/// Of v1, the fullest first: systemd has units in its own, and runtimes join it.
const STAND_INS: [&str; 7] =
    ["name=systemd", "freezer", "pids", "memory", "cpu", "cpuacct", "blkio"];

/// Undoes the kernel's octal escapes of blanks and backslashes in mount points.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// The hierarchy of this host.
pub fn hierarchy() -> Option<Hierarchy> {
    Hierarchy::among(&fs::read_to_string("/proc/self/mounts").ok()?)
}

/// Where the v2 hierarchy is mounted, which on hybrid hosts is not `/sys/fs/cgroup`.
pub fn cgroup_mount() -> Option<PathBuf> {
    hierarchy().filter(|one| one.v1.is_none()).map(|one| one.mount)
}

/// The answer where there is none.
pub fn no_cgroup() -> EngineError {
    EngineError::Unsupported {
        mechanism: "cgroup",
        reason: "no cgroup v2 hierarchy is mounted".into(),
        way_out: "mount one: mount -t cgroup2 none /sys/fs/cgroup/unified",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(mounts: &str) -> Option<(PathBuf, Option<String>)> {
        Hierarchy::among(mounts).map(|one| (one.mount, one.v1))
    }

    #[test]
    fn the_v2_mount_is_found_on_hybrid_hosts() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        assert_eq!(found(hybrid), Some(("/sys/fs/cgroup/unified".into(), None)));
        assert_eq!(found("c /a\\040b cgroup2 rw 0 0\n"), Some(("/a b".into(), None)));
        assert_eq!(found("tmpfs /sys/fs/cgroup tmpfs rw 0 0\n"), None);
    }

    #[test]
    fn without_v2_the_fullest_of_v1_stands_in() {
        let v1 =
            "cgroup /c/cpu cgroup rw,cpu,cpuacct 0 0\ncgroup /c/freezer cgroup rw,freezer 0 0\n";
        assert_eq!(found(v1), Some(("/c/freezer".into(), Some("freezer".into()))));
        let systemd = format!("{v1}cgroup /c/systemd cgroup rw,xattr,name=systemd 0 0\n");
        assert_eq!(found(&systemd), Some(("/c/systemd".into(), Some("name=systemd".into()))));
    }

    #[test]
    fn a_process_has_a_path_in_each() {
        let text = "5:cpu,cpuacct:/a\n3:freezer:/b:c\n1:name=systemd:/d\n0::/e\n";
        let path = |v1: Option<&str>| {
            let one = Hierarchy { mount: PathBuf::new(), v1: v1.map(str::to_owned) };
            one.path_in(text)
        };
        assert_eq!(path(None), Some("/e"));
        assert_eq!(path(Some("cpuacct")), Some("/a"));
        assert_eq!(path(Some("freezer")), Some("/b:c"));
        assert_eq!(path(Some("name=systemd")), Some("/d"));
        assert_eq!(path(Some("memory")), None);
    }
}
