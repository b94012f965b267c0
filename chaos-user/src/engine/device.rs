//! A device that the engine works on: its namespace kept open, its facts, its queue.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::linux::fs::MetadataExt;

use super::bpf::{self, Kind};
use super::error::EngineError;
use super::journal;
use super::line::{self, Line, Lines};
use super::netlink::{OUR_QUEUE, Qdisc, Rtnl};
use super::netns::{enter, enter_and_run, run_apart};
use crate::plan::{Device, Direction};
use netlink_packet_route::tc::TcHandle;

/// How a hook is attached.
pub enum Attached {
    /// A tcx link: gone when closed.
    Tcx {
        /// The link.
        _link: OwnedFd,
    },
    /// A filter on `clsact`, for kernels before 6.6: stays until it is removed.
    Filter {
        /// True when the `clsact` was made for it.
        made_clsact: bool,
    },
}

/// What holds packets back on a device.
pub enum Queue {
    /// Nothing.
    None,
    /// An `fq`.
    Fq {
        /// True when it is ours to remove.
        ours: bool,
    },
    /// The delay line.
    Line {
        /// Its frames.
        line: Line,
        /// Index of the TAP.
        ifindex: u32,
        /// Slot of its way back.
        slot: u32,
        /// Its way back.
        _back: (OwnedFd, Attached),
    },
}

/// An open device.
pub struct Open {
    /// What the plan calls it.
    pub name: Device,
    namespace: File,
    /// Its index.
    pub ifindex: u32,
    /// Bytes of link-layer header.
    pub link_header: u32,
    /// It is the namespace's loopback.
    pub is_loopback: bool,
    /// What holds packets back.
    pub queue: Queue,
}

const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;

impl Open {
    /// Opens the device's namespace and looks the device up.
    ///
    /// # Errors
    /// [`EngineError::Gone`] when either is not there (any more).
    pub fn new(name: &Device) -> Result<Self, EngineError> {
        let gone = |what: String| EngineError::Gone { what };
        let namespace = File::open(&name.netns)
            .map_err(|_| gone(format!("network namespace {}", name.netns)))?;
        let inode = namespace
            .metadata()
            .map_err(|e| EngineError::os(format!("look at {}", name.netns), e))?
            .st_ino();
        if inode != name.inode {
            return Err(gone(format!("network namespace {} (replaced)", name.netns)));
        }
        let facts = enter_and_run(&namespace, || facts(&name.name))
            .map_err(|e| EngineError::os(format!("enter {}", name.netns), e))?;
        let Facts { ifindex, link_header, is_loopback } =
            facts.map_err(|_| gone(format!("device {} in {}", name.name, name.netns)))?;
        let (name, queue) = (name.clone(), Queue::None);
        Ok(Self { name, namespace, ifindex, link_header, is_loopback, queue })
    }

    /// Runs `f` in the device's namespace.
    ///
    /// # Errors
    /// What `f` or entering the namespace gives.
    pub fn inside<T: Send>(
        &self,
        doing: &str,
        f: impl FnOnce() -> io::Result<T> + Send,
    ) -> Result<T, EngineError> {
        let doing = || format!("{doing} of {} in {}", self.name.name, self.name.netns);
        enter_and_run(&self.namespace, f).and_then(|result| result).map_err(|e| {
            match e.raw_os_error() {
                Some(libc::ENODEV) => EngineError::Gone { what: doing() },
                _ => EngineError::os(doing(), e),
            }
        })
    }

    /// Attaches an entry program at the head of the device's chain.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn attach(&self, kind: Kind, entry: &OwnedFd) -> Result<Attached, EngineError> {
        let note = || journal::note(&self.name, self.ifindex).map_err(io::Error::other);
        self.inside("attach to", || attach(kind, entry, self.ifindex, note))
    }

    /// Detaches what [`Open::attach`] attached; true when the `clsact` it had made went too.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn detach(&self, kind: Kind, attached: Attached) -> Result<bool, EngineError> {
        match attached {
            Attached::Tcx { .. } => Ok(false),
            Attached::Filter { made_clsact } => self.inside("detach from", || {
                let mut rtnl = Rtnl::open()?;
                rtnl.remove_filters(self.ifindex, direction(kind), &[kind.filter_name()])?;
                // Whoever made it may have gone before those that stood beside it.
                if !made_clsact && !journal::has(&self.name, self.ifindex) {
                    return Ok(false);
                }
                remove_empty_clsact(&mut rtnl, self.ifindex)
            }),
        }
    }

    /// Finds or makes something that holds packets: the device's own `fq` where it can carry
    /// departure times, an `fq` of ours where there is only a default queue, else the line.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] when neither is to be had.
    pub fn add_queue(
        &mut self,
        lines: &mut Option<Lines>,
        slot: u32,
        back: impl FnOnce(u32) -> Result<OwnedFd, EngineError>,
    ) -> Result<(), EngineError> {
        let ours = self.inside("add a queue", || {
            let mut rtnl = Rtnl::open()?;
            let root = rtnl.qdiscs(self.ifindex)?.into_iter().find(|q| q.parent == TcHandle::ROOT);
            if let Some(root) = &root {
                if carries_departures(root) {
                    return Ok(Some(root.handle.major == OUR_QUEUE));
                }
                if !is_default(root) {
                    return Ok(None);
                }
            }
            match rtnl.add_fq(self.ifindex) {
                Ok(()) => Ok(Some(true)),
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EOPNOTSUPP)) => {
                    Ok(None)
                }
                Err(e) => Err(e),
            }
        })?;
        self.queue = match ours {
            Some(ours) => Queue::Fq { ours },
            None => self.line(lines, slot, back)?,
        };
        Ok(())
    }

    fn line(
        &self,
        lines: &mut Option<Lines>,
        slot: u32,
        back: impl FnOnce(u32) -> Result<OwnedFd, EngineError>,
    ) -> Result<Queue, EngineError> {
        let unsupported = |reason: String| EngineError::Unsupported {
            mechanism: "delay line",
            reason,
            way_out: "load the module sch_fq (or tun) on this host",
        };
        if self.is_loopback {
            return Err(unsupported(format!(
                "{} is a loopback device without an fq queue: its packets would come back from \
                 the line without the route that they carry, and be dropped as martians",
                self.name.name
            )));
        }
        let made = self.inside("add a delay line", || {
            let (tap, name) = line::tap()?;
            // Nothing but frames of the line shall come from it.
            let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
            let ifindex = facts(&name)?.ifindex;
            Rtnl::open()?.raise(ifindex, 65_521)?;
            Ok((tap, ifindex))
        });
        let (tap, ifindex) = made.map_err(|e| {
            unsupported(format!("no sch_fq for {}, and no TAP device: {e}", self.name.name))
        })?;
        let entry = back(slot)?;
        // A link would wait for a grace period of RCU. The filter goes with the device, and that
        // with us.
        let attached = self.inside("attach the delay line", || {
            attach_filter(Kind::TcIngress, &entry, ifindex, || Ok(()))
        })?;
        let lines = match lines {
            Some(lines) => lines,
            none => {
                none.insert(Lines::start().map_err(|e| EngineError::os("start the delay line", e))?)
            }
        };
        let line = lines.add(tap, self.link_header == 0);
        Ok(Queue::Line { line, ifindex, slot, _back: (entry, attached) })
    }

    /// Takes the queue away again, and whatever it still holds with it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_queue(&mut self) -> Result<(), EngineError> {
        match std::mem::replace(&mut self.queue, Queue::None) {
            Queue::None | Queue::Line { .. } | Queue::Fq { ours: false } => Ok(()),
            Queue::Fq { ours: true } => {
                self.inside("remove the queue", || Rtnl::open()?.remove_fq(self.ifindex))
            }
        }
    }

    /// Packets that wait.
    #[must_use]
    pub fn held(&self) -> u64 {
        match &self.queue {
            Queue::None => 0,
            Queue::Line { line, .. } => line.stats.held.load(std::sync::atomic::Ordering::Relaxed),
            Queue::Fq { .. } => self
                .inside("look at the queue", || Rtnl::open()?.qdiscs(self.ifindex))
                .map_or(0, |qdiscs| {
                    qdiscs.iter().filter(|q| q.kind == "fq").map(|q| u64::from(q.held)).sum()
                }),
        }
    }
}

/// Those devices whose namespace's file and who themselves have neither gone nor been replaced. One
/// thread looks into all namespaces, once a second.
pub fn present<'a>(devices: impl Iterator<Item = &'a Open>) -> BTreeSet<&'a Device> {
    let devices: Vec<&Open> = devices.collect();
    let look = || {
        let mut there = BTreeSet::new();
        let mut inside: Option<(&Open, OwnedFd)> = None;
        for open in devices {
            let Open { name, namespace, ifindex, .. } = open;
            let same = std::fs::metadata(&name.netns).is_ok_and(|m| m.st_ino() == name.inode);
            if !same {
                continue;
            }
            let socket = match &inside {
                Some((other, socket)) if other.name.inode == name.inode => socket,
                _ => {
                    let Ok(socket) = enter(namespace).and_then(|()| socket()) else { continue };
                    &inside.insert((open, socket)).1
                }
            };
            if index(socket, &name.name).is_ok_and(|index| index == *ifindex) {
                there.insert(name);
            }
        }
        there
    };
    run_apart(look).unwrap_or_default()
}

/// `note` is called before a `clsact` is made.
fn attach(
    kind: Kind,
    entry: &OwnedFd,
    ifindex: u32,
    note: impl FnOnce() -> io::Result<()>,
) -> io::Result<Attached> {
    match bpf::link_tcx(kind, entry.as_fd(), ifindex) {
        Ok(link) => Ok(Attached::Tcx { _link: link }),
        // Before 6.6 the attach type is unknown.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            attach_filter(kind, entry, ifindex, note)
        }
        Err(e) => Err(e),
    }
}

fn direction(kind: Kind) -> Direction {
    match kind {
        Kind::TcIngress | Kind::HttpIngress | Kind::CgroupIngress => Direction::Ingress,
        Kind::TcEgress | Kind::HttpEgress | Kind::CgroupEgress => Direction::Egress,
    }
}

/// `note` is called before a `clsact` is made.
fn attach_filter(
    kind: Kind,
    entry: &OwnedFd,
    ifindex: u32,
    note: impl FnOnce() -> io::Result<()>,
) -> io::Result<Attached> {
    let mut rtnl = Rtnl::open()?;
    let there = rtnl.qdiscs(ifindex)?.iter().any(|q| q.kind == "clsact");
    if !there {
        note()?;
    }
    let made_clsact = !there && rtnl.add_clsact(ifindex)?;
    if let Err(error) = rtnl.add_filter(ifindex, direction(kind), kind.filter_name(), entry.as_fd())
    {
        if made_clsact {
            let _ = rtnl.remove_clsact(ifindex);
        }
        return Err(error);
    }
    Ok(Attached::Filter { made_clsact })
}

/// Removes a `clsact` without filters; false when somebody uses it.
///
/// # Errors
/// What the kernel says.
pub fn remove_empty_clsact(rtnl: &mut Rtnl, ifindex: u32) -> io::Result<bool> {
    for direction in [Direction::Egress, Direction::Ingress] {
        if !rtnl.filters(ifindex, direction)?.is_empty() {
            return Ok(false);
        }
    }
    rtnl.remove_clsact(ifindex)?;
    Ok(true)
}

/// Queues that the kernel puts on a device by itself and that come back when ours goes.
fn is_default(qdisc: &Qdisc) -> bool {
    u32::from(qdisc.handle) == 0 && matches!(qdisc.kind.as_str(), "noqueue" | "pfifo_fast")
}

/// An `fq` with room for the packets and the times that faults need.
fn carries_departures(qdisc: &Qdisc) -> bool {
    let delays_us = chaos_abi::limit::DELAY_NS / 1000;
    qdisc.kind == "fq"
        && qdisc.fq.is_some_and(|(limit, per_flow, horizon)| {
            limit >= 50_000 && per_flow >= 50_000 && u64::from(horizon) >= delays_us
        })
}

/// What the engine needs to know of a device.
pub struct Facts {
    /// Its index.
    pub ifindex: u32,
    /// Bytes of link-layer header.
    pub link_header: u32,
    /// Whether its packets come straight back.
    pub is_loopback: bool,
}

/// Facts of a device of the calling thread's namespace.
///
/// # Errors
/// ENODEV when there is none of that name.
pub fn facts(name: &str) -> io::Result<Facts> {
    let socket = socket()?;
    let kind = ask(&socket, name, libc::SIOCGIFHWADDR as libc::c_ulong)?;
    let kind = u16::from_ne_bytes([kind[0], kind[1]]);
    let ifindex = index(&socket, name)?;
    // Loopback frames carry an Ethernet header too.
    let link_header = if matches!(kind, ARPHRD_ETHER | ARPHRD_LOOPBACK) { 14 } else { 0 };
    Ok(Facts { ifindex, link_header, is_loopback: kind == ARPHRD_LOOPBACK })
}

/// A socket of the calling thread's namespace, to ask about its devices.
fn socket() -> io::Result<OwnedFd> {
    // SAFETY: plain call.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned it to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn index(socket: &OwnedFd, name: &str) -> io::Result<u32> {
    ask(socket, name, libc::SIOCGIFINDEX as libc::c_ulong).map(u32::from_ne_bytes)
}

/// The first bytes of what a `SIOCGIF…` call answers.
fn ask(socket: &OwnedFd, name: &str, code: libc::c_ulong) -> io::Result<[u8; 4]> {
    let mut request = [0u8; 40];
    if name.is_empty() || name.len() > 15 {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    request[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: a `struct ifreq` of 40 bytes.
    if unsafe { libc::ioctl(socket.as_raw_fd(), code, request.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok([request[16], request[17], request[18], request[19]])
}
