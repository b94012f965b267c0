//! How bytes of many connections come through one socket: each run of them behind a header.

use chaos_abi::detour::{DETOUR_HEADER, DetourHeader, MAGIC};

const HEADER: usize = DETOUR_HEADER as usize;

/// A header as it is sent, in the byte order of the host.
#[must_use]
pub fn bytes(header: &DetourHeader) -> [u8; HEADER] {
    let DetourHeader { magic, pid, length, count, connection, requests } = header;
    let mut out = [0; HEADER];
    for (place, half) in out.chunks_exact_mut(4).zip([magic, pid, length, count]) {
        place.copy_from_slice(&half.to_ne_bytes());
    }
    let words = std::iter::once(connection).chain(requests);
    for (place, word) in out[16..].chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    out
}

fn parse(bytes: &[u8; HEADER]) -> Option<DetourHeader> {
    let word = |at: usize| <[u8; 8]>::try_from(&bytes[at..at + 8]).map(u64::from_ne_bytes);
    let half = |at: usize| <[u8; 4]>::try_from(&bytes[at..at + 4]).map(u32::from_ne_bytes);
    let mut header = DetourHeader {
        magic: half(0).ok()?,
        pid: half(4).ok()?,
        length: half(8).ok()?,
        count: half(12).ok()?,
        connection: word(16).ok()?,
        ..DetourHeader::default()
    };
    for (i, request) in header.requests.iter_mut().enumerate() {
        *request = word(24 + 8 * i).ok()?;
    }
    let is_header = header.magic == MAGIC && header.count as usize <= header.requests.len();
    is_header.then_some(header)
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
    pub requests: Vec<u64>,
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
        let DetourHeader { connection, count, requests, pid, .. } = self.current;
        self.current.count = 0;
        let requests = requests[..count as usize].to_vec();
        Ok(Some(Run { connection, requests, pid, bytes: front }))
    }
}

#[cfg(test)]
mod tests {
    use chaos_abi::limit::HTTP_PIPELINE;

    use super::*;

    #[test]
    fn runs_are_the_same_wherever_the_stream_is_split() {
        let frame = |connection, asked: &[u64], bytes: &[u8]| {
            let (length, count) = (bytes.len() as u32, asked.len() as u32);
            let mut requests = [99; HTTP_PIPELINE as usize];
            requests[..asked.len()].copy_from_slice(asked);
            let header = DetourHeader { magic: MAGIC, pid: 9, length, count, connection, requests };
            [super::bytes(&header).as_slice(), bytes].concat()
        };
        let stream = [
            frame(1, &[7], b"one"),
            frame(2, &[], b""),
            frame(3, &[8; 16], b"three"),
            frame(1, &[], b"x"),
        ]
        .concat();
        for size in 1..stream.len() {
            let mut frames = Frames::default();
            let mut out: Vec<(u64, Vec<u64>, Vec<u8>)> = Vec::new();
            for part in stream.chunks(size) {
                let mut input = part;
                while let Some(run) = frames.next(&mut input).unwrap() {
                    assert_eq!(run.pid, 9);
                    match out.last_mut() {
                        Some((connection, _, bytes))
                            if run.requests.is_empty() && *connection == run.connection =>
                        {
                            bytes.extend(run.bytes);
                        }
                        _ => out.push((run.connection, run.requests, run.bytes.to_vec())),
                    }
                }
            }
            let want = [
                (1, vec![7], b"one".to_vec()),
                (3, vec![8; 16], b"three".to_vec()),
                (1, vec![], b"x".to_vec()),
            ];
            assert_eq!(out, want, "by {size}");
        }
    }

    #[test]
    fn what_has_no_mark_is_no_frame() {
        let mut input = [0u8; HEADER].as_slice();
        assert_eq!(Frames::default().next(&mut input), Err(Broken));
    }
}
