//! One direction of a connection, cut into pieces wherever its bytes are split.

use super::Odd;
use super::framing::Framing;
use super::head::Head;
use crate::plan::exchange::Message;

/// A part of the stream. All pieces together are all bytes that went in, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Empty lines in front of a head.
    Lead(&'a [u8]),
    /// A whole head. The reader waits for [`Reader::body`].
    Head(Box<Head>),
    /// What stands around the chunks of a body.
    Frame(&'a [u8]),
    /// Some of the body.
    Data(&'a [u8]),
    /// What follows the last chunk, up to the end.
    Trailer(&'a [u8]),
    /// The message is over.
    End,
    /// From here on nothing is understood; what was kept until now.
    Odd(Odd, Vec<u8>),
    /// Bytes of which nothing is understood.
    Opaque(&'a [u8]),
}

/// Finds the pieces.
#[derive(Debug)]
pub struct Reader {
    message: Message,
    longest: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Between messages, or in a head: what there is of it.
    Head(Vec<u8>),
    /// A head is out, and nobody has said yet how its body ends.
    Told,
    Length(u64),
    Chunk(Chunk),
    Close,
    /// The message ends here.
    End,
    Opaque,
}

/// Where in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    /// In the size; `None`: before its first digit.
    Size(Option<u64>),
    /// Behind the size, in what is no digit.
    Extension(u64),
    /// Before the line feed of the size's line.
    SizeEnd(u64),
    Data(u64),
    /// Behind the data, before its carriage return, and before its line feed.
    DataEnd,
    DataLine,
    /// At the beginning of a line of the trailer, in it, before its line feed, and before the
    /// line feed of the empty line.
    Trailer,
    TrailerLine,
    TrailerEnd,
    LastLine,
}

impl Reader {
    /// At the beginning of a message. `longest`: of its heads, bytes.
    #[must_use]
    pub fn new(message: Message, longest: usize) -> Self {
        Self { message, longest, state: State::Head(Vec::new()) }
    }

    /// Inside of a chunked body, at its beginning.
    #[must_use]
    pub fn of_chunks() -> Self {
        let state = State::Chunk(Chunk::Size(None));
        Self { message: Message::Response, longest: 0, state }
    }

    /// True between two messages, with nothing kept.
    #[must_use]
    pub fn is_between(&self) -> bool {
        matches!(&self.state, State::Head(kept) if kept.is_empty())
    }

    /// How much is kept, bytes.
    #[must_use]
    pub fn kept(&self) -> usize {
        if let State::Head(kept) = &self.state { kept.len() } else { 0 }
    }

    /// True in a body that ends with the connection.
    #[must_use]
    pub fn is_until_close(&self) -> bool {
        matches!(self.state, State::Close)
    }

    /// True when nothing is understood any more.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        matches!(self.state, State::Opaque)
    }

    /// Says how the body ends whose head has come.
    pub fn body(&mut self, framing: Framing) {
        self.state = match framing {
            Framing::None | Framing::Length(0) => State::End,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunk(Chunk::Size(None)),
            Framing::Close => State::Close,
            Framing::Tunnel(_) => State::Opaque,
        };
    }

    /// Nothing is understood from here on; returns what was kept.
    pub fn give_up(&mut self) -> Vec<u8> {
        match std::mem::replace(&mut self.state, State::Opaque) {
            State::Head(kept) => kept,
            _ => Vec::new(),
        }
    }

    /// The next piece of what is left of `input`; `None` when nothing is.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Option<Piece<'a>> {
        match &mut self.state {
            State::End => {
                self.state = State::Head(Vec::new());
                Some(Piece::End)
            }
            _ if input.is_empty() => None,
            State::Head(_) => self.head(input),
            // Whoever does not say how a body ends has not understood its head.
            State::Told => {
                self.state = State::Opaque;
                Some(Piece::Odd(Odd::Garbage, Vec::new()))
            }
            State::Length(left) => {
                let piece = Piece::Data(take(input, *left));
                if let Piece::Data(data) = &piece {
                    *left -= data.len() as u64;
                }
                if *left == 0 {
                    self.state = State::End;
                }
                Some(piece)
            }
            State::Chunk(chunk) => {
                let mut at = *chunk;
                let piece = chunks(&mut at, input);
                self.state = match (&piece, at) {
                    (Piece::Odd(..), _) => State::Opaque,
                    (Piece::Trailer(bytes), Chunk::LastLine) if bytes.ends_with(b"\n") => {
                        State::End
                    }
                    _ => State::Chunk(at),
                };
                Some(piece)
            }
            State::Close => Some(Piece::Data(take(input, u64::MAX))),
            State::Opaque => Some(Piece::Opaque(take(input, u64::MAX))),
        }
    }

    fn head<'a>(&mut self, input: &mut &'a [u8]) -> Option<Piece<'a>> {
        let State::Head(kept) = &mut self.state else { return None };
        if kept.is_empty() && self.message == Message::Request {
            // Receivers pass over empty lines in front of a request.
            let lead = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            if lead > 0 {
                return Some(Piece::Lead(take(input, lead as u64)));
            }
        }
        let before = kept.len();
        let (mut end, mut from) = (None, before.saturating_sub(3));
        // No more is looked at than a head may be long.
        let room = self.longest.saturating_sub(before).min(input.len());
        kept.extend_from_slice(&input[..room]);
        while let Some(found) = kept[from..].iter().position(|byte| *byte == b'\n') {
            from += found + 1;
            if kept[..from].ends_with(b"\r\n\r\n") {
                end = Some(from);
                break;
            }
        }
        let odd = match end {
            Some(end) => {
                kept.truncate(end);
                *input = &input[end - before..];
                let kept = std::mem::take(kept);
                match foreign(&kept) {
                    Some(odd) => (odd, kept),
                    None => match Head::parse(self.message, kept.clone()) {
                        Some(head) => {
                            self.state = State::Told;
                            return Some(Piece::Head(Box::new(head)));
                        }
                        None => (Odd::Garbage, kept),
                    },
                }
            }
            None => {
                *input = &input[room..];
                let odd = foreign(kept)
                    .or_else(|| (!could_be(self.message, kept)).then_some(Odd::Garbage))
                    .or_else(|| (kept.len() >= self.longest).then_some(Odd::HeadTooLong))?;
                (odd, std::mem::take(kept))
            }
        };
        self.state = State::Opaque;
        Some(Piece::Odd(odd.0, odd.1))
    }
}

/// Up to `most` bytes of the input.
fn take<'a>(input: &mut &'a [u8], most: u64) -> &'a [u8] {
    let most = usize::try_from(most).unwrap_or(usize::MAX).min(input.len());
    let (front, rest) = input.split_at(most);
    *input = rest;
    front
}

/// First byte of a TLS handshake, in front of the version.
const TLS: u8 = 0x16;

/// Protocols that are known and not spoken.
fn foreign(begin: &[u8]) -> Option<Odd> {
    if begin.starts_with(&[TLS, 3]) {
        return Some(Odd::Tls);
    }
    begin.starts_with(b"PRI * HTTP/2").then_some(Odd::Http2)
}

/// Whether this can be the beginning of a head. Told early, so that what is no HTTP does not wait
/// for an empty line that never comes.
fn could_be(message: Message, begin: &[u8]) -> bool {
    if begin == [TLS] {
        return true;
    }
    match message {
        Message::Response => begin.iter().zip(b"HTTP/1.").all(|(a, b)| a == b),
        // No registered method is longer.
        Message::Request => {
            const LONGEST: usize = 32;
            let method = begin.iter().take_while(|byte| **byte != b' ').take(LONGEST + 1);
            method.clone().count() <= LONGEST && method.clone().all(u8::is_ascii_graphic)
        }
    }
}

/// The next piece of a chunked body.
fn chunks<'a>(at: &mut Chunk, input: &mut &'a [u8]) -> Piece<'a> {
    if let Chunk::Data(left) = at {
        let data = take(input, *left);
        *left -= data.len() as u64;
        if *left == 0 {
            *at = Chunk::DataEnd;
        }
        return Piece::Data(data);
    }
    let is_trailer = in_trailer(*at);
    let mut n = 0;
    while let Some(byte) = input.get(n) {
        let Some(next) = step(*at, *byte) else {
            if n > 0 {
                break;
            }
            return Piece::Odd(Odd::Garbage, Vec::new());
        };
        n += 1;
        let is_over = *at == Chunk::LastLine;
        // The last line stays the state, so that the end can be told.
        *at = if is_over { Chunk::LastLine } else { next };
        if is_over || matches!(next, Chunk::Data(_)) || in_trailer(next) != is_trailer {
            break;
        }
    }
    let bytes = take(input, n as u64);
    if is_trailer { Piece::Trailer(bytes) } else { Piece::Frame(bytes) }
}

fn in_trailer(at: Chunk) -> bool {
    matches!(at, Chunk::Trailer | Chunk::TrailerLine | Chunk::TrailerEnd | Chunk::LastLine)
}

/// Where a byte leads to; `None`: nowhere.
fn step(at: Chunk, byte: u8) -> Option<Chunk> {
    let is_text = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    Some(match (at, byte) {
        (Chunk::Size(size), _) if byte.is_ascii_hexdigit() => {
            let digit = char::from(byte).to_digit(16)?;
            let size = size.unwrap_or(0);
            // 2^60 bytes are more than any connection carries.
            Chunk::Size(Some((size < 1 << 56).then(|| size << 4 | u64::from(digit))?))
        }
        (Chunk::Size(Some(size)) | Chunk::Extension(size), b'\r') => Chunk::SizeEnd(size),
        (Chunk::Size(Some(size)), b';' | b' ' | b'\t') => Chunk::Extension(size),
        (Chunk::Extension(size), _) if is_text => Chunk::Extension(size),
        (Chunk::SizeEnd(0), b'\n') => Chunk::Trailer,
        (Chunk::SizeEnd(size), b'\n') => Chunk::Data(size),
        (Chunk::DataEnd, b'\r') => Chunk::DataLine,
        (Chunk::DataLine, b'\n') => Chunk::Size(None),
        (Chunk::Trailer, b'\r') => Chunk::LastLine,
        (Chunk::TrailerLine, b'\r') => Chunk::TrailerEnd,
        (Chunk::Trailer | Chunk::TrailerLine, _) if is_text => Chunk::TrailerLine,
        (Chunk::TrailerEnd, b'\n') => Chunk::Trailer,
        (Chunk::LastLine, b'\n') => Chunk::LastLine,
        _ => return None,
    })
}
