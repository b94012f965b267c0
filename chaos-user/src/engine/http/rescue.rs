//! What becomes of responses on the detour when kfault is killed: their connections are reset, by a
//! process of its own, so that no client waits for bytes that nobody has any more.
//!
//! It holds the maps that tell how much was handed over and how much has gone on, and needs to know
//! nothing else: where the two differ, bytes are lost.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aya::maps::{HashMap, Map, MapData, MapError, SkStorage, SockHash};
use chaos_abi::detour::{Handed, Home, Stream};

use super::leave;
use crate::engine::apart;
use crate::engine::detour::hold;
use crate::engine::error::EngineError;
use crate::engine::object::Pod;

/// How long it may take to start: it is one `exec`, on a machine that may be emulated.
const START: Duration = Duration::from_secs(20);
/// How long it may take to end when there is nothing to do.
const END: Duration = Duration::from_secs(5);

/// How long servers have to read what was put back for them.
const READ: Duration = Duration::from_secs(2);

/// Begins the words of one that cannot do its work.
const FAILED: char = '!';

/// Numbers of the maps that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maps {
    /// Connections, by their cookies.
    pub sockets: u32,
    /// How much of each was handed over.
    pub handed: u32,
    /// How much has gone on.
    pub homes: u32,
    /// How far requests of connections were taken, by their cookies.
    pub streams: u32,
    /// The connections that those are of: they read what was put back for them as long as the map is
    /// there.
    pub diverted: u32,
}

/// The engine's end of the process.
#[derive(Debug)]
pub struct Rescue {
    child: Child,
    socket: Option<UnixStream>,
}

impl Rescue {
    /// Starts it. When this returns it holds the maps.
    ///
    /// # Errors
    /// When it cannot be started: nothing may be handed over then.
    pub fn start(maps: Maps) -> io::Result<Self> {
        let (ours, its) = UnixStream::pair()?;
        let Maps { sockets, handed, homes, streams, diverted } = maps;
        let child = Command::new("/proc/self/exe")
            .arg0("kfault")
            .arg("rescue")
            .args([sockets, handed, homes, streams, diverted].map(|id| id.to_string()))
            .stdin(OwnedFd::from(its))
            // Whoever reads the engine's output must not have to wait for its end.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        ours.set_read_timeout(Some(START))?;
        let mut words = String::new();
        let rescue = Self { child, socket: Some(ours.try_clone()?) };
        BufReader::new(ours).read_line(&mut words)?;
        if !words.ends_with('\n') {
            return Err(io::Error::other("the process that looks after connections has ended"));
        }
        if let Some(reason) = words.trim().strip_prefix(FAILED) {
            return Err(io::Error::other(reason.to_owned()));
        }
        if !words.trim().is_empty() {
            tracing::warn!("connections may hang if kfault is killed: {}", words.trim());
        }
        Ok(rescue)
    }
}

impl Drop for Rescue {
    fn drop(&mut self) {
        if let Some(mut socket) = self.socket.take() {
            // This is no death: nothing is on the detour any more.
            let _ = socket.write_all(b".");
        }
        let end = Instant::now() + END;
        while !matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
            if Instant::now() > end {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The maps themselves.
struct Held {
    sockets: SockHash<MapData, u64>,
    handed: SkStorage<MapData, Pod<Handed>>,
    homes: SkStorage<MapData, Pod<Home>>,
    streams: HashMap<MapData, u64, Pod<Stream>>,
    _diverted: SockHash<MapData, u64>,
}

impl Held {
    fn of(maps: Maps) -> Result<Self, MapError> {
        let of = |id| MapData::from_id(id).and_then(Map::from_map_data);
        Ok(Self {
            sockets: SockHash::try_from(of(maps.sockets)?)?,
            handed: SkStorage::try_from(of(maps.handed)?)?,
            homes: SkStorage::try_from(of(maps.homes)?)?,
            streams: HashMap::try_from(of(maps.streams)?)?,
            _diverted: SockHash::try_from(of(maps.diverted)?)?,
        })
    }
}

/// `kfault rescue`: waits for the end of the engine at the other end of stdin. If that is its death,
/// resets the connections whose bytes it had. How many.
///
/// # Errors
/// When the maps cannot be held, or the engine cannot be listened to.
pub fn watch(maps: Maps) -> Result<usize, EngineError> {
    let problems = apart::leave();
    let failed = |error| EngineError::os("listen to the engine", error);
    // SAFETY: stdin is the socket that the engine gave us, and nobody else uses it.
    let mut socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    let held = match Held::of(maps) {
        Ok(held) => held,
        Err(error) => {
            writeln!(socket, "{FAILED}{error}").map_err(failed)?;
            return Err(EngineError::bpf("hold the maps of HTTP faults", error));
        }
    };
    writeln!(socket, "{}", problems.join("; ")).map_err(failed)?;
    if socket.read(&mut [0]).is_ok_and(|read| read > 0) {
        return Ok(0);
    }
    let known: BTreeSet<u64> = held.sockets.keys().flatten().collect();
    let all = held.streams.iter().flatten();
    let streams: BTreeMap<u64, bool> = all.map(|(one, Pod(it))| (one, it.away != 0)).collect();
    let (mut count, mut diverted) = (0, Vec::new());
    hold::each(|socket| {
        let fd = socket.as_raw_fd();
        let Some(cookie) = hold::cookie_of(fd) else { return };
        let is_short = known.contains(&cookie) && {
            let given = held.handed.get(&fd, 0).map_or(0, |Pod(handed)| handed.bytes);
            let gone = held.homes.get(&fd, 0).map_or(0, |Pod(home)| home.taken);
            given != gone
        };
        let is_away = streams.get(&cookie).copied();
        if is_short || is_away == Some(true) {
            hold::reset(socket.as_fd());
            count += 1;
        } else if is_away.is_some() {
            diverted.push(socket);
        }
    });
    // The others come to their end, and servers read what was put back for them, before the map goes.
    Ok(count + leave::all(&diverted, Instant::now() + READ))
}
