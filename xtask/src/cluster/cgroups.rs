//! The cgroups of the cluster. The one in the cgroup v2 hierarchy is what a node, or the control
//! plane, is ended by: it holds all that was ever started in it, whoever its parent is now.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::exec;

/// Where the hierarchies are looked for, and where a node finds them.
const BASE: &str = "/sys/fs/cgroup";

/// What a kubelet wants to have in a cgroup v2 hierarchy that has controllers at all.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// A mounted hierarchy.
#[derive(Debug, PartialEq)]
pub struct Hierarchy {
    path: PathBuf,
    /// For version 1, what names it when it is mounted once more.
    options: Option<String>,
}

impl Hierarchy {
    fn is_v2(&self) -> bool {
        self.options.is_none()
    }

    /// A line for `node.sh`: place below the base, file system, options.
    pub fn line(&self) -> String {
        let place = self.path.strip_prefix(BASE).unwrap_or(&self.path).display().to_string();
        let place = if place.is_empty() { ".".to_owned() } else { place };
        match &self.options {
            None => format!("{place} cgroup2 nodev"),
            Some(options) => format!("{place} cgroup {options}"),
        }
    }
}

/// Every hierarchy of this machine.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    let all = parse(&mounts);
    if !all.iter().any(Hierarchy::is_v2) {
        bail!(
            "no cgroup v2 is mounted below {BASE}, and neither kfault nor the cluster can do without"
        );
    }
    Ok(all)
}

fn parse(mounts: &str) -> Vec<Hierarchy> {
    // Not what names a hierarchy.
    let generic = ["rw", "ro", "nosuid", "nodev", "noexec", "relatime", "noatime", "xattr"];
    let mut all = Vec::new();
    for line in mounts.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, path, kind, options, ..] = words[..] else { continue };
        if !Path::new(path).starts_with(BASE) {
            continue;
        }
        let options = match kind {
            "cgroup2" => None,
            "cgroup" => {
                let own: Vec<&str> = options
                    .split(',')
                    .filter(|o| !generic.contains(o) && !o.starts_with("release_agent"))
                    .collect();
                let none = if own.iter().any(|o| o.starts_with("name=")) { "none," } else { "" };
                Some(format!("{none}{}", own.join(",")))
            }
            _ => continue,
        };
        all.push(Hierarchy { path: path.into(), options });
    }
    all
}

/// Makes a cgroup in every hierarchy and returns the files that take its processes.
pub fn create(hierarchies: &[Hierarchy], name: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for hierarchy in hierarchies {
        let folder = hierarchy.path.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        if hierarchy.path.join("cpuset.cpus").exists() && !hierarchy.is_v2() {
            // It takes no process before these two are set, and neither do those below it.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let value = fs::read_to_string(hierarchy.path.join(file))?;
                write(&folder.join(file), value.trim())?;
            }
            write(&folder.join("cgroup.clone_children"), "1")?;
        }
        files.push(folder.join("cgroup.procs"));
    }
    Ok(files)
}

/// The one hierarchy of version 2.
pub fn unified(hierarchies: &[Hierarchy]) -> &[Hierarchy] {
    let at = hierarchies.iter().position(Hierarchy::is_v2).unwrap_or(0);
    &hierarchies[at..=at]
}

/// Lets cgroups have the controllers that a kubelet wants. Returns those that had to be added.
pub fn delegate(hierarchies: &[Hierarchy]) -> Result<Vec<String>> {
    let root = &unified(hierarchies)[0].path;
    let words = |file: &str| -> Result<Vec<String>> {
        let text = fs::read_to_string(root.join(file)).with_context(|| format!("read {file}"))?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    };
    let (offered, given) = (words("cgroup.controllers")?, words("cgroup.subtree_control")?);
    let added: Vec<String> = CONTROLLERS
        .iter()
        .map(|name| (*name).to_owned())
        .filter(|name| offered.contains(name) && !given.contains(name))
        .collect();
    for name in &added {
        write(&root.join("cgroup.subtree_control"), &format!("+{name}"))?;
    }
    Ok(added)
}

/// Takes back what [`delegate`] added.
pub fn withdraw(hierarchies: &[Hierarchy], added: &str) {
    for name in added.split_whitespace() {
        let file = unified(hierarchies)[0].path.join("cgroup.subtree_control");
        // Somebody else may have begun to use it.
        let _ = fs::write(file, format!("-{name}"));
    }
}

/// A command that first joins the cgroups that [`create`] made.
pub fn joining(files: &[PathBuf]) -> Result<Command> {
    let mut command = exec::program("sh")?;
    // `$$` stays the same through exec.
    let script =
        "while [ \"$1\" != -- ]; do echo $$ >\"$1\" || exit 1; shift; done; shift; exec \"$@\"";
    command.args(["-c", script, "join"]).args(files).arg("--");
    super::network::direct(&mut command);
    Ok(command)
}

/// The cgroups whose name starts like this.
pub fn named(hierarchies: &[Hierarchy], prefix: &str) -> Vec<PathBuf> {
    let entries = hierarchies.iter().filter_map(|hierarchy| fs::read_dir(&hierarchy.path).ok());
    let folders = entries.flatten().flatten().map(|entry| entry.path());
    folders
        .filter(|path| path.is_dir())
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix)))
        .collect()
}

/// The processes directly in a cgroup of the cgroup v2 hierarchy, and in its `init`, which a node
/// has where that hierarchy has the controllers.
pub fn processes(name: &str) -> Result<Vec<u32>> {
    let hierarchies = hierarchies()?;
    let folder = unified(&hierarchies)[0].path.join(name);
    let texts = [folder.join("cgroup.procs"), folder.join("init/cgroup.procs")]
        .map(|file| fs::read_to_string(file).unwrap_or_default());
    Ok(texts.iter().flat_map(|text| text.lines()).filter_map(|pid| pid.parse().ok()).collect())
}

/// Kills what is in these cgroups and removes them.
pub fn end(folders: &[PathBuf]) -> Result<()> {
    for folder in folders {
        kill(folder);
    }
    let limit = Instant::now() + Duration::from_secs(20);
    for folder in folders {
        while let Err(error) = remove(folder) {
            if Instant::now() > limit {
                return Err(error).with_context(|| {
                    format!("remove the cgroup {}: a process in it does not end", folder.display())
                });
            }
            // Also what a fork brought in while we were killing.
            kill(folder);
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

fn kill(folder: &Path) {
    if fs::write(folder.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    // Version 1, or a kernel before 5.14: one by one.
    for line in fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Ok(pid) = line.parse::<i32>()
            && pid > 0
        {
            // SAFETY: plain call; what is in the cluster's cgroup is the cluster's.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
    for below in below(folder) {
        kill(&below);
    }
}

fn remove(folder: &Path) -> std::io::Result<()> {
    for below in below(folder) {
        remove(&below)?;
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

fn write(file: &Path, value: &str) -> Result<()> {
    fs::write(file, value).with_context(|| format!("write {value} to {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_and_plain_machines_are_read() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
            cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0\n\
            cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,xattr,name=systemd 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n\
            cgroup2 /somewhere/else cgroup2 rw 0 0\n";
        let lines: Vec<String> = parse(hybrid).iter().map(Hierarchy::line).collect();
        let wanted =
            ["cpu cgroup cpu", "systemd cgroup none,name=systemd", "unified cgroup2 nodev"];
        assert_eq!(lines, wanted);
        let plain = parse("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nsdelegate 0 0\n");
        assert_eq!(plain[0].line(), ". cgroup2 nodev");
        assert!(plain[0].is_v2());
    }
}
