//! What becomes of the bytes that were handed over, and when. Pure: the time comes in as an
//! argument.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub use super::limits::Limits;
use super::pad::pad;
use super::tally::Tally;
use crate::engine::message::{
    Armed, Asked, Lane, Odd, Rest, Step, Verdict, is_interim, request_verdict, response_verdict,
};
use crate::plan::exchange::Message;

/// What has come of one direction of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// Messages that begin here or behind it, in their order.
    pub begins: Vec<Begins>,
    /// The process that sends it.
    pub pid: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A message that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begins {
    /// Requests, which say everything themselves, perhaps behind the rest of one that is of no
    /// interest.
    Requests {
        /// Exchanges that may mean them.
        may: Vec<usize>,
        /// Bytes of that rest.
        skip: usize,
        /// True on a connection of which nothing has come before.
        is_first: bool,
    },
    /// The response to such a request.
    Response(Asked),
}

/// How much went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// So many bytes, at least one.
    Some(usize),
    /// Nothing fits now.
    Full,
    /// The other end is gone.
    Gone,
}

/// What has become of a connection of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Lives,
    /// Its client says nothing more.
    Ends,
    /// It is closed, or bytes of it are lost.
    Gone,
}

/// Where connections go on.
pub trait Exits {
    /// Takes hold of a connection that something has come of, so that its server may close it.
    /// False: it is gone.
    fn open(&mut self, connection: u64, pid: u32) -> bool;
    /// Gives a connection of requests back, of which so many bytes have come. False: more of them are
    /// on their way.
    fn leave(&mut self, connection: u64, taken: u64) -> bool;
    /// What has become of a connection of requests.
    fn fate(&mut self, connection: u64) -> Fate;
    /// Sends some of these.
    fn send(&mut self, connection: u64, bytes: &[u8]) -> Sent;
    /// Everything that shall be sent has been: the connection ends here.
    fn finish(&mut self, connection: u64);
    /// Cuts the connection.
    fn reset(&mut self, connection: u64);
    /// Nothing is held of it after so many bytes that came. `is_over`: the rest of it is of no
    /// interest. What is on its way comes as that of a connection that is not known yet.
    fn drained(&mut self, connection: u64, taken: u64, is_over: bool);
}

/// How long bytes may be on their way here, nanoseconds: they may be lost in the network, and sent
/// again.
const LONGEST_NS: u64 = 5_000_000_000;
/// How often it is looked whether connections of requests are still there, nanoseconds.
const LOOK_NS: u64 = 1_000_000_000;

/// Everything that is held.
#[derive(Debug)]
pub struct Desk {
    armed: Arc<[Armed]>,
    limits: Limits,
    lines: BTreeMap<u64, Line>,
    /// When the first bytes of each connection may go, in order.
    due: BTreeSet<(u64, u64)>,
    /// Connections that took less than there was.
    full: BTreeSet<u64>,
    /// Until when more of a connection has to come, in order.
    expected: BTreeSet<(u64, u64)>,
    /// When connections of requests are looked after next; none where there is none.
    looked: Option<u64>,
    held: usize,
    tally: Tally,
}

/// One connection.
#[derive(Debug)]
struct Line {
    lane: Lane,
    message: Message,
    /// Of requests: exchanges that may mean them.
    may: Vec<usize>,
    /// Of requests: until when something more of them has to come that is on its way; 0 = nothing.
    expected: u64,
    /// When something came last.
    last: u64,
    asked: VecDeque<Asked>,
    /// Exchanges that mean the message that is under way.
    meant: Vec<usize>,
    /// Bytes and when they may go. The times do not fall.
    queue: VecDeque<(u64, Vec<u8>)>,
    /// How much of the first entry has gone.
    gone: usize,
    queued: usize,
    /// When bytes that come now may go.
    until: u64,
    taken: u64,
}

impl Line {
    fn held(&self) -> usize {
        self.queued + self.lane.kept()
    }

    fn front(&self) -> Option<u64> {
        self.queue.front().map(|(due, _)| *due)
    }
}

impl Desk {
    /// An empty one, for these exchanges.
    #[must_use]
    pub fn new(armed: Arc<[Armed]>, limits: Limits) -> Self {
        Self {
            armed,
            limits,
            lines: BTreeMap::new(),
            due: BTreeSet::new(),
            full: BTreeSet::new(),
            expected: BTreeSet::new(),
            looked: None,
            held: 0,
            tally: Tally::default(),
        }
    }

    /// Other exchanges from now on. What is under way goes on as it began.
    pub fn arm(&mut self, armed: Arc<[Armed]>) {
        self.armed = armed;
    }

    /// What was counted so far.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// How much is held, bytes.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// How many connections are here.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.lines.len()
    }

    /// When there is something to do next, nanoseconds.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        let due = self.due.iter().find(|(_, id)| !self.full.contains(id));
        let due = due.into_iter().chain(self.expected.first()).map(|(due, _)| *due);
        due.chain(self.looked).min()
    }

    /// Connections that wait until they can be written to.
    pub fn full(&self) -> impl Iterator<Item = u64> {
        self.full.iter().copied()
    }

    /// Takes in what has come, and sends what may go.
    pub fn take(&mut self, id: u64, arrival: Arrival, now: u64, exits: &mut impl Exits) {
        let limits = self.limits;
        let is_new = !self.lines.contains_key(&id);
        if is_new && !exits.open(id, arrival.pid) {
            return;
        }
        let message = match arrival.begins.first() {
            Some(Begins::Requests { .. }) => Message::Request,
            Some(Begins::Response(_)) | None => Message::Response,
        };
        let line = self.lines.entry(id).or_insert_with(|| Line {
            lane: Lane::new(message, limits.message).without_end(),
            message,
            may: Vec::new(),
            expected: 0,
            last: now,
            asked: VecDeque::new(),
            meant: Vec::new(),
            queue: VecDeque::new(),
            gone: 0,
            queued: 0,
            until: 0,
            taken: 0,
        });
        self.expected.remove(&(line.expected, id));
        (line.expected, line.last) = (0, now);
        if message == Message::Request {
            self.looked.get_or_insert(now + LOOK_NS);
        }
        let before = line.held();
        let mut out = Vec::new();
        if is_new && arrival.begins.is_empty() {
            // They were on their way when the connection was let go: nothing to be counted.
            line.lane.pass(Odd::LetGo, &mut out);
            out.clear();
        }
        let (mut rest, mut pads) = (0, false);
        for begins in arrival.begins {
            match begins {
                Begins::Response(asked) => line.asked.push_back(asked),
                Begins::Requests { may, skip, is_first } => {
                    line.may = may;
                    rest = skip.min(arrival.bytes.len());
                    pads = is_first && is_new;
                }
            }
        }
        let (rest, bytes) = arrival.bytes.split_at(rest);
        line.taken += bytes.len() as u64;
        if !rest.is_empty() {
            out.push(Step::Bytes(rest.to_vec()));
        }
        if line.asked.len() > limits.message.requests {
            line.lane.pass(Odd::LostTrack, &mut out);
        }
        let Line { lane, message, asked, may, .. } = line;
        let (armed, unread) = (&self.armed, &mut self.tally.unread);
        let mut judge = |head: &_, out: &mut Vec<Step>| {
            if *message == Message::Request {
                return request_verdict(armed, may, head, out);
            }
            if is_interim(head) {
                return Verdict::interim();
            }
            match asked.pop_front() {
                Some(asked) => {
                    let verdict = response_verdict(armed, head, &asked, out);
                    if verdict.framing.is_err() {
                        asked.meant.iter().for_each(|i| *unread.entry(*i).or_default() += 1);
                    }
                    verdict
                }
                None => Verdict::odd(Odd::LostTrack),
            }
        };
        lane.feed(bytes, &mut judge, &mut out);
        if pads {
            pad(&mut out, arrival.bytes.len());
        }
        self.held -= before;
        self.put(id, out, now, exits);
        self.bound(id, now, exits);
        self.send(id, now, exits);
    }

    /// Sends what may go by now.
    pub fn release(&mut self, now: u64, exits: &mut impl Exits) {
        let ready: Vec<u64> =
            self.due.iter().take_while(|(due, _)| *due <= now).map(|(_, id)| *id).collect();
        for id in ready.into_iter().filter(|id| !self.full.contains(id)).collect::<Vec<_>>() {
            self.send(id, now, exits);
        }
        // What has been let in and does not come is lost.
        let late = self.expected.iter().take_while(|(until, _)| *until <= now).map(|(_, id)| *id);
        let mut lost: BTreeSet<u64> = late.collect();
        if self.looked.is_some_and(|at| at <= now) {
            let requests = self.lines.iter().filter(|(_, line)| line.message == Message::Request);
            let gone = requests.clone().filter(|(id, line)| match exits.fate(**id) {
                Fate::Lives => false,
                // What it has said may still be on its way here.
                Fate::Ends => line.last + LOOK_NS <= now && !line.lane.can_be_left(),
                Fate::Gone => true,
            });
            lost.extend(gone.map(|(id, _)| *id));
            self.looked = requests.count().gt(&0).then_some(now + LOOK_NS);
        }
        for id in lost {
            self.tally.cut += 1;
            exits.reset(id);
            self.forget(id);
        }
    }

    /// A connection can be written to again.
    pub fn writable(&mut self, id: u64, now: u64, exits: &mut impl Exits) {
        self.full.remove(&id);
        self.send(id, now, exits);
    }

    /// The experiments are over: everything goes, as it is.
    pub fn let_go(&mut self, now: u64, exits: &mut impl Exits) {
        self.armed = Arc::new([]);
        let all: Vec<u64> = self.lines.keys().copied().collect();
        for id in all {
            self.free(id, now, exits);
            self.send(id, now, exits);
        }
    }

    /// Cuts every connection of which something is held, which will not be sent, or that is inside of
    /// a message of which the client has been told something else than what is still to come.
    pub fn cut(&mut self, exits: &mut impl Exits) {
        let is_broken = |line: &Line| line.held() > 0 || line.lane.rest() == Rest::Inside;
        let all = self.lines.iter().filter(|(_, line)| is_broken(line)).map(|(id, _)| *id);
        for id in all.collect::<Vec<u64>>() {
            self.tally.cut += 1;
            exits.reset(id);
            self.forget(id);
        }
    }

    /// The connection is gone; so is what is held of it.
    pub fn forget(&mut self, id: u64) {
        if let Some(line) = self.lines.remove(&id) {
            self.held -= line.held();
            self.full.remove(&id);
            self.expected.remove(&(line.expected, id));
            if let Some(due) = line.front() {
                self.due.remove(&(due, id));
            }
        }
    }

    /// Queues what a lane has put out. The line's share of what is held has been taken off.
    fn put(&mut self, id: u64, steps: Vec<Step>, now: u64, exits: &mut impl Exits) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        let (front, mut is_cut) = (line.front(), false);
        for step in steps {
            match step {
                Step::Bytes(bytes) => {
                    line.queued += bytes.len();
                    line.queue.push_back((line.until, bytes));
                }
                Step::Wait(time) => {
                    let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
                    line.until = line.until.max(now.saturating_add(time));
                }
                Step::Abort => {
                    // What was said before it is lost with the connection, as in a real cut.
                    is_cut = true;
                    exits.reset(id);
                }
                Step::Note(note) => self.tally.note(note, &self.armed, &mut line.meant),
            }
        }
        self.held += line.held();
        let after = line.front();
        if front != after {
            front.map(|due| self.due.remove(&(due, id)));
            after.map(|due| self.due.insert((due, id)));
        }
        if is_cut {
            self.forget(id);
        }
    }

    /// Lets a connection go that has too much, or that comes where all together have too much.
    fn bound(&mut self, id: u64, now: u64, exits: &mut impl Exits) {
        if !self.is_too_much(id) {
            return;
        }
        self.tally.overrun += 1;
        self.free(id, now, exits);
        self.send(id, now, exits);
        // Who does not take what is there keeps the memory.
        if self.full.contains(&id) && self.is_too_much(id) {
            self.tally.cut += 1;
            exits.reset(id);
            self.forget(id);
        }
    }

    fn is_too_much(&self, id: u64) -> bool {
        let own = self.lines.get(&id).map_or(0, Line::held);
        own > self.limits.connection || (own > 0 && self.held > self.limits.all)
    }

    /// Nothing of it waits or is edited any more.
    fn free(&mut self, id: u64, now: u64, exits: &mut impl Exits) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        let before = line.held();
        if let Some(due) = line.front() {
            self.due.remove(&(due, id));
        }
        let mut out = Vec::new();
        line.lane.pass(Odd::LetGo, &mut out);
        line.until = 0;
        line.queue.iter_mut().for_each(|(due, _)| *due = 0);
        if let Some(due) = line.front() {
            self.due.insert((due, id));
        }
        self.held -= before;
        self.put(id, out, now, exits);
    }

    fn send(&mut self, id: u64, now: u64, exits: &mut impl Exits) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        if self.full.contains(&id) {
            return;
        }
        let before = line.front();
        self.held -= line.held();
        let mut is_gone = false;
        while let Some((due, bytes)) = line.queue.front()
            && *due <= now
        {
            match exits.send(id, &bytes[line.gone..]) {
                Sent::Some(n) => {
                    line.gone += n;
                    line.queued -= n;
                    if line.gone >= bytes.len() {
                        line.gone = 0;
                        line.queue.pop_front();
                    }
                }
                Sent::Full => {
                    self.full.insert(id);
                    break;
                }
                Sent::Gone => {
                    is_gone = true;
                    break;
                }
            }
        }
        self.held += line.held();
        let after = line.front();
        if before != after {
            before.map(|due| self.due.remove(&(due, id)));
            after.map(|due| self.due.insert((due, id)));
        }
        let is_idle = after.is_none();
        let is_done = match line.lane.rest() {
            _ if is_gone => true,
            _ if line.message == Message::Request => {
                let is_done = is_idle && line.lane.can_be_left() && exits.leave(id, line.taken);
                if is_idle && line.lane.is_between() && !is_done && line.expected == 0 {
                    line.expected = now + LONGEST_NS;
                    self.expected.insert((line.expected, id));
                }
                is_done
            }
            Rest::Between if is_idle && line.asked.is_empty() => {
                exits.drained(id, line.taken, false);
                true
            }
            Rest::Passes if is_idle => {
                exits.drained(id, line.taken, true);
                true
            }
            Rest::Goes if is_idle => {
                exits.finish(id);
                true
            }
            _ => false,
        };
        if is_done {
            self.forget(id);
        }
    }
}
