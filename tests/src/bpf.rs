//! Which BPF programs are attached where, asked of the kernel directly.

use std::collections::BTreeSet;
use std::os::fd::RawFd;

const BPF_PROG_GET_NEXT_ID: libc::c_long = 11;
const BPF_MAP_GET_NEXT_ID: libc::c_long = 12;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_LINK_GET_NEXT_ID: libc::c_long = 31;
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
const CGROUP_INGRESS: u32 = 0;
const CGROUP_EGRESS: u32 = 1;

/// `union bpf_attr` of `BPF_PROG_QUERY`.
#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    _pad: u32,
    _more: [u64; 4],
}

fn query(target: u32, attach_type: u32) -> Vec<u32> {
    let mut ids = vec![0u32; 64];
    let mut attr = Query {
        target,
        attach_type,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        ..Query::default()
    };
    // SAFETY: a valid attribute of the stated size; the kernel writes at most `count` ids.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut attr, size_of::<Query>()) };
    ids.truncate(if done == 0 { attr.count as usize } else { 0 });
    ids
}

/// Ids of the tcx programs of a device of the calling thread's namespace: ingress, egress.
/// Empty on kernels without tcx (before 6.6).
#[must_use]
pub fn tcx(ifindex: u32) -> (Vec<u32>, Vec<u32>) {
    (query(ifindex, TCX_INGRESS), query(ifindex, TCX_EGRESS))
}

/// Ids of the `cgroup_skb` programs of an open cgroup directory: ingress, egress.
#[must_use]
pub fn cgroup(directory: RawFd) -> (Vec<u32>, Vec<u32>) {
    let fd = directory.cast_unsigned();
    (query(fd, CGROUP_INGRESS), query(fd, CGROUP_EGRESS))
}

fn next(command: libc::c_long, after: u32) -> Option<u32> {
    let mut attr = [0u32; 4];
    attr[0] = after;
    // SAFETY: a valid attribute of the stated size; the kernel writes the second word.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(&attr)) };
    (done == 0).then_some(attr[1])
}

fn count(command: libc::c_long) -> usize {
    let mut last = 0;
    std::iter::from_fn(|| {
        last = next(command, last)?;
        Some(last)
    })
    .count()
}

/// How many BPF programs the kernel holds.
#[must_use]
pub fn programs() -> usize {
    count(BPF_PROG_GET_NEXT_ID)
}

/// How many BPF links the kernel holds.
#[must_use]
pub fn links() -> usize {
    count(BPF_LINK_GET_NEXT_ID)
}

/// Ids of BPF objects. Other engines on this host have objects too, so that counting all of the
/// kernel's says nothing about ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// Programs.
    pub programs: BTreeSet<u32>,
    /// Maps.
    pub maps: BTreeSet<u32>,
    /// Links.
    pub links: BTreeSet<u32>,
}

/// What a process holds by its descriptors. Of a process that has gone: nothing.
#[must_use]
pub fn held_by(process: &str) -> Objects {
    let mut held = Objects::default();
    let files = std::fs::read_dir(format!("/proc/{process}/fdinfo")).into_iter().flatten();
    for file in files.flatten() {
        let text = std::fs::read_to_string(file.path()).unwrap_or_default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let Ok(id) = value.trim().parse() else { continue };
            match key {
                "prog_id" => held.programs.insert(id),
                "map_id" => held.maps.insert(id),
                "link_id" => held.links.insert(id),
                _ => false,
            };
        }
    }
    held
}

/// What this process holds.
#[must_use]
pub fn held_by_us() -> Objects {
    held_by("self")
}

impl Objects {
    /// Adds others.
    pub fn extend(&mut self, other: Self) {
        self.programs.extend(other.programs);
        self.maps.extend(other.maps);
        self.links.extend(other.links);
    }

    /// Those that are not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let minus = |a: &BTreeSet<u32>, b: &BTreeSet<u32>| a.difference(b).copied().collect();
        Self {
            programs: minus(&self.programs, &other.programs),
            maps: minus(&self.maps, &other.maps),
            links: minus(&self.links, &other.links),
        }
    }

    /// Those that the kernel still has.
    #[must_use]
    pub fn still_there(&self) -> Self {
        let there = |command, ids: &BTreeSet<u32>| {
            ids.iter().copied().filter(|id| next(command, id - 1) == Some(*id)).collect()
        };
        Self {
            programs: there(BPF_PROG_GET_NEXT_ID, &self.programs),
            maps: there(BPF_MAP_GET_NEXT_ID, &self.maps),
            links: there(BPF_LINK_GET_NEXT_ID, &self.links),
        }
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.programs.len() + self.maps.len() + self.links.len()
    }
}
