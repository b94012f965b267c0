//! Workers whose engine is gone. They end by themselves, in more than one way; this is for those
//! that could not run meanwhile.

use std::fs;
use std::io::{self, BufRead};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::process::{has_ended, open_pidfd, send_kill};

/// How long a worker may take to die.
const PATIENCE: Duration = Duration::from_secs(2);

/// Kills them; says which there were. No engine may be at work on this host.
pub fn sweep() -> Vec<String> {
    let mut killed = Vec::new();
    let mut dying = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if !is_stray(Path::new("/proc"), pid) {
            continue;
        }
        let Ok(pidfd) = open_pidfd(pid) else { continue };
        // Once more: until there was a descriptor, the number could become somebody else's.
        if is_stray(Path::new("/proc"), pid) && send_kill(pidfd.as_fd()).is_ok() {
            killed.push(format!("worker process {pid}"));
            dying.push(pidfd);
        }
    }
    let end = Instant::now() + PATIENCE;
    while dying.iter().any(|pidfd| !has_ended(pidfd.as_fd())) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    killed
}

/// Whether a process is a worker of kfault's that is no child of a kfault: it calls itself so, runs
/// this program, and its parent runs another one.
fn is_stray(proc: &Path, pid: u32) -> bool {
    let program = |pid: &str| fs::metadata(proc.join(pid).join("exe")).map(|meta| inode(&meta));
    let is_ours = |pid: &str| match (program(pid), program("self")) {
        (Ok(theirs), Ok(ours)) => theirs == ours,
        _ => false,
    };
    let of = pid.to_string();
    let command = fs::read(proc.join(&of).join("cmdline")).unwrap_or_default();
    is_worker(&command)
        && is_ours(&of)
        && parent(proc, &of).is_ok_and(|parent| !is_ours(&parent.to_string()))
}

fn inode(meta: &fs::Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

fn is_worker(command: &[u8]) -> bool {
    command.starts_with(b"kfault\0worker\0")
}

fn parent(proc: &Path, pid: &str) -> io::Result<u32> {
    let status = io::BufReader::new(fs::File::open(proc.join(pid).join("status"))?);
    for line in status.lines() {
        if let Some(parent) = line?.strip_prefix("PPid:") {
            return parent.trim().parse().map_err(io::Error::other);
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `/proc` with an engine (1), its worker (2), a worker without engine (3), another program
    /// that calls itself a worker (4), a kfault that is none (5), and its child (6).
    fn proc() -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        let of = |name: &str| proc.path().join(name);
        fs::write(of("kfault-program"), "").unwrap();
        fs::write(of("other-program"), "").unwrap();
        let worker = "kfault\0worker\0cpu\0";
        for (pid, program, command, parent) in [
            ("self", "kfault", "kfault\0sweep\0", 0),
            ("1", "kfault", "kfault\0agent\0", 0),
            ("2", "kfault", worker, 1),
            ("3", "kfault", worker, 9),
            ("4", "other", worker, 9),
            ("5", "kfault", "kfault\0run\0worker\0", 9),
            ("9", "other", "init\0", 0),
        ] {
            fs::create_dir(of(pid)).unwrap();
            std::os::unix::fs::symlink(of(&format!("{program}-program")), of(pid).join("exe"))
                .unwrap();
            fs::write(of(pid).join("cmdline"), command).unwrap();
            fs::write(of(pid).join("status"), format!("Name: x\nPPid:\t{parent}\n")).unwrap();
        }
        proc
    }

    #[test]
    fn only_a_worker_without_an_engine_is_a_stray() {
        let proc = proc();
        let strays: Vec<u32> = (1..10).filter(|pid| is_stray(proc.path(), *pid)).collect();
        assert_eq!(strays, [3]);
    }
}
