//! The few `bpf(2)` commands that aya has no interface for: programs made of bare instructions,
//! and links of programs that aya did not load.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
const BPF_LINK_CREATE: libc::c_int = 28;

const PROG_TYPE_SCHED_CLS: u32 = 3;
const PROG_TYPE_CGROUP_SKB: u32 = 8;

/// `BPF_F_BEFORE`: with no other program named, the head of the chain.
const BPF_F_BEFORE: u32 = 1 << 3;

const FUNC_TAIL_CALL: i32 = 12;
const PSEUDO_MAP_FD: u8 = 1;
/// `offsetof(struct __sk_buff, cb)`, part of the kernel's stable interface.
const OFFSET_CB0: i16 = 48;

/// What an entry program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `tc` or `tcx`, leaving.
    TcEgress,
    /// `tc` or `tcx`, arriving.
    TcIngress,
    /// `cgroup_skb`, leaving.
    CgroupEgress,
    /// `cgroup_skb`, arriving.
    CgroupIngress,
    /// `tc` or `tcx`, arriving, for what HTTP faults want to see.
    HttpIngress,
    /// `tc` or `tcx`, leaving, for what HTTP faults delay.
    HttpEgress,
}

impl Kind {
    fn prog_type(self) -> u32 {
        match self {
            Self::TcEgress | Self::TcIngress | Self::HttpIngress | Self::HttpEgress => {
                PROG_TYPE_SCHED_CLS
            }
            Self::CgroupEgress | Self::CgroupIngress => PROG_TYPE_CGROUP_SKB,
        }
    }

    /// `enum bpf_attach_type`.
    fn attach_type(self) -> u32 {
        match self {
            Self::CgroupIngress => 0,
            Self::CgroupEgress => 1,
            Self::TcIngress | Self::HttpIngress => 46,
            Self::TcEgress | Self::HttpEgress => 47,
        }
    }

    /// What the entry program returns when its jump goes nowhere: the packet passes.
    fn pass(self) -> i32 {
        match self {
            Self::TcEgress | Self::TcIngress | Self::HttpIngress | Self::HttpEgress => -1,
            Self::CgroupEgress | Self::CgroupIngress => 1,
        }
    }

    /// What a filter that holds it is called: `sweep` knows its own by that.
    #[must_use]
    pub fn filter_name(self) -> &'static str {
        match self {
            Self::HttpIngress | Self::HttpEgress => HTTP_NAME,
            _ => ENTRY_NAME,
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Insn {
    code: u8,
    regs: u8,
    off: i16,
    imm: i32,
}

const fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
    Insn { code, regs: dst | src << 4, off, imm }
}

fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<i64> {
    // SAFETY: `attr` is a zero-padded prefix of `union bpf_attr` that outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(fd: i64) -> io::Result<OwnedFd> {
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// Loads the entry program of one hook point: it writes `slot` into the packet's control block
/// and jumps to the program that `programs` holds at index 0. Nine instructions, so that a
/// thousand targets share one verified object.
///
/// # Errors
/// What the kernel says.
pub fn load_entry(kind: Kind, slot: u32, programs: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let insns = [
        insn(0xb4, 2, 0, 0, slot.cast_signed()), // w2 = slot
        insn(0x63, 1, 2, OFFSET_CB0, 0),         // *(u32 *)(r1 + cb) = w2
        insn(0x18, 2, PSEUDO_MAP_FD, 0, programs.as_raw_fd()), // r2 = map ll
        insn(0, 0, 0, 0, 0),
        insn(0xb7, 3, 0, 0, 0),              // r3 = 0
        insn(0x85, 0, 0, 0, FUNC_TAIL_CALL), // tail_call(r1, r2, r3)
        insn(0xb7, 0, 0, 0, kind.pass()),    // r0 = pass
        insn(0x95, 0, 0, 0, 0),              // exit
    ];
    load(kind, &insns)
}

/// Loads a program that lets every packet pass and does nothing else: what the others are
/// compared with.
///
/// # Errors
/// What the kernel says.
pub fn load_empty(kind: Kind) -> io::Result<OwnedFd> {
    load(kind, &[insn(0xb7, 0, 0, 0, kind.pass()), insn(0x95, 0, 0, 0, 0)])
}

fn load(kind: Kind, insns: &[Insn]) -> io::Result<OwnedFd> {
    let mut prog_name = [0; 16];
    prog_name[..ENTRY_NAME.len()].copy_from_slice(ENTRY_NAME.as_bytes());
    let mut attr = ProgLoad {
        prog_type: kind.prog_type(),
        insn_cnt: u32::try_from(insns.len()).map_err(io::Error::other)?,
        insns: insns.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        prog_name,
        ..ProgLoad::default()
    };
    if attr.prog_type == PROG_TYPE_CGROUP_SKB {
        attr.expected_attach_type = kind.attach_type();
    }
    owned(bpf(BPF_PROG_LOAD, &mut attr)?)
}

/// Name of entry programs and filters, by which `sweep` knows its own.
pub const ENTRY_NAME: &str = "kfault";
/// Name of filters for HTTP faults, which can stand beside others on one device.
pub const HTTP_NAME: &str = "kfault-http";

/// `BPF_FUNC_loop`.
pub const LOOP: i32 = 181;

/// Whether the kernel has a helper that classifiers may call without arguments being looked at: one
/// that it has not is refused by its number.
#[must_use]
pub fn has_helper(number: i32) -> bool {
    const UNKNOWN: &[u8] = b"invalid func";
    let insns = [insn(0x85, 0, 0, 0, number), insn(0x95, 0, 0, 0, 0)];
    let mut log = vec![0u8; 4096];
    let mut attr = ProgLoad {
        prog_type: PROG_TYPE_SCHED_CLS,
        insn_cnt: 2,
        insns: insns.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        log_level: 1,
        log_size: 4096,
        log_buf: log.as_mut_ptr() as u64,
        ..ProgLoad::default()
    };
    match bpf(BPF_PROG_LOAD, &mut attr).and_then(owned) {
        Ok(_) => true,
        Err(_) => !log.windows(UNKNOWN.len()).any(|part| part == UNKNOWN),
    }
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    pad: u32,
    expected_revision: u64,
}

/// Attaches a program at the head of a device's tcx chain. The link is its own lifetime: closing
/// it, or dying, detaches. Call it inside the device's network namespace.
///
/// # Errors
/// EINVAL before Linux 6.6; otherwise what the kernel says.
pub fn link_tcx(kind: Kind, program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    let mut attr = LinkCreate {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target: ifindex,
        attach_type: kind.attach_type(),
        flags: BPF_F_BEFORE,
        ..LinkCreate::default()
    };
    owned(bpf(BPF_LINK_CREATE, &mut attr)?)
}

/// Attaches a program to a cgroup, beside whatever else is attached there.
///
/// # Errors
/// What the kernel says.
pub fn link_cgroup(
    kind: Kind,
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
) -> io::Result<OwnedFd> {
    let mut attr = LinkCreate {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target: cgroup.as_raw_fd().cast_unsigned(),
        attach_type: kind.attach_type(),
        ..LinkCreate::default()
    };
    owned(bpf(BPF_LINK_CREATE, &mut attr)?)
}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
}

/// What a test run gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// The program's return value.
    pub verdict: u32,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// Nanoseconds per run, averaged by the kernel over the repeats.
    pub nanos: u32,
}

/// Runs a program on a packet that goes nowhere.
///
/// # Errors
/// EINVAL for packets shorter than a link-layer header; otherwise what the kernel says.
pub fn test_run(program: BorrowedFd<'_>, packet: &[u8], repeat: u32) -> io::Result<Ran> {
    let mut out = vec![0u8; packet.len() + 512];
    let mut attr = TestRun {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        data_size_in: u32::try_from(packet.len()).map_err(io::Error::other)?,
        data_size_out: u32::try_from(out.len()).map_err(io::Error::other)?,
        data_in: packet.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat,
        ..TestRun::default()
    };
    bpf(BPF_PROG_TEST_RUN, &mut attr)?;
    out.truncate(attr.data_size_out as usize);
    Ok(Ran { verdict: attr.retval, packet: out, nanos: attr.duration })
}

/// Lifts the limit on open files as far as it goes: every hook point is a program and a link, and
/// a thousand targets are more than the 1024 that a shell gives.
pub fn lift_file_limit() {
    const WANTED: libc::rlim_t = 1 << 16;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: plain calls with valid pointers. A refusal shows when files are opened.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && limit.rlim_cur < WANTED {
            let most = limit.rlim_max.max(WANTED);
            let higher = libc::rlimit { rlim_cur: most, rlim_max: most };
            if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const higher) != 0 {
                limit.rlim_cur = limit.rlim_max;
                libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
            }
        }
    }
}

/// Lifts the memory-lock limit, which kernels before 5.11 charge maps to.
pub fn lift_memory_lock() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: plain call with a valid pointer. A refusal shows when maps are created.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}
