//! How bytes of many connections come through one socket: each run of them behind a header.

use chaos_abi::detour::{DETOUR_HEADER, DetourHeader, MAGIC};

const HEADER: usize = DETOUR_HEADER as usize;

/// A header as it is sent, in the byte order of the host.
#[must_use]
pub fn bytes(header: &DetourHeader) -> [u8; HEADER] {
    let mut out = [0; HEADER];
    out[..8].copy_from_slice(&header.connection.to_ne_bytes());
    out[8..16].copy_from_slice(&header.begins.to_ne_bytes());
    out[16..20].copy_from_slice(&header.pid.to_ne_bytes());
    out[20..24].copy_from_slice(&header.length.to_ne_bytes());
    out[24..28].copy_from_slice(&header.magic.to_ne_bytes());
    out
}

fn parse(bytes: &[u8; HEADER]) -> Option<DetourHeader> {
    let word = |at: usize| <[u8; 8]>::try_from(&bytes[at..at + 8]).map(u64::from_ne_bytes);
    let half = |at: usize| <[u8; 4]>::try_from(&bytes[at..at + 4]).map(u32::from_ne_bytes);
    let header = DetourHeader {
        connection: word(0).ok()?,
        begins: word(8).ok()?,
        pid: half(16).ok()?,
        length: half(20).ok()?,
        magic: half(24).ok()?,
        zero: 0,
    };
    (header.magic == MAGIC).then_some(header)
}

/// Takes frames out of a stream, wherever it is split.
#[derive(Debug, Default)]
pub struct Frames {
    kept: Vec<u8>,
    current: DetourHeader,
    left: usize,
}

/// Some bytes of a connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Run<'a> {
    /// Number of the connection.
    pub connection: u64,
    /// As in the header, at the first bytes behind it.
    pub begins: u64,
    /// The process that sends them.
    pub pid: u32,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// The stream is not what it should be; nothing behind this can be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl Frames {
    /// The next run of what is left of `input`; `None` when there is none.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Run<'a>>, Broken> {
        while self.left == 0 {
            let (front, rest) = input.split_at((HEADER - self.kept.len()).min(input.len()));
            self.kept.extend_from_slice(front);
            *input = rest;
            let Ok(header) = <[u8; HEADER]>::try_from(self.kept.as_slice()) else {
                return Ok(None);
            };
            self.kept.clear();
            self.current = parse(&header).ok_or(Broken)?;
            self.left = self.current.length as usize;
        }
        if input.is_empty() {
            return Ok(None);
        }
        let (front, rest) = input.split_at(self.left.min(input.len()));
        *input = rest;
        self.left -= front.len();
        let DetourHeader { connection, begins, pid, .. } = self.current;
        self.current.begins = 0;
        Ok(Some(Run { connection, begins, pid, bytes: front }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_the_same_wherever_the_stream_is_split() {
        let frame = |connection, begins, bytes: &[u8]| {
            let length = bytes.len() as u32;
            let header = DetourHeader { connection, begins, pid: 9, length, magic: MAGIC, zero: 0 };
            [super::bytes(&header).as_slice(), bytes].concat()
        };
        let stream =
            [frame(1, 7, b"one"), frame(2, 0, b""), frame(3, 8, b"three"), frame(1, 0, b"x")]
                .concat();
        for size in 1..stream.len() {
            let mut frames = Frames::default();
            let mut out: Vec<(u64, u64, Vec<u8>)> = Vec::new();
            for part in stream.chunks(size) {
                let mut input = part;
                while let Some(run) = frames.next(&mut input).unwrap() {
                    assert_eq!(run.pid, 9);
                    match out.last_mut() {
                        Some((connection, _, bytes))
                            if run.begins == 0 && *connection == run.connection =>
                        {
                            bytes.extend(run.bytes);
                        }
                        _ => out.push((run.connection, run.begins, run.bytes.to_vec())),
                    }
                }
            }
            let want = [(1, 7, b"one".to_vec()), (3, 8, b"three".to_vec()), (1, 0, b"x".to_vec())];
            assert_eq!(out, want, "by {size}");
        }
    }

    #[test]
    fn what_has_no_mark_is_no_frame() {
        let mut input = [0u8; HEADER].as_slice();
        assert_eq!(Frames::default().next(&mut input), Err(Broken));
    }
}
