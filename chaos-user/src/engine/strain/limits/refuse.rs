//! Why a limit cannot be set, in words that lead on: which controller is missing and how to
//! enable it, who else would be hit.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::super::place::{Directories, Version};
use super::knob::Setting;
use crate::engine::error::EngineError;

/// The directory of a controller's files, or which controller is missing.
///
/// # Errors
/// [`EngineError::Unsupported`] with the controller's name and how to enable it.
pub fn controller<'a>(
    directories: &'a Directories,
    name: &'static str,
    field: &'static str,
) -> Result<(Version, &'a Path), EngineError> {
    if let Some(found) = directories.controller(name) {
        return Ok(found);
    }
    let main = directories.main();
    let v1 = if name == "io" { "blkio" } else { name };
    if is_v1(&fs::read_to_string("/proc/cgroups").unwrap_or_default(), v1) {
        let reason = format!(
            "the {v1} controller of this host is cgroup v1, and its hierarchy has no cgroup of the \
             same path as {}",
            main.display()
        );
        return Err(EngineError::Unsupported {
            mechanism: field,
            reason,
            way_out: "name the target by a process or a container in it (pid:, container:)",
        });
    }
    if directories.is_v1_alone() {
        return Err(EngineError::Unsupported {
            mechanism: field,
            reason: format!("no hierarchy of cgroup v1 with the {v1} controller is mounted"),
            way_out: "mount it (mount -t cgroup -o CONTROLLER none DIRECTORY), or use a kernel that \
                      has it",
        });
    }
    Err(not_enabled(main, name, field))
}

/// Whether a controller is bound to a hierarchy of v1, from the text of `/proc/cgroups`.
fn is_v1(text: &str, name: &str) -> bool {
    let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.any(|words| words.first() == Some(&name) && words.get(1).is_some_and(|id| *id != "0"))
}

fn not_enabled(main: &Path, name: &'static str, field: &'static str) -> EngineError {
    let offers = |directory: &Path| {
        let all = fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
        all.split_whitespace().any(|one| one == name)
    };
    let above = main.ancestors().skip(1).take_while(|d| d.join("cgroup.controllers").exists());
    let above: Vec<&Path> = above.collect();
    // From the cgroup above that has it down to the parent: each has to hand it on.
    let Some(has) = above.iter().position(|directory| offers(directory)) else {
        return EngineError::Unsupported {
            mechanism: field,
            reason: format!("this host has no {name} controller in cgroup v2"),
            way_out: "use a kernel that has it, or look for cgroup_disable= on its command line",
        };
    };
    let files: Vec<String> = above
        .iter()
        .take(has + 1)
        .rev()
        .map(|one| format!("{}/cgroup.subtree_control", one.display()))
        .collect();
    EngineError::Unsupported {
        mechanism: field,
        reason: format!(
            "the {name} controller is not enabled for {}: +{name} is missing in {}",
            main.display(),
            files.join(" and ")
        ),
        way_out: "enable it by writing that word to that file (systemd does with Delegate=yes or \
                  any limit of that kind in the unit)",
    }
}

/// That a file is missing which the directory should have.
pub fn no_file(directory: &Path, file: &str, field: &'static str) -> EngineError {
    let is_root =
        directory.join("cgroup.procs").exists() && !directory.join("cgroup.events").exists();
    let way_out = match (file, is_root) {
        ("freezer.state", _) => {
            "the target has no cgroup of its own there: make one, write its processes to that one's \
             cgroup.procs, and name it by one of them (pid:)"
        }
        (_, true) => "name a cgroup below it: the root has no limits",
        ("cgroup.freeze", _) => "use Linux 5.2 or newer",
        ("io.max" | "cpu.max", _) => {
            "use a kernel with CONFIG_BLK_DEV_THROTTLING and CONFIG_CFS_BANDWIDTH"
        }
        _ => "use a kernel whose controller has it",
    };
    let reason = format!("{} has no file {file}", directory.display());
    EngineError::Unsupported { mechanism: field, reason, way_out }
}

/// What a write that failed means.
pub fn explain(setting: &Setting, error: io::Error) -> EngineError {
    let Setting { knob, field, after, .. } = setting;
    let unsupported =
        |reason: String, way_out| EngineError::Unsupported { mechanism: field, reason, way_out };
    let said = format!("{} does not take \"{after}\"", knob.describe());
    match (knob.file.as_str(), error.raw_os_error()) {
        (_, Some(libc::EROFS)) => unsupported(
            format!("{} is mounted read-only", knob.directory.display()),
            "mount the cgroup file system writable for kfault",
        ),
        ("cpu.cfs_quota_us", Some(libc::EINVAL)) => unsupported(
            format!("{said}: in cgroup v1 no cgroup may have a larger share than the one above it"),
            "lower the quotas of the cgroups below it first, or choose a quota between theirs and \
             that of the cgroup above",
        ),
        ("cpu.max", Some(libc::EINVAL)) => unsupported(
            format!("{said}: a quota must not be lower than cpu.max.burst"),
            "lower cpu.max.burst first, or choose a larger quota",
        ),
        (_, Some(libc::ENODEV | libc::EOPNOTSUPP)) if knob.device.is_some() => unsupported(
            format!("{said}: the device takes no limits"),
            "name another device, a whole disk",
        ),
        (_, Some(libc::ENODEV | libc::ENOENT)) => {
            EngineError::Gone { what: knob.directory.display().to_string() }
        }
        _ => EngineError::os(format!("write \"{after}\" to {}", knob.describe()), error),
    }
}

/// Refuses what would hit kfault, the first process of the system, or (in v1, where a process may
/// be in another cgroup of every hierarchy) somebody who is not of the target.
///
/// # Errors
/// [`EngineError::Unsupported`] with the reason.
pub fn others(directories: &Directories, settings: &[Setting]) -> Result<Vec<String>, EngineError> {
    let mut notes = Vec::new();
    let places: BTreeSet<&PathBuf> = settings.iter().map(|one| &one.knob.directory).collect();
    for place in places {
        let field = settings.iter().find(|one| one.knob.directory == *place).map(|one| one.field);
        let note = other(place, directories.main(), std::process::id(), field.unwrap_or(""))?;
        notes.extend(note);
    }
    Ok(notes)
}

fn other(
    place: &Path,
    main: &Path,
    own: u32,
    field: &'static str,
) -> Result<Option<String>, EngineError> {
    // In this order: who is born meanwhile is in the second one too.
    let here = processes(place);
    let way_out = "choose another target: kfault limits nobody but the target, and never itself";
    let refused = |reason: String| EngineError::Unsupported { mechanism: field, reason, way_out };
    for (pid, name) in [(own, "kfault itself"), (1, "the first process of the system")] {
        if here.contains(&pid) {
            return Err(refused(format!("{} holds {name} (process {pid})", place.display())));
        }
    }
    if place == main {
        return Ok(None);
    }
    let target = processes(main);
    let is_there = |pid: &&u32| Path::new("/proc").join(pid.to_string()).exists();
    if let Some(pid) = here.difference(&target).find(is_there) {
        return Err(refused(format!(
            "{} holds process {pid}, which is not of the target {}",
            place.display(),
            main.display()
        )));
    }
    let is_without = here.is_empty() && !target.is_empty();
    Ok(is_without.then(|| {
        format!(
            "{field}: no process of the target is in {}, so that the limit acts on nobody yet",
            place.display()
        )
    }))
}

/// Processes of a cgroup and of all below it.
fn processes(directory: &Path) -> BTreeSet<u32> {
    // A cgroup of threads answers EOPNOTSUPP; its processes are those of the one above.
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    let mut all: BTreeSet<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.append(&mut processes(&entry.path()));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_controller_that_is_not_enabled_is_named_with_the_files_to_write() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "a/cgroup.controllers", "cpu io\n");
        put(root.path(), "a/b/cgroup.controllers", "cpu\n");
        put(root.path(), "a/b/c/cgroup.controllers", "\n");
        let said = not_enabled(&root.path().join("a/b/c"), "io", "io").to_string();
        assert!(said.contains("+io is missing in"), "{said}");
        let (first, second) = ("/a/cgroup.subtree_control and ", "/a/b/cgroup.subtree_control;");
        assert!(said.contains(first) && said.contains(second), "{said}");
        let said = not_enabled(&root.path().join("a/b/c"), "pids", "pids.max").to_string();
        assert!(said.contains("no pids controller"), "{said}");
    }

    #[test]
    fn the_version_of_a_controller_comes_from_the_kernel() {
        let text =
            "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t1\t1\nhugetlb\t0\t1\t1\n";
        assert!(is_v1(text, "cpu") && !is_v1(text, "hugetlb") && !is_v1(text, "cpuset"));
    }

    #[test]
    fn nobody_else_is_hit() {
        let root = tempfile::tempdir().unwrap();
        let (own, v1, main) = (std::process::id(), root.path().join("v1"), root.path().join("v2"));
        let check = || other(&v1, &main, own, "pids.max");
        put(&v1, "cgroup.procs", "");
        put(&main, "cgroup.procs", "4000000\n");
        assert!(check().unwrap().unwrap().contains("acts on nobody"));
        put(&v1, "cgroup.procs", "4000000\n");
        assert_eq!(check().unwrap(), None);
        put(&v1, "below/cgroup.procs", "1\n");
        assert!(check().unwrap_err().to_string().contains("first process"));
        put(&v1, "below/cgroup.procs", &format!("{own}\n"));
        assert!(check().unwrap_err().to_string().contains("kfault itself"));
        // Somebody who lives and is not of the target; one that has ended counts for nothing.
        let parent = std::os::unix::process::parent_id();
        put(&v1, "below/cgroup.procs", &format!("{parent}\n4000001\n"));
        assert!(check().unwrap_err().to_string().contains("not of the target"));
    }
}
