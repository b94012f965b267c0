//! The loaded BPF object of HTTP faults.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::LazyLock;

use aya::maps::sock::SockMapFd;
use aya::maps::{
    Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, ProgramArray, RingBuf,
    SkStorage, SockHash,
};
use aya::programs::{CgroupAttachMode, Program, SchedClassifier, SkMsg, SkSkb, SockOps};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader};
use chaos_abi::Shared;
use chaos_abi::detour::{AskedPort, Home, Reader, Stream, away, place};
use chaos_abi::http::{HttpCounters, HttpRule, HttpSlot};
use chaos_abi::limit::HTTP_TAIL;

use super::readers;
use super::rescue::Maps;
use crate::engine::bpf::{self, Kind};
use crate::engine::btf;
use crate::engine::error::EngineError;
use crate::engine::object::Pod;

static BYTES: &[u8] = aya::include_bytes_aligned!(env!("KFAULT_BPF_HTTP_OBJECT"));

/// Programs that entry programs jump to: name, and the table that they jump through.
const REQUEST: (&str, &str) = ("http_request", "TO_HTTP_REQUEST");
const HOLD: (&str, &str) = ("http_hold", "TO_HTTP_HOLD");
/// What the response side is called.
const RESPONSE: &str = "http_response";

/// Programs for requests that are edited.
const ACCEPT: &str = "http_accept";
const RECEIVED: &str = "http_received";
const BACK: &str = "http_back";

/// The loaded object. Its sockets leave the socket map when it is dropped.
pub struct Object {
    ebpf: Ebpf,
    request: OwnedFd,
    hold: OwnedFd,
    /// Connections to ports whose requests are edited are diverted.
    is_accepting: bool,
}

fn missing(what: &str) -> EngineError {
    EngineError::bpf(format!("find {what}"), "missing from the object")
}

fn map_error(name: &'static str) -> impl FnOnce(MapError) -> EngineError {
    move |error| EngineError::bpf(format!("use the map {name}"), error)
}

impl Object {
    /// Makes the maps and loads the programs; the response side acts on every socket that joins.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] where the kernel is too old, else what it says.
    pub fn load() -> Result<Self, EngineError> {
        let mut loader = EbpfLoader::new();
        // Nothing in the object needs the kernel's types, which would cost memory.
        loader.btf(None);
        let mut ebpf = loader.load(BYTES).map_err(too_old)?;
        let request = classifier(&mut ebpf, REQUEST)?;
        let hold = classifier(&mut ebpf, HOLD)?;

        let map = ebpf.map("SOCKETS").ok_or_else(|| missing("SOCKETS"))?;
        let sockets: SockHash<&MapData, u64> =
            SockHash::try_from(map).map_err(map_error("SOCKETS"))?;
        let sockets = sockets.fd().try_clone().map_err(too_old)?;
        message(&mut ebpf, RESPONSE, &sockets)?;
        let mut object = Self { ebpf, request, hold, is_accepting: false };
        match places() {
            Ok(all) => {
                for (place, at) in (0..).zip(all) {
                    object.set("PLACES", place, *at)?;
                }
            }
            Err(error) => tracing::warn!(
                %error,
                "this kernel does not tell its types: a server whose thread waits for requests may be \
                 woken by none after a large response of a connection that was meant"
            ),
        }
        Ok(object)
    }

    /// Says where bytes are handed over to. What is sent on `own` tells the programs who we are;
    /// nothing arrives at its other end.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_detour(
        &mut self,
        input: &impl AsRawFd,
        mut own: &TcpStream,
    ) -> Result<(), EngineError> {
        const DETOUR: &str = "DETOUR";
        const SOCKETS: &str = "SOCKETS";
        let map = self.ebpf.map_mut(SOCKETS).ok_or_else(|| missing(SOCKETS))?;
        let mut map: SockHash<&mut MapData, u64> =
            SockHash::try_from(map).map_err(map_error(SOCKETS))?;
        map.insert(0, own.as_raw_fd(), 0).map_err(map_error(SOCKETS))?;
        // The program takes note of the process, and refuses.
        let _ = own.write(b".");
        map.remove(&0).map_err(map_error(SOCKETS))?;
        let map = self.ebpf.map_mut(DETOUR).ok_or_else(|| missing(DETOUR))?;
        let mut map: SockHash<&mut MapData, u32> =
            SockHash::try_from(map).map_err(map_error(DETOUR))?;
        map.insert(0, input.as_raw_fd(), 0).map_err(map_error(DETOUR))
    }

    /// The maps that tell what is on the detour.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn detoured(&self) -> Result<Maps, EngineError> {
        let id = |name: &'static str| {
            let map = match self.ebpf.map(name) {
                Some(Map::SockHash(map) | Map::SkStorage(map) | Map::HashMap(map)) => map,
                _ => return Err(missing(name)),
            };
            map.info().map(|info| info.id()).map_err(map_error(name))
        };
        Ok(Maps {
            sockets: id("SOCKETS")?,
            handed: id("HANDED")?,
            homes: id("HOMES")?,
            streams: id("STREAMS")?,
            diverted: id("DIVERTED")?,
        })
    }

    /// Loads what lets the agent have requests; where their bytes come out. Once.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn taken(&mut self) -> Result<RingBuf<MapData>, EngineError> {
        const TAKEN: &str = "TAKEN_BYTES";
        const DIVERTED: &str = "DIVERTED";
        let map = self.ebpf.map(DIVERTED).ok_or_else(|| missing(DIVERTED))?;
        let map: SockHash<&MapData, u64> = SockHash::try_from(map).map_err(map_error(DIVERTED))?;
        let diverted = map.fd().try_clone().map_err(too_old)?;
        let program = self.ebpf.program_mut(RECEIVED).ok_or_else(|| missing(RECEIVED))?;
        let Program::SkSkb(program) = program else { return Err(missing(RECEIVED)) };
        SkSkb::load(program).map_err(too_old)?;
        program.attach(&diverted).map_err(too_old)?;
        let taken = self.ebpf.take_map(TAKEN).ok_or_else(|| missing(TAKEN))?;
        RingBuf::try_from(taken).map_err(map_error(TAKEN))
    }

    /// Loads what lets the agent put requests back; where programs look for whom it does so through.
    /// Once.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn returns(&mut self) -> Result<SockHash<MapData, u32>, EngineError> {
        const RETURNS: &str = "RETURNS";
        let map = self.ebpf.take_map(RETURNS).ok_or_else(|| missing(RETURNS))?;
        let map: SockHash<MapData, u32> = SockHash::try_from(map).map_err(map_error(RETURNS))?;
        let returns = map.fd().try_clone().map_err(too_old)?;
        message(&mut self.ebpf, BACK, &returns)?;
        Ok(map)
    }

    /// Lets bytes that are thrown away go to a socket that takes none. Before anything is.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_nowhere(&mut self, nowhere: &TcpStream) -> Result<(), EngineError> {
        const NOWHERE: &str = "NOWHERE";
        let map = self.ebpf.map_mut(NOWHERE).ok_or_else(|| missing(NOWHERE))?;
        let mut map: SockHash<&mut MapData, u32> =
            SockHash::try_from(map).map_err(map_error(NOWHERE))?;
        map.insert(0, nowhere.as_raw_fd(), 0).map_err(map_error(NOWHERE))
    }

    /// Diverts a connection of ours, all bytes of which are the agent's.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn divert(&mut self, number: u64, socket: &TcpStream) -> Result<(), EngineError> {
        const DIVERTED: &str = "DIVERTED";
        let stream = Stream { away: away::IS_AWAY, early: u64::MAX, ..Stream::default() };
        self.streams_mut()?.insert(number, Pod(stream), 0).map_err(map_error("STREAMS"))?;
        let map = self.ebpf.map_mut(DIVERTED).ok_or_else(|| missing(DIVERTED))?;
        let mut map: SockHash<&mut MapData, u64> =
            SockHash::try_from(map).map_err(map_error(DIVERTED))?;
        map.insert(number, socket.as_raw_fd(), 0).map_err(map_error(DIVERTED))
    }

    /// Forgets such a connection.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn forget(&mut self, number: u64) -> Result<(), EngineError> {
        self.streams_mut()?.remove(&number).map_err(map_error("STREAMS"))
    }

    fn streams_mut(&mut self) -> Result<HashMap<&mut MapData, u64, Pod<Stream>>, EngineError> {
        const STREAMS: &str = "STREAMS";
        let map = self.ebpf.map_mut(STREAMS).ok_or_else(|| missing(STREAMS))?;
        HashMap::try_from(map).map_err(map_error(STREAMS))
    }

    /// What has come of connections, for somebody else to look at.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn streams_again(&self) -> Result<HashMap<MapData, u64, Pod<Stream>>, EngineError> {
        const STREAMS: &str = "STREAMS";
        let map = MapData::from_id(self.detoured()?.streams).and_then(Map::from_map_data);
        map.and_then(HashMap::try_from).map_err(map_error(STREAMS))
    }

    /// Numbers of the connections that are diverted.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn streams(&self) -> Result<BTreeSet<u64>, EngineError> {
        const STREAMS: &str = "STREAMS";
        let map = self.ebpf.map(STREAMS).ok_or_else(|| missing(STREAMS))?;
        let map: HashMap<&MapData, u64, Pod<Stream>> =
            HashMap::try_from(map).map_err(map_error(STREAMS))?;
        Ok(map.keys().flatten().collect())
    }

    /// Diverts connections to a port, those that are open now among them.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] where the kernel does not tell what is needed, else what it says.
    pub fn ask(&mut self, port: AskedPort) -> Result<(), EngineError> {
        if !self.is_accepting {
            places().as_ref().map_err(|e| EngineError::Unsupported {
                mechanism: "editing HTTP requests",
                reason: format!("this kernel does not tell its types: {e}"),
                way_out: "use a kernel with CONFIG_DEBUG_INFO_BTF on the nodes of the targets",
            })?;
            let cgroup = readers::root_cgroup()?;
            let program = self.ebpf.program_mut(ACCEPT).ok_or_else(|| missing(ACCEPT))?;
            let Program::SockOps(program) = program else { return Err(missing(ACCEPT)) };
            SockOps::load(program).map_err(too_old)?;
            program.attach(cgroup, CgroupAttachMode::Single).map_err(too_old)?;
            self.is_accepting = true;
        }
        self.ports()?.insert(Pod(port), 1, 0).map_err(map_error("ASKED_PORTS"))?;
        let mut maps = self.ebpf.maps_mut();
        let (mut sockets, mut states) = (None, None);
        for (name, map) in &mut maps {
            match name {
                "READERS" => sockets = Some(map),
                "READER" => states = Some(map),
                _ => {}
            }
        }
        let sockets = sockets.ok_or_else(|| missing("READERS"))?;
        let states = states.ok_or_else(|| missing("READER"))?;
        let mut sockets: SockHash<&mut MapData, u64> =
            SockHash::try_from(sockets).map_err(map_error("READERS"))?;
        let mut states: SkStorage<&mut MapData, Pod<Reader>> =
            SkStorage::try_from(states).map_err(map_error("READER"))?;
        readers::join(port, &mut sockets, &mut states);
        Ok(())
    }

    /// No new connection to a port is diverted any more.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn ask_no_more(&mut self, port: AskedPort) -> Result<(), EngineError> {
        self.ports()?.remove(&Pod(port)).map_err(map_error("ASKED_PORTS"))
    }

    fn ports(&mut self) -> Result<HashMap<&mut MapData, Pod<AskedPort>, u32>, EngineError> {
        const PORTS: &str = "ASKED_PORTS";
        let map = self.ebpf.map_mut(PORTS).ok_or_else(|| missing(PORTS))?;
        HashMap::try_from(map).map_err(map_error(PORTS))
    }

    /// How far connections have been brought, to be written. Once.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn homes(&mut self) -> Result<SkStorage<MapData, Pod<Home>>, EngineError> {
        const HOMES: &str = "HOMES";
        let map = self.ebpf.take_map(HOMES).ok_or_else(|| missing(HOMES))?;
        SkStorage::try_from(map).map_err(map_error(HOMES))
    }

    /// Name and verified instructions of each program.
    #[must_use]
    pub fn programs(&self) -> Vec<(&'static str, Option<u32>)> {
        [REQUEST.0, RESPONSE, HOLD.0]
            .into_iter()
            .map(|name| {
                let info = match self.ebpf.program(name) {
                    Some(Program::SchedClassifier(program)) => program.info().ok(),
                    Some(Program::SkMsg(program)) => program.info().ok(),
                    _ => None,
                };
                (name, info.and_then(|info| info.verified_instruction_count()))
            })
            .collect()
    }

    /// Loads the entry program of one device: for requests that arrive, or for responses that
    /// leave.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn entry(&self, kind: Kind, slot: u32) -> Result<OwnedFd, EngineError> {
        let table = if kind == Kind::HttpEgress { &self.hold } else { &self.request };
        bpf::load_entry(kind, slot, table.as_fd())
            .map_err(|e| EngineError::os("load an entry program", e))
    }

    fn set<T: Shared>(
        &mut self,
        name: &'static str,
        index: u32,
        value: T,
    ) -> Result<(), EngineError> {
        let map = self.ebpf.map_mut(name).ok_or_else(|| missing(name))?;
        let mut map: Array<&mut MapData, Pod<T>> = Array::try_from(map).map_err(map_error(name))?;
        map.set(index, Pod(value), 0).map_err(map_error(name))
    }

    /// Writes the engine's heartbeat cell.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_heartbeat(&mut self, until_ns: u64) -> Result<(), EngineError> {
        self.set("HEARTBEAT", 0, until_ns)
    }

    /// Writes what a device knows.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_slot(&mut self, index: u32, slot: HttpSlot) -> Result<(), EngineError> {
        self.set("HTTP_SLOTS_MAP", index, slot)
    }

    /// Writes an exchange, with its counters at 0. It acts as soon as a slot names it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_rule(
        &mut self,
        index: u32,
        rule: HttpRule,
        tail: &[u8; HTTP_TAIL],
    ) -> Result<(), EngineError> {
        const COUNTERS: &str = "HTTP_COUNTERS";
        let map = self.ebpf.map_mut(COUNTERS).ok_or_else(|| missing(COUNTERS))?;
        let mut counters: PerCpuArray<&mut MapData, Pod<HttpCounters>> =
            PerCpuArray::try_from(map).map_err(map_error(COUNTERS))?;
        let cpus = nr_cpus().map_err(|(what, e)| EngineError::os(what, e))?;
        let zeros = PerCpuValues::try_from(vec![Pod(HttpCounters::default()); cpus])
            .map_err(|e| EngineError::os("count CPUs", e))?;
        counters.set(index, zeros, 0).map_err(map_error(COUNTERS))?;
        self.set("TAILS", index, *tail)?;
        self.set("EXCHANGES_MAP", index, rule)
    }

    /// Lets an exchange end.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn clear_rule(&mut self, index: u32) -> Result<(), EngineError> {
        self.set("EXCHANGES_MAP", index, HttpRule::NONE)
    }

    /// Counters of an exchange, summed over CPUs.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn counters(&self, index: u32) -> Result<HttpCounters, EngineError> {
        let all: Vec<HttpCounters> = self.per_cpu("HTTP_COUNTERS", index)?;
        Ok(all.into_iter().fold(HttpCounters::default(), add))
    }

    /// Responses whose old body is still being thrown away.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn unfinished(&self) -> Result<u64, EngineError> {
        let sum = |index| -> Result<u64, EngineError> {
            let all: Vec<u64> = self.per_cpu("SWALLOWED", index)?;
            Ok(all.into_iter().sum())
        };
        Ok(sum(0)?.saturating_sub(sum(1)?))
    }

    fn per_cpu<T: Shared>(&self, name: &'static str, index: u32) -> Result<Vec<T>, EngineError> {
        let map = self.ebpf.map(name).ok_or_else(|| missing(name))?;
        let map: PerCpuArray<&MapData, Pod<T>> =
            PerCpuArray::try_from(map).map_err(map_error(name))?;
        let values = map.get(&index, 0).map_err(map_error(name))?;
        Ok(values.iter().map(|Pod(value)| *value).collect())
    }
}

/// Where the kernel keeps what programs look at, in the order of [`place`]; it says so itself.
fn places() -> &'static io::Result<[u32; place::ALL as usize]> {
    static FOUND: LazyLock<io::Result<[u32; place::ALL as usize]>> = LazyLock::new(|| {
        btf::offsets([
            ("tcp_sock", "copied_seq"),
            ("sock", "sk_socket"),
            ("socket", "flags"),
            ("socket", "file"),
            ("file", "f_flags"),
        ])
    });
    &FOUND
}

/// Loads a program that sees what the sockets of a map send.
fn message(ebpf: &mut Ebpf, name: &'static str, map: &SockMapFd) -> Result<(), EngineError> {
    let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
    let Program::SkMsg(program) = program else { return Err(missing(name)) };
    SkMsg::load(program).map_err(too_old)?;
    program.attach(map).map(drop).map_err(too_old)
}

/// Loads a program, and puts it where entry programs jump to; the table.
fn classifier(
    ebpf: &mut Ebpf,
    (name, table): (&'static str, &'static str),
) -> Result<OwnedFd, EngineError> {
    let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
    let Program::SchedClassifier(program) = program else { return Err(missing(name)) };
    SchedClassifier::load(program).map_err(too_old)?;
    let program = program.fd().map_err(too_old)?.try_clone().map_err(too_old)?;
    let map = ebpf.map_mut(table).ok_or_else(|| missing(table))?;
    let mut array = ProgramArray::try_from(map).map_err(map_error(table))?;
    array.set(0, &program, 0).map_err(map_error(table))?;
    let Some(Map::ProgramArray(data)) = ebpf.map(table) else { return Err(missing(table)) };
    let table = data.fd().as_fd().try_clone_to_owned();
    table.map_err(|e| EngineError::os("keep the table of HTTP faults", e))
}

/// Destructured, so that a counter that is added to the ABI must be added here.
fn add(a: HttpCounters, b: HttpCounters) -> HttpCounters {
    let HttpCounters { seen, matched, acted, passed } = b;
    let mut sum = HttpCounters {
        seen: a.seen + seen,
        matched: a.matched + matched,
        acted: a.acted + acted,
        passed: a.passed,
    };
    for (sum, more) in sum.passed.iter_mut().zip(passed) {
        *sum += more;
    }
    sum
}

/// The programs need `bpf_loop`, which came with 5.17.
fn too_old(error: impl std::error::Error + Send + Sync + 'static) -> EngineError {
    // The verifier's words of kernels that took this right from packet programs.
    if format!("{error:?}").contains("cannot update sockmap in this context") {
        return EngineError::Unsupported {
            mechanism: "http exchanges",
            reason: "this kernel lets no packet program add to a socket map (seen on 7.3)".into(),
            way_out: "use Linux 5.17 to 6.18 on the nodes of the targets",
        };
    }
    if bpf::has_helper(bpf::LOOP) {
        return EngineError::bpf("load the BPF object of HTTP faults", error);
    }
    EngineError::Unsupported {
        mechanism: "http exchanges",
        reason: "this kernel has no bpf_loop (Linux 5.17)".into(),
        way_out: "use Linux 5.17 or newer on the nodes of the targets",
    }
}
