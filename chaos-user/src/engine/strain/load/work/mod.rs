//! The worker itself: a process of its own, in the target's cgroup and outside of its namespaces.
//!
//! Its first thread watches for every reason to end, so that no work holds an end up; a second
//! one works.

mod cpu;
mod file;
mod join;
mod memory;

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Arc, mpsc};

use super::channel::{Channel, Received, Word, until};
use super::order::{Order, Task};
use super::trouble::{Trouble, errno};
use crate::engine::line::monotonic_ns;

/// Why a worker ended by itself: its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its time was over.
    Over = 0,
    /// No beat came in time: the engine hangs.
    LeaseLost = 10,
    /// The engine is gone, or ends it.
    Alone = 11,
    /// The target's first process has ended.
    LeaderGone = 12,
    /// It could not do its work, and said why.
    Failed = 13,
}

impl End {
    /// Every one of them.
    const ALL: [Self; 5] =
        [Self::Over, Self::LeaseLost, Self::Alone, Self::LeaderGone, Self::Failed];

    /// The one with this exit code.
    #[must_use]
    pub fn of(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|end| *end as i32 == code)
    }
}

/// The descriptor of the line to the engine: standard input.
const LINE: i32 = 0;
/// The descriptor of the target's first process: standard output.
const LEADER: i32 = 1;

/// Works until there is a reason to end, and never returns. `kfault worker` is this.
///
/// # Errors
/// When it was not started by an engine: standard input is no line to one.
pub fn work(order: &Order) -> io::Result<Infallible> {
    if !is_line(LINE) {
        let text = "its standard input is no line to an engine: kfault starts workers by itself";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    // SAFETY: it is open, as was just seen, and nobody else in this process uses it.
    let line = Arc::new(Channel::new(unsafe { OwnedFd::from_raw_fd(LINE) }));
    let parent = i32::try_from(order.bounds.parent).unwrap_or(0);
    // SAFETY: plain calls. The signal is for the death of the thread that started us; a parent
    // that died before the call is seen by the number of the one that we have now.
    let is_child = unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 && libc::getppid() == parent
    };
    if !is_child {
        end(End::Alone);
    }
    if let Err(trouble) = settle(order) {
        fail(&line, trouble);
    }
    // Before it enters the cgroup, which may have as many tasks as it may have (pids.max).
    let (go, wait) = mpsc::channel();
    let (theirs, task, of) = (Arc::clone(&line), order.task, order.bounds.leader);
    let thread = std::thread::Builder::new().name("kfault-work".into()).spawn(move || {
        let Ok(before) = wait.recv() else { return };
        let Err(trouble) = act(&theirs, task, of, before);
        fail(&theirs, trouble);
    });
    if let Err(error) = thread {
        fail(&line, Trouble::Other { doing: "start a thread".into(), errno: errno(&error) });
    }
    let before = anonymous_bytes();
    if let Err(trouble) = join::join(&order.bounds.cgroups) {
        fail(&line, trouble);
    }
    // It listens until it is told.
    let _ = go.send(before);
    // Closed when the target is a cgroup as such.
    // SAFETY: the engine puts it there for us.
    let leader = (order.bounds.leader != 0).then(|| unsafe { OwnedFd::from_raw_fd(LEADER) });
    let leader = leader.as_ref().map(AsFd::as_fd);
    end(watch(&line, leader, order.bounds.until_ns, order.bounds.deadline_ns))
}

/// Whether a descriptor is a socket that keeps messages apart.
fn is_line(fd: i32) -> bool {
    let mut kind: libc::c_int = 0;
    let mut size = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    // SAFETY: both pointers are valid, and the size is that of the first one's object.
    let asked = unsafe {
        let kind = (&raw mut kind).cast();
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_TYPE, kind, &raw mut size)
    };
    asked == 0 && kind == libc::SOCK_SEQPACKET
}

/// Lets go of everything that came from the engine.
fn settle(order: &Order) -> Result<(), Trouble> {
    // Not "kfault": that name protects the cgroup that it is found in.
    // SAFETY: a text that ends with a zero.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"kfault-worker".as_ptr()) };
    // SAFETY: nothing in this process uses a descriptor above these.
    if unsafe { libc::close_range(3, u32::MAX, 0) } != 0 {
        let errno = errno(&io::Error::last_os_error());
        return Err(Trouble::Other { doing: "close inherited descriptors".into(), errno });
    }
    // Not to keep the engine's directory busy. It may be unreadable, which then is all the same.
    let _ = std::env::set_current_dir("/");
    // A kubelet gives its daemons a low score; the target's memory is not to be defended with it.
    let wanted = match order.task {
        Task::Memory { oom_score_adj, .. } => oom_score_adj,
        _ => 0,
    };
    let scored = std::fs::write("/proc/self/oom_score_adj", wanted.to_string());
    match (scored, order.task) {
        (Err(error), Task::Memory { .. }) => Err(Trouble::Score { wanted, errno: errno(&error) }),
        _ => Ok(()),
    }
}

/// The work. Returns only when it cannot be done.
fn act(line: &Channel, task: Task, leader: u32, before: u64) -> Result<Infallible, Trouble> {
    let ready = || line.tell(&Word::Ready { before });
    match task {
        Task::Cpu { percent } => {
            ready();
            cpu::compute(percent)
        }
        Task::Memory { bytes, ramp_ns, .. } => memory::keep(bytes, ramp_ns, before, ready),
        Task::Sync => file::sync(leader, ready),
        Task::Disk { bytes } => {
            file::write(leader, bytes, ready, |note| line.tell(&Word::Note(note)))
        }
    }
}

/// Waits for a reason to end.
fn watch(
    line: &Channel,
    leader: Option<BorrowedFd<'_>>,
    mut until_ns: u64,
    deadline_ns: Option<u64>,
) -> End {
    let deadline_ns = deadline_ns.unwrap_or(u64::MAX);
    let watched = |fd: i32| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    loop {
        let now = monotonic_ns();
        if now >= deadline_ns {
            return End::Over;
        }
        if now >= until_ns {
            return End::LeaseLost;
        }
        let left_ms = (until_ns.min(deadline_ns) - now).div_ceil(1_000_000);
        // poll leaves descriptors below zero alone.
        let second = leader.map_or(-1, |leader| leader.as_raw_fd());
        let mut fds = [watched(line.as_fd().as_raw_fd()), watched(second)];
        // SAFETY: as many entries as the count says.
        unsafe { libc::poll(fds.as_mut_ptr(), 2, i32::try_from(left_ms).unwrap_or(i32::MAX)) };
        let [on_line, on_leader] = fds;
        if on_leader.revents & libc::POLLIN != 0 {
            return End::LeaderGone;
        }
        if on_line.revents == 0 {
            continue;
        }
        loop {
            match line.receive() {
                Received::Message(message) => {
                    until_ns = until(&message).map_or(until_ns, |said| said.max(until_ns));
                }
                Received::Nothing => break,
                Received::Closed => return End::Alone,
            }
        }
    }
}

/// Says why, and ends.
fn fail(line: &Channel, trouble: Trouble) -> ! {
    line.tell(&Word::Failed(trouble));
    end(End::Failed)
}

/// Ends both threads at once, whatever the other one does.
fn end(why: End) -> ! {
    // SAFETY: nothing is to be flushed or dropped here.
    unsafe { libc::_exit(why as i32) }
}

/// Memory of this process that belongs to it alone, bytes; 0 where it cannot be known.
fn anonymous_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::channel::beat;
    use super::*;

    fn in_ms(ms: u64) -> u64 {
        monotonic_ns() + ms * 1_000_000
    }

    #[test]
    fn without_a_beat_the_lease_ends_it() {
        let (_ours, theirs) = Channel::pair().unwrap();
        let start = Instant::now();
        let end = watch(&Channel::new(theirs), None, in_ms(50), None);
        assert_eq!(end, End::LeaseLost);
        assert!(start.elapsed() >= Duration::from_millis(49), "{:?}", start.elapsed());
    }

    #[test]
    fn beats_renew_the_lease_until_the_deadline() {
        let (ours, theirs) = Channel::pair().unwrap();
        ours.send(&beat(in_ms(10_000))).unwrap();
        let end = watch(&Channel::new(theirs), None, in_ms(10_000), Some(in_ms(50)));
        assert_eq!(end, End::Over);
    }

    #[test]
    fn beats_that_lay_unread_for_longer_than_the_lease_renew_nothing() {
        let (ours, theirs) = Channel::pair().unwrap();
        let old = in_ms(1);
        for _ in 0..20 {
            ours.send(&beat(old)).unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(watch(&Channel::new(theirs), None, in_ms(30), None), End::LeaseLost);
    }

    #[test]
    fn a_closed_line_ends_it_at_once() {
        let (ours, theirs) = Channel::pair().unwrap();
        drop(ours);
        assert_eq!(watch(&Channel::new(theirs), None, in_ms(60_000), None), End::Alone);
    }

    #[test]
    fn the_leaders_end_ends_it_at_once() {
        use super::super::process::open_pidfd;
        let mut leader = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pidfd = open_pidfd(leader.id()).unwrap();
        leader.kill().unwrap();
        let (_ours, theirs) = Channel::pair().unwrap();
        let end = watch(&Channel::new(theirs), Some(pidfd.as_fd()), in_ms(60_000), None);
        leader.wait().unwrap();
        assert_eq!(end, End::LeaderGone);
    }

    #[test]
    fn exit_codes_are_read_back() {
        for end in End::ALL {
            assert_eq!(End::of(end as i32), Some(end));
        }
        assert_eq!(End::of(101), None, "a panic");
    }

    #[test]
    fn a_test_has_memory_of_its_own() {
        assert!(anonymous_bytes() > 0);
    }
}
