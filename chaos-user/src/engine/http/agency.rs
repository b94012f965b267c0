//! The agent's end of the detour: where the kernel hands responses over, and how it is told that
//! they have gone on.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use aya::maps::{MapData, SkStorage};
use chaos_abi::detour::Home;
use chaos_abi::http::{HttpCounters, entry, passed};
use chaos_abi::limit::{EXCHANGES, HTTP_CANDIDATES, HTTP_SOCKETS};
use procfs::process::Process;

use super::nowhere::Nowhere;
use super::object::Object;
use super::rescue::Rescue;
use super::turns::Turns;
use crate::engine::detour::desk::{Arrival, Begins, Fate, Limits};
use crate::engine::detour::hold;
use crate::engine::detour::worker::{Detour, Report, Source};
use crate::engine::error::EngineError;
use crate::engine::message::{Armed, Asked, Verb};
use crate::engine::object::Pod;
use crate::plan::exchange::{Exchange, Matcher, Message};
use crate::plan::reach;

/// The first namespace of processes (`PROC_PID_INIT_INO`): its numbers are those that BPF programs
/// see.
const FIRST_PIDS: &str = "pid:[4026531836]";
/// `CAP_SYS_PTRACE`, `CAP_DAC_READ_SEARCH` and `CAP_DAC_OVERRIDE`, as bits: to take hold of files of
/// other users' processes, and to look for them.
const PTRACE: u64 = 1 << 19;
const SEARCH: u64 = 1 << 2 | 1 << 1;

/// The detour, connected to the kernel.
#[derive(Debug)]
pub struct Agency {
    detour: Detour,
    /// Ends behind it.
    _rescue: Rescue,
    /// The other end of where bytes come in: nothing is written to it.
    _far_end: TcpStream,
    _nowhere: Nowhere,
}

impl Agency {
    /// Starts it for the programs of this object.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] where this process may not, else what the kernel says.
    pub fn start(object: &mut Object) -> Result<Self, EngineError> {
        allowed()?;
        let failed = |e| EngineError::os("start the detour of HTTP responses", e);
        let (input, far_end) = pair().map_err(failed)?;
        let rescue = Rescue::start(object.detoured()?).map_err(failed)?;
        object.set_detour(&input, &far_end)?;
        let pids = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let mut turns = Turns::new(object.taken()?, object.returns()?, object.streams_again()?)
            .map_err(failed)?;
        let nowhere = Nowhere::make(object, &mut turns)?;
        let homes = Homes {
            turns,
            homes: object.homes()?,
            found: BTreeMap::new(),
            knows_pids: pids.as_os_str() == FIRST_PIDS,
        };
        let homes = Box::new(homes);
        let detour = Detour::start(input.into(), homes, Limits::default()).map_err(failed)?;
        Ok(Self { detour, _rescue: rescue, _far_end: far_end, _nowhere: nowhere })
    }

    /// Acts for these exchanges, by their indexes in the kernel.
    pub fn arm<'a>(&self, exchanges: impl Iterator<Item = (u32, &'a Exchange)>) {
        let nobody = Armed { message: Message::Response, matcher: Matcher::default(), edit: None };
        let mut all = vec![nobody; EXCHANGES as usize];
        for (index, exchange) in exchanges {
            if let Some(place) = all.get_mut(index as usize) {
                *place = Armed::of(exchange);
                // The kernel has seen to both: packets are late, connections are cut.
                // Of a request that is here anyway the delay is ours.
                if let Some(edit) = &mut place.edit
                    && !reach::is_asking(exchange)
                {
                    let edit = Arc::make_mut(edit);
                    (edit.delay, edit.abort) = (None, false);
                }
            }
        }
        self.detour.arm(all.into());
    }

    /// Lets everything go as it is.
    pub fn let_go(&self) {
        self.detour.let_go();
    }

    /// How many connections it has.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.detour.report().map_or(0, |report| report.connections)
    }

    /// What it has counted of the exchange at this index, ever.
    #[must_use]
    pub fn counters(&self, index: u32) -> HttpCounters {
        let Some(Report { tally, .. }) = self.detour.report() else {
            return HttpCounters::default();
        };
        let of =
            |counted: &BTreeMap<usize, u64>| counted.get(&(index as usize)).copied().unwrap_or(0);
        let mut counters = HttpCounters { acted: of(&tally.acted), ..HttpCounters::default() };
        counters.passed[passed::UNPATCHED] = of(&tally.left);
        counters.passed[passed::UNPARSED] = of(&tally.unread);
        counters
    }
}

/// Whether other processes' sockets can be written to from here.
fn allowed() -> Result<(), EngineError> {
    let mask = Process::myself().and_then(|me| me.status()).map_or(0, |status| status.capeff);
    if mask & PTRACE != 0 && mask & SEARCH != 0 {
        return Ok(());
    }
    Err(EngineError::Unsupported {
        mechanism: "editing HTTP responses in the agent",
        reason: "kfault has no right to use the sockets of other processes".to_owned(),
        way_out: "give it CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, or leave patch.body and large bodies out",
    })
}

/// A connection to ourselves: socket maps hand bytes over to sockets of TCP.
///
/// # Errors
/// What the kernel says.
pub fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let far_end = TcpStream::connect(listener.local_addr()?)?;
    loop {
        let (input, from) = listener.accept()?;
        // Somebody else on this host may have been faster.
        if from == far_end.local_addr()? {
            return Ok((input, far_end));
        }
    }
}

/// Which bytes of which connections have gone on, as the kernel reads it.
struct Homes {
    homes: SkStorage<MapData, Pod<Home>>,
    turns: Turns,
    /// Processes, and their own numbers of their connections, where they were found last.
    found: BTreeMap<u64, (u32, RawFd)>,
    /// The numbers of processes that the kernel tells are ours.
    knows_pids: bool,
}

impl Source for Homes {
    fn exit(&mut self, connection: u64, pid: u32) -> io::Result<OwnedFd> {
        let hint = self.found.get(&connection).copied();
        let (exit, found) = if self.knows_pids {
            let hint = hint.filter(|(before, _)| *before == pid);
            let (exit, number) = hold::socket(pid, connection, hint.map(|(_, number)| number))?;
            (exit, (pid, number))
        } else {
            hold::anywhere(connection, hint)?
        };
        if self.found.len() >= HTTP_SOCKETS as usize {
            self.found.clear();
        }
        self.found.insert(connection, found);
        Ok(exit)
    }

    fn drained(&mut self, exit: BorrowedFd<'_>, taken: u64, is_over: bool) {
        // What had gone on when the exit was asked for: nobody else writes it.
        let before = self.homes.get(&exit.as_raw_fd(), 0).map_or(0, |Pod(home)| home.taken);
        let home = Home { taken: before + taken, is_over: u64::from(is_over) };
        if let Err(error) = self.homes.insert(&exit.as_raw_fd(), Pod(home), 0) {
            tracing::warn!(%error, "a connection stays on the detour");
        }
    }

    fn begins(&self, word: u64) -> Begins {
        let verb = match word {
            word if word & entry::HEAD != 0 => Verb::Head,
            word if word & entry::CONNECT != 0 => Verb::Connect,
            _ => Verb::Other,
        };
        let one = |k: u32| word >> (entry::FIRST + entry::BITS * k) & entry::MASK;
        let meant = (0..HTTP_CANDIDATES).map(one).filter_map(|one| one.checked_sub(1));
        Begins::Response(Asked { verb, meant: meant.map(|index| index as usize).collect() })
    }
    fn requests(&self) -> Option<RawFd> {
        Some(self.turns.fd())
    }

    fn next_requests(&mut self) -> Option<(u64, Arrival)> {
        self.turns.next()
    }

    fn put(&mut self, connection: u64, bytes: &[u8]) -> io::Result<()> {
        self.turns.put(connection, bytes)
    }

    fn leave(&mut self, connection: u64, taken: u64) -> bool {
        self.turns.leave(connection, taken).unwrap_or_else(|error| {
            tracing::error!(connection, %error, "a connection is not given back");
            false
        })
    }

    fn fate(&mut self, connection: u64) -> Fate {
        self.turns.fate(connection)
    }

    fn cut(&mut self, connection: u64) {
        Turns::cut(connection);
    }
}
