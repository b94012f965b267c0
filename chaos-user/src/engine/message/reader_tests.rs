use proptest::prelude::*;

use super::framing::{Framing, Verb, of_request, of_response};
use super::head::Head;
use super::reader::{Piece, Reader};
use super::{Bounds, Odd};
use crate::plan::exchange::Message;

/// Pieces of a stream as words, each run of the same joined, and the bytes of all of them.
fn read(message: Message, parts: &[&[u8]]) -> (Vec<(&'static str, Vec<u8>)>, Vec<u8>) {
    let mut reader = Reader::new(message, Bounds::default().head);
    let (mut out, mut all): (Vec<(&'static str, Vec<u8>)>, Vec<u8>) = Default::default();
    for part in parts {
        let mut input = *part;
        while let Some(piece) = reader.next(&mut input) {
            let (word, bytes) = match piece {
                Piece::Lead(bytes) => ("lead", bytes.to_vec()),
                Piece::Head(head) => {
                    let framing = match message {
                        Message::Request => of_request(&head),
                        Message::Response => of_response(&head, Verb::Other),
                    };
                    reader.body(framing.unwrap_or(Framing::Tunnel(Odd::Garbage)));
                    ("head", head.raw.clone())
                }
                Piece::Frame(bytes) => ("frame", bytes.to_vec()),
                Piece::Data(bytes) => ("data", bytes.to_vec()),
                Piece::Trailer(bytes) => ("trailer", bytes.to_vec()),
                Piece::End => ("end", Vec::new()),
                Piece::Odd(_, kept) => ("odd", kept),
                Piece::Opaque(bytes) => ("opaque", bytes.to_vec()),
            };
            all.extend(&bytes);
            match out.last_mut() {
                Some((last, joined)) if *last == word && word != "end" => joined.extend(bytes),
                _ => out.push((word, bytes)),
            }
        }
    }
    all.extend(reader.give_up());
    (out, all)
}

fn texts(pieces: &[(&'static str, Vec<u8>)]) -> Vec<(&'static str, String)> {
    pieces.iter().map(|(word, bytes)| (*word, String::from_utf8(bytes.clone()).unwrap())).collect()
}

const STREAM: &[u8] = b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\
    POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
    3;x=\"y\"\r\nabc\r\n0A \r\n0123456789\r\n0\r\nT: v\r\n\r\n\
    \r\nGET /c HTTP/1.0\r\n\r\n";

#[test]
fn a_stream_is_cut_into_the_same_pieces_wherever_it_is_split() {
    let (whole, _) = read(Message::Request, &[STREAM]);
    let words: Vec<_> = whole.iter().map(|(word, _)| *word).collect();
    let want = [
        "head", "data", "end", "head", "frame", "data", "frame", "data", "frame", "trailer", "end",
        "lead", "head", "end",
    ];
    assert_eq!(words, want);
    assert_eq!(texts(&whole)[4].1, "3;x=\"y\"\r\n");
    assert_eq!(texts(&whole)[9].1, "T: v\r\n\r\n");
    for cut in 0..=STREAM.len() {
        let (front, rest) = STREAM.split_at(cut);
        assert_eq!(read(Message::Request, &[front, rest]).0, whole, "split at {cut}");
    }
    let bytes: Vec<&[u8]> = STREAM.chunks(1).collect();
    assert_eq!(read(Message::Request, &bytes).0, whole);
}

#[test]
fn what_receivers_might_disagree_about_is_not_understood() {
    let head = |lines: &str| format!("POST / HTTP/1.1\r\n{lines}\r\n\r\n").into_bytes();
    for lines in [
        "Content-Length: 1\r\nContent-Length: 1",
        "Content-Length: 1, 1",
        "Content-Length: +1",
        "Content-Length: 1 1",
        "Content-Length:",
        "Content-Length: 9999999999999999999",
        "Content-Length: 1\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
    ] {
        let head = Head::parse(Message::Request, head(lines)).unwrap();
        assert_eq!(of_request(&head), Err(Odd::Garbage), "{lines}");
    }
    for lines in
        ["A : b", " A: b", "A: b\r\n c", "A\r\nB: c", "A: b\rc", "A: b\nC: d", ": b", "A: \0"]
    {
        assert_eq!(Head::parse(Message::Request, head(lines)), None, "{lines:?}");
    }
    for first in
        ["GET /", "GET  / HTTP/1.1", "GET / HTTP/2.0", "GET / HTTP/1.10", "G@T / HTTP/1.1", ""]
    {
        let raw = format!("{first}\r\n\r\n").into_bytes();
        assert_eq!(Head::parse(Message::Request, raw), None, "{first:?}");
    }
    for first in
        ["HTTP/1.1 20", "HTTP/1.1 2000", "HTTP/1.1 020 A", "HTTP/2 200 OK", "HTTP/1.1  200"]
    {
        let raw = format!("{first}\r\n\r\n").into_bytes();
        assert_eq!(Head::parse(Message::Response, raw), None, "{first:?}");
    }
    let old = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let old = Head::parse(Message::Request, old).unwrap();
    assert_eq!(of_request(&old), Err(Odd::Garbage));
}

#[test]
fn other_protocols_are_known_by_their_first_bytes_and_pass_at_once() {
    for (message, bytes, want) in [
        (Message::Request, b"\x16\x03\x01\x02\x00".as_slice(), Odd::Tls),
        (Message::Response, b"\x16\x03\x03".as_slice(), Odd::Tls),
        (Message::Request, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Odd::Http2),
        (Message::Request, b"\x00\x00", Odd::Garbage),
        (Message::Request, b"\x16\x04", Odd::Garbage),
        (Message::Response, b"SSH-2.0-x\r\n", Odd::Garbage),
        (Message::Response, b"HTTP/2", Odd::Garbage),
        (Message::Request, [b'A'; 40].as_slice(), Odd::Garbage),
    ] {
        for size in [1, bytes.len()] {
            let mut reader = Reader::new(message, 1000);
            let mut found = None;
            for part in bytes.chunks(size) {
                let mut input = part;
                while let Some(piece) = reader.next(&mut input) {
                    if let Piece::Odd(odd, _) = piece {
                        found = Some(odd);
                    }
                }
            }
            assert_eq!(found, Some(want), "{bytes:?} by {size}");
        }
    }
}

#[test]
fn a_head_that_is_too_long_passes() {
    let long = [b"GET / HTTP/1.1\r\nA: ".as_slice(), &[b'a'; 200]].concat();
    let mut reader = Reader::new(Message::Request, 100);
    let mut input = long.as_slice();
    let Some(Piece::Odd(Odd::HeadTooLong, kept)) = reader.next(&mut input) else { panic!() };
    assert_eq!((kept.as_slice(), input), long.split_at(100));
}

#[test]
fn chunks_that_are_broken_pass() {
    for bad in ["x\r\n", "-1\r\n", "\r\n", "1\n", "1\r\nab", "1;\n", "fffffffffffffffff\r\n"] {
        let stream = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{bad}");
        let (pieces, all) = read(Message::Request, &[stream.as_bytes()]);
        assert!(pieces.iter().any(|(word, _)| *word == "odd"), "{bad:?}: {pieces:?}");
        assert_eq!(all, stream.as_bytes());
    }
}

proptest! {
    #[test]
    fn no_byte_is_lost_whatever_comes(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
        lines in prop::collection::vec("[A-Za-z0-9/:; \r\n]{0,40}", 0..6),
        is_request: bool,
    ) {
        let message = if is_request { Message::Request } else { Message::Response };
        for parts in [parts, lines.into_iter().map(String::into_bytes).collect()] {
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(read(message, &parts).1, parts.concat());
        }
    }

    #[test]
    fn one_wrong_byte_loses_no_other(at in 0..STREAM.len(), byte: u8, cut in 0..STREAM.len()) {
        let mut stream = STREAM.to_vec();
        stream[at] = byte;
        let (front, rest) = stream.split_at(cut);
        prop_assert_eq!(read(Message::Request, &[front, rest]).1, stream.clone());
    }
}
