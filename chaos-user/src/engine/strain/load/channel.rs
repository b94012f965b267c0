//! The line between the engine and one worker: a pair of sockets that keep messages apart. When
//! either end closes, the other one knows.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::trouble::Trouble;

/// What a worker says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Word {
    /// It is in the cgroup and at work.
    Ready {
        /// Memory that it had before it was in the cgroup, bytes: charged to somebody else.
        before: u64,
    },
    /// Something that people should know; it goes on.
    Note(String),
    /// It cannot do its work, and ends.
    Failed(Trouble),
}

/// What a look at the line brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A message.
    Message(Vec<u8>),
    /// Nothing yet.
    Nothing,
    /// The other end is closed.
    Closed,
}

/// The longest message, bytes. A trouble names a few paths.
const LONGEST: usize = 8192;

/// One end.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Both ends. Neither is inherited by a program, unless as its standard input.
    ///
    /// # Errors
    /// What `socketpair` says.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let mut fds = [-1; 2];
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
        // SAFETY: room for two descriptors.
        if unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: both were made just now and belong to nobody else.
        let [ours, theirs] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        Ok((Self(ours), theirs))
    }

    /// The end behind this descriptor.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Sends a message and waits for nobody: a worker that does not read (it may be frozen) has
    /// enough of them already.
    ///
    /// # Errors
    /// What `send` says: `WouldBlock` when the line is full, `BrokenPipe` when it is closed.
    pub fn send(&self, message: &[u8]) -> io::Result<()> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the pointer and the length are those of the slice.
        let sent = unsafe {
            libc::send(self.0.as_raw_fd(), message.as_ptr().cast(), message.len(), flags)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Takes the next message, and waits for none.
    #[must_use]
    pub fn receive(&self) -> Received {
        let mut buffer = vec![0_u8; LONGEST];
        // SAFETY: the pointer and the length are those of the buffer.
        let got = unsafe {
            let (start, room) = (buffer.as_mut_ptr().cast(), buffer.len());
            libc::recv(self.0.as_raw_fd(), start, room, libc::MSG_DONTWAIT)
        };
        match usize::try_from(got) {
            Ok(0) => Received::Closed,
            Ok(length) => {
                buffer.truncate(length);
                Received::Message(buffer)
            }
            Err(_) => match io::Error::last_os_error().raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR) => Received::Nothing,
                // ECONNRESET: it was closed while messages of ours were still unread.
                _ => Received::Closed,
            },
        }
    }

    /// Tells the engine. A word that cannot be told is told to nobody: the engine is gone then.
    pub fn tell(&self, word: &Word) {
        if let Ok(text) = serde_json::to_vec(word) {
            let _ = self.send(&text);
        }
    }

    /// What the worker has said, oldest first.
    pub fn words(&self) -> impl Iterator<Item = Word> {
        std::iter::from_fn(|| match self.receive() {
            Received::Message(text) => Some(serde_json::from_slice(&text).ok()),
            Received::Nothing | Received::Closed => None,
        })
        .flatten()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A beat: until when the worker may work, nanoseconds of `CLOCK_MONOTONIC`. A time and not a
/// count, so that beats that lay unread while the worker was stopped renew nothing.
#[must_use]
pub fn beat(until_ns: u64) -> [u8; 8] {
    until_ns.to_le_bytes()
}

/// What a beat says; `None` for a message that is none.
#[must_use]
pub fn until(message: &[u8]) -> Option<u64> {
    message.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_kept_apart_and_an_end_is_seen() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::new(theirs);
        assert_eq!(theirs.receive(), Received::Nothing);
        ours.send(&beat(7)).unwrap();
        ours.send(&beat(8)).unwrap();
        assert_eq!(theirs.receive(), Received::Message(beat(7).to_vec()));
        let Received::Message(second) = theirs.receive() else { panic!("no second beat") };
        assert_eq!(until(&second), Some(8));
        assert_eq!(until(b"no beat"), None);
        theirs.tell(&Word::Note("a".into()));
        theirs.tell(&Word::Ready { before: 3 });
        let said: Vec<Word> = ours.words().collect();
        assert_eq!(said, [Word::Note("a".into()), Word::Ready { before: 3 }]);
        drop(theirs);
        assert_eq!(ours.receive(), Received::Closed);
        assert_eq!(ours.send(&beat(9)).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_worker_that_does_not_read_holds_nobody_up() {
        let (ours, _theirs) = Channel::pair().unwrap();
        let full = (0..100_000).find_map(|n| ours.send(&beat(n)).err());
        assert_eq!(full.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
    }
}
