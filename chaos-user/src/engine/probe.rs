//! What this kernel can do, found out by trying it in a scratch network namespace.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use serde::Serialize;

use super::bpf::{self, ENTRY_NAME, Kind};
use super::cgroup::cgroup_mount;
use super::error::EngineError;
use super::netlink::Rtnl;
use super::object::{Object, PROGRAMS, ProgramReport};
use super::{device, http, line, strain};
use crate::plan::Direction;

/// Whether a mechanism can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It was tried and works.
    Works,
    /// The kernel does not have it.
    Missing,
    /// The kernel has it and does not let us.
    Refused,
}

/// One mechanism.
#[derive(Clone, Debug, Serialize)]
pub struct Mechanism {
    /// Its name.
    pub name: &'static str,
    /// Whether it works.
    pub state: State,
    /// What the kernel said, or what was seen.
    pub reason: String,
    /// The faults that use it.
    pub serves: Vec<&'static str>,
}

const TIME: [&str; 5] = ["delay", "jitter", "reorder", "rate", "bandwidth"];
const PACKETS: [&str; 5] = ["loss", "corrupt", "duplicate", "partition", "dns"];
const HTTP: [&str; 1] = ["responses of HTTP servers"];
const REQUESTS: [&str; 1] = ["requests to HTTP servers that become others"];

fn mechanism(
    name: &'static str,
    serves: &[&'static str],
    tried: Result<String, EngineError>,
) -> Mechanism {
    let (state, reason) = match tried {
        Ok(seen) => (State::Works, seen),
        Err(error) => {
            let state = match error.errno() {
                Some(libc::EPERM | libc::EACCES) => State::Refused,
                _ => State::Missing,
            };
            (state, chain(&error))
        }
    };
    Mechanism { name, state, reason, serves: serves.to_vec() }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Runs `f` in a network namespace that nobody else has, with loopback up.
pub(super) fn in_scratch<T: Send>(f: impl FnOnce() -> T + Send) -> Result<T, EngineError> {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                // SAFETY: plain call; only this thread moves, and it ends after `f`.
                if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                    return Err(EngineError::last_os("make a scratch network namespace"));
                }
                Ok(f())
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Tries every mechanism. Leaves nothing behind.
#[must_use]
pub fn probe_all() -> Vec<Mechanism> {
    let everything: Vec<&str> = TIME.into_iter().chain(PACKETS).collect();
    let object = loaded();
    let verified = match &object {
        Ok(object) => Ok(format!("{} programs verified", object.programs().len())),
        Err(error) => Err(EngineError::os(
            chain(error),
            io::Error::from_raw_os_error(error.errno().unwrap_or(libc::ENOSYS)),
        )),
    };
    let mut found = vec![mechanism("bpf object", &everything, verified)];
    let strains = || {
        let all = strain::probe::probe_all();
        all.into_iter().map(|(name, serves, tried)| mechanism(name, serves, tried))
    };
    let Ok(mut object) = object else {
        found.extend(strains());
        return found;
    };
    found.push(mechanism("tc hook", &everything, tc_hook(&mut object)));
    found.push(mechanism("fq departure times", &TIME, fq()));
    found.push(mechanism("delay line", &TIME, delay_line(&mut object)));
    found.push(mechanism(
        "cgroup hook",
        &["partition of units, cgroups, processes"],
        cgroup(&mut object, Kind::CgroupEgress),
    ));
    found.push(mechanism("http exchanges", &HTTP, http::probe()));
    found.push(mechanism("http requests", &REQUESTS, http::probe_requests()));
    found.extend(strains());
    found
}

fn loaded() -> Result<Object, EngineError> {
    let mut object = Object::load(&[])?;
    object.load_all()?;
    Ok(object)
}

fn tc_hook(object: &mut Object) -> Result<String, EngineError> {
    let entry = object.entry(Kind::TcEgress, 0)?;
    let entry: &OwnedFd = &entry;
    let tried = in_scratch(|| -> io::Result<&str> {
        let lo = device::facts("lo")?.ifindex;
        match bpf::link_tcx(Kind::TcEgress, entry.as_fd(), lo) {
            Ok(_link) => Ok("tcx link: gone with its owner"),
            Err(_) => {
                let mut rtnl = Rtnl::open()?;
                rtnl.add_clsact(lo)?;
                rtnl.add_filter(lo, Direction::Egress, ENTRY_NAME, entry.as_fd())?;
                Ok("clsact filter: a crash leaves it behind, inert, until sweep (tcx needs 6.6)")
            }
        }
    })?;
    tried.map(str::to_owned).map_err(|e| EngineError::os("attach to a device", e))
}

fn fq() -> Result<String, EngineError> {
    in_scratch(|| Rtnl::open()?.add_fq(device::facts("lo")?.ifindex))?
        .map(|()| "sch_fq".to_owned())
        .map_err(|e| match e.raw_os_error() {
            Some(libc::ENOENT) => {
                EngineError::os("add an fq queue: this kernel has no sch_fq (CONFIG_NET_SCH_FQ)", e)
            }
            _ => EngineError::os("add an fq queue", e),
        })
}

fn delay_line(object: &mut Object) -> Result<String, EngineError> {
    let entry = object.line_entry(0)?;
    let entry: &OwnedFd = &entry;
    in_scratch(|| -> io::Result<()> {
        let (_tap, name) = line::tap()?;
        let ifindex = device::facts(&name)?.ifindex;
        let mut rtnl = Rtnl::open()?;
        rtnl.raise(ifindex, 9000)?;
        if bpf::link_tcx(Kind::TcIngress, entry.as_fd(), ifindex).is_err() {
            rtnl.add_clsact(ifindex)?;
            rtnl.add_filter(ifindex, Direction::Ingress, ENTRY_NAME, entry.as_fd())?;
        }
        Ok(())
    })?
    .map(|()| "TAP device: used where the device's queue cannot keep departure times".to_owned())
    .map_err(|e| EngineError::os("make a TAP device (CONFIG_TUN)", e))
}

fn cgroup(object: &mut Object, kind: Kind) -> Result<String, EngineError> {
    let missing =
        || EngineError::os("find a cgroup v2 mount", io::Error::from(io::ErrorKind::NotFound));
    let mount = cgroup_mount().ok_or_else(missing)?;
    let scratch = ScratchCgroup::new(&mount)?;
    let entry = object.entry(kind, 0)?;
    let directory = File::open(&scratch.0).map_err(|e| EngineError::os("open a cgroup", e))?;
    bpf::link_cgroup(kind, entry.as_fd(), directory.as_fd())
        .map(|_link| format!("cgroup_skb on {}", mount.display()))
        .map_err(|e| EngineError::os("attach to a cgroup", e))
}

/// A cgroup without processes that goes when dropped.
struct ScratchCgroup(PathBuf);

impl ScratchCgroup {
    fn new(mount: &std::path::Path) -> Result<Self, EngineError> {
        let path = mount.join(format!("kfault-probe-{}", std::process::id()));
        std::fs::create_dir(&path)
            .map_err(|e| EngineError::os(format!("make the cgroup {}", path.display()), e))?;
        Ok(Self(path))
    }
}

impl Drop for ScratchCgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Attaches every program once, to a scratch device or cgroup, and tells what it cost to verify.
///
/// # Errors
/// When the object does not load at all.
pub(super) fn attach_all() -> Result<Vec<ProgramReport>, EngineError> {
    let mut object = loaded()?;
    let mut reports = object.programs();
    for (report, (_, _, kind)) in reports.iter_mut().zip(PROGRAMS) {
        let tried = match kind {
            Some(Kind::TcEgress) => tc_hook(&mut object),
            Some(Kind::TcIngress) => {
                let entry = object.entry(Kind::TcIngress, 0)?;
                let entry: &OwnedFd = &entry;
                in_scratch(|| {
                    let lo = device::facts("lo")?.ifindex;
                    bpf::link_tcx(Kind::TcIngress, entry.as_fd(), lo).map(drop).or_else(|_| {
                        let mut rtnl = Rtnl::open()?;
                        rtnl.add_clsact(lo)?;
                        rtnl.add_filter(lo, Direction::Ingress, ENTRY_NAME, entry.as_fd())
                    })
                })?
                .map(|()| String::new())
                .map_err(|e| EngineError::os("attach to a device", e))
            }
            Some(kind @ (Kind::CgroupEgress | Kind::CgroupIngress)) => cgroup(&mut object, kind),
            None if report.name == "line_return" => delay_line(&mut object),
            // No main program is reached so.
            Some(Kind::HttpIngress | Kind::HttpEgress) | None => {
                Ok("reached by a jump from the program before it".to_owned())
            }
        };
        match tried {
            Ok(note) => {
                report.attached = true;
                report.note = note;
            }
            Err(error) => report.note = chain(&error),
        }
    }
    match http::programs() {
        Ok(programs) => reports.extend(programs.into_iter().map(|(name, walked)| ProgramReport {
            name: name.to_owned(),
            verified_instructions: walked,
            attached: true,
            note: "an object of its own, loaded with the first HTTP fault".to_owned(),
        })),
        Err(EngineError::Unsupported { .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(reports)
}
