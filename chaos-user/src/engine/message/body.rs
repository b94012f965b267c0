//! Bodies: decoding, merging, and what is left of them between chunks.

use std::io::Read;

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use serde_json::Value;

use super::Unpatched;
use super::head::Head;
use super::reader::{Piece, Reader};

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// It is not.
    Plain,
    Gzip,
    Deflate,
    /// In a way that is not known.
    Other,
}

impl Coding {
    /// That of a message.
    pub fn of(head: &Head) -> Self {
        // A coding of the transfer other than chunks is one of the body as well, to us.
        if head.members("transfer-encoding").iter().any(|coding| coding != b"chunked") {
            return Self::Other;
        }
        let mut codings = head.members("content-encoding");
        codings.retain(|coding| coding != b"identity");
        match codings.as_slice() {
            [] => Self::Plain,
            [one] if one == b"gzip" || one == b"x-gzip" => Self::Gzip,
            [one] if one == b"deflate" => Self::Deflate,
            _ => Self::Other,
        }
    }
}

/// The body after these patches. `most`: as long as it may be when it is decoded, bytes.
pub fn merged(
    body: &[u8],
    coding: Coding,
    patches: &[&Value],
    most: usize,
) -> Result<Vec<u8>, Unpatched> {
    let decoded;
    let text = match coding {
        Coding::Plain => body,
        Coding::Other => return Err(Unpatched::Encoding),
        Coding::Gzip => {
            decoded = inflate(MultiGzDecoder::new(body), most)?;
            &decoded
        }
        Coding::Deflate => {
            // What the standard calls deflate is zlib; some send it bare.
            decoded = match inflate(ZlibDecoder::new(body), most) {
                Err(Unpatched::Encoding) => inflate(DeflateDecoder::new(body), most)?,
                other => other?,
            };
            &decoded
        }
    };
    if text.trim_ascii().is_empty() {
        return Err(Unpatched::Empty);
    }
    let mut value: Value = serde_json::from_slice(text).map_err(|_| Unpatched::NoJson)?;
    for patch in patches {
        merge(&mut value, patch);
    }
    serde_json::to_vec(&value).map_err(|_| Unpatched::NoJson)
}

fn inflate(decoder: impl Read, most: usize) -> Result<Vec<u8>, Unpatched> {
    let mut out = Vec::new();
    // One byte more tells a body that is too long from one that fits.
    let mut decoder = decoder.take((most as u64).saturating_add(1));
    decoder.read_to_end(&mut out).map_err(|_| Unpatched::Encoding)?;
    if out.len() > most { Err(Unpatched::TooLong) } else { Ok(out) }
}

/// RFC 7396.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(object) = target else { return };
    for (name, member) in members {
        if member.is_null() {
            object.remove(name);
        } else {
            merge(object.entry(name).or_insert(Value::Null), member);
        }
    }
}

/// What chunks carry, and the trailer. `None`: they are broken or not complete.
pub fn dechunk(raw: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut reader = Reader::of_chunks();
    let (mut rest, mut data, mut trailer) = (raw, Vec::new(), Vec::new());
    while let Some(piece) = reader.next(&mut rest) {
        match piece {
            Piece::Data(bytes) => data.extend_from_slice(bytes),
            Piece::Trailer(bytes) => trailer.extend_from_slice(bytes),
            Piece::Frame(_) => {}
            Piece::End => return Some((data, trailer)),
            _ => return None,
        }
    }
    None
}

/// A chunk with these bytes; nothing for none, which would be the last one.
pub fn chunk(data: &[u8]) -> Vec<u8> {
    if data.is_empty() {
        return Vec::new();
    }
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_merge_is_that_of_the_standard() {
        // The examples of RFC 7396, appendix A.
        for (target, patch, want) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a":"b"}), json!(["c"]), json!(["c"])),
            (json!({"a":"foo"}), json!(null), json!(null)),
            (json!({"a":"foo"}), json!("bar"), json!("bar")),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ] {
            let mut got = target.clone();
            merge(&mut got, &patch);
            assert_eq!(got, want, "{target} {patch}");
        }
    }

    #[test]
    fn a_compressed_body_is_merged_in_its_plain_form() {
        let (text, patch) = (br#"{"n":1}"#, json!({"n": 9}));
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(text).unwrap();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(text).unwrap();
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::fast());
        bare.write_all(text).unwrap();
        for (coding, body) in [
            (Coding::Gzip, gzip.finish().unwrap()),
            (Coding::Deflate, zlib.finish().unwrap()),
            (Coding::Deflate, bare.finish().unwrap()),
            (Coding::Plain, text.to_vec()),
        ] {
            assert_eq!(merged(&body, coding, &[&patch], 100).unwrap(), br#"{"n":9}"#);
            let cut = &body[..body.len() - 1];
            assert!(merged(cut, coding, &[&patch], 100).is_err(), "{coding:?}");
        }
    }

    #[test]
    fn a_body_that_unpacks_to_more_than_the_bound_is_left_alone() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&vec![b' '; 1 << 20]).unwrap();
        let bomb = gzip.finish().unwrap();
        assert_eq!(merged(&bomb, Coding::Gzip, &[], 1000), Err(Unpatched::TooLong));
        assert_eq!(merged(b"{}", Coding::Other, &[], 1000), Err(Unpatched::Encoding));
        assert_eq!(merged(b"{", Coding::Plain, &[], 1000), Err(Unpatched::NoJson));
        assert_eq!(merged(b" ", Coding::Plain, &[], 1000), Err(Unpatched::Empty));
    }
}
