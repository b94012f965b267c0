//! Which BPF programs are attached where, asked of the kernel directly.

use std::os::fd::RawFd;

const BPF_PROG_GET_NEXT_ID: libc::c_long = 11;
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
