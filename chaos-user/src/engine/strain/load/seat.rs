//! The place of one worker: who sits there, how the last one ended, when the next one comes.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use super::backoff::Backoff;
use super::channel::Word;
use super::order::{Order, Task};
use super::process::Worker;
use super::site::Site;
use super::trouble::Trouble;
use super::work::End;
use crate::engine::error::{EngineError, chain};
use crate::engine::line::monotonic_ns;

/// Why a worker has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// By itself, for a reason that every worker has.
    Own(End),
    /// It said what was in the way.
    Trouble(Trouble),
    /// The kernel killed it for want of memory.
    OutOfMemory,
    /// A signal.
    Signal(i32),
    /// It has a fault of its own: this exit code.
    Exit(i32),
}

impl Reason {
    fn of(status: ExitStatus, trouble: Option<Trouble>, was_oom: bool) -> Self {
        match (status.signal(), status.code().unwrap_or_default()) {
            (Some(libc::SIGKILL), _) if was_oom => Self::OutOfMemory,
            (Some(signal), _) => Self::Signal(signal),
            (None, code) => match (End::of(code), trouble) {
                (Some(End::Failed), Some(trouble)) => Self::Trouble(trouble),
                (Some(end), _) => Self::Own(end),
                (None, _) => Self::Exit(code),
            },
        }
    }

    /// What is to be said of the worker with this name.
    fn text(self, name: &str) -> String {
        match self {
            Self::OutOfMemory => {
                format!("{name} was killed for want of memory (OOM) by the kernel")
            }
            Self::Own(End::LeaseLost) => {
                format!("{name} ended by itself: kfault stood still for longer than the lease")
            }
            Self::Own(End::LeaderGone) => {
                format!("{name} ended with the first process of its target")
            }
            Self::Own(End::Over) => format!("{name} ended: its time is over"),
            Self::Own(End::Alone | End::Failed) => format!("{name} ended by itself"),
            Self::Trouble(trouble) => chain(&trouble.into_error(name)),
            Self::Signal(signal) => format!("{name} was ended by signal {signal}"),
            Self::Exit(code) => format!("{name} ended with exit code {code}"),
        }
    }
}

/// A worker's place.
pub struct Seat {
    task: Task,
    /// "memory worker 2 of 4"
    name: String,
    worker: Option<Worker>,
    started_ns: u64,
    is_ready: bool,
    /// Memory that the worker had before it was in the cgroup, bytes.
    before: u64,
    /// Processor time of those that have ended, nanoseconds.
    spent_ns: u64,
    trouble: Option<Trouble>,
    backoff: Backoff,
    again_ns: Option<u64>,
    /// Workers after the first.
    restarts: u64,
    /// Workers that have ended too early.
    ends: u64,
    /// Of the last one that has ended.
    last: Option<String>,
    note: Option<String>,
}

impl Seat {
    /// An empty one.
    #[must_use]
    pub fn new(task: Task, number: u32, of: u32) -> Self {
        Self {
            task,
            name: format!("{} worker {number} of {of}", task.word()),
            worker: None,
            started_ns: 0,
            is_ready: false,
            before: 0,
            spent_ns: 0,
            trouble: None,
            backoff: Backoff::default(),
            again_ns: None,
            restarts: 0,
            ends: 0,
            last: None,
            note: None,
        }
    }

    /// Starts a worker; does not wait for it.
    ///
    /// # Errors
    /// When there can be no process.
    pub fn start(&mut self, site: &Site) -> Result<(), EngineError> {
        let order = Order { task: self.task, bounds: site.bounds() };
        let worker = Worker::spawn(&order, site.leader())
            .map_err(|error| EngineError::os(format!("start {}", self.name), error))?;
        self.worker = Some(worker);
        self.started_ns = monotonic_ns();
        (self.is_ready, self.again_ns, self.trouble) = (false, None, None);
        Ok(())
    }

    /// Starts one where it is time to.
    pub fn start_again(&mut self, site: &Site) {
        if self.again_ns.is_none_or(|again| again > monotonic_ns()) {
            return;
        }
        self.restarts += 1;
        if let Err(error) = self.start(site) {
            self.gone_wrong(chain(&error), Duration::ZERO);
        }
    }

    /// Lets its worker live until then.
    pub fn beat(&self, until_ns: u64) {
        self.worker.iter().for_each(|worker| worker.beat(until_ns));
    }

    /// Hears what its worker says, and looks whether it still lives. `was_oom` tells whether the
    /// kernel has killed somebody of the cgroup for want of memory; it is asked only when it
    /// matters. Returns why the worker has ended, if it just did.
    pub fn look(&mut self, was_oom: &mut dyn FnMut() -> bool) -> Option<Reason> {
        let worker = self.worker.as_mut()?;
        // In this order: what it said before it ended is heard.
        let ended = worker.ended();
        for word in worker.words() {
            match word {
                Word::Ready { before } => (self.is_ready, self.before) = (true, before),
                Word::Note(note) => self.note = Some(format!("{}: {note}", self.name)),
                Word::Failed(trouble) => self.trouble = Some(trouble),
            }
        }
        let ended = ended?;
        self.worker = None;
        self.spent_ns += ended.cpu_ns;
        let is_killed = ended.status.signal() == Some(libc::SIGKILL);
        let reason = Reason::of(ended.status, self.trouble.take(), is_killed && was_oom());
        match reason {
            // Nobody is to come after it.
            Reason::Own(End::Over | End::LeaderGone) => {}
            _ => {
                let lived = Duration::from_nanos(monotonic_ns().saturating_sub(self.started_ns));
                self.gone_wrong(reason.clone().text(&self.name), lived);
            }
        }
        Some(reason)
    }

    fn gone_wrong(&mut self, why: String, lived: Duration) {
        self.ends += 1;
        let wait = self.backoff.after(lived);
        let wait_ns = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        self.again_ns = Some(monotonic_ns().saturating_add(wait_ns));
        let times = if self.ends == 1 { "once".into() } else { format!("{} times", self.ends) };
        let wait = wait.as_secs();
        self.last = Some(format!("{why} ({times} so far); the next one starts {wait} s later"));
    }

    /// Why the worker of this seat could not begin, in words.
    #[must_use]
    pub fn refused(&self, reason: Reason) -> EngineError {
        match reason {
            Reason::Trouble(trouble) => trouble.into_error(&self.name),
            Reason::Own(End::LeaderGone) => EngineError::Gone {
                what: format!("the first process of the target ({})", self.name),
            },
            other => {
                let text = other.text(&self.name);
                EngineError::os(
                    format!("start {}", self.name),
                    std::io::Error::other(format!("{text}, before it was at work")),
                )
            }
        }
    }

    /// What it does.
    #[must_use]
    pub fn task(&self) -> Task {
        self.task
    }

    /// Its name, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether its worker is on its way and not at work yet.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        self.worker.is_some() && !self.is_ready
    }

    /// Whether its worker is at work.
    #[must_use]
    pub fn is_at_work(&self) -> bool {
        self.worker.is_some() && self.is_ready
    }

    /// Workers after the first.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Processor time of all its workers, nanoseconds.
    #[must_use]
    pub fn cpu_ns(&self) -> u64 {
        self.spent_ns + self.worker.as_ref().and_then(Worker::cpu_ns).unwrap_or(0)
    }

    /// Memory that its worker has taken in the cgroup, bytes. 0 for one that takes none.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        match (self.task, &self.worker) {
            (Task::Memory { .. }, Some(worker)) if self.is_ready => {
                worker.anonymous_bytes().saturating_sub(self.before)
            }
            _ => 0,
        }
    }

    /// What people should know: how its last worker ended, what its worker notes.
    pub fn notes(&self) -> impl Iterator<Item = &String> {
        self.last.iter().chain(&self.note)
    }

    /// How many of its workers have ended too early.
    #[must_use]
    pub fn ends(&self) -> u64 {
        self.ends
    }

    /// Kills its worker; does not wait.
    pub fn kill(&mut self) {
        self.again_ns = None;
        self.worker.iter().for_each(Worker::kill);
    }

    /// Waits for the end of its worker, at most so long; the id of one that still lives.
    pub fn wait(&mut self, patience: Duration) -> Result<(), u32> {
        let Some(worker) = &mut self.worker else { return Ok(()) };
        if !worker.wait(patience) {
            return Err(worker.pid());
        }
        self.spent_ns += worker.spent_ns();
        self.worker = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    #[test]
    fn the_reason_of_an_end_is_told_apart() {
        let killed = ExitStatus::from_raw(libc::SIGKILL);
        assert_eq!(Reason::of(killed, None, true), Reason::OutOfMemory);
        assert_eq!(Reason::of(killed, None, false), Reason::Signal(libc::SIGKILL));
        let terminated = ExitStatus::from_raw(libc::SIGTERM);
        assert_eq!(Reason::of(terminated, None, true), Reason::Signal(libc::SIGTERM));
        assert_eq!(Reason::of(exited(0), None, false), Reason::Own(End::Over));
        assert_eq!(Reason::of(exited(10), None, false), Reason::Own(End::LeaseLost));
        assert_eq!(Reason::of(exited(101), None, false), Reason::Exit(101));
        let trouble = Trouble::Map { bytes: 1, errno: libc::ENOMEM };
        let told = Reason::of(exited(13), Some(trouble.clone()), false);
        assert_eq!(told, Reason::Trouble(trouble));
    }

    #[test]
    fn an_end_is_noted_with_its_reason_how_often_and_what_comes() {
        let mut seat = Seat::new(Task::Sync, 2, 3);
        seat.gone_wrong(Reason::OutOfMemory.text("sync worker 2 of 3"), Duration::ZERO);
        seat.gone_wrong(Reason::OutOfMemory.text("sync worker 2 of 3"), Duration::ZERO);
        let notes: Vec<&String> = seat.notes().collect();
        let expected = "sync worker 2 of 3 was killed for want of memory (OOM) by the kernel \
                        (2 times so far); the next one starts 2 s later";
        assert_eq!(notes, [expected]);
    }
}
