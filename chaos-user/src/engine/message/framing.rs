//! Where a message ends.

use super::Odd;
use super::head::Head;
use crate::plan::reach;

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// It has this many bytes.
    Length(u64),
    /// It comes in chunks, the last of which is empty.
    Chunked,
    /// It ends with the connection.
    Close,
    /// What follows the head is another protocol.
    Tunnel(Odd),
}

impl Framing {
    /// True when a body may follow.
    #[must_use]
    pub fn has_body(self) -> bool {
        !matches!(self, Self::None | Self::Length(0) | Self::Tunnel(_))
    }
}

/// What of a request is needed to read its response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// How the method changes where the response ends.
    pub verb: Verb,
    /// Numbers of the exchanges whose conditions on the request hold.
    pub meant: Vec<usize>,
}

/// Methods, as far as they say where a response ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verb {
    /// Its response has no body.
    Head,
    /// Its response, where it is a good one, makes a tunnel.
    Connect,
    /// Any other.
    #[default]
    Other,
}

impl Verb {
    /// That of a method.
    #[must_use]
    pub fn of(method: &[u8]) -> Self {
        match method {
            b"HEAD" => Self::Head,
            b"CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }
}

/// How the end of a request is told.
///
/// # Errors
/// Receivers might disagree about it.
pub fn of_request(head: &Head) -> Result<Framing, Odd> {
    if head.method() == Some(b"CONNECT") {
        return Ok(Framing::Tunnel(Odd::Tunnel));
    }
    let coding = head.members("transfer-encoding");
    if !coding.is_empty() {
        chunked(head, &coding)?;
        return Ok(Framing::Chunked);
    }
    Ok(length(head)?.map_or(Framing::None, Framing::Length))
}

/// How the end of the response to such a request is told.
///
/// # Errors
/// Receivers might disagree about it.
pub fn of_response(head: &Head, verb: Verb) -> Result<Framing, Odd> {
    let code = head.code().unwrap_or_default();
    if code == 101 {
        return Ok(Framing::Tunnel(Odd::Upgraded));
    }
    if verb == Verb::Connect && (200..300).contains(&code) {
        return Ok(Framing::Tunnel(Odd::Tunnel));
    }
    if is_bodiless(verb, code) {
        return Ok(Framing::None);
    }
    let coding = head.members("transfer-encoding");
    if !coding.is_empty() {
        chunked(head, &coding)?;
        return Ok(Framing::Chunked);
    }
    Ok(length(head)?.map_or(Framing::Close, Framing::Length))
}

/// True for responses that have no body whatever their head says.
#[must_use]
pub fn is_bodiless(verb: Verb, code: u16) -> bool {
    let is_tunnel = verb == Verb::Connect && (200..300).contains(&code);
    verb == Verb::Head || is_tunnel || reach::is_bodiless(code)
}

/// Some receivers take the length where there are chunks as well, and some know no chunks.
fn chunked(head: &Head, coding: &[Vec<u8>]) -> Result<(), Odd> {
    let is_clear = head.minor >= 1
        && head.values("transfer-encoding").count() == 1
        && head.values("content-length").next().is_none()
        && coding.iter().filter(|one| one.as_slice() == b"chunked").count() == 1
        && coding.last().is_some_and(|last| last == b"chunked");
    if is_clear { Ok(()) } else { Err(Odd::Garbage) }
}

fn length(head: &Head) -> Result<Option<u64>, Odd> {
    let mut values = head.values("content-length");
    let Some(value) = values.next() else { return Ok(None) };
    let is_number = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
    if values.next().is_some() || !is_number {
        return Err(Odd::Garbage);
    }
    let digit = |sum: u64, byte: &u8| sum * 10 + u64::from(byte - b'0');
    Ok(Some(value.iter().fold(0, digit)))
}
