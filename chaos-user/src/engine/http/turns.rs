//! Requests that the agent has, and how it puts back what becomes of them.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::mem::offset_of;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use aya::maps::{HashMap, MapData, RingBuf, SockHash};
use chaos_abi::detour::{Stream, Taken, fate};
use chaos_abi::limit::EXCHANGES_PER_DEVICE;

use super::agency::pair;
use crate::engine::detour::desk::{Arrival, Begins, Fate};
use crate::engine::detour::hold;
use crate::engine::object::Pod;

/// Bytes that are put at once at most.
const AT_ONCE: usize = 16 << 10;
/// Bytes in front of what is sent.
const WORDS: usize = 16;
/// In place of a number of bytes: bytes follow.
const BYTES: u64 = u64::MAX;

/// The ways to the kernel and back.
pub struct Turns {
    /// Bytes of requests.
    taken: RingBuf<MapData>,
    /// Where programs find `back`.
    returns: SockHash<MapData, u32>,
    /// What has come of connections.
    streams: HashMap<MapData, u64, Pod<Stream>>,
    /// What is written here goes to the program behind it.
    back: TcpStream,
    /// What the program lets pass arrives here.
    far_end: TcpStream,
}

/// A [`Taken`], as it lies in the ring.
fn read(record: &[u8]) -> Option<(u64, Arrival)> {
    let word =
        |at: usize| <[u8; 8]>::try_from(record.get(at..at + 8)?).ok().map(u64::from_ne_bytes);
    let exchanges = offset_of!(Taken, exchanges);
    let exchanges = record.get(exchanges..exchanges + 2 * EXCHANGES_PER_DEVICE)?;
    let may = exchanges.chunks_exact(2).filter_map(|two| {
        let one = u16::from_ne_bytes([two[0], two[1]]);
        one.checked_sub(1).map(usize::from)
    });
    let begins = Begins::Requests {
        may: may.collect(),
        skip: usize::try_from(word(offset_of!(Taken, skip))?).ok()?,
        is_first: word(offset_of!(Taken, is_first))? != 0,
    };
    let length = usize::try_from(word(offset_of!(Taken, length))?).ok()?;
    let bytes = record.get(offset_of!(Taken, bytes)..)?.get(..length)?.to_vec();
    let connection = word(offset_of!(Taken, connection))?;
    Some((connection, Arrival { begins: vec![begins], pid: 0, bytes }))
}

impl Turns {
    /// Over these maps.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(
        taken: RingBuf<MapData>,
        returns: SockHash<MapData, u32>,
        streams: HashMap<MapData, u64, Pod<Stream>>,
    ) -> io::Result<Self> {
        let (back, far_end) = pair()?;
        let mut turns = Self { taken, returns, streams, back, far_end };
        turns.renew()?;
        Ok(turns)
    }

    /// The next bytes of requests, and their connection.
    pub fn next(&mut self) -> Option<(u64, Arrival)> {
        let record = self.taken.next()?;
        read(&record)
    }

    /// Ready when there are any.
    pub fn fd(&self) -> RawFd {
        self.taken.as_raw_fd()
    }

    /// Puts bytes where the server reads first, all of them.
    ///
    /// # Errors
    /// Some are lost.
    pub fn put(&mut self, connection: u64, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.chunks(AT_ONCE) {
            let all = WORDS + part.len();
            match self.write(connection, BYTES, part) {
                Ok(written) if written == all => {}
                other => {
                    // The kernel keeps refusing where it has refused once.
                    self.renew()?;
                    return Err(other.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into()));
                }
            }
        }
        Ok(())
    }

    /// Gives a connection back of which so many bytes have come. False: more of them are on their way.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn leave(&mut self, connection: u64, taken: u64) -> io::Result<bool> {
        self.write(connection, taken, &[])?;
        loop {
            let mut words = [0; WORDS];
            self.far_end.read_exact(&mut words)?;
            let (number, word) = words.split_at(8);
            let is_it = number == connection.to_ne_bytes();
            // Bytes for a connection that was gone come as well.
            if is_it && word != BYTES.to_ne_bytes() {
                return Ok(word == 1u64.to_ne_bytes());
            }
        }
    }

    fn write(&mut self, connection: u64, what: u64, bytes: &[u8]) -> io::Result<usize> {
        let words = [connection.to_ne_bytes(), what.to_ne_bytes()].concat();
        self.back.write_vectored(&[IoSlice::new(&words), IoSlice::new(bytes)])
    }

    fn renew(&mut self) -> io::Result<()> {
        let (back, far_end) = pair()?;
        self.returns.insert(0, back.as_raw_fd(), 0).map_err(io::Error::other)?;
        (self.back, self.far_end) = (back, far_end);
        Ok(())
    }

    /// What has become of a connection.
    #[must_use]
    pub fn fate(&self, connection: u64) -> Fate {
        match self.streams.get(&connection, 0) {
            Ok(Pod(Stream { fate: fate::LIVES, .. })) => Fate::Lives,
            Ok(Pod(Stream { fate: fate::ENDS, .. })) => Fate::Ends,
            Ok(_) | Err(_) => Fate::Gone,
        }
    }

    /// Cuts a connection.
    pub fn cut(connection: u64) {
        match hold::anywhere(connection, None) {
            Ok((socket, _)) => hold::reset(socket.as_fd()),
            // Whoever had it has closed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(connection, %error, "a connection cannot be cut"),
        }
    }
}

#[cfg(test)]
mod tests {
    use chaos_abi::detour::TAKEN;

    use super::*;

    #[test]
    fn a_record_is_read_as_the_kernel_writes_it() {
        let mut record = vec![0u8; size_of::<Taken>()];
        let mut put = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
        put(offset_of!(Taken, connection), &7u64.to_ne_bytes());
        put(offset_of!(Taken, skip), &2u64.to_ne_bytes());
        put(offset_of!(Taken, is_first), &1u64.to_ne_bytes());
        put(offset_of!(Taken, exchanges) + 2, &4u16.to_ne_bytes());
        put(offset_of!(Taken, length), &5u64.to_ne_bytes());
        put(offset_of!(Taken, bytes), b"xxGET");
        let (connection, arrival) = read(&record).unwrap();
        let begins = vec![Begins::Requests { may: vec![3], skip: 2, is_first: true }];
        assert_eq!((connection, &arrival.begins, &arrival.bytes[..]), (7, &begins, &b"xxGET"[..]));
        record[offset_of!(Taken, length)..][..8].copy_from_slice(&(TAKEN as u64 + 1).to_ne_bytes());
        assert_eq!(read(&record), None);
        assert_eq!(read(&[]), None);
    }
}
