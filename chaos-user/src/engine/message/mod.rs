//! HTTP/1 messages as streams: found in the bytes of a connection, matched, edited.
//!
//! Owns: telling where messages begin and end, whether an exchange of the plan means them, and
//! what they become. Refuses: clocks, sockets, threads; bytes go in and [`Step`]s come out.
//!
//! What is not understood passes as it is, and so does all that follows it on that connection:
//! a wrong guess about where a message ends would mix up two of them. Memory is bounded by
//! [`Bounds`], whatever the connection carries.

mod body;
mod conversation;
mod edit;
mod framing;
mod head;
mod lane;
mod matching;
mod query;
mod reader;

#[cfg(test)]
mod differential_tests;
#[cfg(test)]
mod edit_tests;
#[cfg(test)]
mod reader_tests;

use std::time::Duration;

pub use conversation::{Armed, Conversation, is_interim, request_verdict, response_verdict};
pub use edit::phrase;
pub use framing::{Asked, Framing, Verb};
pub use head::Head;
pub use lane::{Lane, Rest, Verdict};
pub use matching::{matches_request, matches_response};

/// How much of a connection is kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Longest head, bytes. What has a longer one is not understood.
    pub head: usize,
    /// Longest body that is held whole, bytes, as it is sent and decoded; a longer one is not
    /// patched.
    pub body: usize,
    /// Most requests that wait for their responses.
    pub requests: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { head: 64 << 10, body: 1 << 20, requests: 1024 }
    }
}

/// What becomes of a connection's bytes, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// These go on.
    Bytes(Vec<u8>),
    /// What follows goes on when this long has passed since the bytes were given that led here.
    Wait(Duration),
    /// The connection is cut. Nothing follows.
    Abort,
    /// Worth counting.
    Note(Note),
}

/// What happened to a message, for counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Note {
    /// The exchange of this number means it.
    Meant(usize),
    /// It has become what its edits ask for.
    Edited,
    /// Its body stays what it was.
    Unpatched(Unpatched),
    /// Its method stays what it was: the client would misread the response.
    MethodStays,
    /// From here on the bytes of this direction pass as they are.
    Odd(Odd),
}

/// Why a body was not patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unpatched {
    /// There is none.
    Empty,
    /// It is longer than [`Bounds::body`].
    TooLong,
    /// It is compressed in a way that is not known, or broken.
    Encoding,
    /// It is no JSON.
    NoJson,
    /// It ended too early.
    Cut,
    /// It ends with the connection, and nobody tells when that is.
    NoEnd,
}

/// Why bytes are passed on without a look at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Odd {
    /// The connection is encrypted.
    Tls,
    /// It speaks HTTP/2.
    Http2,
    /// Both ends have agreed on another protocol.
    Upgraded,
    /// CONNECT has made a tunnel of it.
    Tunnel,
    /// A head is longer than [`Bounds::head`].
    HeadTooLong,
    /// It is not HTTP, or of a kind that receivers disagree about.
    Garbage,
    /// Nobody knows which request a response belongs to.
    LostTrack,
    /// The experiments are over, or memory is short.
    LetGo,
}

impl Odd {
    /// Every reason, for counters.
    pub const ALL: [Self; 8] = [
        Self::Tls,
        Self::Http2,
        Self::Upgraded,
        Self::Tunnel,
        Self::HeadTooLong,
        Self::Garbage,
        Self::LostTrack,
        Self::LetGo,
    ];

    /// The word that counters use.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http2 => "http2",
            Self::Upgraded => "upgraded",
            Self::Tunnel => "tunnel",
            Self::HeadTooLong => "head-too-long",
            Self::Garbage => "garbage",
            Self::LostTrack => "lost-track",
            Self::LetGo => "let-go",
        }
    }
}

/// Appends bytes to the last step where that are bytes too.
fn push(out: &mut Vec<Step>, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    match out.last_mut() {
        Some(Step::Bytes(last)) => last.extend_from_slice(bytes),
        _ => out.push(Step::Bytes(bytes.to_vec())),
    }
}

fn note(out: &mut Vec<Step>, what: Note) {
    out.push(Step::Note(what));
}
