//! The thread of the detour.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::desk::{Arrival, Begins, Desk, Exits, Fate, Limits, Sent};
use super::frame::{Broken, Frames};
use super::hold;
use super::poll::{Poll, Wake};
use super::tally::Tally;
use crate::engine::line::monotonic_ns;
use crate::engine::message::Armed;

/// What the thread asks of the kernel's side.
pub trait Source: Send {
    /// Where a connection's bytes go on: a descriptor of ours for the socket that they come from.
    /// What is written there is not handed over again. Asked for when the first bytes come, so that
    /// the server may close its own.
    ///
    /// # Errors
    /// The connection is gone.
    fn exit(&mut self, connection: u64, pid: u32) -> io::Result<OwnedFd>;

    /// Nothing is held of this connection, of which `taken` bytes have come since its exit was
    /// asked for. Where none is on its way, what follows goes directly, for ever where `is_over`;
    /// where some is, the exit is asked for again.
    fn drained(&mut self, exit: BorrowedFd<'_>, taken: u64, is_over: bool);

    /// What the kernel's word about a request means.
    fn begins(&self, word: u64) -> Begins;

    /// Ready to be read when there are requests; `None`: there never are.
    fn requests(&self) -> Option<RawFd>;

    /// The next bytes of requests, and their connection.
    fn next_requests(&mut self) -> Option<(u64, Arrival)>;

    /// Puts bytes where the server of a connection of requests reads first, all of them.
    ///
    /// # Errors
    /// Some of them are lost.
    fn put(&mut self, connection: u64, bytes: &[u8]) -> io::Result<()>;

    /// Gives a connection of requests back, of which so many bytes have come. False: more of them are
    /// on their way.
    fn leave(&mut self, connection: u64, taken: u64) -> bool;

    /// What has become of a connection of requests.
    fn fate(&mut self, connection: u64) -> Fate;

    /// Cuts a connection of requests.
    fn cut(&mut self, connection: u64);
}

/// How the detour is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What was counted.
    pub tally: Tally,
    /// Bytes that are held.
    pub held: usize,
    /// Connections that are held.
    pub connections: usize,
    /// The kernel's words could not be understood, and nothing is taken in any more.
    pub is_broken: bool,
}

enum Command {
    Arm(Arc<[Armed]>),
    LetGo,
    Report(Sender<Report>),
}

/// The detour at work. Dropping it lets everything go that is held.
#[derive(Debug)]
pub struct Detour {
    sender: Option<Sender<Command>>,
    wake: Wake,
    thread: Option<JoinHandle<()>>,
}

impl Detour {
    /// Starts the thread, which takes [`super::frame`]s from `input`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn start(input: OwnedFd, source: Box<dyn Source>, limits: Limits) -> io::Result<Self> {
        let poll = Poll::new()?;
        let wake = Wake::new(&poll, WAKE)?;
        poll.watch(input.as_raw_fd(), INPUT, libc::EPOLLIN)?;
        if let Some(requests) = source.requests() {
            poll.watch(requests, ASKED, libc::EPOLLIN)?;
        }
        let (sender, receiver) = channel();
        let worker = Worker {
            receiver,
            wake: wake.twin()?,
            input: Some(input),
            frames: Frames::default(),
            desk: Desk::new(Arc::new([]), limits),
            sockets: Sockets { source, poll, open: BTreeMap::new() },
            looks_at: 0,
            is_broken: false,
        };
        let thread = std::thread::Builder::new()
            .name("kfault-detour".into())
            .stack_size(1 << 20)
            .spawn(move || worker.run())?;
        Ok(Self { sender: Some(sender), wake, thread: Some(thread) })
    }

    /// Acts for these exchanges from now on, in this order.
    pub fn arm(&self, armed: Arc<[Armed]>) {
        self.tell(Command::Arm(armed));
    }

    /// Lets everything go as it is; nothing is edited until it is armed again.
    pub fn let_go(&self) {
        self.tell(Command::LetGo);
    }

    /// How it is doing; `None` when the thread has ended.
    #[must_use]
    pub fn report(&self) -> Option<Report> {
        let (sender, receiver) = channel();
        self.tell(Command::Report(sender));
        receiver.recv().ok()
    }

    fn tell(&self, command: Command) {
        if let Some(sender) = &self.sender {
            let _ = sender.send(command);
        }
        self.wake.now();
    }
}

impl Drop for Detour {
    fn drop(&mut self) {
        // The thread must find the sender gone when it is woken for the last time.
        self.sender = None;
        self.wake.now();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the detour has panicked");
        }
    }
}

const WAKE: u64 = u64::MAX - 1;
const INPUT: u64 = u64::MAX - 2;
const ASKED: u64 = u64::MAX - 3;
/// Set in the number of a line of requests; the kernel counts sockets from 1 on.
const REQUESTS: u64 = 1 << 62;

/// The connection of a line of requests.
fn of_requests(line: u64) -> Option<u64> {
    (line & REQUESTS != 0).then_some(line & !REQUESTS)
}

/// Bytes that are taken in at a time.
const AT_A_TIME: usize = 256 << 10;
/// How often it is looked whether a socket has room.
const PACE_NS: u64 = 1_000_000;

struct Worker {
    receiver: Receiver<Command>,
    wake: Wake,
    input: Option<OwnedFd>,
    frames: Frames,
    desk: Desk,
    sockets: Sockets,
    /// When to look for room in sockets that had none, nanoseconds of `CLOCK_MONOTONIC`.
    looks_at: u64,
    is_broken: bool,
}

impl Worker {
    fn run(mut self) {
        // SAFETY: plain call. Timers of this thread fire on time, not up to 50 µs later.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
        let mut buffer = vec![0; AT_A_TIME];
        loop {
            self.desk.release(monotonic_ns(), &mut self.sockets);
            for id in self.sockets.poll.wait(self.next_look()) {
                match id {
                    WAKE => {
                        if !self.commands() {
                            return self.end(&mut buffer);
                        }
                    }
                    ASKED => self.read_requests(),
                    _ => self.read(&mut buffer),
                }
            }
            self.look_for_room();
        }
    }

    /// When something is to be done, nanoseconds of `CLOCK_MONOTONIC`.
    fn next_look(&self) -> Option<u64> {
        let for_room = self.desk.full().next().map(|_| self.looks_at);
        for_room.into_iter().chain(self.desk.next_due()).min()
    }

    /// Who polls for room has the kernel tell of it everybody who waits at the socket, and a server's
    /// thread in `recv` would be told that there is nothing to read. So it is only looked.
    fn look_for_room(&mut self) {
        let now = monotonic_ns();
        if now < self.looks_at {
            return;
        }
        self.looks_at = now + PACE_NS;
        for id in self.desk.full().collect::<Vec<_>>() {
            self.desk.writable(id, now, &mut self.sockets);
        }
    }

    /// Everything goes. Who does not take it within a second is cut off, so that nobody takes what
    /// there is of a message for the whole of it.
    fn end(mut self, buffer: &mut [u8]) {
        const PATIENCE_NS: u64 = 1_000_000_000;
        let until = monotonic_ns() + PATIENCE_NS;
        // What has been handed over is ours.
        self.read(buffer);
        self.read_requests();
        self.desk.let_go(monotonic_ns(), &mut self.sockets);
        if let Some(input) = self.input.take() {
            self.sockets.poll.leave(input.as_raw_fd());
        }
        while self.desk.full().next().is_some() && monotonic_ns() < until {
            std::thread::sleep(Duration::from_nanos(PACE_NS));
            self.look_for_room();
        }
        self.desk.cut(&mut self.sockets);
    }

    /// False when nobody is left to send any.
    fn commands(&mut self) -> bool {
        self.wake.heard();
        loop {
            match self.receiver.try_recv() {
                Ok(Command::Arm(armed)) => self.desk.arm(armed),
                Ok(Command::LetGo) => self.desk.let_go(monotonic_ns(), &mut self.sockets),
                Ok(Command::Report(sender)) => {
                    let _ = sender.send(Report {
                        tally: self.desk.tally().clone(),
                        held: self.desk.held(),
                        connections: self.desk.connections(),
                        is_broken: self.is_broken,
                    });
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn read(&mut self, buffer: &mut [u8]) {
        let Some(input) = self.input.as_ref().map(AsRawFd::as_raw_fd) else { return };
        // SAFETY: a valid descriptor, and as many bytes as the buffer holds.
        let read = unsafe {
            let buffer = (buffer.as_mut_ptr().cast(), buffer.len());
            libc::recv(input, buffer.0, buffer.1, libc::MSG_DONTWAIT)
        };
        let is_over = match usize::try_from(read) {
            Ok(0) => true,
            Ok(read) => self.take(&buffer[..read]).is_err(),
            Err(_) => {
                let error = io::Error::last_os_error().kind();
                !matches!(error, io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
            }
        };
        if is_over {
            tracing::error!("the detour takes nothing in any more; what it holds goes as it is");
            self.sockets.poll.leave(input);
            self.input = None;
            self.is_broken = true;
            self.desk.let_go(monotonic_ns(), &mut self.sockets);
        }
    }

    fn read_requests(&mut self) {
        while let Some((connection, arrival)) = self.sockets.source.next_requests() {
            let id = connection | REQUESTS;
            self.desk.take(id, arrival, monotonic_ns(), &mut self.sockets);
        }
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Broken> {
        let now = monotonic_ns();
        while let Some(run) = self.frames.next(&mut bytes)? {
            let begins =
                run.requests.iter().map(|word| self.sockets.source.begins(*word)).collect();
            let arrival = Arrival { begins, pid: run.pid, bytes: run.bytes.to_vec() };
            self.desk.take(run.connection, arrival, now, &mut self.sockets);
        }
        Ok(())
    }
}

/// The sockets that bytes go on through.
struct Sockets {
    source: Box<dyn Source>,
    poll: Poll,
    open: BTreeMap<u64, OwnedFd>,
}

impl Sockets {
    /// What is held of it cannot go on.
    fn lost(&mut self, connection: u64) -> Sent {
        if let Some(fd) = self.open.remove(&connection) {
            hold::reset(fd.as_fd());
        }
        Sent::Gone
    }
}

impl Exits for Sockets {
    fn open(&mut self, connection: u64, pid: u32) -> bool {
        if of_requests(connection).is_some() {
            return true;
        }
        match self.source.exit(connection, pid) {
            Ok(fd) => {
                self.open.insert(connection, fd);
                true
            }
            Err(error) => {
                tracing::warn!(connection, pid, %error, "bytes have no connection to go on through");
                false
            }
        }
    }

    fn fate(&mut self, connection: u64) -> Fate {
        of_requests(connection).map_or(Fate::Gone, |one| self.source.fate(one))
    }

    fn leave(&mut self, connection: u64, taken: u64) -> bool {
        of_requests(connection).is_none_or(|one| self.source.leave(one, taken))
    }

    fn send(&mut self, connection: u64, bytes: &[u8]) -> Sent {
        if let Some(connection) = of_requests(connection) {
            let put = self.source.put(connection, bytes);
            if let Err(error) = &put {
                tracing::warn!(connection, %error, "a request does not reach its server");
                self.source.cut(connection);
            }
            return put.map_or(Sent::Gone, |()| Sent::Some(bytes.len()));
        }
        let Some(fd) = self.open.get(&connection).map(AsRawFd::as_raw_fd) else {
            return Sent::Gone;
        };
        let most = bytes.len().min(hold::room(fd));
        if most == 0 {
            return Sent::Full;
        }
        loop {
            // The flags are those of this call: the socket's own are the server's.
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: a valid descriptor, and no more bytes than the slice holds.
            let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), most, flags) };
            match usize::try_from(sent) {
                Ok(sent) if sent == most => return Sent::Some(sent),
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                // Where less than a message fits, the kernel forgets to ask the program about the
                // next one, which is the server's: it would come in the middle of this one.
                _ => return self.lost(connection),
            }
        }
    }

    fn finish(&mut self, connection: u64) {
        if let Some(fd) = self.open.remove(&connection) {
            // SAFETY: a valid descriptor. The server goes on writing to nobody.
            unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) };
        }
    }

    fn reset(&mut self, connection: u64) {
        if let Some(connection) = of_requests(connection) {
            self.source.cut(connection);
        } else if let Some(fd) = self.open.remove(&connection) {
            hold::reset(fd.as_fd());
        }
    }

    fn drained(&mut self, connection: u64, taken: u64, is_over: bool) {
        if let Some(exit) = self.open.get(&connection) {
            self.source.drained(exit.as_fd(), taken, is_over);
        }
        self.open.remove(&connection);
    }
}
